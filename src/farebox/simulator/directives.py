"""Directives: what a caller orders the simulated model to do, written behind its name as `sim+tokens=50+status=503`.

One struct, one table. The table is the grammar, the documentation (`farebox simulate --help`) and the source of the parser;
a directive that is not in it is refused, so that a test with a typing error fails instead of passing.
"""

from functools import lru_cache
from typing import Any, Literal

import msgspec

COUNT_MAX = 100_000_000
"""The largest number a directive takes."""
DURATION_MAX_US = 600_000_000
"""The longest pause a directive asks for: ten minutes."""
TEXT_MAX = 64
DIRECTIVES_MAX = 64
"""Directives on one model name."""

UsageFault = Literal["missing", "duplicate", "negative", "huge", "string", "nan", "fractional", "null"]
Framing = Literal["crlf", "cr", "comments", "bom", "no-space", "multi-line", "no-final-newline"]


class Directives(msgspec.Struct, frozen=True, kw_only=True):
    """Orders for one request. The defaults are an honest, undisturbed provider; `ROWS` says what each one does."""

    tokens: int | None = None
    prompt: int | None = None
    thinking: int | None = None
    tools: int | None = None
    cached: int | None = None
    cache_write: int | None = None
    cache_write_1h: int | None = None
    content_filter: bool = False
    refusal: bool = False
    big_event: int | None = None
    dialect: str | None = None
    repeat_prefill: bool = False
    rating: int | None = None

    times: int | None = None

    status: int | None = None
    code: str | None = None
    retry_after: int | None = None
    retry_after_ms: int | None = None
    should_retry: bool | None = None
    context_length: bool = False
    empty_account: bool = False
    reject_prefill: bool = False
    html: bool = False
    error_in_200: str | None = None
    error_before_content: bool = False
    error_in_stream: int | None = None

    delay_headers_us: int = 0
    slow_headers_us: int | None = None
    delay_first_us: int = 0
    delay_chunk_us: int = 0
    stall_after: int | None = None

    reset_before_headers: bool = False
    reset_after: int | None = None
    reset_at_byte: int | None = None
    cut_at_byte: int | None = None
    lying_length: int | None = None
    truncated_chunked: bool = False
    split: int | None = None
    gzip: bool = False
    trailers: bool = False
    big_header: int | None = None
    close: bool = False
    silent_close: bool = False

    malformed_event: int | None = None
    no_done: bool = False
    usage: UsageFault | None = None
    sse: Framing | None = None

    ignore_hangup: bool = False

    @property
    def bends_bytes(self) -> bool:
        """Whether the bytes of an answer leave in any other way than at once and whole."""
        return (
            self.delay_headers_us > 0
            or self.slow_headers_us is not None
            or self.stall_after is not None
            or self.reset_after is not None
            or self.reset_at_byte is not None
            or self.cut_at_byte is not None
            or self.lying_length is not None
            or self.truncated_chunked
            or self.split is not None
            or self.gzip
            or self.trailers
            or self.sse is not None
        )


NONE = Directives()

Kind = Literal["count", "positive", "signed", "flag", "duration", "status", "bool", "text", "usage", "sse"]


class Row(msgspec.Struct, frozen=True):
    """One line of the grammar."""

    name: str
    kind: Kind
    field: str
    group: Literal["content", "control", "fault"]
    """`content` shapes an undisturbed answer and always holds; a `fault` lapses after `times` requests."""
    meaning: str
    bare: str | None = None
    """The value that the directive has when written without `=`; None demands one (flags aside)."""


