"""The APIs that clients speak to us, as rows."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from farebox.gate.limits import Standing
from farebox.surface import Surface
from farebox.wires.anthropic_messages import call as messages_call
from farebox.wires.anthropic_messages import errors as messages_errors
from farebox.wires.openai_chat import call as chat_call
from farebox.wires.openai_chat import errors as chat_errors

_OPEN: Final = b"access-control-allow-origin: *\r\naccess-control-expose-headers: *\r\nx-request-id: "
"""Pages of any origin may call, and read the cost, the ids and when to try again."""


def _openai_head(request_id: bytes) -> bytes:
    return _OPEN + request_id + b"\r\n"


def _anthropic_head(request_id: bytes) -> bytes:
    # `request-id` is the header that Anthropic's SDKs read.
    return b"%b%b\r\nrequest-id: %b\r\n" % (_OPEN, request_id, request_id)


_OPENAI_REQUESTS: Final = (
    b"x-ratelimit-limit-requests: %d\r\nx-ratelimit-remaining-requests: %d\r\nx-ratelimit-reset-requests: %dms\r\n"
)
_OPENAI_TOKENS: Final = _OPENAI_REQUESTS.replace(b"requests", b"tokens")
_ANTHROPIC_REQUESTS: Final = (
    b"anthropic-ratelimit-requests-limit: %d\r\nanthropic-ratelimit-requests-remaining: %d\r\n"
    b"anthropic-ratelimit-requests-reset: %b\r\n"
)
_ANTHROPIC_TOKENS: Final = _ANTHROPIC_REQUESTS.replace(b"requests", b"tokens")
MOMENTS_MAX: Final = 1024
"""Seconds whose text is remembered: those of the next quarter of an hour are in nearly every answer's head."""


def _openai_limits(found: Standing, _now_us: int) -> bytes:
    # Durations, as OpenAI writes those below a second; Go's parser, which clients imitate, takes any number of them.
    requests = (found.request_limit, found.requests_left, -(-found.requests_reset_us // 1000))
    if not found.token_limit:
        return _OPENAI_REQUESTS % requests if found.request_limit else b""
    tokens = (found.token_limit, found.tokens_left, -(-found.tokens_reset_us // 1000))
    return (_OPENAI_REQUESTS + _OPENAI_TOKENS) % (requests + tokens) if found.request_limit else _OPENAI_TOKENS % tokens


def _anthropic_limits(found: Standing, now_us: int) -> bytes:
    requests = (found.request_limit, found.requests_left, _moment(-(-(now_us + found.requests_reset_us) // 1_000_000)))
    if not found.token_limit:
        return _ANTHROPIC_REQUESTS % requests if found.request_limit else b""
    tokens = (found.token_limit, found.tokens_left, _moment(-(-(now_us + found.tokens_reset_us) // 1_000_000)))
    if not found.request_limit:
        return _ANTHROPIC_TOKENS % tokens
    return (_ANTHROPIC_REQUESTS + _ANTHROPIC_TOKENS) % (requests + tokens)


@lru_cache(maxsize=MOMENTS_MAX)
def _moment(epoch_s: int) -> bytes:
    """In RFC 3339."""
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ").encode()


CHAT_COMPLETIONS: Final = Surface(
    name="chat_completions",
    wire=chat_call.WIRE,
    read_call=chat_call.read_call,
    write_error=chat_errors.write,
    head=_openai_head,
    limits=_openai_limits,
)
MESSAGES: Final = Surface(
    name="messages",
    wire=messages_call.WIRE,
    read_call=messages_call.read_call,
    write_error=messages_errors.write,
    head=_anthropic_head,
    limits=_anthropic_limits,
)
COUNT_TOKENS: Final = Surface(
    name="count_tokens",
    wire=MESSAGES.wire,
    read_call=MESSAGES.read_call,
    write_error=MESSAGES.write_error,
    head=_anthropic_head,
    limits=_anthropic_limits,
)
