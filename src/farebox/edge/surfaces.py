"""The APIs that clients speak to us, as rows."""

from datetime import UTC, datetime

from farebox.exchange import Surface
from farebox.wires import anthropic_messages, openai_chat
from farebox.wires.anthropic_messages import call as messages_call
from farebox.wires.openai_chat import call as chat_call


def _openai_head(request_id: bytes) -> bytes:
    return b"access-control-allow-origin: *\r\nx-request-id: %b\r\n" % request_id


def _anthropic_head(request_id: bytes) -> bytes:
    # `request-id` is the header that Anthropic's SDKs read.
    return b"access-control-allow-origin: *\r\nx-request-id: %b\r\nrequest-id: %b\r\n" % (request_id, request_id)


def _openai_limits(what: str, limit: int, remaining: int, reset_us: int, _now_us: int) -> bytes:
    # A duration, as OpenAI writes it: `250ms`, `1.5s`.
    reset = f"{-(-reset_us // 1000)}ms" if reset_us < 1_000_000 else f"{reset_us // 1_000_000}.{reset_us // 100_000 % 10}s"
    return (
        f"x-ratelimit-limit-{what}: {limit}\r\nx-ratelimit-remaining-{what}: {remaining}\r\nx-ratelimit-reset-{what}: {reset}\r\n"
    ).encode()


def _anthropic_limits(what: str, limit: int, remaining: int, reset_us: int, now_us: int) -> bytes:
    # A moment, in RFC 3339.
    reset = datetime.fromtimestamp(-(-(now_us + reset_us) // 1_000_000), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    name = f"anthropic-ratelimit-{what}"
    return f"{name}-limit: {limit}\r\n{name}-remaining: {remaining}\r\n{name}-reset: {reset}\r\n".encode()


CHAT_COMPLETIONS = Surface(
    name="chat_completions",
    wire=chat_call.WIRE,
    read_call=chat_call.read_call,
    write_error=openai_chat.errors.write,
    head=_openai_head,
    limits=_openai_limits,
)
MESSAGES = Surface(
    name="messages",
    wire=messages_call.WIRE,
    read_call=messages_call.read_call,
    write_error=anthropic_messages.errors.write,
    head=_anthropic_head,
    limits=_anthropic_limits,
)
COUNT_TOKENS = Surface(
    name="count_tokens",
    wire=MESSAGES.wire,
    read_call=MESSAGES.read_call,
    write_error=MESSAGES.write_error,
    head=_anthropic_head,
    limits=_anthropic_limits,
)
