"""`model: "auto"`: easy requests to a cheap model, hard ones to a strong one, without any configuration. Pure.

`[policies.auto]` of the configuration takes the place of all this. Without it, the models of each tier are the first of a shipped
list that can be called; where none can, those of the nearest tier; and where nobody on the lists can be called, an operator's own
models are split by price.
"""

from collections.abc import Collection, Sequence

from farebox.routing.complexity.classify import assess
from farebox.routing.complexity.weights import TIERS
from farebox.routing.policy import AUTO, EXAMPLES, Decisions, Policy

COMPLEXITY = "complexity"
DECISIONS = {name: Decisions(lambda call: assess(call).tier, TIERS) for name in (COMPLEXITY, EXAMPLES)}
"""What policies may choose their models by. Examples are looked at before the plan is made, off the event loop
(`farebox.sorting`); where that was not done, the classifier decides."""
MODELS_PER_TIER = 3

SHIPPED: dict[str, tuple[str, ...]] = {
    "easy": (
        "google/gemini-3.5-flash-lite", "openai/gpt-5.4-nano", "anthropic/claude-haiku-5.5", "mistral/mistral-small-4",
        "deepseek/deepseek-v4.1-flash", "zai/glm-5.3-flash", "xai/grok-4.3",
    ),
    "medium": (
        "google/gemini-3.8-flash", "openai/gpt-5.4-mini", "anthropic/claude-sonnet-5.5", "deepseek/deepseek-v4-pro",
        "mistral/mistral-medium-3.5", "moonshotai/kimi-k3", "zai/glm-5.3", "xai/grok-4.5",
    ),
    "hard": (
        "anthropic/claude-opus-5.5", "openai/gpt-5.5", "google/gemini-3.1-pro-preview", "xai/grok-4.7",
        "moonshotai/kimi-k3.1-pro", "deepseek/deepseek-v4-pro-0813", "mistral/mistral-large-4", "zai/glm-5.3",
    ),
}  # fmt: skip
"""By tier, the likeliest choice first. Chosen by price and by what their vendors say they are for."""


def automatic(callable_slugs: Collection[str], cheapest_first: Sequence[str]) -> Policy | None:
    """The policy behind `auto`; None when nothing can be called. `cheapest_first` are the callable models by price."""
    found = {tier: _first(names, callable_slugs) for tier, names in SHIPPED.items()}
    if not any(found.values()):
        found = _by_price(cheapest_first)
    branches = {tier: found[tier] or _nearest(tier, found) for tier in TIERS}
    return Policy(AUTO, decision=COMPLEXITY, branches=branches) if all(branches.values()) else None


def _first(names: Sequence[str], callable_slugs: Collection[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name in callable_slugs)[:MODELS_PER_TIER]


def _by_price(slugs: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The cheapest for what is easy, the dearest for what is hard, and the ones in the middle."""
    if not slugs:
        return dict.fromkeys(TIERS, ())
    middle = len(slugs) // 2
    places = (slugs[:MODELS_PER_TIER], slugs[middle : middle + MODELS_PER_TIER], tuple(reversed(slugs))[:MODELS_PER_TIER])
    return {tier: tuple(place) for tier, place in zip(TIERS, places, strict=True)}


def _nearest(tier: str, found: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """What a stronger tier has, or else a weaker one."""
    place = TIERS.index(tier)
    for other in (*TIERS[place + 1 :], *reversed(TIERS[:place])):
        if found[other]:
            return found[other]
    return ()
