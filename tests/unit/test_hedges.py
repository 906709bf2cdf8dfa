"""Which of a hedged call's two holds has its answer."""

import pytest

from farebox.billing.hedges import SUFFIX, answering, holds_of
from farebox.billing.records import Attempt, Settle

CALL = "gen-1"


def settle(id: str, *outcomes: str, begun: bool = True) -> Settle:
    attempts = tuple(
        Attempt(n, "lab", "m", started_us=1, ended_us=2, outcome=outcome, first_byte_us=1 if begun else None)
        for n, outcome in enumerate(outcomes, 1)
    )
    failed = outcomes[-1:] == ("http_error",)
    return Settle(
        id=id, state="voided" if failed else "settled", at_us=2, account="acc-1", key="key-1", scopes=(), hold_nano=0,
        charge_nano=0, surface="chat", model="v/m", attempts=attempts, created_us=1, life="life-1",
    )  # fmt: skip


FIRST, SECOND = holds_of(CALL)


@pytest.mark.parametrize(
    ("first", "second", "answered"),
    [
        (("ok",), None, FIRST),
        (("ok",), ("outrun",), FIRST),
        (("outrun",), ("ok",), SECOND),
        ((), ("ok",), SECOND),  # the first one is still being read on
        ((), ("outrun",), None),
        ((), ("http_error",), None),
        (("http_error", "ok"), ("http_error",), FIRST),  # went on after both had failed
        (("http_error",), ("ok",), SECOND),  # the second one was its retry
        (("outrun",), ("truncated",), SECOND),  # broke off with the client listening
        (("http_error",), ("truncated",), SECOND),
        (("truncated",), ("outrun",), FIRST),
    ],
)
def test_who_answered_is_seen_from_how_their_attempts_ended(
    first: tuple[str, ...], second: tuple[str, ...] | None, answered: str | None
) -> None:
    settles = [settle(FIRST, *first)] if first else []
    settles += [] if second is None else [settle(SECOND, *second)]
    found = answering(CALL, settles)
    assert (None if found is None else found.id) == answered


def test_one_that_failed_before_content_has_answered_nobody() -> None:
    found = answering(CALL, [settle(FIRST, "http_error"), settle(SECOND, "timeout", begun=False)])
    assert found is not None and found.id == FIRST


def test_a_second_hold_is_found_by_its_own_id_too() -> None:
    one = settle(SECOND, "outrun")
    assert SECOND == CALL + SUFFIX and answering(SECOND, [one]) is one and answering(SECOND, []) is None
