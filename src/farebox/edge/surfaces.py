"""The APIs that clients speak to us, as rows."""

from farebox.exchange import Surface
from farebox.wires import anthropic_messages, openai_chat
from farebox.wires.anthropic_messages import call as messages_call
from farebox.wires.openai_chat import call as chat_call


def _openai_head(request_id: bytes) -> bytes:
    return b"access-control-allow-origin: *\r\nx-request-id: %b\r\n" % request_id


def _anthropic_head(request_id: bytes) -> bytes:
    # `request-id` is the header that Anthropic's SDKs read.
    return b"access-control-allow-origin: *\r\nx-request-id: %b\r\nrequest-id: %b\r\n" % (request_id, request_id)


CHAT_COMPLETIONS = Surface(
    name="chat_completions",
    wire=chat_call.WIRE,
    read_call=chat_call.read_call,
    write_error=openai_chat.errors.write,
    head=_openai_head,
)
MESSAGES = Surface(
    name="messages",
    wire=messages_call.WIRE,
    read_call=messages_call.read_call,
    write_error=anthropic_messages.errors.write,
    head=_anthropic_head,
)
COUNT_TOKENS = Surface(
    name="count_tokens",
    wire=MESSAGES.wire,
    read_call=MESSAGES.read_call,
    write_error=MESSAGES.write_error,
    head=_anthropic_head,
)
