"""The seam: where one provider's answer breaks off and another's goes on.

A continuation is asked for with the answer so far as a prefill (`openai_chat.prefill`, `anthropic_messages.prefill`) and comes
back as neutral events. Before they are written behind what the client has, this filter takes away what would stand there
twice:

- white space at the end of the answer is not in the prefill, because Anthropic refuses a prefill that ends in it and other
  models continue worse from it; what the continuation repeats of it is dropped, character by character;
- some models repeat the prefill, or its last sentence, before they go on: an exact overlap is dropped, if it is long enough to
  be no accident, and no mere repetition (a row of dashes goes on as a row of dashes);
- thinking: the client has seen the first model's, and it would come in the middle of the text.
"""

from farebox.wires.neutral import (
    Event,
    Finish,
    LogprobsDelta,
    PartEnd,
    ReasoningDelta,
    ReasoningSignature,
    RedactedReasoning,
    TextDelta,
)

WHOLE_CHARACTERS_MIN = 8
"""A repetition of the whole answer so far is taken for one from this length on."""
OVERLAP_CHARACTERS_MIN = 32
"""A repetition of its end, from this length on."""
OVERLAP_CHARACTERS_MAX = 2**14
"""How far back a repetition is looked for; text that may be one is held back no longer than this."""


def split_prefill(text: str) -> tuple[str, str]:
    """The answer so far → (what is sent as the prefill, the white space at its end)."""
    sent = text.rstrip()
    return sent, text[len(sent) :]


def repeats(text: str) -> bool:
    """Whether a text is one shorter text over and over, at least twice: its smallest period is at most half of it."""
    borders = [0] * len(text)
    length = 0
    for at in range(1, len(text)):
        while length and text[at] != text[length]:
            length = borders[length - 1]
        if text[at] == text[length]:
            length += 1
        borders[at] = length
    return bool(text) and (len(text) - borders[-1]) * 2 <= len(text)


class Overlap:
    """Finds how much of a text that comes in pieces repeats the end of what stands before it."""

    def __init__(self, before: str) -> None:
        window = before[-OVERLAP_CHARACTERS_MAX:]
        last = len(window) - OVERLAP_CHARACTERS_MIN
        self._window = window
        self._starts = list(range(last + 1))
        """Where in the window a repetition may have begun that the text so far agrees with."""
        if len(before) == len(window) and WHOLE_CHARACTERS_MIN <= len(window) < OVERLAP_CHARACTERS_MIN:
            self._starts = [0]
        self._text = ""
        self._found = 0
        self.open = bool(self._starts)
        """Text is held back until this is false."""

    def feed(self, text: str) -> str:
        """More text → what is certainly no repetition."""
        if not self.open:
            return text
        checked = len(self._text)
        self._text += text
        size = len(self._window)
        going: list[int] = []
        for start in self._starts:
            length = size - start
            if length <= len(self._text):
                if self._text.startswith(self._window[start + checked :], checked):
                    self._found = max(self._found, length)
            elif self._window.startswith(self._text[checked:], start + checked):
                going.append(start)
        self._starts = going
        return "" if going else self.end()

    def end(self) -> str:
        """No more text is waited for: what was held back, without the repetition."""
        if not self.open:
            return ""
        self.open = False
        text, self._text = self._text, ""
        found = self._found
        return text[found:] if found and not repeats(text[:found]) else text


class Seam:
    """Filters the events of a continuation."""

    def __init__(self, prefill: str, white_space: str) -> None:
        """What the new model was given of the answer, and what stands behind that at the client."""
        self._overlap = Overlap(prefill)
        self._white_space = white_space
        self._spoken = False

    def take(self, events: list[Event]) -> list[Event]:
        """The events that the client is given."""
        out: list[Event] = []
        for event in events:
            match event:
                case TextDelta():
                    self._say(self._overlap.feed(event.text), out)
                case ReasoningDelta() | ReasoningSignature() | RedactedReasoning() | LogprobsDelta():
                    pass
                case PartEnd():
                    # The end of a block that was dropped would end the client's text.
                    if self._spoken:
                        out.append(event)
                case Finish():
                    self._say(self._overlap.end(), out)
                    out.append(event)
                case _:
                    out.append(event)
        return out

    def _say(self, text: str, out: list[Event]) -> None:
        white_space = self._white_space
        if white_space and text:
            same = 0
            while same < min(len(white_space), len(text)) and white_space[same] == text[same]:
                same += 1
            self._white_space = white_space[same:] if same == len(text) else ""
            text = text[same:]
        if text:
            self._spoken = True
            out.append(TextDelta(text))
