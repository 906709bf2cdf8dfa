"""Thinking inside the answer: `<think>…</think>` at its very beginning, as MiniMax and some open models write it.

Only an answer that begins with the tag is taken apart; a tag anywhere later is the model's own text. The whole-answer and
the streamed reading agree for every split of the text.
"""

OPEN, CLOSE = "<think>", "</think>"


def split(text: str) -> tuple[str, str]:
    """(thinking, answer)."""
    splitter = Splitter()
    pieces = [*splitter.feed(text), *splitter.end()]
    return "".join(t for thinking, t in pieces if thinking), "".join(t for thinking, t in pieces if not thinking)


class Splitter:
    """Feed it text; it gives pieces as (is it thinking?, text). White space around the tags is not part of either."""

    __slots__ = ("_held", "_state")

    def __init__(self) -> None:
        self._state = "start"
        self._held = ""

    def feed(self, text: str) -> list[tuple[bool, str]]:
        if self._state == "answer":
            return [(False, text)] if text else []
        self._held += text
        if self._state == "start":
            lead = self._held.lstrip()
            if not lead.startswith(OPEN):
                if OPEN.startswith(lead):
                    return []
                self._state = "answer"
                return self._release(False)
            self._state = "opened"
            self._held = lead[len(OPEN) :]
        if self._state == "opened":
            # The line ends behind the tag may come in a later piece.
            self._held = self._held.lstrip("\n")
            if not self._held:
                return []
            self._state = "thinking"
        return self._thinking()

    def end(self) -> list[tuple[bool, str]]:
        """What was held back because a tag might have begun."""
        return self._release(self._state == "thinking") if self._state not in ("gap", "opened") else []

    def _thinking(self) -> list[tuple[bool, str]]:
        if self._state == "gap":
            return self._gap()
        held = self._held
        at = held.find(CLOSE)
        if at >= 0:
            self._state = "gap"
            self._held = held[at + len(CLOSE) :]
            return ([(True, held[:at])] if at else []) + self._gap()
        keep = next((n for n in range(min(len(CLOSE) - 1, len(held)), 0, -1) if CLOSE.startswith(held[-n:])), 0)
        self._held = held[len(held) - keep :]
        return [(True, held[: len(held) - keep])] if len(held) > keep else []

    def _gap(self) -> list[tuple[bool, str]]:
        self._held = self._held.lstrip("\n")
        if not self._held:
            return []
        self._state = "answer"
        return self._release(False)

    def _release(self, thinking: bool) -> list[tuple[bool, str]]:
        held, self._held = self._held, ""
        return [(thinking, held)] if held else []
