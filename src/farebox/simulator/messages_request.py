"""The shape of an Anthropic Messages request, as strict as Anthropic's own: unknown fields are errors everywhere. Data."""

from typing import Annotated, Any, Literal

import msgspec

Count = Annotated[int, msgspec.Meta(ge=1)]
Unit = Annotated[float, msgspec.Meta(ge=0, le=1)]
ABSENT = msgspec.Raw(b"")
"""A field of any JSON that was not sent; msgspec takes no union with `Raw`."""
ToolId = Annotated[str, msgspec.Meta(pattern="^[a-zA-Z0-9_-]+$")]


class CacheControl(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] = "5m"


class Source(msgspec.Struct):
    """Of an image or a document: base64, url, text, content or file."""

    type: Literal["base64", "url", "text", "content", "file"]
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    file_id: str | None = None
    content: msgspec.Raw = ABSENT


class _Block(msgspec.Struct, tag_field="type", forbid_unknown_fields=True):
    pass


class Text(_Block, tag="text"):
    text: str
    cache_control: CacheControl | None = None
    citations: msgspec.Raw = ABSENT


class Image(_Block, tag="image"):
    source: Source
    cache_control: CacheControl | None = None
    transformations: msgspec.Raw = ABSENT


class Document(_Block, tag="document"):
    source: Source
    cache_control: CacheControl | None = None
    citations: msgspec.Raw = ABSENT
    context: str | None = None
    title: str | None = None


class SearchResult(_Block, tag="search_result"):
    content: list[Text]
    source: str
    title: str
    cache_control: CacheControl | None = None
    citations: msgspec.Raw = ABSENT


class ToolUse(_Block, tag="tool_use"):
    id: ToolId
    name: str
    input: dict[str, Any]
    cache_control: CacheControl | None = None
    caller: msgspec.Raw = ABSENT
    toolset_name: str | None = None


class ToolResult(_Block, tag="tool_result"):
    tool_use_id: ToolId
    content: str | list[Text | Image | Document | SearchResult] = ""
    is_error: bool = False
    cache_control: CacheControl | None = None
    toolset_name: str | None = None


class Thinking(_Block, tag="thinking"):
    thinking: str
    signature: str


class RedactedThinking(_Block, tag="redacted_thinking"):
    data: str


AnyBlock = Text | Image | Document | SearchResult | ToolUse | ToolResult | Thinking | RedactedThinking


class Message(msgspec.Struct, forbid_unknown_fields=True):
    role: Literal["user", "assistant"]
    content: str | list[AnyBlock]


class ToolSpec(msgspec.Struct):
    """A custom tool, or (with another `type`) one that runs on the provider's side and is not called here."""

    name: Annotated[str, msgspec.Meta(pattern="^[a-zA-Z0-9_-]{1,128}$")]
    input_schema: msgspec.Raw = ABSENT
    type: str | None = None
    description: str = ""
    cache_control: CacheControl | None = None
    strict: bool | None = None


class ToolChoice(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool = False


class ThinkingConfig(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["enabled", "adaptive", "disabled", "between_tools"]
    budget_tokens: Annotated[int, msgspec.Meta(ge=1024)] | None = None
    display: Literal["summarized", "omitted"] | None = None


class OutputFormat(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["json_schema"]
    schema: msgspec.Raw


class OutputConfig(msgspec.Struct, forbid_unknown_fields=True):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None


class CountRequest(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /messages/count_tokens`: what makes up a prompt."""

    model: str
    messages: list[Message]
    system: str | list[Text] | None = None
    tools: list[ToolSpec] | None = None
    tool_choice: ToolChoice | None = None
    thinking: ThinkingConfig | None = None
    output_config: OutputConfig | None = None
    cache_control: CacheControl | None = None
    speed: str | None = None


class MessagesRequest(CountRequest, forbid_unknown_fields=True, kw_only=True):
    """`POST /messages`. The values that the simulator does not act on stay raw."""

    max_tokens: Count
    stream: bool = False
    stop_sequences: list[str] | None = None
    temperature: Unit | None = None
    top_p: Unit | None = None
    top_k: Annotated[int, msgspec.Meta(ge=0)] | None = None
    metadata: msgspec.Raw = ABSENT
    service_tier: Literal["auto", "standard_only"] | None = None
    container: msgspec.Raw = ABSENT
    context_management: msgspec.Raw = ABSENT
    mcp_servers: msgspec.Raw = ABSENT
    inference_geo: str | None = None
    diagnostics: msgspec.Raw = ABSENT
