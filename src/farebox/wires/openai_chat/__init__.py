"""OpenAI chat completions, as a surface and toward vendors.

`request`, `response` and `stream` translate to and from the neutral forms; `usage` and `errors` read what vendors report and
write what clients see; `call`, `relay` and `reply` are the quick ways for the same wire on both sides.
"""

from farebox.wires.openai_chat import errors, request, response, stream, usage

__all__ = ["errors", "request", "response", "stream", "usage"]
