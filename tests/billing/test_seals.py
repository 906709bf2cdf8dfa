"""Seals: every posted row once in its account's chain, whatever dies; and what customers can prove by it. On both engines."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import func, select
from tests.support.chains import PUBLIC, SIGNER, audited, exported, sealed

from farebox.billing.accounts import adjustments
from farebox.billing.invariants import check_seals
from farebox.billing.sealing import seal_runs, seals
from farebox.billing.sealing.receipt_audit import audit
from farebox.billing.sealing.receipts import START, canonical
from farebox.billing.sealing.seals import SealBroken
from farebox.config import load
from farebox.outside import real_outside
from farebox.processes.bookkeeper import Bookkeeper
from farebox.storage import tables
from farebox.wires.usage import Usage

DOLLAR = 1_000_000_000
DAY_US = 86_400_000_000
SMALL = Usage(input=1_000, cache_read=200, output=300)
PROCESS = Path(__file__).with_name("sealing_process.py")


def seal_all(world, **options):
    while seals.seal(world.database, world.clock, **options).more:
        pass


def marks(world):
    return world.database.read(seals.waiting)


def busy(world, accounts=2, calls=12):
    """Calls of some accounts, one of them with a failover, one never sent; posted in several batches."""
    worker = world.worker()
    keys = [world.key(world.account(100 * DOLLAR)) for _ in range(accounts)]
    for number in range(calls):
        key = keys[number % accounts]
        if number % 5 == 3:
            hold = worker.hold(key, DOLLAR)
            failed = worker.attempt(hold, None, status=503, outcome="http_error")
            worker.settle(hold, failed, worker.attempt(hold, SMALL, n=2))
        elif number % 5 == 4:
            worker.void(worker.hold(key, DOLLAR))
        else:
            worker.call(key, SMALL, hold_nano=DOLLAR, markup_bp=550)
        if number % 4 == 3:
            world.post()
            world.clock.us += 1
    world.post()


def test_every_row_has_its_place_and_the_audit_agrees(world):
    busy(world)
    assert marks(world) == 3 and seals.seal(world.database, world.clock).rows == 14
    assert marks(world) == 0 and seals.seal(world.database, world.clock) == seals.Sealed()
    report = audited(world.database)
    assert report.receipts == 14 and len(report.accounts) == 2 and report.days == ("2026-11-23",)
    assert not report.whole, "the day is not over"
    world.clock.us += DAY_US
    seals.turn_day(world.database, world.clock)
    assert audited(world.database).whole
    assert world.check() == []


def test_small_steps_make_the_same_chain(make_world):
    """A batch is divided where it has to be, and goes on where it stopped."""
    one, other = make_world(), make_world()
    other.ids = one.ids
    for world, rows_max in ((one, 1_000), (other, 1)):
        busy(world, accounts=1)
        seal_all(world, rows_max=rows_max)
        assert audited(world.database).receipts == 14 and marks(world) == 0


def test_a_transaction_that_failed_has_sealed_nothing(world):
    busy(world)

    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        seals.seal(world.database, world.clock, before_commit=fail)
    assert exported(world.database) == [] and marks(world) == 3
    seal_all(world)
    audited(world.database)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_sealer_may_be_killed_at_any_moment(world, when):
    busy(world)
    killed = subprocess.run([sys.executable, str(PROCESS), world.url, "2", when], timeout=60)
    assert killed.returncode == -signal.SIGKILL
    done = len(sealed(world.database))
    assert done == (4 if when == "before" else 6)
    ended = subprocess.run([sys.executable, str(PROCESS), world.url, "2", "never"], timeout=60)
    assert ended.returncode == 0 and marks(world) == 0
    assert audited(world.database).receipts == 14


def test_two_sealers_make_one_chain(world):
    busy(world, calls=40)
    failed = []

    def run():
        try:
            seal_all(world, rows_max=3)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    audited(world.database)


def test_a_correction_is_a_link_of_its_own(world):
    key = world.key(world.account(10 * DOLLAR))
    worker = world.worker()
    hold = worker.hold(key, DOLLAR)
    settle = worker.settle(hold, worker.attempt(hold, SMALL, basis="estimated"))
    world.post()
    seal_all(world)
    first = exported(world.database)
    world.clock.us += 3 * DAY_US
    fewer = Usage(input=1_000, output=100)
    adjustments.adjust(world.database, world.ids, hold_id=settle.id, attempt=1, exact=fewer, now_us=world.clock.us)
    seal_all(world)
    (_, before), (_, after) = world.database.read(lambda c: seals.of_call(c, settle.account, settle.id))
    assert (before["chain"]["day"], after["chain"]["day"]) == ("2026-11-23", "2026-11-26")
    assert after["revision"] == 1 and after["units"] == {"input": 1_000, "output": 100}
    assert after["amount_usd"] == "-0.00225" and after["total_usd"] == "0.003500002"
    lines = exported(world.database)
    assert lines[0] == first[0], "what was given out stays as it is"
    assert audited(world.database).receipts == 2


def test_a_day_that_is_over_gets_no_more(world):
    """Also when the clock goes back, or a posting comes late."""
    key = world.key(world.account(10 * DOLLAR))
    worker = world.worker()
    settle = worker.call(key, SMALL)
    world.post()
    late = worker.call(key, SMALL)
    world.post()
    world.clock.us += DAY_US
    seals.turn_day(world.database, world.clock)
    empty = world.database.read(lambda c: seals.head(c, settle.account, "2026-11-23"))
    assert (empty["receipts"], empty["final"], empty["opening"], empty["last"]) == (0, True, START, START)
    world.clock.us -= DAY_US
    seal_all(world)
    ((_, content),) = world.database.read(lambda c: seals.of_call(c, late.account, late.id))
    assert content["chain"]["day"] == "2026-11-24"
    assert world.database.read(lambda c: seals.head(c, settle.account, "2026-11-23")) == empty
    assert not world.database.read(lambda c: seals.head(c, settle.account, "2026-11-24"))["final"]
    audited(world.database)


def test_a_row_that_was_changed_is_not_signed_again(world):
    """With the trigger out of the way: the operator's own database is not what was sealed."""
    busy(world)
    seal_all(world)
    account = audited(world.database).accounts[0]
    on_table = "" if world.database.is_sqlite else " ON usage"
    row = f"SELECT hold_id FROM usage WHERE account_id = '{account}' ORDER BY hold_id LIMIT 1"

    def forge(connection):
        (hold,) = connection.exec_driver_sql(row).one()
        connection.exec_driver_sql(f"DROP TRIGGER usage_no_update{on_table}")
        connection.exec_driver_sql(f"UPDATE usage SET charge_nano = charge_nano - 1 WHERE hold_id = '{hold}'")
        return hold

    hold = world.database.write(forge)
    with pytest.raises(SealBroken, match=hold):
        exported(world.database)


