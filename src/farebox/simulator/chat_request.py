"""The shape of an OpenAI chat completion request, as strict as OpenAI's own at the top level. Data."""

from typing import Annotated, Any, Literal

import msgspec

CHOICES_MAX = 128
ABSENT = msgspec.Raw(b"")
"""A field of any JSON that was not sent; msgspec takes no union with `Raw`."""
_EMPTY_SCHEMA = msgspec.Raw(b"{}")

Unit = Annotated[float, msgspec.Meta(ge=0, le=1)]
Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class Part(msgspec.Struct, tag_field="type"):
    pass


class Text(Part, tag="text"):
    text: str


class Refused(Part, tag="refusal"):
    refusal: str


class Url(msgspec.Struct):
    url: str
    detail: str | None = None


class Image(Part, tag="image_url"):
    image_url: Url


class AudioData(msgspec.Struct):
    data: str
    format: str


class Audio(Part, tag="input_audio"):
    input_audio: AudioData


class FileData(msgspec.Struct):
    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class File(Part, tag="file"):
    file: FileData


Content = str | list[Text | Refused | Image | Audio | File]


class Function(msgspec.Struct):
    name: str
    arguments: str


class Call(msgspec.Struct, omit_defaults=True):
    id: str
    type: str
    function: Function | None = None
    custom: msgspec.Raw = ABSENT


class Message(msgspec.Struct, tag_field="role"):
    pass


class System(Message, tag="system"):
    content: Content
    name: str | None = None


class Developer(Message, tag="developer"):
    content: Content
    name: str | None = None


class User(Message, tag="user"):
    content: Content
    name: str | None = None


class Assistant(Message, tag="assistant"):
    content: Content | None = None
    tool_calls: list[Call] | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    name: str | None = None
    prefix: bool = False
    """Mistral, DeepSeek: the model goes on with this last turn; `partial` at Moonshot and Alibaba."""
    partial: bool = False


class ToolResult(Message, tag="tool"):
    content: Content
    tool_call_id: str


class FunctionResult(Message, tag="function"):
    content: str | None
    name: str


AnyMessage = System | Developer | User | Assistant | ToolResult | FunctionResult


class FunctionTool(msgspec.Struct):
    name: Annotated[str, msgspec.Meta(pattern="^[a-zA-Z0-9_.:-]{1,128}$")]
    description: str | None = None
    parameters: msgspec.Raw = _EMPTY_SCHEMA
    strict: bool | None = None


class ToolSpec(msgspec.Struct):
    type: str
    function: FunctionTool | None = None
    custom: msgspec.Raw = ABSENT


class Named(msgspec.Struct):
    name: str


class Forced(msgspec.Struct):
    type: str
    function: Named | None = None
    allowed_tools: dict[str, Any] | None = None


class Schema(msgspec.Struct):
    name: str
    schema: msgspec.Raw = _EMPTY_SCHEMA
    description: str | None = None
    strict: bool | None = None


class Format(msgspec.Struct):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: Schema | None = None


class StreamOptions(msgspec.Struct):
    include_usage: bool = False
    include_obfuscation: bool | None = None


class Thinking(msgspec.Struct):
    type: str = "enabled"


class ChatRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The fields of OpenAI's own reference; the values that the simulator does not act on stay raw."""

    model: str
    messages: list[AnyMessage]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=CHOICES_MAX)] | None = None
    tools: list[ToolSpec] | None = None
    tool_choice: Literal["none", "auto", "required"] | Forced | None = None
    parallel_tool_calls: bool | None = None
    response_format: Format | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    stop: str | list[str] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Unit | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: dict[str, float] | None = None
    seed: int | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast"] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    modalities: list[str] | None = None
    audio: msgspec.Raw = ABSENT
    prediction: msgspec.Raw = ABSENT
    web_search_options: msgspec.Raw = ABSENT
    moderation: msgspec.Raw = ABSENT
    prompt_cache_key: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    prompt_cache_options: msgspec.Raw = ABSENT
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None
    function_call: msgspec.Raw = ABSENT
    functions: msgspec.Raw = ABSENT


class LenientRequest(ChatRequest, forbid_unknown_fields=False):
    """What a compatible vendor takes: the same, with extensions."""

    thinking: Thinking | None = None
    enable_thinking: bool | None = None
    continue_final_message: bool = False
    """vLLM's way to say that the last turn is to be gone on with."""
