"""The neutral forms: what a conversation, a completion and a stream are, whatever wire they came by.

Every wire translates to and from these, so N wires give N×N translations. They describe meaning, not spelling: a wire
module owns the spelling. Requests are a `Conversation`, whole answers a `Completion`, streams a series of `Event`s,
and failures an `UpstreamError`. Nothing here reads or writes bytes.

Two fields look unusual and carry the promises of the translation:

- `path` on parts and tools is where the client put them (`messages[2].content[1]`), so that a part which the target cannot
  take is named in the client's own terms. It has no meaning of its own.
- `Opaque` keeps what only one wire understands (provider-run tools and their results) as it came: written back verbatim on
  the same wire, reported as unsupported on any other.

Cache marks and cache keys are hints to a vendor's price list; a vendor that has no such hint loses nothing but them, so
they are the one thing that may be left out without a word.
"""

from typing import Literal

import msgspec

from farebox.wires.usage import UsageReport

ANTHROPIC_FORMAT = "anthropic-claude-v1"
"""`format` of thinking signed by Claude, the name that OpenRouter gave it; see providers.md §1.7."""

WireName = Literal["openai_chat", "anthropic_messages"]
CacheTtl = Literal["5m", "1h"]


class CacheMark(msgspec.Struct, frozen=True):
    """The prompt up to and including this part should be cached."""

    ttl: CacheTtl = "5m"


class Citation(msgspec.Struct, frozen=True):
    """Evidence for a stretch of an answer."""

    url: str | None = None
    title: str | None = None
    cited_text: str | None = None
    start: int | None = None
    """Span in the whole answer text, in characters, where the wire tells (OpenAI)."""
    end: int | None = None
    wire: WireName | None = None
    raw: bytes = b""
    """The citation as its own wire wrote it, a JSON object: kept for the same wire."""


class Text(msgspec.Struct, frozen=True, tag=True):
    text: str
    cache: CacheMark | None = None
    citations: tuple[Citation, ...] = ()


class Image(msgspec.Struct, frozen=True, tag=True):
    """By `url`, by base64 `data` with its `media_type`, or by a vendor's `file_id`."""

    url: str | None = None
    data: str | None = None
    media_type: str | None = None
    file_id: str | None = None
    detail: str | None = None
    cache: CacheMark | None = None
    path: str = ""


class Document(msgspec.Struct, frozen=True, tag=True):
    """Exactly one of `data` (base64), `url`, `text`, `file_id`, `blocks` (Anthropic's content source, a JSON array)."""

    data: str | None = None
    url: str | None = None
    text: str | None = None
    file_id: str | None = None
    blocks: bytes | None = None
    media_type: str | None = None
    name: str | None = None
    context: str | None = None
    citations: bool = False
    cache: CacheMark | None = None
    path: str = ""


class Audio(msgspec.Struct, frozen=True, tag=True):
    """Base64 `data` (or a URL, which Mistral takes) and its container format."""

    data: str
    format: str | None = None
    path: str = ""


class ToolUse(msgspec.Struct, frozen=True, tag=True):
    """The model calls a tool. `arguments` is JSON text as the model wrote it; for a custom tool, free text."""

    id: str
    name: str
    arguments: str
    custom: bool = False
    cache: CacheMark | None = None
    extra: dict[str, msgspec.Raw] = {}
    """Vendor additions to the call, as they came."""
    signature: str | None = None
    """What the vendor signed the call with, and wants back with it (Gemini)."""
    signer: str = ""
    """Who signed it, where the client's wire tells; see `ModelTraits.signer`."""
    path: str = ""


class Reasoning(msgspec.Struct, frozen=True, tag=True):
    """A stretch of thinking. `redacted` holds opaque data instead of text; `signature` is bound to whom `format` names."""

    text: str = ""
    signature: str | None = None
    redacted: str | None = None
    summary: bool = False
    format: str | None = None
    id: str | None = None
    index: int | None = None

    @property
    def signed(self) -> bool:
        return bool(self.signature) or self.redacted is not None


class Refusal(msgspec.Struct, frozen=True, tag=True):
    text: str


class Opaque(msgspec.Struct, frozen=True, tag=True):
    """A block that only `wire` understands: a JSON object of type `kind`, verbatim."""

    wire: WireName
    kind: str
    raw: bytes
    path: str = ""


class ToolResult(msgspec.Struct, frozen=True, tag=True):
    """What the client's tool answered to the call `id`."""

    id: str
    parts: "tuple[Text | Image | Document | Opaque, ...]"
    is_error: bool = False
    cache: CacheMark | None = None
    path: str = ""


Part = Text | Image | Document | Audio | ToolUse | ToolResult | Reasoning | Refusal | Opaque


class SystemBlock(msgspec.Struct, frozen=True):
    """One text block of the instructions. Blocks of one client message share `group`."""

    text: str
    cache: CacheMark | None = None
    developer: bool = False
    group: int = 0


