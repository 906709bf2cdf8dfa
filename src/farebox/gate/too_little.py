"""The 402 in words: which limit a call does not fit, whose it is, what is spent or held by calls in flight, what would fit."""

from farebox.billing.books.periods import format_second
from farebox.billing.budgets import Budget, Scope, Window, window_end_us
from farebox.billing.holds import Insufficient
from farebox.errors import FareboxError, Kind
from farebox.gate.principal import Principal
from farebox.money import format_amount

OUTPUT_TOKENS_MIN = 1


def too_little(refusal: Insufficient, principal: Principal, tokens: int, now_us: int) -> FareboxError:
    """What the caller is told. `tokens` of output are what would fit; `now_us` is when the call was held."""
    scope = refusal.scope
    spent, held, limit = map(format_amount, (refusal.posted_nano, refusal.held_nano, refusal.limit_nano))
    need, left = format_amount(refusal.need_nano), format_amount(refusal.available_nano)
    budget = principal.covering.budgets.get(scope.owner) if scope.kind == "budget" else None
    window, zone = _window(scope, budget, principal)
    end_us = window_end_us(window, now_us, zone)
    resets = None if end_us is None else format_second(end_us)
    during = f" for {scope.window} in {zone}" if scope.window else ""
    fits = f"; `max_tokens` up to {tokens} would fit" if tokens >= OUTPUT_TOKENS_MIN else ""
    anew = f"; the next {window} begins at {resets}" if resets is not None else ""
    return FareboxError(
        Kind.INSUFFICIENT_QUOTA if scope.kind == "account" else Kind.BUDGET_EXCEEDED,
        f"this call may cost up to ${need}, and {_whose(scope, budget, principal)}{during} has ${left} left of ${limit}: "
        f"${spent} is spent, ${held} is only held by calls in flight{anew}{fits}",
        should_retry=False,
        details={
            "scope": scope.id,
            "budget": budget.id if budget is not None else None,
            "window": window if scope.window else None,
            "zone": zone if scope.window else None,
            "resets_at": resets,
            "needed_usd": need,
            "available_usd": left,
            "spent_usd": spent,
            "held_usd": held,
            "limit_usd": limit,
            "affordable_output_tokens": tokens,
        },
    )


def _window(scope: Scope, budget: Budget | None, principal: Principal) -> tuple[Window, str]:
    """How often a limit is a new one, and by whose clock."""
    if budget is not None:
        return budget.window, budget.zone
    if scope.kind == "key":
        return principal.window, "UTC"
    return ("day" if scope.kind == "tier" else "none"), "UTC"


def _whose(scope: Scope, budget: Budget | None, principal: Principal) -> str:
    if scope.kind == "key":
        return f"the budget of the key `{principal.key_hint}`"
    if scope.kind == "tier":
        return f"the daily spend that the tier of the account `{principal.account_name}` allows"
    if budget is None:
        return f"the account `{principal.account_name}`"
    match budget.kind:
        case "account":
            return budget.titled(f"the organisation `{principal.account_name}`")
        case "project":
            return budget.titled(f"the project `{principal.project_name}`")
        case "key":
            return budget.titled(f"the key `{principal.key_hint}`")
        case "end_user":
            return budget.titled(f"the end user `{scope.subject or budget.subject}`")
        case "tag":
            return budget.titled(f"the tag `{budget.subject}`")
