"""The APIs that clients speak to us, as rows."""

from farebox.exchange import Surface
from farebox.wires import anthropic_messages, openai_chat
from farebox.wires.anthropic_messages import call as messages_call
from farebox.wires.openai_chat import call as chat_call

CHAT_COMPLETIONS = Surface(
    name="chat_completions", wire=chat_call.WIRE, read_call=chat_call.read_call, write_error=openai_chat.errors.write
)
MESSAGES = Surface(
    name="messages",
    wire=messages_call.WIRE,
    read_call=messages_call.read_call,
    write_error=anthropic_messages.errors.write,
    # The header that Anthropic's SDKs read.
    request_id_header=b"request-id",
)
