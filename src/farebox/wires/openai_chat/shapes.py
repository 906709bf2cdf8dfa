"""What is decoded of OpenAI's JSON: the fields that the gateway reads, everything else is passed over."""

from typing import Annotated, Any

import msgspec

from farebox.wires import call as calls
from farebox.wires.usage import COUNT_MAX

OUTPUT_CAP_MAX = 2**31


class Routine(msgspec.Struct, forbid_unknown_fields=True):
    """A request with nothing but the usual fields, read in one go."""

    model: Annotated[str, msgspec.Meta(min_length=1, max_length=calls.MODEL_NAME_MAX)]
    messages: msgspec.Raw
    stream: bool | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=OUTPUT_CAP_MAX)] | None = None
    max_completion_tokens: Annotated[int, msgspec.Meta(ge=1, le=OUTPUT_CAP_MAX)] | None = None
    temperature: msgspec.Raw = msgspec.Raw()
    top_p: msgspec.Raw = msgspec.Raw()


class AnswerChoice(msgspec.Struct, frozen=True):
    finish_reason: str | None = None
    native_finish_reason: str | None = None


class AnswerBody(msgspec.Struct, frozen=True):
    """What the gateway needs of a completion; everything else is forwarded unread."""

    choices: list[AnswerChoice]
    id: str | None = None
    usage: msgspec.Raw = msgspec.Raw()
    service_tier: str | None = None


Count = Annotated[int, msgspec.Meta(ge=0, le=COUNT_MAX)] | None


class PromptDetails(msgspec.Struct):
    cached_tokens: Count = None
    cache_write_tokens: Count = None
    cache_creation_input_tokens: Count = None
    cache_creation_tokens: Count = None
    audio_tokens: Count = None


class CompletionDetails(msgspec.Struct):
    reasoning_tokens: Count = None
    audio_tokens: Count = None
    image_tokens: Count = None


class ToolCounts(msgspec.Struct):
    """What the provider ran on its side, as OpenRouter reports it, and we do."""

    web_search_requests: Count = None


class UsageBody(msgspec.Struct):
    """The fields that decide charges, in all the spellings that `UsageRules` may name."""

    prompt_tokens: Count = None
    completion_tokens: Count = None
    total_tokens: Count = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None
    cached_tokens: Count = None
    num_cached_tokens: Count = None
    prompt_cache_hit_tokens: Count = None
    cache_read_input_tokens: Count = None
    cache_creation_input_tokens: Count = None
    reasoning_tokens: Count = None
    server_tool_use: ToolCounts | None = None
    service_tier: str | None = None


class ChunkChoice(msgspec.Struct):
    delta: dict[str, Any] | None = None
    finish_reason: str | None = None
    native_finish_reason: str | None = None
    usage: msgspec.Raw = msgspec.Raw()
    index: int | None = None


class Chunk(msgspec.Struct):
    id: str | None = None
    created: int | float | None = None
    model: str | None = None
    choices: list[ChunkChoice] | None = None
    usage: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()
    service_tier: str | None = None
