"""What the client of a stream has been given, kept so that another provider can go on with it when the first breaks off.

The bytes are kept as they were sent and read only when somebody asks, or when they have grown large: a stream that ends well,
as nearly all do, costs an append per piece. Each wire reads its own (`openai_chat.delivered`, `anthropic_messages.delivered`).
"""

from collections.abc import Callable

RAW_BYTES_MAX = 64 * 2**10
"""Unread bytes of one stream; with more they are read, and only the text is kept."""
TEXT_CHARACTERS_MAX = 2**20
"""A longer answer is not continued: its prefill would be most of any model's context."""

TOOL_CALL = "tool_call"
THINKING = "thinking"
NOT_TEXT = "not_plain_text"
FINISHED = "finished"
TOO_LONG = "too_long"


class Delivered:
    """The answer so far, and where its writer stands."""

    __slots__ = ("created", "model", "next_block", "open_block", "pieces", "problem", "size", "started", "thought")

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.size = 0
        self.problem = ""
        """What the client was given beside text that no other provider can go on from; empty when there is none."""
        self.thought = False
        """The client was shown thinking."""
        self.started = False
        """The stream's own beginning (the first chunk, `message_start`) was sent."""
        self.model = ""
        self.created = 0
        self.next_block = 0
        """Messages: the index of the open block, or of the next one."""
        self.open_block = ""
        """Messages: the type of the block that was begun and not ended."""

    @property
    def text(self) -> str:
        if len(self.pieces) > 1:
            self.pieces = ["".join(self.pieces)]
        return self.pieces[0] if self.pieces else ""

    def say(self, text: str) -> None:
        """More of the answer's text."""
        self.pieces.append(text)
        self.size += len(text)
        if self.size > TEXT_CHARACTERS_MAX:
            self.refuse(TOO_LONG)

    def refuse(self, problem: str) -> None:
        """The answer holds something that cannot be continued; the first reason stands."""
        self.problem = self.problem or problem

    def why_not(self) -> str:
        """Why this answer cannot be continued; empty when it can.

        Thinking that was shown is not sent back: only its own model could read it. So there has to be text to go on from, and
        no thinking may stand open, since a client would send its unsigned half back with the next turn.
        """
        if self.problem:
            return self.problem
        if self.thought and (not self.size or "thinking" in self.open_block):
            return THINKING
        if self.text.lstrip().startswith("<think>"):
            return THINKING
        return ""


class Transcript:
    """A stream's bytes as the client got them."""

    __slots__ = ("_delivered", "_raw", "_read", "_size")

    def __init__(self, read: Callable[[bytes, Delivered], None]) -> None:
        """`read` is the client's wire's: whole events → what they deliver."""
        self._read = read
        self._delivered = Delivered()
        self._raw: list[bytes] = []
        self._size = 0

    def add(self, data: bytes) -> None:
        """Whole events, as they were sent."""
        self._raw.append(data)
        self._size += len(data)
        if self._size > RAW_BYTES_MAX:
            self._catch_up()

    def delivered(self) -> Delivered:
        """What was given so far. The object grows with the stream."""
        if self._raw:
            self._catch_up()
        return self._delivered

    def _catch_up(self) -> None:
        data = b"".join(self._raw)
        self._raw.clear()
        self._size = 0
        if not self._delivered.problem:
            self._read(data, self._delivered)