def test_a_seal_is_never_changed(world):
    from farebox.storage.database import RowRefused

    busy(world)
    seal_all(world)
    for sql in ("UPDATE seal_runs SET number = number + 100", "DELETE FROM seal_runs"):
        with pytest.raises(RowRefused):
            world.database.write(lambda connection, sql=sql: connection.exec_driver_sql(sql))


def test_pages_of_a_day_join_up(world):
    busy(world, accounts=1)
    seal_all(world)
    account = audited(world.database).accounts[0]

    def page(after):
        return world.database.read(lambda c: seals.of_day(c, account, "2026-11-23", after=after, limit=3))

    contents = page(0)
    while more := page(contents[-1]["chain"]["number"]):
        contents += more
    head = world.database.read(lambda c: seals.head(c, account, "2026-11-23"))
    signed = [canonical(SIGNER.signed("receipt", one)) for one in contents] + [canonical(SIGNER.signed("head", head))]
    assert audit(signed, PUBLIC).receipts == 14 and audit(signed, PUBLIC).findings == []
    assert world.database.read(lambda c: seals.of_day(c, "acc-of-nobody", "2026-11-23")) == []


def test_what_waits_grows_less_however_much_is_posted(world, tmp_path, monkeypatch):
    """Each round of the bookkeeper seals what it posted and a batch more; alone, it ends the rest."""
    monkeypatch.setattr(seals, "ROWS_MAX", 3)
    busy(world, accounts=1, calls=30)
    config = tmp_path / "farebox.toml"
    config.write_text(f'[database]\nurl = "{world.url}"\n[journal]\ndir = "{world.journals}"\n')
    bookkeeper = Bookkeeper(load(config), real_outside({}))
    worker, key = world.worker("w2"), world.key(world.account(10 * DOLLAR))

    def unsealed():
        count = select(func.count())
        rows = world.database.read(lambda c: c.execute(count.select_from(tables.usage)).scalar_one())
        return rows - len(sealed(world.database))

    waiting = [unsealed()]
    try:
        while waiting[-1] and len(waiting) < 20:
            for _ in range(5):
                worker.call(key, SMALL)
            bookkeeper.round()
            waiting.append(unsealed())
    finally:
        bookkeeper.close()
    assert waiting[:3] == [36, 32, 28] and waiting[-1] == 0, waiting
    audited(world.database)


