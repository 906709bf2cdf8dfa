"""Dialect: how one vendor's speech differs from the wire it speaks. Named flags; the reason stands at each provider's row.

A wire module reads these flags; a provider row sets them. A new deviation is a new documented flag here, or, when a flag
would need a paragraph, a function in the wire.
"""

from typing import Literal

import msgspec

Path = tuple[str, ...]


class UsageRules(msgspec.Struct, frozen=True):
    """How a vendor counts. These facts decide charges; each has a test (providers.md §1.2)."""

    cache_inside_input: bool = True
    """OpenAI: cached and cache-write tokens are part of the input count. Anthropic: they stand beside it."""
    reasoning: Literal["inside", "outside", "hidden"] = "inside"
    """`inside` the output count; `outside`, beside it (xAI chat); `hidden`: total − prompt − completion (Gemini compat)."""
    audio_inside_input: bool = True
    """Mistral reports audio tokens outside `prompt_tokens`."""
    cache_read_paths: tuple[Path, ...] = (("prompt_tokens_details", "cached_tokens"),)
    """Where the cached count may stand, first found wins."""
    cache_write_paths: tuple[Path, ...] = (("prompt_tokens_details", "cache_write_tokens"),)
    usage_in_choice: bool = False
    """Moonshot: a stream's usage may sit in `choices[0].usage`."""
    cost_field: str | None = None
    """Name of the vendor's own charge inside the usage object (OpenRouter: `cost`, in USD)."""
    cost_divisor: int = 1
    """Units per dollar of `cost_field` (xAI: `cost_in_usd_ticks`, 10¹⁰ per dollar)."""


class Dialect(msgspec.Struct, frozen=True):
    """Deviations of one vendor on one wire. The defaults are the wire as its author defines it."""

    usage: UsageRules = UsageRules()
    output_limit_field: Literal["as_sent", "max_tokens", "max_completion_tokens"] = "as_sent"
    """The only spelling of the output cap that is accepted; `as_sent` accepts both, and ours is `max_completion_tokens`."""
    developer_role: bool = True
    """False: a `developer` message must be sent as `system`."""
    stream_usage_option: bool = True
    """False: `stream_options` is refused or ignored because usage always comes."""
    tool_choice_required: Literal["required", "any", "unsupported"] = "required"
    """How the vendor spells the choice that forces some tool call."""
    tool_strict: bool = True
    """False: `strict` in a tool's function must be removed."""
    tool_call_id_pattern: str | None = None
    """A pattern that tool call ids must match (Mistral: nine alphanumerics); others are mapped, reversibly."""
    json_schema: bool = True
    """False: only `json_object`; a schema is an unsupported field."""
    n_choices: bool = True
    penalties: bool = True
    logprobs: bool = True
    logit_bias: bool = True
    seed_field: Literal["seed", "random_seed", "unsupported"] = "seed"
    stop: bool = True
    stop_max: int = 4
    prefill: Literal["none", "plain", "prefix", "partial", "continue_final_message"] = "none"
    """How a chat completions vendor is told to go on with a last assistant turn: not at all (it answers anew), by the turn
    alone, by `"prefix": true` or `"partial": true` on it, or by vLLM's two fields. On messages the turn alone always does."""
    message_name: bool = True
    """False: `name` on a message is refused."""
    pdf: bool = True
    """False: `file` parts are refused."""
    reasoning_request: Literal["reasoning_effort", "thinking_type", "enable_thinking", "openrouter", "none"] = "reasoning_effort"
    """How thinking is asked for: OpenAI's effort, `thinking: {type}`, Qwen's `enable_thinking`, OpenRouter's `reasoning`."""
    reasoning_reply: Literal["reasoning_content", "reasoning", "reasoning_details", "content_list", "none"] = "reasoning_content"
    """Where thinking comes back; readers accept every form, this says which to expect."""
    reasoning_echo_required: bool = False
    """DeepSeek, Moonshot: an assistant turn with tool calls must carry `reasoning_content`; a single space passes."""
    signed_calls: str | None = None
    """A pattern of the model ids that take no tool call without a thought signature (Gemini 3 and later)."""
    calls_streamed_loosely: bool = False
    """True: calls in streams have no index and end with `stop`; where tools may be called, streams are read and written anew."""
    cache_control: bool = False
    """True: Anthropic-style `cache_control` markers are understood on content parts of this (OpenAI-shaped) vendor."""
    temperature_max: int = 2
    error_in_200: Literal["none", "base_resp", "error_object"] = "none"
    """A failure may come with status 200: MiniMax's `base_resp`, OpenRouter's `error` in the body."""
    hosted_tools: tuple[str, ...] = ()
    """What the vendor runs on its side and may be asked for, since it is free beside its tokens or part of the charge that it
    reports: kinds of tools, ids of plugins and names of fields (`farebox.wires.hosted`); `*` stands for anything."""
    agents: str | None = None
    """A pattern of the model ids that run such tools unasked."""
    extensions: bool = False
    """True: understands OpenRouter's extensions (`models`, `provider`, `plugins`…); false: they are ours, not forwarded."""
