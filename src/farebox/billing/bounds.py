"""Bounds: the most tokens that a request can be billed for, known before it is sent (billing.md §3.1). Pure."""

from typing import Final

from farebox.billing.bound import Bound
from farebox.wires.call import Call
from farebox.wires.hosted import reads_more

NO_WINDOW: Final = 2**62
"""A window that holds every prompt."""
TEMPLATE_TOKENS: Final = 256
"""What a chat template adds around the messages at most: default system prompts and turn markers."""
TOOL_TEMPLATE_TOKENS: Final = 1024
"""The hidden system prompt that providers add when tools are given (Anthropic documents 159 to 804 tokens)."""
IMAGE_TOKENS_MAX: Final = 6_400
"""One image at most, unless the model is listed below; high-detail tiles and Gemini's crops included."""
IMAGE_TOKENS_MAX_BY_MODEL: Final = {
    # 2,833 + 5,667 per tile of 512 px, eight tiles: https://developers.openai.com/api/docs/guides/images-vision
    "openai/gpt-4o-mini": 48_169,
}
AUDIO_BYTES_PER_TOKEN_MIN: Final = 64
"""Compressed speech of 8 kbit/s has 100 bytes per token at OpenAI's 10 tokens a second."""


def input_bound(call: Call, *, model: str, context_window: int) -> int:
    """Input tokens at most: min(context window, bytes of text + media + templates).

    JSON never has fewer bytes than the text it spells, and a token covers at least one byte, so bytes bound tokens.
    Documents, searches and whatever else the provider runs can grow up to the whole window.
    """
    media = call.media
    if media.documents or call.web_searches_max or (call.hosted and reads_more(call.hosted)):
        return context_window
    tokens = media.text_bytes + TEMPLATE_TOKENS
    if "tools" in call.needs:
        tokens += TOOL_TEMPLATE_TOKENS
    if media.images:
        tokens += media.images * IMAGE_TOKENS_MAX_BY_MODEL.get(model, IMAGE_TOKENS_MAX)
    if media.audio_bytes:
        tokens += media.audio_bytes // AUDIO_BYTES_PER_TOKEN_MIN
    return min(tokens, context_window)


def bound(call: Call, *, model: str, context_window: int, max_output_tokens: int) -> Bound:
    """The bounds of a call on one offer. Without a cap from the client the model's own limit is held and sent."""
    tokens = input_bound(call, model=model, context_window=context_window)
    return bound_within(tokens, context_window, max_output_tokens, call.output_cap, call.choices)


def bound_within(input_tokens: int, context_window: int, max_output_tokens: int, cap: int | None, choices: int) -> Bound:
    """The bounds on one offer of a model whose `input_bound` without a window (`NO_WINDOW`) is known, for a call's cap."""
    input_tokens = min(input_tokens, context_window)
    if cap is None:
        return Bound(input_tokens, max_output_tokens * choices, max_output_tokens, False)
    return Bound(input_tokens, cap * choices, cap, True)


def estimated_input(call: Call) -> int:
    """The likely input tokens, for estimates when a provider never said: four bytes a token, half a cap per medium."""
    media = call.media
    if not media.images and not media.documents and not media.audio_bytes:
        return -(-media.text_bytes // 4)
    return (
        -(-media.text_bytes // 4)
        + media.images * (IMAGE_TOKENS_MAX // 4)
        + media.documents * (IMAGE_TOKENS_MAX // 2)
        + media.audio_bytes // (4 * AUDIO_BYTES_PER_TOKEN_MIN)
    )
