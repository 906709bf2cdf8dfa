"""The evaluation: the classifier over labelled requests, with its hits, its misses and what they cost. Deterministic.

Costs are at list prices of the shipped catalog, for answers of the length usual for the label, whoever writes them: a cheap model
that answers a hard request badly is not dearer here, only counted as underserved.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from farebox.catalog import loader
from farebox.catalog.rates import Rates
from farebox.embedding.model import Model
from farebox.embedding.nearest import Examples
from farebox.money import PICO_PER_NANO, divide_half_even, format_amount
from farebox.routing.complexity.classify import Assessment, assess
from farebox.routing.complexity.weights import TIERS, WEIGHTS
from farebox.sorting import judged, said
from farebox.wires.call import Call
from farebox.wires.openai_chat.call import read_call

FOLDER = Path(__file__).parent
HALVES = ("dev", "test")
MODELS = {"easy": "anthropic/claude-haiku-5.5", "medium": "anthropic/claude-sonnet-5.5", "hard": "anthropic/claude-opus-5.5"}
"""Whom each tier would be answered by, of one vendor, so that only the size of the model differs."""
OUTPUT_TOKENS = {"easy": 100, "medium": 600, "hard": 1500}
"""The length of an answer, by label."""
BYTES_PER_TOKEN = 4
PRICE_DAY = "2026-11-23"


class Labelled(msgspec.Struct, frozen=True):
    """One request, and how hard a person judged it by docs/complexity.md's guideline."""

    label: str
    domain: str
    language: str
    messages: tuple[dict[str, Any], ...]
    tools: tuple[str, ...] = ()
    schema: bool = False
    max_tokens: int | None = None

    @property
    def call(self) -> Call:
        """It as a chat completion."""
        body: dict[str, Any] = {"model": "auto", "messages": self.messages}
        if self.tools:
            body["tools"] = [
                {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in self.tools
            ]
        if self.schema:
            body["response_format"] = {"type": "json_object"}
        if self.max_tokens is not None:
            body["max_tokens"] = self.max_tokens
        return read_call(msgspec.json.encode(body))

    @property
    def input_tokens(self) -> int:
        size = sum(len(str(message["content"]).encode()) for message in self.messages)
        return -(-size // BYTES_PER_TOKEN)


class Result(msgspec.Struct, frozen=True):
    """What became of one half."""

    requests: tuple[Labelled, ...]
    assessments: tuple[Assessment, ...]

    @property
    def confusion(self) -> Counter[tuple[str, str]]:
        """(label, tier) → requests."""
        return Counter((request.label, found.tier) for request, found in zip(self.requests, self.assessments, strict=True))

    @property
    def right(self) -> int:
        return sum(self.confusion[tier, tier] for tier in TIERS)

    @property
    def underserved(self) -> int:
        """Sent to a weaker tier than their label."""
        return sum(count for (label, tier), count in self.confusion.items() if TIERS.index(tier) < TIERS.index(label))

    def cost_nano(self, tiers: Sequence[str]) -> int:
        """The whole half, each request answered by the model of its tier."""
        pico = 0
        for request, tier in zip(self.requests, tiers, strict=True):
            rates = RATES[tier]
            pico += request.input_tokens * rates.input + OUTPUT_TOKENS[request.label] * rates.output
        return divide_half_even(pico, PICO_PER_NANO)


def _rates(slug: str) -> Rates:
    model = next(model for model in loader.load() if model.slug == slug)
    price = model.offers[0].price_on(PRICE_DAY)
    assert price is not None, f"{slug} has a price"
    return price.standard.rates


RATES = {tier: _rates(slug) for tier, slug in MODELS.items()}


def load(half: str) -> tuple[Labelled, ...]:
    """One half of the labelled requests: `dev`, with which the weights were fitted, or `test`."""
    decode = msgspec.json.Decoder(Labelled).decode
    return tuple(decode(line) for line in (FOLDER / f"{half}.jsonl").read_bytes().splitlines())


def evaluate(half: str) -> Result:
    requests = load(half)
    return Result(requests, tuple(assess(request.call) for request in requests))


def evaluate_examples() -> Result:
    """The test half, sorted by its likeness to the requests of the other half."""
    texts = {tier: [said(one.call) for one in load("dev") if one.label == tier] for tier in TIERS}
    examples = Examples(Model().embed, texts)
    requests = load("test")
    calls = [request.call for request in requests]
    return Result(requests, tuple(judged(call, examples.likeness(said(call))) for call in calls))


def examples_report() -> str:
    """The second confusion table of docs/routing.md."""
    result = evaluate_examples()
    strong = result.cost_nano(["hard"] * len(result.requests))
    cost = result.cost_nano([found.tier for found in result.assessments])
    return "\n".join([*confusion_table(result), "", f"Cost: {format_amount(cost)} USD, {_share(cost, strong)} of always strong."])


def confusion_table(result: Result) -> list[str]:
    """How many of each label were sorted into each tier."""
    total = len(result.requests)
    confusion = result.confusion
    lines = [
        f"{total} requests: {_share(result.right, total)} sorted as labelled, "
        f"{_share(result.underserved, total)} sent to a weaker tier than labelled.",
        "",
        "| labelled | " + " | ".join(f"sorted {tier}" for tier in TIERS) + " | of these right |",
        "|---|" + "--:|" * (len(TIERS) + 1),
    ]
    for label in TIERS:
        counts = [confusion[label, tier] for tier in TIERS]
        lines.append(f"| {label} | {' | '.join(map(str, counts))} | {_share(confusion[label, label], sum(counts))} |")
    return lines


def report(half: str) -> str:
    """The tables of docs/complexity.md."""
    result = evaluate(half)
    total = len(result.requests)
    lines = confusion_table(result)
    lines += ["", "| by | right | share |", "|---|--:|--:|"]
    for kind in ("language", "domain"):
        for value in sorted({getattr(request, kind) for request in result.requests}):
            picked = [
                found.tier == request.label
                for request, found in zip(result.requests, result.assessments, strict=True)
                if getattr(request, kind) == value
            ]
            lines.append(f"| {kind} {value} | {sum(picked)} of {len(picked)} | {_share(sum(picked), len(picked))} |")
    strong = result.cost_nano(["hard"] * total)
    ways = {
        f"always {MODELS['hard']}": ["hard"] * total,
        "sorted by the classifier": [found.tier for found in result.assessments],
        "sorted by the labels": [request.label for request in result.requests],
        f"always {MODELS['easy']}": ["easy"] * total,
    }
    lines += ["", "| answered | USD | of always strong | underserved |", "|---|--:|--:|--:|"]
    for name, tiers in ways.items():
        cost = result.cost_nano(tiers)
        under = sum(TIERS.index(tier) < TIERS.index(request.label) for request, tier in zip(result.requests, tiers, strict=True))
        lines.append(f"| {name} | {format_amount(cost)} | {_share(cost, strong)} | {_share(under, total)} |")
    return "\n".join(lines)


def _share(part: int, whole: int) -> str:
    """A percentage with one decimal, by integers."""
    return f"{divide_half_even(part * 1000, whole) // 10}.{divide_half_even(part * 1000, whole) % 10} %"


def misses(half: str) -> list[str]:
    """A line for every request that was sorted otherwise than labelled."""
    found: list[str] = []
    result = evaluate(half)
    for request, made in zip(result.requests, result.assessments, strict=True):
        if made.tier != request.label:
            text = str(request.messages[-1]["content"])[:80].replace("\n", " ")
            reasons = ", ".join(f"{reason.feature} {reason.points:+d}" for reason in made.reasons)
            found.append(f"{request.label} → {made.tier} ({made.score}; {reasons}): {text}")
    return found


def weights_table() -> str:
    """The published weights, as docs/complexity.md has them."""
    lines = ["| feature | points | at most | counts |", "|---|--:|--:|---|"]
    for name, weight in WEIGHTS.items():
        lines.append(f"| `{name}` | {weight.points:+d} | {weight.points * weight.most:+d} | {weight.meaning} |")
    return "\n".join(lines)
