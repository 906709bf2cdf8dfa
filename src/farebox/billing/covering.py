"""Covering: in which scopes a call of one key is held. Pure; remembers what holds until a window ends.

Nearly every key has an account and perhaps a budget: the answer is one tuple, made anew when a window ends. Only budgets that
depend on the call — of end users and tags, and those for certain models or providers — are looked for call by call.
"""

from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Final

from farebox.billing.budgets import (
    EACH,
    Budget,
    Scope,
    Window,
    account_scope,
    budget_scope,
    key_scope,
    tier_scope,
    window_end_us,
)

NEVER_US: Final = 2**62
NOTHING: Final[dict[str, tuple[str, ...]]] = {}


def matches(name: str, patterns: Collection[str]) -> bool:
    """Whether a name is one of some patterns (`openai/*`); no patterns is every name."""
    return not patterns or name in patterns or any("*" in pattern and fnmatchcase(name, pattern) for pattern in patterns)


class Covering:
    """One key's scopes."""

    __slots__ = (
        "_account", "_daily_nano", "_each", "_filtered", "_fixed", "_fixed_until_us", "_key", "_key_window", "_steady", "_tags",
        "_users", "budgets", "steady",
    )  # fmt: skip

    def __init__(
        self,
        account: str,
        key: str,
        *,
        key_window: Window | None = None,
        budgets: Sequence[Budget] = (),
        daily_nano: int | None = None,
    ) -> None:
        """`key_window` is that of the key's own budget, None without one; `budgets` are those that can concern the key at
        all; `daily_nano` is what the account's tier lets it spend in a day."""
        self._account = account
        self._key = key
        self._key_window: Window | None = key_window
        self._daily_nano = daily_nano
        self._steady: list[Budget] = []
        self._filtered: list[Budget] = []
        self._each: list[Budget] = []
        self._users: dict[str, list[Budget]] = {}
        self._tags: dict[str, list[Budget]] = {}
        for budget in budgets:
            if budget.kind == "tag":
                self._tags.setdefault(budget.subject, []).append(budget)
            elif budget.kind == "end_user":
                where = self._each if budget.subject == EACH else self._users.setdefault(budget.subject, [])
                where.append(budget)
            else:
                (self._filtered if budget.models or budget.providers else self._steady).append(budget)
        self._fixed: tuple[Scope, ...] = ()
        self._fixed_until_us = 0
        self.budgets = {budget.id: budget for budget in budgets}
        self.steady = len(self._steady) == len(budgets)
        """What a call is, and whom it is for, makes no difference."""

    def scopes(
        self,
        now_us: int,
        *,
        models: Collection[str] = (),
        providers: Collection[str] = (),
        end_user: str = "",
        tags: Sequence[str] = (),
    ) -> tuple[Scope, ...]:
        """Every scope of a call, the account's first. `models` and `providers` are those of its plan: a budget for one of them
        counts the call, since that may be who answers. Tags are each there once."""
        fixed = self._fixed if now_us < self._fixed_until_us else self._renew(now_us)
        if self.steady:
            return fixed
        concerned = list(self._filtered)
        if end_user:
            concerned += self._users.get(end_user, self._each)
        for tag in tags:
            concerned += self._tags.get(tag, ())
        found = list(fixed)
        for budget in concerned:
            if budget.models and not any(matches(model, budget.models) for model in models):
                continue
            if budget.providers and set(budget.providers).isdisjoint(providers):
                continue
            found.append(budget_scope(budget, now_us, end_user))
        return tuple(found)

    def only(self, scopes: Iterable[Scope]) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
        """Those of a call's scopes that count certain providers alone, with these; and those that count certain models."""
        if self.steady:
            return NOTHING, NOTHING
        providers: dict[str, tuple[str, ...]] = {}
        models: dict[str, tuple[str, ...]] = {}
        for scope in scopes:
            budget = self.budgets.get(scope.owner) if scope.kind == "budget" else None
            if budget is not None and budget.providers:
                providers[scope.id] = budget.providers
            if budget is not None and budget.models:
                models[scope.id] = budget.models
        return providers, models

    def _renew(self, now_us: int) -> tuple[Scope, ...]:
        """The scopes that depend on nothing but time, and until when they are these."""
        found = [account_scope(self._account)]
        ends = [NEVER_US]
        if self._key_window is not None:
            found.append(key_scope(self._key, self._key_window, now_us))
            ends.append(window_end_us(self._key_window, now_us) or NEVER_US)
        if self._daily_nano is not None:
            found.append(tier_scope(self._account, self._daily_nano, now_us))
            ends.append(window_end_us("day", now_us) or NEVER_US)
        for budget in self._steady:
            found.append(budget_scope(budget, now_us))
            ends.append(window_end_us(budget.window, now_us, budget.zone) or NEVER_US)
        self._fixed = tuple(found)
        self._fixed_until_us = min(ends)
        return self._fixed