def test_a_row_that_cannot_be_read_keeps_only_receipts_waiting(world, tmp_path, monkeypatch, capsys):
    """What follows the sealing in a round goes on, and the row is not tried again with every batch."""
    busy(world, accounts=1, calls=3)
    config = tmp_path / "farebox.toml"
    config.write_text(f'[database]\nurl = "{world.url}"\n[journal]\ndir = "{world.journals}"\n')
    tried, turned = [], []

    def broken(*_arguments, **_more):
        tried.append(1)
        raise ValueError("the record is gone")

    monkeypatch.setattr(seals, "seal", broken)
    monkeypatch.setattr(seals, "turn_day", lambda *_arguments: turned.append(1))
    bookkeeper = Bookkeeper(load(config), real_outside({}))
    try:
        for _ in range(3):
            bookkeeper.round()
    finally:
        bookkeeper.close()
    assert len(tried) == 1 and turned, "the rest of the round was done"
    assert "receipts wait" in capsys.readouterr().err


def test_rows_just_posted_are_not_read_again(world):
    """They make the chain that reading them would; and what was sealed is held against the database by whoever reads it."""
    worker, key = world.worker(), world.key(world.account(100 * DOLLAR))
    calls = [worker.call(key, SMALL, hold_nano=DOLLAR, markup_bp=550) for _ in range(4)]
    posted = world.post()
    assert posted.fresh is not None and len(posted.fresh.rows) == len(calls) == 4
    assert seals.seal(world.database, world.clock, fresh=posted.fresh).rows == 4
    assert audited(world.database).receipts == 4
    world.clock.us += 1
    worker.call(key, SMALL, hold_nano=DOLLAR)
    posted = world.post()
    forged = [(*row[:13], row[13] + 1, *row[14:]) for row in posted.fresh.rows]
    fresh = seals.Fresh(posted.fresh.batch_id, posted.fresh.posted_us, forged, [None] * len(forged))
    assert seals.seal(world.database, world.clock, fresh=fresh).rows == 1
    with pytest.raises(SealBroken):
        audited(world.database)


@pytest.mark.parametrize("other", ["a batch", "too many", "the same moment"])
def test_rows_that_may_be_sealed_in_part_are_read(world, other):
    worker, key = world.worker(), world.key(world.account(100 * DOLLAR))
    if other == "the same moment":
        worker.call(key, SMALL, hold_nano=DOLLAR)
        assert seals.seal(world.database, world.clock, fresh=world.post().fresh).rows == 1
    for _ in range(3):
        worker.call(key, SMALL, hold_nano=DOLLAR)
    posted = world.post()
    forged = [(*row[:13], row[13] + 1, *row[14:]) for row in posted.fresh.rows]
    batch_id = "batch-of-another" if other == "a batch" else posted.fresh.batch_id
    fresh = seals.Fresh(batch_id, posted.fresh.posted_us, forged, [None] * len(forged))
    rows_max = 2 if other == "too many" else seals.ROWS_MAX
    while seals.seal(world.database, world.clock, rows_max=rows_max, fresh=fresh).more:
        fresh = None
    assert audited(world.database).receipts == (4 if other == "the same moment" else 3)


def test_a_run_is_no_longer_than_what_is_read_for_one_receipt(world, monkeypatch):
    """Whatever the sizes: every receipt is found, by its call and by its number, and those after any number."""
    monkeypatch.setattr(seals, "RUN_MAX", 2)
    monkeypatch.setattr(seal_runs, "RUNS_AT_ONCE", 2)
    busy(world, accounts=1)
    seal_all(world)
    places = sealed(world.database)
    account = places[0][0].account_id
    assert [len(run) for run in world.database.read(lambda c: list(seal_runs.in_order(c)))] == [2, 2, 1, 2, 2, 2, 2, 1]
    assert audited(world.database).receipts == 14 and world.check() == []

    def work(connection):
        for number, (_, (hold, attempt, _)) in enumerate(places, 1):
            contents = [content for _, content in seals.of_call(connection, account, hold)]
            (mine,) = (content for content in contents if content["attempt"] == attempt)
            assert mine["chain"]["number"] == number
            (next_one,) = seals.of_day(connection, account, "2026-11-23", after=number - 1, limit=1)
            assert next_one == mine
        assert seals.of_day(connection, account, "2026-11-23", after=14) == []

    world.database.read(work)


# --- `farebox ledger check` ---------------------------------------------------------------------------------------------------

