"""How much to think: efforts, token budgets, and what one becomes where only the other exists.

A budget is a wish about effort. On a wire without budgets it becomes the nearest effort; an effort becomes a share of the
output cap (compat.md §1, OpenRouter's shares). `max` and `xhigh` are two vendors' names for the top.
"""

from farebox.wires.neutral import ReasoningRequest

SHARES_PERCENT: dict[str, int] = {"max": 95, "xhigh": 95, "high": 80, "medium": 50, "low": 20, "minimal": 10}
BUDGET_TOKENS_MIN = 1024
"""Anthropic refuses a smaller thinking budget."""
_LOW_PERCENT_MAX, _MEDIUM_PERCENT_MAX = 35, 65
"""Half-way between the shares of two efforts."""
_LOW_TOKENS_MAX, _MEDIUM_TOKENS_MAX = 2048, 8192
"""The same without an output cap to compare with."""
_SYNONYMS = {"max": "xhigh", "xhigh": "max"}


def effort_of(asked: ReasoningRequest, output_cap: int | None) -> str | None:
    """The effort that was asked for, or the nearest to the budget; None when the client left it to the model."""
    if asked.enabled is False:
        return "none"
    if asked.effort is not None:
        return asked.effort
    if asked.budget_tokens is None:
        return None
    if output_cap is None:
        low, medium, measure = _LOW_TOKENS_MAX, _MEDIUM_TOKENS_MAX, asked.budget_tokens
    else:
        low, medium, measure = _LOW_PERCENT_MAX, _MEDIUM_PERCENT_MAX, asked.budget_tokens * 100 // output_cap
    return "low" if measure <= low else "medium" if measure <= medium else "high"


def budget_of(asked: ReasoningRequest, output_cap: int) -> int | None:
    """The budget that was asked for, or the effort's share of the cap; None for an effort with no known share."""
    if asked.budget_tokens is not None:
        return asked.budget_tokens
    share = SHARES_PERCENT.get(asked.effort or "medium")
    return None if share is None else max(output_cap * share // 100, BUDGET_TOKENS_MIN)


def accepted(effort: str, efforts: tuple[str, ...]) -> str | None:
    """The name under which a model that lists `efforts` knows this one; None when it does not. An empty list accepts all."""
    if not efforts or effort in efforts:
        return effort
    synonym = _SYNONYMS.get(effort)
    return synonym if synonym in efforts else None
