"""Redemption codes: hashed, given as often as said and no oftener, and exact in the books."""

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.running import Farebox

from farebox.billing.accounts import codes
from farebox.billing.accounts.codes import ALPHABET, NewBatch
from farebox.billing.books.customers import CommandRefused
from farebox.ports import TimeOrderedIds
from farebox.storage.database import Database
from farebox.storage.tables import codes as codes_table

DOLLAR = 1_000_000_000
DAY_US = 86_400_000_000
PEPPER = b"p" * 32


def make(world, batch, count=1):
    made = [codes.code_text(bytes([number]) * codes.SECRET_BYTES) for number in range(1, count + 1)]
    digests = [codes.digest(code, PEPPER) for code in made]
    return codes.create_batch(world.database, world.ids, batch, digests, now_us=world.clock.us), made


def redeem(world, account, code):
    return codes.redeem(
        world.database, world.ids, account_id=account, code_digest=codes.digest(code, PEPPER), now_us=world.clock.us
    )


@given(st.binary(min_size=codes.SECRET_BYTES, max_size=codes.SECRET_BYTES))
def test_a_code_is_read_however_it_is_typed(secret):
    code = codes.code_text(secret)
    assert len(code) == 19 and set(code) <= {*ALPHABET, "-"}
    typed = [code.lower(), code.replace("-", ""), f" {code.replace('-', ' ')} ", code.replace("1", "l").replace("0", "O")]
    assert {codes.digest(one, PEPPER) for one in typed} == {codes.digest(code, PEPPER)}
    assert codes.digest(code, b"q" * 32) != codes.digest(code, PEPPER)


def test_different_secrets_are_different_codes():
    made = {codes.code_text(number.to_bytes(codes.SECRET_BYTES, "big")) for number in range(2_000)}
    assert len(made) == 2_000


@pytest.mark.parametrize("text", ["", "AAAA", "A" * 17, "U" * 16, "ÄÄÄÄ-ÄÄÄÄ-ÄÄÄÄ-ÄÄÄÄ"])
def test_what_is_no_code(text):
    with pytest.raises(CommandRefused, match="16 letters"):
        codes.digest(text, PEPPER)


def test_a_single_use_code_gives_once(world):
    first, second = world.account(), world.account()
    batch, (code,) = make(world, NewBatch(5 * DOLLAR))
    made = redeem(world, first, code)
    assert (made.kind, made.amount_nano, made.expires_us) == ("promo", 5 * DOLLAR, None)
    assert world.balance(first).available_nano == 5 * DOLLAR
    assert redeem(world, first, code) == made, "a repeat whose answer was lost gives the same answer"
    assert world.balance(first).available_nano == 5 * DOLLAR
    with pytest.raises(CommandRefused, match="used up"):
        redeem(world, second, code)
    assert world.sums()["promo_expense"] == 5 * DOLLAR
    (listed,) = world.database.read(codes.list_batches)
    assert (listed.id, listed.codes, listed.used) == (batch, 1, 1)
    assert world.check() == []


def test_a_code_that_was_sold_is_cash_and_credit_can_end(world):
    account = world.account()
    _, (code,) = make(world, NewBatch(DOLLAR, "paid", credit_days=30))
    assert redeem(world, account, code).expires_us == world.clock.us + 30 * DAY_US
    assert world.sums()["cash"] == DOLLAR
    assert world.check() == []


def test_each_account_takes_a_code_once_and_it_serves_as_many_as_said(world):
    _, (code,) = make(world, NewBatch(DOLLAR, uses_max=3))
    served = [world.account() for _ in range(3)]
    for account in [*served, *served]:
        redeem(world, account, code)
    assert [world.balance(account).available_nano for account in served] == [DOLLAR] * 3
    with pytest.raises(CommandRefused, match="used up"):
        redeem(world, world.account(), code)
    assert world.check() == []