ROWS: tuple[Row, ...] = (
    Row("tokens", "count", "tokens", "content", "answer with N text tokens (max_tokens still caps them)"),
    Row("prompt", "count", "prompt", "content", "count the prompt as N tokens, whatever it holds"),
    Row("thinking", "count", "thinking", "content", "think for N tokens first, visibly"),
    Row("tool", "flag", "tools", "content", "call one tool, also after tool results; same as tools=1", "1"),
    Row("tools", "count", "tools", "content", "call N of the offered tools in parallel; 0 answers with text"),
    Row("cached", "count", "cached", "content", "report N prompt tokens as read from the cache"),
    Row("cache-write", "count", "cache_write", "content", "report N prompt tokens as written to the cache (5 minutes)"),
    Row("cache-write-1h", "count", "cache_write_1h", "content", "the same for one hour (Messages wire only)"),
    Row("content-filter", "flag", "content_filter", "content", "stop halfway through the text: content_filter, or refusal"),
    Row("refusal", "flag", "refusal", "content", "refuse in words: message.refusal, or stop_reason refusal"),
    Row("big-event", "positive", "big_event", "content", "make the first text token N bytes long, in one event"),
    Row("repeat-prefill", "flag", "repeat_prefill", "content", "say a prefill once more before going on with it"),
    Row("rating", "count", "rating", "content", "answer N where the question is how sure it is of an answer of its own"),
    Row("dialect", "text", "dialect", "content", "report usage as this vendor does, on the chat wire"),
    Row("times", "positive", "times", "control", "the faults hold for the first N requests with this very model name"),
    Row("status", "status", "status", "fault", "refuse with this HTTP status and the wire's own error body"),
    Row("code", "text", "code", "fault", "error code (chat) or error type (Messages) of that refusal"),
    Row("retry-after", "count", "retry_after", "fault", "send `retry-after: N` (seconds)"),
    Row("retry-after-ms", "count", "retry_after_ms", "fault", "send `retry-after-ms: N`"),
    Row("should-retry", "bool", "should_retry", "fault", "send `x-should-retry: true` or `false`"),
    Row("context-length", "flag", "context_length", "fault", "refuse: the prompt is longer than the context"),
    Row("empty-account", "flag", "empty_account", "fault", "refuse: our account there is empty, in the vendor's words"),
    Row("reject-prefill", "flag", "reject_prefill", "fault", "refuse a last turn of the assistant, as newer models do"),
    Row("html", "flag", "html", "fault", "answer with an HTML page (status 200 unless `status` says otherwise)"),
    Row("error-in-200", "text", "error_in_200", "fault", "status 200 with an error object, or `=base-resp`", "error"),
    Row("error-before-content", "flag", "error_before_content", "fault", "an error event before any content; not invoiced"),
    Row("error-in-stream", "count", "error_in_stream", "fault", "an error event after N content events, then the end; invoiced"),
    Row("delay-headers", "duration", "delay_headers_us", "fault", "wait before the response head"),
    Row("slow-headers", "duration", "slow_headers_us", "fault", "write the head byte by byte with this pause", "5ms"),
    Row("delay-first", "duration", "delay_first_us", "fault", "wait before the first event (plain answers: before the head)"),
    Row("delay-chunk", "duration", "delay_chunk_us", "fault", "wait before every further event (plain answers: every token)"),
    Row("stall-after", "count", "stall_after", "fault", "send N events (plain answers: bytes), then nothing, line open"),
    Row("reset-before-headers", "flag", "reset_before_headers", "fault", "RST before any byte; not invoiced"),
    Row("reset-after", "count", "reset_after", "fault", "RST after N events (plain answers: bytes)"),
    Row("reset-at-byte", "count", "reset_at_byte", "fault", "RST after N bytes of body"),
    Row("cut-at-byte", "count", "cut_at_byte", "fault", "clean FIN after N bytes of body, the framing left unfinished"),
    Row("lying-length", "signed", "lying_length", "fault", "content-length N bytes off the truth, then FIN", "100"),
    Row("truncated-chunked", "flag", "truncated_chunked", "fault", "chunked without the last chunk, then FIN"),
    Row("split", "positive", "split", "fault", "write N bytes at a time"),
    Row("gzip", "flag", "gzip", "fault", "content-encoding: gzip, whatever the caller accepts"),
    Row("trailers", "flag", "trailers", "fault", "trailer fields after a chunked body"),
    Row("big-header", "positive", "big_header", "fault", "a response header of N bytes"),
    Row("close", "flag", "close", "fault", "`connection: close` after the answer"),
    Row("silent-close", "flag", "silent_close", "fault", "close the connection after the answer without saying so"),
    Row("malformed-event", "positive", "malformed_event", "fault", "break the JSON of event N; the stream goes on"),
    Row("no-done", "flag", "no_done", "fault", "leave out the terminal event"),
    Row("usage", "usage", "usage", "fault", "usage missing, duplicate, negative, huge, string, nan, fractional or null"),
    Row(
        "sse", "sse", "sse", "fault",
        "stream lines as crlf, cr, comments, bom, no-space, multi-line or no-final-newline",
    ),
    Row("ignore-hangup", "flag", "ignore_hangup", "fault", "generate and invoice to the end though the caller left"),
)  # fmt: skip

_ROW_BY_NAME = {row.name: row for row in ROWS}
_FIELD_GROUP = {row.field: row.group for row in ROWS}
_UNITS_US = (("us", 1), ("ms", 1_000), ("s", 1_000_000))


