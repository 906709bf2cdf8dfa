"""Relay: what the pipeline needs of a stream on its way to the client, whatever wires the two sides speak.

Two kinds do this: same-wire relays (`openai_chat.relay`, `anthropic_messages.relay`) scan the provider's bytes and forward
them; a translation (`translate`) reads events on one wire and writes them on another. Both are pure: bytes in, bytes out.
"""

from typing import Final, Protocol, cast

from farebox.errors import FareboxError
from farebox.wires.neutral import UpstreamError
from farebox.wires.usage import Usage, UsageReport

BOM: Final = b"\xef\xbb\xbf"
"""May stand before an event stream, and be split as anything else."""
TAIL_BYTES_MAX: Final = 4 * 2**20
"""The largest unfinished event; a provider that sends a longer one is broken."""
ESTIMATE_BYTES_PER_TOKEN: Final = 4
"""Bytes of text that are taken for one token where nothing better is known; such counts are flagged as estimates."""

TOKEN_BYTES_MAX: Final = 8
"""Events of a stream that carry no more text than this, in the mean, are taken for one token each."""
_NOT_TEXT: Final = frozenset({
    "id", "type", "role", "index", "finish_reason", "native_finish_reason", "signature", "thought_signature",
})  # fmt: skip


def estimated_tokens(content: object) -> int:
    """Tokens in a decoded answer's content by the size of its texts."""
    return -(-size_of_texts(content) // ESTIMATE_BYTES_PER_TOKEN)


def size_of_texts(content: object) -> int:
    """Bytes of text in a decoded answer's content, without the wire's own keys and words."""
    size = 0
    pending = [content]
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            size += len(value.encode("utf-8", "replace"))
        elif isinstance(value, list):
            pending.extend(cast("list[object]", value))
        elif isinstance(value, dict):
            pending.extend(item for name, item in cast("dict[str, object]", value).items() if name not in _NOT_TEXT)
    return size


def streamed_tokens(events: int, text_bytes: int) -> int:
    """Tokens in a stream by its events and the size of its text.

    Nearly every provider of chat completions sends an event for each token, so their number is exact, and more by size would be
    billed without having been delivered: words of a token are longer than four bytes now and then, and some providers pad their
    events. Only where events carry more than a token does (Anthropic's, and some gateways'), their text is taken by its size.
    """
    return events if text_bytes <= events * TOKEN_BYTES_MAX else -(-text_bytes // ESTIMATE_BYTES_PER_TOKEN)


Extra = bytes
"""Encoded JSON members that the gateway adds to the usage object: `"cost":…,"cost_usd":…,"cost_details":…`."""


class Relay(Protocol):
    """One stream from a provider to a client."""

    content_started: bool
    """Something of the answer may reach the client: from here on no other provider can take over unnoticed."""
    finished: bool
    """The provider said that the answer is complete."""
    done: bool
    """The terminal marker came: nothing of interest follows."""
    failure: bytes | UpstreamError | None
    """The error that came inside the stream: as it came, or as the reader understood it."""
    @property
    def malformed(self) -> int:
        """Events that were no valid JSON and were skipped."""
        ...

    finish_reason: str
    native_finish_reason: str
    upstream_id: str

    def feed(self, data: bytes) -> bytes:
        """The provider's bytes → what goes to the client now; nothing before the first content, nothing of the end."""
        ...

    def end(self) -> bytes:
        """The provider's body is over; bytes that were still being held."""
        ...

    def report(self) -> UsageReport | None:
        """The provider's usage, once it was seen."""
        ...

    def observed_output_tokens(self, text_bytes: int | None = None) -> int:
        """An estimate of the output so far, from what was seen. `text_bytes`: the size of its text, where that is known."""
        ...

    def observed_input(self) -> Usage | None:
        """The input side, exact, where the provider reports it at the start of a stream."""
        ...

    def finish(self, usage: Usage, extra: Extra) -> bytes:
        """The last bytes, to be sent after the settlement was written: usage, terminal marker."""
        ...

    def fail(self, error: FareboxError) -> bytes:
        """An in-stream error; no terminal success marker follows."""
        ...

    def keepalive(self) -> bytes:
        """Something that clients skip, to keep intermediaries from closing an idle connection."""
        ...


class Reply(Protocol):
    """One whole answer from a provider to a client."""

    failure: bytes | UpstreamError | None
    """The error that came with a success status: as it came, or as the reader understood it."""
    finish_reason: str
    native_finish_reason: str

    @property
    def upstream_id(self) -> str:
        """The provider's own id of the answer."""
        ...

    def report(self) -> UsageReport | None:
        """The provider's usage; None when it said nothing."""
        ...

    def observed_output_tokens(self) -> int:
        """An estimate of the output, for answers without usage."""
        ...

    def write(self, *, id: str, provider: str, usage: Usage, extra: Extra) -> bytes:
        """The body for the client."""
        ...


class NotACompletion(Exception):
    """A success status with a body that is no answer of this wire."""


class MalformedStream(Exception):
    """The provider's bytes are no stream of this wire."""


def with_members(body: bytes, members: bytes) -> bytes:
    """A JSON object with members appended, without parsing it: `{"a":1}` and `"b":2` → `{"a":1,"b":2}`."""
    head = body.rstrip()[:-1].rstrip()
    return b"".join((head, b"" if head.endswith(b"{") else b",", members, b"}"))