def test_many_at_once_do_not_overdraw_a_code(world):
    """Peers rows 1 and 28: check, then act."""
    _, (code,) = make(world, NewBatch(DOLLAR, uses_max=3))
    accounts = [world.account() for _ in range(8)]
    start = threading.Barrier(len(accounts))
    outcomes = []

    def take(account):
        with Database.open(world.url) as database:
            start.wait()
            try:
                codes.redeem(
                    database, TimeOrderedIds(world.clock), account_id=account, code_digest=codes.digest(code, PEPPER),
                    now_us=world.clock.us,
                )  # fmt: skip
                outcomes.append("given")
            except CommandRefused:
                outcomes.append("refused")

    threads = [threading.Thread(target=take, args=(account,)) for account in accounts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["given"] * 3 + ["refused"] * 5
    assert sum(world.balance(account).available_nano for account in accounts) == 3 * DOLLAR
    assert world.check() == []


def test_codes_end(world):
    account = world.account()
    batch, made = make(world, NewBatch(DOLLAR, expires_us=world.clock.us + DAY_US), 3)
    redeem(world, account, made[0])
    codes.revoke_batch(world.database, batch, now_us=world.clock.us)
    with pytest.raises(CommandRefused, match="no such code, or it was revoked"):
        redeem(world, account, made[1])
    assert world.balance(account).available_nano == DOLLAR, "what was taken stays"
    with pytest.raises(CommandRefused, match="no such code, or it was revoked"):
        redeem(world, account, "0" * 16)
    with pytest.raises(CommandRefused, match="no batch"):
        codes.revoke_batch(world.database, "codes-none", now_us=world.clock.us)
    world.database.write(lambda c: c.exec_driver_sql("UPDATE code_batches SET revoked_us = NULL"))
    world.clock.us += DAY_US
    with pytest.raises(CommandRefused, match="expired"):
        redeem(world, account, made[1])
    assert world.check() == []


def test_a_postpaid_account_takes_no_bought_credit(world):
    account = world.account(kind="postpaid", line_nano=DOLLAR)
    _, (code,) = make(world, NewBatch(DOLLAR, "paid"))
    with pytest.raises(CommandRefused, match="postpaid"):
        redeem(world, account, code)
    (listed,) = world.database.read(codes.list_batches)
    assert listed.used == 0, "a refusal uses nothing"


@pytest.mark.parametrize(
    "batch",
    [
        NewBatch(0), NewBatch(-1), NewBatch(2**61), NewBatch(1, uses_max=0), NewBatch(1, credit_days=0),
        NewBatch(1, expires_us=1),
    ],
)  # fmt: skip
def test_batches_that_cannot_be(world, batch):
    with pytest.raises(CommandRefused):
        make(world, batch)


def test_no_table_has_a_code(world):
    _, (code,) = make(world, NewBatch(DOLLAR))
    (row,) = world.database.read(lambda connection: connection.execute(codes_table.select()).all())
    assert code not in repr(row) and code.replace("-", "") not in repr(row)
    assert bytes(row.digest) == codes.digest(code, PEPPER)


def test_the_books_notice_a_use_that_nobody_took(world):
    _, (code,) = make(world, NewBatch(DOLLAR))
    redeem(world, world.account(), code)
    assert world.check() == []
    for false in (0, 2):
        world.database.write(lambda c, false=false: c.exec_driver_sql(f"UPDATE codes SET used = {false}"))
        assert [problem.invariant for problem in world.check()] == ["I2"]


def test_the_commands(tmp_path: Path) -> None:
    box = Farebox(tmp_path)
    made = box.cli("codes", "create", "5.00", "--count", "3", "--credit-days", "30", "--name", "autumn")
    assert len(set(made["codes"])) == 3
    given = box.cli("redeem", "default", made["codes"][0].lower())
    assert given["amount"] == "5.00" and given["kind"] == "promo" and given["expires_at"]
    assert box.cli("redeem", "default", made["codes"][0])["grant"] == given["grant"]
    (listed,) = box.cli("codes", "list")["batches"]
    assert (listed["id"], listed["codes"], listed["used"], listed["state"]) == (made["batch"], 3, 1, "active")
    box.cli("codes", "revoke", made["batch"])
    assert "revoked" in box.cli("redeem", "default", made["codes"][1], check=False)["error"]
    assert "16 letters" in box.cli("redeem", "default", "nonsense", check=False)["error"]
    box.check_books()
