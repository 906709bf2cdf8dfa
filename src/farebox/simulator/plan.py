"""Decides the whole answer before its first byte: every token, why it ends, and what it costs. Pure.

`plan` is a function of the seed, the prompt's content, the orders and the cache: the same conversation gets the same words on
either wire, streamed or not.
"""

from typing import Literal

import msgspec

from farebox.simulator.config import ANSWER_TOKENS_MAX, ANSWER_TOKENS_MIN
from farebox.simulator.directives import Directives
from farebox.simulator.prefixes import Cached
from farebox.simulator.request import Request, Tool
from farebox.simulator.schemas import instance
from farebox.simulator.words import digest, pieces, words, words_of
from farebox.wires.usage import Usage

THOUGHT_TOKENS_SPAN = 33
"""A thought has 8 to 40 words unless told otherwise."""
REFUSAL_WORDS = ("I", " cannot", " help", " with", " that", ".")

_RATE = b"Rate from 0 to 100"
"""How a question begins that asks for a number and nothing else."""

Finish = Literal["end", "limit", "tool", "filter", "refusal", "stop_sequence"]
_encode = msgspec.json.Encoder().encode


class Segment(msgspec.Struct, frozen=True):
    """A run of tokens of one kind. A tool call costs one token more than its arguments: the one that names the tool."""

    kind: Literal["thinking", "text", "tool", "refusal"]
    tokens: tuple[str, ...]
    """An empty string is a token that was generated, billed and not shown (a stop sequence's)."""
    tool: str = ""

    @property
    def text(self) -> str:
        return "".join(self.tokens)

    @property
    def cost(self) -> int:
        return len(self.tokens) + (self.kind == "tool")


class Choice(msgspec.Struct, frozen=True):
    """One alternative answer."""

    segments: tuple[Segment, ...]
    finish: Finish
    stop_sequence: str | None = None


class Plan(msgspec.Struct, frozen=True):
    """The answer and its true usage."""

    choices: tuple[Choice, ...]
    prompt: Usage
    """The input side alone."""
    usage: Usage
    thinking: Literal["off", "counted", "omitted", "shown"]


def prompt_usage(request: Request, orders: Directives, cached: Cached) -> Usage:
    """The prompt in disjoint classes; orders on the cache are bounded by the prompt's size."""
    total = request.prompt_tokens if orders.prompt is None else orders.prompt
    audio = min(request.audio_tokens, total)
    rest = total - audio
    classes: list[int] = []
    ordered = any(order is not None for order in (orders.cached, orders.cache_write, orders.cache_write_1h))
    wanted = (
        (orders.cached or 0, orders.cache_write or 0, orders.cache_write_1h or 0)
        if ordered
        else (cached.read, cached.write_5m, cached.write_1h)
    )
    for count in wanted:
        classes.append(min(count, rest))
        rest -= classes[-1]
    return Usage(
        input=rest, cache_read=classes[0], cache_write_5m=classes[1], cache_write_1h=classes[2], audio_input=audio
    )


def plan(
    request: Request, orders: Directives, seed: int, cached: Cached, answer_tokens_max: int = ANSWER_TOKENS_MAX
) -> Plan:
    """The answer to `request` under `orders`."""
    prompt = prompt_usage(request, orders, cached)
    # A prefill is part of the answer, not of what is answered: the model goes on as it would have gone on by itself.
    asked = request.blocks[: len(request.blocks) - request.prefill_blocks]
    key = digest(seed, *(block.content for block in asked))
    thinking = request.thinking
    if orders.thinking is not None:
        thinking = "omitted" if thinking == "omitted" else "shown" if orders.thinking else "off"
    choices = tuple(
        _choice(
            request, orders, digest(seed, key.to_bytes(8, "big"), index.to_bytes(4, "big")), thinking != "off", answer_tokens_max
        )
        for index in range(request.choices)
    )
    segments = [segment for choice in choices for segment in choice.segments]
    usage = msgspec.structs.replace(
        prompt,
        output=sum(segment.cost for segment in segments if segment.kind != "thinking"),
        reasoning=sum(segment.cost for segment in segments if segment.kind == "thinking"),
    )
    return Plan(choices, prompt, usage, thinking)