class DirectiveError(ValueError):
    """A directive that is not in the table, or a value it does not take."""


def _number(row: Row, text: str, low: int, high: int) -> int:
    try:
        value = int(text) if len(text) < TEXT_MAX else None
    except ValueError:
        value = None
    if value is None or not low <= value <= high:
        raise DirectiveError(f"`{row.name}` takes a whole number from {low} to {high}, not `{text[:TEXT_MAX]}`")
    return value


def _duration_us(row: Row, text: str) -> int:
    for unit, factor in _UNITS_US:
        digits = text.removesuffix(unit)
        if digits != text and digits.isascii() and digits.isdigit() and len(digits) <= 9:
            value = int(digits) * factor
            if value <= DURATION_MAX_US:
                return value
    raise DirectiveError(f"`{row.name}` takes a duration such as 500us, 20ms or 2s up to 600s, not `{text[:TEXT_MAX]}`")


def _choice(row: Row, text: str, choices: tuple[str, ...]) -> str:
    if text not in choices:
        raise DirectiveError(f"`{row.name}` takes one of {', '.join(choices)}, not `{text[:TEXT_MAX]}`")
    return text


def _value(row: Row, text: str | None) -> Any:
    if text is None:
        text = row.bare
        if row.kind == "flag" and text is None:
            return True
        if text is None:
            raise DirectiveError(f"`{row.name}` needs a value: `{row.name}=…`")
    elif row.kind == "flag":
        raise DirectiveError(f"`{row.name}` takes no value")
    match row.kind:
        case "flag" | "count":
            return _number(row, text, 0, COUNT_MAX)
        case "positive":
            return _number(row, text, 1, COUNT_MAX)
        case "signed":
            return _number(row, text, -COUNT_MAX, COUNT_MAX)
        case "status":
            return _number(row, text, 200, 599)
        case "duration":
            return _duration_us(row, text)
        case "bool":
            return _choice(row, text, ("true", "false")) == "true"
        case "usage":
            return _choice(row, text, ("missing", "duplicate", "negative", "huge", "string", "nan", "fractional", "null"))
        case "sse":
            return _choice(row, text, ("crlf", "cr", "comments", "bom", "no-space", "multi-line", "no-final-newline"))
        case "text":
            if not 0 < len(text) <= TEXT_MAX:
                raise DirectiveError(f"`{row.name}` takes 1 to {TEXT_MAX} characters")
            return text


@lru_cache(maxsize=4096)
def parse(text: str) -> Directives:
    """`tokens=50+status=503` → orders; an empty text orders nothing. Later directives win. Raises `DirectiveError`."""
    fields: dict[str, Any] = {}
    words = text.split("+") if text else []
    if len(words) > DIRECTIVES_MAX:
        raise DirectiveError(f"more than {DIRECTIVES_MAX} directives")
    for word in words:
        name, equals, value = word.partition("=")
        row = _ROW_BY_NAME.get(name)
        if row is None:
            raise DirectiveError(f"unknown directive `{name[:TEXT_MAX]}`; `farebox simulate --help` lists them")
        fields[row.field] = _value(row, value if equals else None)
    return msgspec.convert(fields, Directives)


def split_model(model: str) -> tuple[str, str]:
    """A model name → its base name and its directives as text."""
    base, _, text = model.partition("+")
    return base, text


def merge(first: Directives, second: Directives) -> Directives:
    """The orders of both; where both speak, `second` wins."""
    changed = {
        name: value
        for name in Directives.__struct_fields__
        if (value := getattr(second, name)) != getattr(NONE, name)
    }
    return msgspec.structs.replace(first, **changed) if changed else first


def without_faults(orders: Directives) -> Directives:
    """What remains when `times` has run out: the directives on content."""
    return Directives(
        **{name: getattr(orders, name) for name in Directives.__struct_fields__ if _FIELD_GROUP[name] == "content"}
    )


def table() -> str:
    """The grammar as text, one line per directive, for the command's help."""
    lines: list[str] = []
    for row in ROWS:
        value = "" if row.kind == "flag" else "=" + {"duration": "20ms", "usage": "…", "sse": "…", "text": "…"}.get(row.kind, "N")
        spelled = f"{row.name}[{value}]" if row.bare is not None and row.kind != "flag" else row.name + value
        lines.append(f"{spelled:26}{row.meaning}")
    return "\n".join(lines)
