"""Fitness: whether an offer can do what a call asks of it, known before anything is sent. Pure.

Refused is only what is certain: a capability that the catalog says the offer lacks, an output cap above its own, a prompt that
cannot fit however well it compresses. A prompt that probably does not fit makes an offer the last resort among its likes.
"""

from farebox.billing.bounds import TOOL_TEMPLATE_TOKENS
from farebox.catalog.model import Offer
from farebox.routing.target import Target
from farebox.wires.call import NULL, Call
from farebox.wires.hosted import NEED

TOKEN_BYTES_MAX = 32
"""A prompt has at least one token per so many bytes of JSON on average: escaped text of long words comes near 24."""

SENTENCES = {
    "vision": "it takes no images",
    "pdf": "it takes no documents",
    "audio_input": "it takes no audio",
    "video_input": "it takes no video",
    "audio_output": "it makes no audio",
    "tools": "it calls no tools",
    "json_mode": "it has no JSON mode",
    "json_schema": "it follows no JSON schema",
    "reasoning": "it does not reason",
    "web_search": "it searches no web",
}
"""What the lack of a capability means, for the reason."""


def input_limit(offer: Offer) -> int:
    """Prompt tokens that the offer takes at most."""
    return offer.context_window if offer.max_input_tokens is None else min(offer.max_input_tokens, offer.context_window)


def unfit(call: Call, offer: Offer) -> tuple[str, str] | None:
    """The requirement that the offer cannot meet and why, or None."""
    for need in sorted(call.needs - offer.capabilities - {NEED}):
        return need, SENTENCES.get(need, f"it lacks `{need}`")
    cap = call.output_cap
    if cap is not None and cap > offer.max_output_tokens:
        return "max_tokens", f"it writes at most {offer.max_output_tokens} tokens, and {cap} are asked for"
    limit = input_limit(offer)
    least = call.media.text_bytes // TOKEN_BYTES_MAX
    if least > limit:
        return "context", f"its window is {limit} tokens, and the prompt has at least {least}"
    return None


def doubtful(call: Call, offer: Offer, estimate: int) -> bool:
    """Whether the prompt, with the answer that may come, probably does not fit."""
    extra = TOOL_TEMPLATE_TOKENS if "tools" in call.needs else 0
    return estimate + extra > input_limit(offer) or estimate + extra + (call.output_cap or 0) > offer.context_window


_FLAGS = (
    ("frequency_penalty", "penalties"),
    ("presence_penalty", "penalties"),
    ("logprobs", "logprobs"),
    ("top_logprobs", "logprobs"),
    ("logit_bias", "logit_bias"),
    ("stop", "stop"),
)


def unknown_parameters(call: Call, target: Target) -> tuple[str, ...]:
    """Parameters of the request that a provider of the same wire is known not to take (`require_parameters`)."""
    dialect = target.speaks.dialect
    fields = {name for name, value in call.fields.items() if bytes(value) != NULL}
    found = [name for name, flag in _FLAGS if not getattr(dialect, flag) and name in fields]
    if call.choices > 1 and not dialect.n_choices:
        found.append("n")
    if "seed" in fields and dialect.seed_field == "unsupported":
        found.append("seed")
    if "json_schema" in call.needs and not dialect.json_schema:
        found.append("response_format")
    if ("reasoning" in fields or "reasoning_effort" in fields) and dialect.reasoning_request == "none":
        found.append("reasoning")
    offer = target.offer
    if "temperature" in fields and "temperature" not in offer.capabilities:
        found.append("temperature")
    if "tool_choice" in fields and "tool_choice" not in offer.capabilities:
        found.append("tool_choice")
    if "parallel_tool_calls" in fields and "parallel_tools" not in offer.capabilities:
        found.append("parallel_tool_calls")
    return tuple(found)
