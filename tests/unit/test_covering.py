"""Which scopes a call is held in, against an oracle that asks every budget anew."""

from datetime import UTC, datetime
from fnmatch import fnmatchcase
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from farebox.billing.budgets import Budget, Scope, budget_scope
from farebox.billing.covering import Covering, matches

US = 1_000_000
NOVEMBER = 1_795_564_800 * US  # 2026-11-25T00:00:00Z, a Wednesday
ZONES = ("UTC", "Europe/Berlin", "Asia/Kolkata", "America/Santiago", "Pacific/Apia")
USERS = ("", "ann", "bob", "*", "zoë")
TAGS = ("night", "batch", "day")
MODELS = ("openai/gpt-4o", "openai/o3", "anthropic/claude")
PROVIDERS = ("openai", "azure", "anthropic")
FORMS = {"hour": "%Y-%m-%dT%H", "day": "%Y-%m-%d", "month": "%Y-%m", "week": "%G-W%V"}


@st.composite
def budget(draw: st.DrawFn, number: int = 0) -> Budget:
    kind = draw(st.sampled_from(["account", "project", "key", "end_user", "tag"]))
    subject = {
        "account": st.just(""), "project": st.just("prj-1"), "key": st.just("key-1"),
        "end_user": st.sampled_from(["ann", "bob", "*"]), "tag": st.sampled_from(TAGS),
    }[kind]  # fmt: skip
    return Budget(
        id=f"bud-{number}",
        kind=kind,  # pyright: ignore[reportArgumentType]
        amount_nano=1,
        window=draw(st.sampled_from(["none", "hour", "day", "week", "month"])),
        subject=draw(subject),
        zone=draw(st.sampled_from(ZONES)),
        hard=draw(st.booleans()),
        models=tuple(draw(st.sets(st.sampled_from(["openai/*", "anthropic/claude", "*/o3"]), max_size=2))),
        providers=tuple(draw(st.sets(st.sampled_from(PROVIDERS), max_size=2))),
    )


@st.composite
def several(draw: st.DrawFn) -> list[Budget]:
    return [draw(budget(number)) for number in range(draw(st.integers(0, 8)))]


