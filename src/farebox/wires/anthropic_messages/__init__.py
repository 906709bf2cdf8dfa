"""Anthropic messages, as a surface and toward vendors.

`request`, `response` and `stream` translate to and from the neutral forms, `count_tokens` counts a request; `usage` and
`errors` read what vendors report and write what clients see; `call`, `relay` and `reply` are the quick ways for the same
wire on both sides; `delivered` and `prefill` let another provider go on with an answer that broke off.
"""

from farebox.wires.anthropic_messages import count_tokens, delivered, errors, prefill, request, response, stream, usage

__all__ = ["count_tokens", "delivered", "errors", "prefill", "request", "response", "stream", "usage"]
