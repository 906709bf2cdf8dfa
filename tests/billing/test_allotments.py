"""Allotments: no number of takers passes a limit, and nobody is refused what is there."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.billing.books import allotments, customers
from farebox.billing.books.allotments import AllotmentError, ScopeRequest, slice_nano
from farebox.billing.budgets import Scope, account_scope, key_scope

DOLLAR = 1_000_000_000
AMOUNTS = st.integers(1, 2**50)


@given(headroom=st.integers(0, 2**50), need=AMOUNTS, more=st.integers(0, 2**50), contended=st.booleans())
def test_a_slice_is_nothing_or_between_need_and_wish(headroom, need, more, contended):
    got = slice_nano(headroom, need, need + more, contended=contended)
    assert got == 0 if need > headroom else need <= got <= min(need + more, headroom)
    if contended and got:
        assert got == need, "somebody waits: exactly the need"


def ask(world, scope, need, wish=None, life="life-1", scopes=()):
    requests = [ScopeRequest(one, need, wish or need) for one in (scope, *scopes)]
    return allotments.take(world.database, requests, life=life, now_us=world.clock.us)


def test_plenty_gives_the_wish_and_scarcity_the_need(world):
    scope = account_scope(world.account(100))
    assert ask(world, scope, 1, 25)[0].granted_nano == 25
    assert ask(world, scope, 1, 25)[0].granted_nano == 18, "a quarter of what is left"
    assert ask(world, scope, 50, 80)[0].granted_nano == 50
    refused = ask(world, scope, 8)[0]
    assert (refused.granted_nano, refused.limit_nano, refused.posted_nano, refused.allotted_nano) == (0, 100, 0, 93)
    assert ask(world, scope, 7)[0].granted_nano == 7


def test_all_scopes_or_none(world):
    """Peers row 13: session and end-user budgets were checked without a reservation."""
    account = world.account(100)
    key = world.key(account, 10, "day")
    scopes = (account_scope(account), key_scope(key, "day", world.clock.us))
    assert [taken.granted_nano for taken in ask(world, scopes[0], 11, scopes=scopes[1:])] == [0, 0]
    assert world.balance(account).allotted_nano == 0
    assert [taken.granted_nano for taken in ask(world, scopes[0], 10, scopes=scopes[1:])] == [10, 10]


def test_unknown_owners_fail_closed(world):
    """Peers row 13: look-ups that fail open."""
    with pytest.raises(AllotmentError, match="does not exist"):
        ask(world, account_scope("acc-nobody"), 1)
    with pytest.raises(AllotmentError, match="does not exist"):
        ask(world, key_scope("key-nobody", "day", world.clock.us), 1)
    with pytest.raises(AllotmentError, match="does not exist"):
        ask(world, Scope("end_user:someone", "end_user", "someone"), 1)


def test_a_new_window_is_a_new_scope_with_the_keys_budget(world):
    key = world.key(world.account(100), 10, "day")
    assert ask(world, key_scope(key, "day", world.clock.us), 10)[0].granted_nano == 10
    world.clock.us += 86_400_000_000
    assert ask(world, key_scope(key, "day", world.clock.us), 10)[0].granted_nano == 10
    unlimited = world.key(world.account(1))
    assert ask(world, key_scope(unlimited, "none", world.clock.us), 2**50)[0].granted_nano == 2**50


def test_giving_back_is_absolute_and_idempotent(world):
    account = world.account(100)
    scope = account_scope(account)
    ask(world, scope, 60)
    for _ in range(3):
        allotments.give_back(world.database, scope.id, life="life-1", granted_nano=20)
        assert world.balance(account).allotted_nano == 20
    allotments.give_back(world.database, scope.id, life="life-1", granted_nano=50)
    allotments.give_back(world.database, scope.id, life="life-unknown", granted_nano=0)
    assert world.balance(account).allotted_nano == 20, "a grant is never raised by a return"
    allotments.release(world.database, "life-1", at_us=1)
    allotments.release(world.database, "life-1", at_us=2)
    allotments.give_back(world.database, scope.id, life="life-1", granted_nano=0)
    assert world.balance(account).allotted_nano == 0
    assert world.check() == []


def test_what_is_posted_cannot_be_given_back(world):
    from farebox.wires.usage import Usage

    account = world.account(DOLLAR)
    worker = world.worker()
    worker.call(world.key(account), Usage(input=1_000))
    world.post()
    with pytest.raises(AllotmentError, match="less than"):
        allotments.give_back(world.database, f"account:{account}", life=worker.life, granted_nano=1)
    assert world.check() == []


def test_idle_slices_are_asked_back_so_that_nobody_is_refused_wrongly(world):
    """Peers row 10 and C13: phantom refusals while the money is merely elsewhere."""
    account = world.account(100)
    scope = account_scope(account)
    ask(world, scope, 90, life="life-1")
    assert ask(world, scope, 50, life="life-2")[0].granted_nano == 0
    store = allotments.Allotments(world.database, "life-2", world.clock)
    assert allotments.wanted(world.database, life="life-1", now_us=world.clock.us) == []
    store.want(scope.id, world.clock.us + 2_000_000)
    assert store.wanted() == []
    assert allotments.wanted(world.database, life="life-1", now_us=world.clock.us) == [scope.id]
    allotments.give_back(world.database, scope.id, life="life-1", granted_nano=10)
    assert store.take(scope, 50, 80).granted_nano == 50
    assert store.take(scope, 5, 8).granted_nano == 5, "while somebody waits, exactly the need"
    world.clock.us += 2_000_001
    assert allotments.wanted(world.database, life="life-1", now_us=world.clock.us) == []


def test_lowering_a_limit_converges_as_allotments_return(world):
    account = world.account(1_000)
    key = world.key(account, 100)
    scope = key_scope(key, "none", world.clock.us)
    ask(world, scope, 80)

    def limits():
        from sqlalchemy import select

        from farebox.storage.tables import scopes

        query = select(scopes.c.limit_nano, scopes.c.wanted_limit_nano).where(scopes.c.id == scope.id)
        return tuple(world.database.read(lambda connection: connection.execute(query).one()))

    customers.set_key_budget(world.database, key, 30)
    assert limits() == (80, 30)
    assert ask(world, scope, 1)[0].granted_nano == 0
    allotments.give_back(world.database, scope.id, life="life-1", granted_nano=50)
    assert limits() == (50, 30) and world.check() == []
    customers.set_key_budget(world.database, key, 40)
    assert limits() == (50, 40)
    allotments.give_back(world.database, scope.id, life="life-1", granted_nano=10)
    assert limits() == (40, None)
    assert ask(world, scope, 30)[0].granted_nano == 30
    customers.set_key_budget(world.database, key, None)
    assert limits() == (2**62, None)
    assert world.check() == []


@pytest.mark.parametrize("fits", [0, 1, 7, 37])
def test_concurrent_takes_never_pass_the_limit_and_none_is_refused_wrongly(world, fits):
    """Peers rows 1, 2, 28 and B11: check-then-act. Exactly as many holds as the balance covers are granted, of any number."""
    need, takers = 1_000_003, 8
    account = world.account(need * fits + need - 1)
    key = world.key(account, DOLLAR, "day")
    scopes = (account_scope(account), key_scope(key, "day", world.clock.us))
    granted = []
    failed = []

    def run(number):
        try:
            for _ in range(7):
                taken = ask(world, scopes[0], need, need, life=f"life-{number}", scopes=scopes[1:])
                granted.append(sum(one.granted_nano for one in taken) // 2)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(takers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert sum(granted) == need * fits
    balance = world.balance(account)
    assert balance.allotted_nano == need * fits <= balance.limit_nano
    assert world.check() == []


def test_a_lost_answer_is_repaired_by_giving_back_to_the_last_known_grant(world, monkeypatch):
    """Peers row 27: unknown is neither yes nor no."""
    from farebox.storage.database import OutcomeUnknown

    account = world.account(100)
    scope = account_scope(account)
    ask(world, scope, 30)
    write = world.database.write

    def lose(work):
        write(work)
        raise OutcomeUnknown("lost")

    monkeypatch.setattr(world.database, "write", lose)
    with pytest.raises(OutcomeUnknown):
        ask(world, scope, 40)
    monkeypatch.undo()
    assert world.balance(account).allotted_nano == 70
    allotments.give_back(world.database, scope.id, life="life-1", granted_nano=30)
    assert world.balance(account).allotted_nano == 30
    assert world.check() == []


def test_a_limit_that_is_to_be_lower_asks_for_what_is_free(world):
    """A worker that is never idle would keep its slice of the old limit until that is used up."""
    account = world.account(1_000)
    key = world.key(account, 500)
    scope = key_scope(key, "none", world.clock.us)
    assert ask(world, scope, 400)[0].granted_nano == 400
    assert allotments.wanted(world.database, life="life-1", now_us=world.clock.us) == []
    customers.set_key_budget(world.database, key, 100)
    assert allotments.wanted(world.database, life="life-1", now_us=world.clock.us) == [scope.id]
    allotments.give_back(world.database, scope.id, life="life-1", granted_nano=150)
    assert allotments.wanted(world.database, life="life-1", now_us=world.clock.us) == [scope.id], "not there yet"
    allotments.give_back(world.database, scope.id, life="life-1", granted_nano=60)
    assert allotments.wanted(world.database, life="life-1", now_us=world.clock.us) == []
    assert ask(world, scope, 41)[0].granted_nano == 0 and ask(world, scope, 40)[0].granted_nano == 40