def window(one: Budget, now_us: int) -> str:
    zone = UTC if one.window == "hour" else ZoneInfo(one.zone)
    return "" if one.window == "none" else datetime.fromtimestamp(now_us // US, zone).strftime(FORMS[one.window])


def expected(budgets: list[Budget], now_us: int, models: set[str], providers: set[str], user: str, tags: list[str]) -> set[str]:
    """The ids, budget by budget, in so many words."""
    found: set[str] = set()
    for one in budgets:
        if one.models and not any(fnmatchcase(model, pattern) for model in models for pattern in one.models):
            continue
        if one.providers and not set(one.providers) & providers:
            continue
        if one.kind == "tag" and one.subject not in tags:
            continue
        name = f"budget:{one.id}" + (f":{window(one, now_us)}" if one.window != "none" else "")
        if one.kind == "end_user":
            own = [other for other in budgets if other.kind == "end_user" and other.subject == user != "*"]
            if not user or (one.subject != user and (one.subject != "*" or own)):
                continue
            if one.subject == "*":
                found |= {scope.id for scope in [budget_scope(one, now_us, user)] if scope.id.startswith(f"{name}:")}
                continue
        found.add(name)
    return found


class Calls(RuleBasedStateMachine):
    """One key's calls, through days and clock changes: whatever was remembered of the call before, the scopes are this one's."""

    @initialize(
        budgets=several(),
        key_window=st.sampled_from([None, "none", "hour", "day", "week", "month"]),
        daily=st.sampled_from([None, 5_000]),
        start=st.sampled_from(["2026-10-24", "2026-03-28", "2027-12-31", "2028-02-28", "2026-11-25"]),
    )
    def sign_up(self, budgets: list[Budget], key_window: str | None, daily: int | None, start: str) -> None:
        self.now_us = int(datetime.fromisoformat(start).replace(tzinfo=UTC).timestamp()) * US
        self.budgets = budgets
        self.key_window = key_window
        self.daily = daily
        self.covering = Covering("acc-1", "key-1", key_window=key_window, budgets=budgets, daily_nano=daily)  # pyright: ignore[reportArgumentType]

    @rule(us=st.sampled_from([1, US, 59 * 60 * US, 3_600 * US, 6 * 3_600 * US, 86_400 * US, 8 * 86_400 * US]))
    def wait(self, us: int) -> None:
        self.now_us += us

    @rule(
        models=st.sets(st.sampled_from(MODELS), min_size=1), providers=st.sets(st.sampled_from(PROVIDERS), min_size=1),
        user=st.sampled_from(USERS), tags=st.lists(st.sampled_from(TAGS), unique=True),
    )  # fmt: skip
    def call(self, models: set[str], providers: set[str], user: str, tags: list[str]) -> None:
        scopes = self.covering.scopes(self.now_us, models=models, providers=providers, end_user=user, tags=tags)
        ids = [scope.id for scope in scopes]
        assert ids[0] == "account:acc-1" and len(set(ids)) == len(ids), "each once, the account's first"
        key = Budget("", "key", 0, self.key_window or "none")  # pyright: ignore[reportArgumentType]
        name = window(key, self.now_us)
        own: set[str] = set() if self.key_window is None else {f"key:key-1:{name}" if name else "key:key-1"}
        today = window(Budget("", "account", 0, "day"), self.now_us)
        tier: set[str] = set() if self.daily is None else {f"tier:acc-1:{today}"}
        wanted = expected(self.budgets, self.now_us, models, providers, user, tags)
        assert set(ids) == {"account:acc-1"} | own | tier | wanted
        of = {scope.id: one for one in self.budgets for scope in scopes if scope.kind == "budget" and scope.owner == one.id}
        only, only_models = self.covering.only(scopes)
        assert only == {id: one.providers for id, one in of.items() if one.providers}
        assert only_models == {id: one.models for id, one in of.items() if one.models}
        by_id = {one.id: one for one in self.budgets}
        for scope in scopes:
            if scope.kind == "budget" and by_id[scope.owner].subject == "*":
                assert scope.subject == user and user not in scope.id.split(":")[-1]

    @invariant()
    @precondition(lambda self: hasattr(self, "covering") and self.covering.steady)
    def what_is_steady_is_not_made_anew(self) -> None:
        assert self.covering.scopes(self.now_us) is self.covering.scopes(self.now_us)


Calls.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
test_covering_is_what_the_oracle_says = Calls.TestCase


@given(st.sampled_from(MODELS), st.sets(st.sampled_from(["openai/*", "*/o3", "anthropic/claude", "openai/gpt-[45]o"])))
@example("openai/gpt-4o", {"openai/gpt-4o"})
def test_patterns(name: str, patterns: set[str]) -> None:
    assert matches(name, patterns) == (not patterns or any(
        fnmatchcase(name, pattern) if "*" in pattern else name == pattern for pattern in patterns
    ))  # fmt: skip


def test_one_end_user_is_one_scope_and_two_are_two() -> None:
    each = Budget("bud-1", "end_user", 1, "day", "*")
    covering = Covering("acc-1", "key-1", budgets=[each])

    def scope(user: str) -> Scope:
        (_, found) = covering.scopes(NOVEMBER, end_user=user)
        return found

    assert scope("ann") == scope("ann") and scope("ann").id != scope("bob").id
    assert scope("\udcff").id != scope("ÿ").id, "whatever a client calls somebody has a scope"
    assert covering.scopes(NOVEMBER) == covering.scopes(NOVEMBER, end_user=""), "nobody is not an end user"


@pytest.mark.parametrize(("hours", "day"), [(-1, "2026-10-25"), (0, "2026-10-26")])
def test_a_day_of_25_hours_is_one_window(hours: int, day: str) -> None:
    """Berlin's last Sunday of October begins at 22:00 UTC and ends 25 hours later."""
    covering = Covering("acc-1", "key-1", budgets=[Budget("bud-1", "account", 1, "day", zone="Europe/Berlin")])
    start_us = int(datetime(2026, 10, 24, 22, tzinfo=UTC).timestamp()) * US
    names = {covering.scopes(start_us + hour * 3_600 * US)[1].window for hour in range(25)}
    assert names == {"2026-10-25"}
    assert covering.scopes(start_us + (25 + hours) * 3_600 * US)[1].window == day
