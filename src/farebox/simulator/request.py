"""A request as both wires mean it: what the plan of an answer needs, and nothing of how it was spoken. Pure.

The prompt is counted by one rule, simple enough to check by hand:

- a text costs `ceil(UTF-8 bytes / 4)` tokens, a tool's definition or call likewise by the bytes of its JSON;
- every message costs `MESSAGE_TOKENS` more, every request `REQUEST_TOKENS` more;
- an image costs `IMAGE_TOKENS`, a PDF `PDF_TOKENS`, a piece of audio `AUDIO_TOKENS`, whatever its size;
- the texts of a request never cost more tokens than its body has bytes.
"""

from typing import Literal

import msgspec

from farebox.simulator.refusals import Wire

MESSAGE_TOKENS = 3
REQUEST_TOKENS = 3
IMAGE_TOKENS = 765
PDF_TOKENS = 1500
AUDIO_TOKENS = 100

Ttl = Literal["5m", "1h"]


def text_tokens(size_bytes: int) -> int:
    return -(-size_bytes // 4)


class Block(msgspec.Struct, frozen=True):
    """A stretch of the prompt, in the order in which caches see it: tools, system, messages."""

    content: bytes
    """What stands there, for digests; media by their reference or data."""
    tokens: int
    audio_tokens: int = 0
    media: bool = False
    """Counted by a fixed price, hence outside the bound by the body's size."""
    cache: Ttl | None = None
    """A cache breakpoint stands at its end."""


class Tool(msgspec.Struct, frozen=True):
    """A function that the model may call."""

    name: str
    schema: msgspec.Raw


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for. Field by field the neutral meaning; defaults are absent fields."""

    wire: Wire
    model: str
    stream: bool = False
    include_usage: bool = False
    blocks: tuple[Block, ...]
    body_bytes: int
    prefill: str = ""
    """The beginning of the answer, which the last turn brings for the model to go on with."""
    prefill_blocks: int = 0
    """How many of the last blocks are that turn's."""
    limit: int | None = None
    """The most tokens the answer may have, thinking included; per choice."""
    choices: int = 1
    tools: tuple[Tool, ...] = ()
    tool_choice: Literal["auto", "none", "required"] | Tool = "auto"
    """A `Tool` forces that one."""
    parallel: bool = True
    after_tool_results: bool = False
    """The last turn brings tool results: the model answers in words unless told otherwise."""
    thinking: Literal["off", "counted", "omitted", "shown"] = "off"
    """`counted`: billed, not returned; `omitted`: returned without its text, signed."""
    thinking_limit: int | None = None
    instance_of: msgspec.Raw | None = None
    """A JSON schema that the answer must be an instance of; `{}` in plain JSON mode."""
    stops: tuple[str, ...] = ()
    logprobs: int | None = None
    """How many alternatives to report per token; None reports no probabilities."""

    @property
    def prompt_tokens(self) -> int:
        """By the rule at the head of this module; audio included."""
        texts = sum(block.tokens for block in self.blocks if not block.media)
        fixed = sum(block.tokens for block in self.blocks if block.media)
        return min(texts + REQUEST_TOKENS, self.body_bytes) + fixed + self.audio_tokens

    @property
    def audio_tokens(self) -> int:
        return sum(block.audio_tokens for block in self.blocks)