class Message(msgspec.Struct, frozen=True):
    """A turn. `system` stands only for instructions given in the middle of the conversation; leading ones are `SystemBlock`s."""

    role: Literal["user", "assistant", "system"]
    parts: tuple[Part, ...]
    name: str | None = None
    path: str = ""


class FunctionTool(msgspec.Struct, frozen=True, tag=True):
    """`schema` is the JSON Schema of the arguments, a JSON object, or None when the client gave none."""

    name: str
    description: str | None = None
    schema: bytes | None = None
    strict: bool | None = None
    cache: CacheMark | None = None
    extra: dict[str, msgspec.Raw] = {}
    path: str = ""


class CustomTool(msgspec.Struct, frozen=True, tag=True):
    """A tool whose input is free text, optionally bound by a grammar (OpenAI)."""

    name: str
    description: str | None = None
    format: bytes | None = None
    path: str = ""


Tool = FunctionTool | CustomTool | Opaque


class ToolChoice(msgspec.Struct, frozen=True):
    """`allowed` is OpenAI's `allowed_tools` object, verbatim, with `mode` "allowed"."""

    mode: Literal["auto", "none", "required", "named", "allowed"]
    name: str | None = None
    custom: bool = False
    allowed: bytes | None = None


class ResponseFormat(msgspec.Struct, frozen=True):
    kind: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema: bytes | None = None
    strict: bool | None = None


class ReasoningRequest(msgspec.Struct, frozen=True):
    """How the client asked for thinking; `field` is the name it used."""

    field: str
    effort: str | None = None
    budget_tokens: int | None = None
    enabled: bool | None = None
    adaptive: bool = False
    exclude: bool = False
    extra: dict[str, msgspec.Raw] = {}
    """Members of the client's object that have no neutral meaning, e.g. Z.AI's `clear_thinking`."""


Number = int | float


class Params(msgspec.Struct, frozen=True, omit_defaults=True):
    """Settings of the call. None: the client said nothing."""

    output_cap: int | None = None
    output_cap_field: str | None = None
    """The name the client used, so that `as_sent` dialects see it again."""
    temperature: Number | None = None
    top_p: Number | None = None
    top_k: int | None = None
    stop: tuple[str, ...] | None = None
    n: int | None = None
    seed: int | None = None
    presence_penalty: Number | None = None
    frequency_penalty: Number | None = None
    logit_bias: bytes | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    response_format: ResponseFormat | None = None
    reasoning: ReasoningRequest | None = None
    parallel_tools: bool | None = None
    user: str | None = None
    metadata: bytes | None = None
    """Key–value pairs other than the end user's id, a JSON object."""
    service_tier: str | None = None


class Conversation(msgspec.Struct, frozen=True):
    """A request, without its model and delivery (`model`, `stream`), which belong to the call."""

    wire: WireName
    """The wire the client spoke: field names in complaints are its names."""
    messages: tuple[Message, ...]
    system: tuple[SystemBlock, ...] = ()
    tools: tuple[Tool, ...] | None = None
    tool_choice: ToolChoice | None = None
    params: Params = Params()
    extra: dict[str, msgspec.Raw] = {}
    """Top-level fields with no neutral meaning, by name, as they came."""


class ModelTraits(msgspec.Struct, frozen=True):
    """What a translation must know of the target model. The defaults fit a current model; None fields mean unknown."""

    thinking: Literal["adaptive", "budget", "none"] = "adaptive"
    """Claude: whether thinking is asked for by effort, by a token budget, or not at all."""
    efforts: tuple[str, ...] = ()
    """Efforts that the model accepts; empty: not known, so any is sent."""
    sampling: bool = True
    """False: `temperature`, `top_p` and `top_k` are refused (Claude 5, Opus 4.7 and later)."""
    prefill: bool = True
    """False: a final assistant turn is refused."""
    reasoning_format: str | None = ANTHROPIC_FORMAT
    """Signed thinking of this format may be sent back to the target; any other is left out."""
    signer: str = ""
    """The target, as provider and model: calls that it signed are sent back to it with their signatures."""


FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "pause", "error"]
"""`pause`: the provider wants the turn sent back to go on (Anthropic's `pause_turn`)."""


class Choice(msgspec.Struct, frozen=True):
    index: int
    parts: tuple[Part, ...]
    finish: FinishReason
    native_finish: str | None = None
    stop_sequence: str | None = None
    stop_details: bytes | None = None
    logprobs: bytes | None = None


class Completion(msgspec.Struct, frozen=True):
    """A whole answer. `id`, `model` and `created` are the upstream's own."""

    choices: tuple[Choice, ...]
    usage: UsageReport
    id: str | None = None
    model: str | None = None
    created: int | None = None
    service_tier: str | None = None


