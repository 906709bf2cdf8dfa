"""The words of a 402: which limit, whose, for when, when it is a new one, what fits."""

import pytest

from farebox.billing.budgets import Budget, Scope, Window, account_scope, budget_scope, key_scope, tier_scope
from farebox.billing.covering import Covering
from farebox.billing.holds import Insufficient
from farebox.errors import FareboxError
from farebox.gate.principal import Principal
from farebox.gate.too_little import too_little

NOON_US = 1_795_564_800_000_000 + 12 * 3_600_000_000  # 2026-11-25T12:00:00Z, a Wednesday
DOLLAR = 1_000_000_000


def told(scope: Scope, budgets: tuple[Budget, ...] = (), *, window: Window = "none", tokens: int = 0) -> FareboxError:
    principal = Principal(
        account="acc-1", account_name="acme", prepaid=True, active=True, key="key-1", key_name="k", key_hint="fb-…1234",
        covering=Covering("acc-1", "key-1", budgets=budgets), project="prj-1", project_name="web", window=window,
    )  # fmt: skip
    return too_little(Insufficient(scope, 3 * DOLLAR, 10 * DOLLAR, 7 * DOLLAR, DOLLAR), principal, tokens, NOON_US)


def test_an_account_has_no_window() -> None:
    error = told(account_scope("acc-1"), tokens=12)
    assert (error.status, error.code) == (402, "insufficient_quota")
    assert error.message == (
        "this call may cost up to $3.00, and the account `acme` has $2.00 left of $10.00: $7.00 is spent, "
        "$1.00 is only held by calls in flight; `max_tokens` up to 12 would fit"
    )
    assert error.details["window"] is error.details["zone"] is error.details["resets_at"] is None
    assert error.details["affordable_output_tokens"] == 12 and error.should_retry is False


@pytest.mark.parametrize(
    ("budget", "user", "said", "resets"),
    [
        (Budget("b", "account", 1, "day"), "", "the budget of the organisation `acme` for 2026-11-25 in UTC", "2026-11-26T00"),
        (
            Budget("b", "project", 1, "week", "prj-1", zone="Europe/Berlin"), "",
            "the budget of the project `web` for 2026-W48 in Europe/Berlin", "2026-11-29T23",
        ),
        (
            Budget("b", "key", 1, "month", "key-1", name="nightly", zone="Asia/Tokyo"), "",
            "the budget `nightly` of the key `fb-…1234` for 2026-11 in Asia/Tokyo", "2026-11-30T15",
        ),
        (
            Budget("b", "end_user", 1, "hour", "*"), "ann",
            "the budget of the end user `ann` for 2026-11-25T12 in UTC", "2026-11-25T13",
        ),
        (Budget("b", "end_user", 1, "none", "bob"), "bob", "the budget of the end user `bob` has", None),
        (Budget("b", "tag", 1, "day", "night"), "", "the budget of the tag `night` for 2026-11-25 in UTC", "2026-11-26T00"),
    ],
)  # fmt: skip
def test_a_budget_says_whose_and_until_when(budget: Budget, user: str, said: str, resets: str | None) -> None:
    error = told(budget_scope(budget, NOON_US, user), (budget,))
    assert (error.status, error.code) == (402, "budget_exceeded")
    assert said in error.message and "would fit" not in error.message
    details = error.details
    assert (details["budget"], details["scope"]) == ("b", budget_scope(budget, NOON_US, user).id)
    if resets is None:
        assert details["window"] is details["resets_at"] is None and "next" not in error.message
    else:
        assert details["resets_at"] == f"{resets}:00:00Z" and (details["window"], details["zone"]) == (budget.window, budget.zone)
        assert f"the next {budget.window} begins at {resets}:00:00Z" in error.message


def test_a_keys_own_budget_and_a_tier_go_by_utc() -> None:
    error = told(key_scope("key-1", "day", NOON_US), window="day")
    assert "the budget of the key `fb-…1234` for 2026-11-25 in UTC has" in error.message
    assert (error.code, error.details["resets_at"], error.details["budget"]) == ("budget_exceeded", "2026-11-26T00:00:00Z", None)
    error = told(tier_scope("acc-1", DOLLAR, NOON_US))
    assert "the daily spend that the tier of the account `acme` allows for 2026-11-25 in UTC has" in error.message
    assert error.details["resets_at"] == "2026-11-26T00:00:00Z"