DAMAGES = {
    "a row with another word": (
        "UPDATE usage SET outcome = 'okay' WHERE {row}", ["is not what it was when it was sealed as receipt 3"],
    ),
    "a record with other words": (
        "UPDATE usage SET record = replace(record, '\"gpt-4o\"', '\"gpt-4o-x\"') WHERE {row}",
        ["is not what it was when it was sealed as receipt 3"],
    ),
    "a record that says nothing": ("UPDATE usage SET record = '{{}}' WHERE {row}", ["the usage row of receipt 3 cannot be read"]),
    "a row that is gone": ("DELETE FROM usage WHERE {row}", ["the usage row of receipt 3 is gone"]),
    "seals that are gone": (
        "DELETE FROM seal_runs WHERE {run}", ["receipts 1 to 5 are missing before this one", *["has no seal, nor waits"] * 5],
    ),
    "the last seals that are gone": ("DELETE FROM seal_runs WHERE {last_run}", ["has no seal, nor waits for one"] * 5),
    "a digest": (
        "UPDATE seal_runs SET digests = {other} WHERE {run}",
        ["not what it was when it was sealed as receipt 3", "not what it was when it was sealed as receipt 4"],
    ),
    "a seal of another call": (
        "UPDATE seal_runs SET receipts = replace(receipts, '{hold}', 'gen-other') WHERE {run}",
        ["the usage row of receipt 3 is gone", "has no seal, nor waits for one"],
    ),
    "a seal that is there twice": (
        "UPDATE seal_runs SET receipts = replace(receipts, '{hold}', '{next_hold}') WHERE {run}",
        ["not what it was when it was sealed as receipt 3", "the usage row has 2 seals", "has no seal, nor waits for one"],
    ),
    "receipts that cannot be read": (
        "UPDATE seal_runs SET receipts = '[]]' WHERE {run}",
        [*(f"the usage row of receipt {number} is gone" for number in range(1, 6)), *["has no seal, nor waits"] * 5],
    ),
    "a run that is moved": (
        "UPDATE seal_runs SET number = number + 1 WHERE {run}",
        [
            "receipt 1 is missing before this one", *(f"when it was sealed as receipt {number}" for number in (3, 4, 5, 6)),
            "numbered 6 after receipt 6",
        ],
    ),
    "another account's": ("UPDATE usage SET account_id = 'acc-else' WHERE {row}", ["is of a usage row of the account acc-else"]),
    "another form": ("UPDATE seal_runs SET format = 9 WHERE {run}", ["has a form that is not known here: 9"] * 5),
    "a day that has not come": (
        "UPDATE seal_runs SET day = '2999-01-01', number = 1 WHERE {last_run}", ["a day after 2026-11-23", *["is not what"] * 5],
    ),
    "a mark that was taken": ("DELETE FROM unsealed", ["has no seal, nor waits for one"] * 2),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_the_check_names_what_was_damaged(world, name):
    busy(world, accounts=1)
    seal_all(world)
    world.post()
    worker, key = world.worker("w2"), world.key(world.account(DOLLAR))
    world.clock.us += 1
    for _ in range(2):
        assert worker.call(key, SMALL)
    world.post()
    assert world.check() == [], "two rows wait for their seals, which is no damage"
    places = sealed(world.database)
    (run, (hold, attempt, _)), (last, _) = places[2], places[-1]
    digests = bytearray(run.digests)
    digests[2 * 32] ^= 1
    sql, sentences = DAMAGES[name]
    statement = sql.format(
        row=f"hold_id = '{hold}' AND attempt = {attempt}",
        run=f"account_id = '{run.account_id}' AND number = {run.number}",
        last_run=f"account_id = '{last.account_id}' AND number = {last.number}",
        other=f"X'{digests.hex()}'" if world.database.is_sqlite else f"'\\x{digests.hex()}'::bytea",
        hold=hold,
        next_hold=places[1][1][0],
    )

    def damage(connection):
        for table in ("usage", "seal_runs"):
            on_table = "" if world.database.is_sqlite else f" ON {table}"
            for verb in ("update", "delete"):
                connection.exec_driver_sql(f"DROP TRIGGER {table}_no_{verb}{on_table}")
        connection.exec_driver_sql(statement)

    world.database.write(damage)
    found = world.database.read(check_seals.receipts_are_rows)
    assert [one.invariant for one in found] == ["I10"] * len(sentences), found
    for one, sentence in zip(found, sentences, strict=True):
        assert sentence in one.sentence, found
        assert "attempt " in one.sentence and "2026-11-23" in one.sentence or "2999" in one.sentence
    if name not in ("a mark that was taken", "another account's"):
        concerned = {key[0] for damaged, key in places if damaged in (run, last)} | {"", "gen-other", places[5][1][0]}
        assert {one.subject for one in found} <= concerned and all(run.account_id in one.sentence for one in found)


def test_a_chain_that_is_broken_altogether_is_told_of_so_often_and_no_more(world, monkeypatch):
    monkeypatch.setattr(check_seals, "PROBLEMS_MAX", 3)
    busy(world, accounts=1)
    seal_all(world)
    on_table = "" if world.database.is_sqlite else " ON usage"

    def damage(connection):
        connection.exec_driver_sql(f"DROP TRIGGER usage_no_update{on_table}")
        connection.exec_driver_sql("UPDATE usage SET outcome = 'okay'")

    world.database.write(damage)
    assert len(world.database.read(check_seals.receipts_are_rows)) == 3