FailureKind = Literal[
    "caller", "context_length", "content_policy", "credentials", "provider_balance", "rate_limit",
    "overloaded", "server", "timeout", "not_found", "unknown",
]  # fmt: skip
"""Whose fault it is and what to do: `caller`, `context_length`, `content_policy` are the customer's to mend; `credentials`
and `provider_balance` concern our account with the provider, never the customer; the others may pass elsewhere or later."""

MESSAGE_BYTES_MAX = 2048
"""A provider's error text is kept up to here."""


class UpstreamError(msgspec.Struct, frozen=True):
    """What a provider answered instead of a completion."""

    kind: FailureKind
    status: int
    """HTTP status, or the one the body claims when it came inside a 200."""
    message: str
    provider_code: str | None = None
    retry_after_s: float | None = None
    should_retry: bool | None = None
    """The provider's word or rule on retrying the same provider; None: judge by kind."""
    param: str | None = None
    """The field that the provider complains of, in its words."""


class UpstreamFailure(Exception):
    """An answer with a success status that is a failure (`Dialect.error_in_200`)."""

    def __init__(self, error: UpstreamError) -> None:
        super().__init__(error.message)
        self.error = error


class UpstreamGarbage(Exception):
    """An answer with a success status that is not the wire's shape. `str()` says what was wrong, without content."""


class Start(msgspec.Struct, frozen=True, tag=True):
    """The stream has begun. Fields as the upstream named them, None when unknown."""

    id: str | None = None
    model: str | None = None
    created: int | None = None
    service_tier: str | None = None


class TextDelta(msgspec.Struct, frozen=True, tag=True):
    text: str
    index: int = 0
    """The choice, here and below."""


class ReasoningDelta(msgspec.Struct, frozen=True, tag=True):
    text: str
    index: int = 0
    summary: bool = False
    format: str | None = None
    id: str | None = None
    detail: int | None = None
    """Which stretch of thinking, in order; None when the upstream does not number them."""


class ReasoningSignature(msgspec.Struct, frozen=True, tag=True):
    """Signs the current stretch of thinking."""

    signature: str
    index: int = 0
    format: str | None = None
    id: str | None = None
    detail: int | None = None


class RedactedReasoning(msgspec.Struct, frozen=True, tag=True):
    data: str
    index: int = 0
    format: str | None = None
    id: str | None = None
    detail: int | None = None


class ToolStart(msgspec.Struct, frozen=True, tag=True):
    """`tool` numbers the calls of one choice from 0, in order of appearance."""

    tool: int
    id: str
    name: str
    index: int = 0
    custom: bool = False
    signature: str | None = None
    """See `ToolUse.signature`."""


class ToolSignature(msgspec.Struct, frozen=True, tag=True):
    """The signature of a call that was begun without one."""

    tool: int
    id: str
    signature: str
    index: int = 0


class ToolArgumentsDelta(msgspec.Struct, frozen=True, tag=True):
    tool: int
    text: str
    index: int = 0


class PartEnd(msgspec.Struct, frozen=True, tag=True):
    """The upstream closed a text, thinking or tool block; later text belongs to a new one. Not every wire says so."""

    index: int = 0


class CitationDelta(msgspec.Struct, frozen=True, tag=True):
    citation: Citation
    index: int = 0


class RefusalDelta(msgspec.Struct, frozen=True, tag=True):
    text: str
    index: int = 0


class LogprobsDelta(msgspec.Struct, frozen=True, tag=True):
    """Log-probabilities (JSON) of the text that follows."""

    raw: bytes
    index: int = 0


class OpaqueBlock(msgspec.Struct, frozen=True, tag=True):
    """A whole block that only its own wire understands."""

    block: Opaque
    index: int = 0


class Finish(msgspec.Struct, frozen=True, tag=True):
    reason: FinishReason
    native: str | None = None
    stop_sequence: str | None = None
    index: int = 0
    stop_details: bytes | None = None


class UsageSeen(msgspec.Struct, frozen=True, tag=True):
    """The counts as known now: cumulative, so the last one wins."""

    report: UsageReport
    beginning: bool = False
    """Said at the start of the answer: the input is exact, the output no more than a beginning, and no bill is made of it."""


class StreamError(msgspec.Struct, frozen=True, tag=True):
    """The provider failed inside the stream; nothing follows."""

    error: UpstreamError


class Done(msgspec.Struct, frozen=True, tag=True):
    """The wire's terminal marker: the stream is complete."""


class Ping(msgspec.Struct, frozen=True, tag=True):
    pass


Event = (
    Start | TextDelta | ReasoningDelta | ReasoningSignature | RedactedReasoning | ToolStart | ToolSignature | ToolArgumentsDelta
    | PartEnd | CitationDelta | RefusalDelta | LogprobsDelta | OpaqueBlock | Finish | UsageSeen | StreamError | Done | Ping
)  # fmt: skip