def _choice(request: Request, orders: Directives, key: int, thinks: bool, answer_tokens_max: int) -> Choice:
    segments: list[Segment] = []
    if thinks:
        count = orders.thinking if orders.thinking is not None else ANSWER_TOKENS_MIN + (key >> 8) % THOUGHT_TOKENS_SPAN
        if request.thinking_limit is not None:
            count = min(count, request.thinking_limit)
        segments.append(Segment("thinking", tuple(words(key ^ 1, count))))
    called = _called(request, orders)
    stop: str | None = None
    if called:
        segments.extend(_call(tool, key + at) for at, tool in enumerate(called))
        finish: Finish = "tool"
    elif orders.rating is not None and request.blocks and _RATE in request.blocks[-1].content:
        segments.append(Segment("text", (str(orders.rating), "%")))
        finish = "end"
    elif orders.refusal:
        segments.append(Segment("refusal", REFUSAL_WORDS))
        finish = "refusal"
    else:
        text, stop = _until_stop(_text(request, orders, key, answer_tokens_max), request.stops)
        finish = "end" if stop is None else "stop_sequence"
        if orders.content_filter:
            text, finish, stop = text[: len(text) // 2], "filter", None
        segments.append(Segment("text", text))
    kept, cut = _within(segments, request.limit)
    return Choice(kept, "limit", None) if cut else Choice(kept, finish, stop)


def _called(request: Request, orders: Directives) -> list[Tool]:
    """Which tools the model calls: what it must, what it was ordered to, or the first on offer, once."""
    if not request.tools or request.tool_choice == "none":
        return []
    if isinstance(request.tool_choice, Tool):
        return [request.tool_choice] * (max(orders.tools or 1, 1) if request.parallel else 1)
    count = orders.tools
    if count is None:
        count = 0 if request.after_tool_results else 1
    if request.tool_choice == "required":
        count = max(count, 1)
    if not request.parallel:
        count = min(count, 1)
    return [request.tools[at % len(request.tools)] for at in range(count)]


def _call(tool: Tool, key: int) -> Segment:
    schema = msgspec.json.decode(tool.schema)
    arguments = instance(schema, key)
    if not isinstance(arguments, dict):
        arguments = {}
    return Segment("tool", tuple(pieces(_encode(arguments).decode())), tool.name)


def _text(request: Request, orders: Directives, key: int, answer_tokens_max: int) -> tuple[str, ...]:
    if request.instance_of is not None:
        schema = msgspec.json.decode(request.instance_of)
        value = instance(schema, key) if schema else {"answer": words(key, 1)[0]}
        return tuple(pieces(_encode(value).decode()))
    span = answer_tokens_max - ANSWER_TOKENS_MIN + 1
    count = orders.tokens if orders.tokens is not None else ANSWER_TOKENS_MIN + key % span
    if request.limit is not None:
        # One more than fits, so that the cut is noticed; a word of a prefill has a character at least.
        count = min(count, request.limit + 1 + len(request.prefill))
    tokens = words(key, count)
    if orders.big_event is not None and tokens:
        tokens[0] = "x" * orders.big_event
    if not request.prefill:
        return tuple(tokens)
    again = words_of(request.prefill) if orders.repeat_prefill else ()
    return (*again, *_behind(tokens, request.prefill))


def _behind(tokens: list[str], prefill: str) -> list[str]:
    """The tokens that follow a prefill; all of them behind words that this model would not have said."""
    text = "".join(tokens)
    if not text.startswith(prefill):
        return [] if prefill.startswith(text) else tokens
    position = 0
    for at, token in enumerate(tokens):
        position += len(token)
        if position > len(prefill):
            rest = token[len(token) - (position - len(prefill)) :]
            return [rest, *tokens[at + 1 :]]
    return []


def _until_stop(tokens: tuple[str, ...], stops: tuple[str, ...]) -> tuple[tuple[str, ...], str | None]:
    """The tokens up to the first stop sequence, which is generated and billed, but not shown."""
    if not stops:
        return tokens, None
    text = "".join(tokens)
    found = min(((at, stop) for stop in stops if (at := text.find(stop)) >= 0), default=None)
    if found is None:
        return tokens, None
    shown, stop = found
    end = shown + len(stop)
    kept: list[str] = []
    position = 0
    for token in tokens:
        if position >= end:
            break
        kept.append(token[: max(0, shown - position)])
        position += len(token)
    return tuple(kept), stop


def _within(segments: list[Segment], limit: int | None) -> tuple[tuple[Segment, ...], bool]:
    """The segments as far as the limit reaches, and whether it cut any."""
    if limit is None:
        return tuple(segments), False
    kept: list[Segment] = []
    left = limit
    for segment in segments:
        if segment.cost <= left:
            kept.append(segment)
            left -= segment.cost
            continue
        room = left - (segment.kind == "tool")
        if room >= 0 and left > 0:
            kept.append(msgspec.structs.replace(segment, tokens=segment.tokens[:room]))
        return tuple(kept), True
    return tuple(kept), False
