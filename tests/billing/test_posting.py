"""The poster: everything once, in one transaction, whatever happens around it."""

import msgspec
import pytest

from farebox.billing.accounts import adjustments
from farebox.billing.books import allotments, evidence
from farebox.billing.journal import read_all
from farebox.billing.posting import poster, segments
from farebox.billing.records import Attempt, Settle
from farebox.storage.database import OutcomeUnknown
from farebox.wires.usage import Usage

DOLLAR = 1_000_000_000
SMALL = Usage(input=1_000, cache_read=200, output=300)
SMALL_NANO = 5_750_002


def test_a_call_is_charged_paid_from_credit_and_costs_us(world):
    account = world.account(10 * DOLLAR)
    key = world.key(account, 5 * DOLLAR, "day")
    worker = world.worker()
    settle = worker.call(key, SMALL, hold_nano=2 * DOLLAR, markup_bp=1_000)
    posted = world.post()
    price = settle.charge_nano
    assert (posted.calls, posted.rows, posted.charge_nano) == (1, 1, price)
    sums = world.sums()
    cost = settle.attempts[0].cost_nano
    assert cost == 5_750_002  # 1000 × 2.5 + 200 × 1.25 + 300 × 10 µ$, and the fee of 1.5 nano-dollars rounded to even
    assert sums["revenue"] == -price and sums["provider_cost"] == cost and sums["provider_payable:openai"] == -cost
    assert sums[f"receivable:{account}"] == 0
    assert world.credits(account).used_nano == price
    assert world.balance(account).posted_nano == price == world.scope(f"key:{key}:2026-11-23").posted_nano
    (row,) = world.rows(settle)
    assert row.final and row.charge_nano == price and (row.prompt_tokens, row.completion_tokens) == (1_200, 300)
    assert evidence.settle(row) == settle and evidence.attempt(row) == settle.attempts[0]
    assert world.check() == []


def test_every_attempt_is_a_row_with_its_own_evidence(world):
    """Peers row 23: cancelled, timed-out and retried attempts were unbilled and unseen."""
    key = world.key(world.account(DOLLAR))
    worker = world.worker()
    hold = worker.hold(key, 100_000_000)
    first = worker.attempt(hold, None, status=503, outcome="http_error")
    second = worker.attempt(hold, Usage(input=5), n=2, room_nano=0, outcome="truncated", loss_nano=0)
    third = worker.attempt(hold, SMALL, n=3)
    settle = worker.settle(hold, first, second, third)
    assert world.post().rows == 3
    rows = world.rows(settle)
    assert [(row.attempt, row.final, row.outcome) for row in rows] == [
        (1, False, "http_error"),
        (2, False, "truncated"),
        (3, True, "ok"),
    ]
    assert [evidence.attempt(row) for row in rows] == [first, second, third]
    assert [row.cost_nano for row in rows][0] is None, "unknown is never zero"
    assert world.check() == []


def test_a_voided_hold_leaves_one_final_row_and_no_money(world):
    key = world.key(world.account(DOLLAR))
    worker = world.worker()
    settle = worker.void(worker.hold(key, 100_000_000))
    world.post()
    (row,) = world.rows(settle)
    assert (row.attempt, row.final, row.state, row.charge_nano, row.cost_nano) == (0, True, "voided", 0, 0)
    assert world.check() == []


def test_posting_again_changes_nothing(world):
    key = world.key(world.account(DOLLAR))
    worker = world.worker()
    worker.call(key, SMALL)
    assert world.post().calls == 1
    before = world.sums()
    assert world.post() == poster.Posted()
    assert world.sums() == before


def test_small_batches_post_the_same_as_one(world):
    key = world.key(world.account(DOLLAR))
    worker = world.worker()
    charged = sum(worker.call(key, SMALL).charge_nano for _ in range(7))
    calls = 0
    for _ in range(20):
        calls += world.post(records_max=3).calls
        assert [violation for violation in world.check()] == []
    assert calls == 7 and world.sums()["revenue"] == -charged


def test_a_commit_whose_answer_is_lost_is_not_posted_twice(world, monkeypatch):
    """Peers row 26: commit, lost acknowledgement, retry, charged twice. Row 6: repeated refund."""
    key = world.key(world.account(DOLLAR))
    settle = world.worker().call(key, SMALL)
    write = world.database.write

    def lose(work):
        write(work)
        raise OutcomeUnknown("the connection was lost")

    monkeypatch.setattr(world.database, "write", lose)
    with pytest.raises(OutcomeUnknown):
        world.post()
    monkeypatch.undo()
    assert world.post().records == 0
    assert world.sums()["revenue"] == -settle.charge_nano
    assert world.check() == []


def test_a_poster_that_dies_between_any_two_statements_loses_nothing(world):
    """Peers rows 16, 18 and 23: rows taken from a queue and then not written; counters swapped out of memory and lost."""
    from sqlalchemy import event

    account = world.account(DOLLAR)
    key = world.key(account, DOLLAR, "day")
    charged = 0
    for at in range(1, 40):
        charged += world.worker().call(key, SMALL).charge_nano
        world.workers[-1].crash()
        seen = []

        def die(*_, at=at, seen=seen):
            seen.append(None)
            if len(seen) == at:
                raise KeyboardInterrupt

        event.listen(world.database.engine, "before_cursor_execute", die)
        try:
            world.post()
            died = False
        except KeyboardInterrupt:
            died = True
        finally:
            event.remove(world.database.engine, "before_cursor_execute", die)
        posted = world.balance(account).posted_nano
        assert posted in (charged, charged - SMALL_NANO)
        world.post()
        assert world.balance(account).posted_nano == charged == -world.sums()["revenue"]
        if not died:
            break
    assert not died and at > 10, "every statement had its turn"
    assert world.check() == []


def test_of_two_posters_one_loses_and_changes_nothing(world, monkeypatch):
    key = world.key(world.account(DOLLAR))
    settle = world.worker().call(key, SMALL)
    other = []
    write = world.database.write

    def interleave(work):
        if not other:
            other.append(None)
            other.append(world.post())
        return write(work)

    monkeypatch.setattr(world.database, "write", interleave)
    mine = world.post()
    assert mine.lost and mine.calls == 0
    assert other[1].calls == 1
    assert world.sums()["revenue"] == -settle.charge_nano
    assert world.check() == []


def test_a_second_settle_of_a_hold_is_refused_and_told(world):
    """Peers row 11 and 22: reserved and actual both counted; two terminal events. I3."""
    key = world.key(world.account(DOLLAR))
    worker = world.worker()
    settle = worker.call(key, SMALL)
    world.post()
    worker.journal.write(settle)
    good = worker.call(key, SMALL)
    posted = world.post()
    assert (posted.refused, posted.calls) == (1, 1)
    assert world.outbox("settle_refused") == [(settle.id, 0)]
    assert world.sums()["revenue"] == -(settle.charge_nano + good.charge_nano)
    worker.journal.write(good, good)
    assert world.post().refused == 2
    assert world.check() == []


def test_two_settles_of_a_hold_in_one_batch_post_once(world):
    key = world.key(world.account(DOLLAR))
    worker = world.worker()
    settle = worker.call(key, SMALL)
    worker.journal.write(settle)
    posted = world.post()
    assert (posted.refused, posted.calls) == (1, 1)
    assert world.sums()["revenue"] == -settle.charge_nano
    assert world.check() == []


@pytest.mark.parametrize(
    "change",
    [
        {"charge_nano": 1},
        {"hold_nano": 1},
        {"account": "acc-nobody"},
        {"attempts": (Attempt(1, "p", "m", 1, 2, "ok", charge_nano=-5, cost_nano=0),), "charge_nano": -5},
        {"attempts": (Attempt(1, "p", "m", 1, 2, "ok", cost_nano=-5),), "charge_nano": 0},
        {"attempts": (Attempt(2, "p", "m", 1, 2, "ok"), Attempt(1, "p", "m", 1, 2, "ok")), "charge_nano": 0},
    ],
)
def test_a_record_that_cannot_be_true_is_refused_and_the_rest_is_posted(world, change):
    import msgspec

    key = world.key(world.account(DOLLAR))
    worker = world.worker()
    hold = worker.hold(key, 10_000_000)
    true = worker.attempt(hold, SMALL)
    good = worker.settle(hold, true)
    worker.journal.write(msgspec.structs.replace(good, id="gen-false", **change))
    posted = world.post()
    assert (posted.refused, posted.calls) == (1, 1)
    assert world.outbox("settle_refused") == [("gen-false", 0)]
    assert world.check() == []


def test_opened_and_closed_release_earlier_lives_after_their_calls(world):
    """Peers rows 5 and 10: reservations leaked for ever after a crash."""
    account = world.account(10 * DOLLAR)
    key = world.key(account)
    worker = world.worker()
    worker.hold(key, DOLLAR, wish_nano=2 * DOLLAR)
    settle = worker.call(key, SMALL, hold_nano=DOLLAR)
    worker.crash()
    world.post()
    assert world.balance(account).allotted_nano > 0
    again = world.worker()
    assert len(again.recovered) == 1
    posted = world.post()
    assert posted.released == 1 and posted.calls == 1
    balance = world.balance(account)
    assert balance.allotted_nano == 0 and balance.posted_nano == settle.charge_nano
    assert world.check() == []
    last = again.call(key, SMALL, hold_nano=DOLLAR)
    again.close()
    world.post()
    assert world.balance(account).posted_nano == settle.charge_nano + last.charge_nano
    assert world.balance(account).allotted_nano == 0
    assert world.check() == []


def test_one_slot_does_not_release_another(world):
    account = world.account(10 * DOLLAR)
    key = world.key(account)
    first, second = world.worker("w1"), world.worker("w2")
    first.hold(key, DOLLAR)
    second.hold(key, DOLLAR)
    first.crash()
    world.worker("w1")
    world.post()
    assert world.balance(account).allotted_nano == DOLLAR
    assert world.check() == []


def test_an_ended_life_takes_nothing_more(world):
    key = world.key(world.account(DOLLAR))
    worker = world.worker()
    worker.hold(key, 1_000)
    allotments.release(world.database, worker.life, at_us=world.clock.us)
    with pytest.raises(allotments.AllotmentError, match="has ended"):
        worker.hold(key, 100_000)


def test_a_journal_that_returns_after_its_release_is_charged_as_far_as_it_fits(world):
    """The customer never overshoots: what no longer fits is our loss, and somebody is told."""
    account = world.account(20_000_000)
    key = world.key(account)
    gone = world.worker("w1")
    hold = gone.hold(key, 15_000_000)
    allotments.release(world.database, gone.life, at_us=world.clock.us)
    worker = world.worker("w2")
    spent = worker.call(key, Usage(input=5_600)).charge_nano
    assert spent == 14_000_002
    settle = gone.settle(hold, gone.attempt(hold, Usage(input=5_000)))
    posted = world.post()
    assert posted.calls == 2 and posted.reduced == 1
    (row,) = world.rows(settle)
    assert row.charge_nano == 20_000_000 - spent and row.loss_nano == settle.charge_nano - row.charge_nano
    balance = world.balance(account)
    assert balance.posted_nano == balance.limit_nano == 20_000_000
    assert world.outbox("settle_reduced") == [(settle.id, 0)]
    assert world.sums()["provider_loss"] == row.loss_nano
    # The journal of the released life has no allotment any more, and that is all that is wrong.
    assert world.check() == []


def test_a_damaged_slot_does_not_stop_the_others(world):
    key = world.key(world.account(DOLLAR))
    good, bad = world.worker("w1"), world.worker("w2")
    good.call(key, SMALL)
    bad.call(key, SMALL)
    path = world.journals / "w2" / "00000001.journal"
    data = bytearray(path.read_bytes())
    data[data.index(b"gen-")] ^= 1
    path.write_bytes(data)
    posted = world.post()
    assert posted.calls == 1 and len(posted.damaged) == 1 and "w2/00000001.journal" in posted.damaged[0]


def test_an_unfinished_line_waits_for_its_end(world):
    key = world.key(world.account(DOLLAR))
    worker = world.worker()
    worker.call(key, SMALL)
    path = world.journals / "w1" / "00000001.journal"
    data = path.read_bytes()
    path.write_bytes(data.rstrip(b"\0")[:-7].ljust(len(data), b"\0"))
    assert world.post().calls == 0
    path.write_bytes(data)
    assert world.post().calls == 1


def test_a_loss_above_the_hold_is_booked(world):
    """Peers row 12: a hold capped to what was left let the rest through unpaid and unseen."""
    key = world.key(world.account(DOLLAR))
    worker = world.worker()
    hold = worker.hold(key, 1_000_000)
    settle = worker.settle(hold, worker.attempt(hold, SMALL, flags=("hold_exceeded",)))
    world.post()
    (row,) = world.rows(settle)
    assert row.charge_nano == 1_000_000 and row.loss_nano == 4_750_002
    assert world.sums()["provider_loss"] == 4_750_002
    assert world.check() == []


def test_alerts_fire_once_per_window_and_limit(world):
    """Peers row 24: a usage rule fired at $0.40 of $15."""
    from farebox.billing.books import customers

    account = world.account(100 * DOLLAR)
    key = world.key(account, 11_500_000, "day")
    scope = f"key:{key}:2026-11-23"
    worker = world.worker()
    worker.call(key, Usage(input=2_200, output=25))
    world.post()
    assert world.outbox("budget_threshold") == [(scope, 50)]
    worker.call(key, Usage(input=200))
    world.post()
    assert world.outbox("budget_threshold") == [(scope, 50)]
    customers.set_key_budget(world.database, key, 6_500_000, "day")
    worker.call(key, Usage(input=10))
    world.post()
    assert world.outbox("budget_threshold") == [(scope, 50), (scope, 50), (scope, 80)]
    world.clock.us += 86_400_000_000
    worker.call(key, Usage(input=2_599))
    world.post()
    assert world.outbox("budget_threshold")[3:] == [(f"key:{key}:2026-11-24", 50), (f"key:{key}:2026-11-24", 80)]
    assert world.check() == []


def test_posted_segments_are_removed_and_needed_ones_stay(world):
    account = world.account(100 * DOLLAR)
    key = world.key(account)
    slot = world.journals / "w1"
    for _ in range(3):
        worker = world.worker()
        worker.call(key, SMALL)
        worker.close()
    worker = world.worker()
    held = worker.hold(key, 1_000)
    worker.crash()
    assert set(segments.open_holds(slot)) == {held.id}
    assert segments.remove_posted(world.database, slot) == []
    world.post()
    assert segments.remove_posted(world.database, slot) == [1, 2]
    for _ in range(3):
        worker = world.worker()
        worker.crash()
    assert segments.open_holds(slot) == {}
    world.post()
    assert segments.remove_posted(world.database, slot) == [3, 4, 5]
    assert world.post().records == 0
    assert world.check() == []


def test_an_open_hold_keeps_its_segment_and_all_after_it(world):
    """A long stream may be older than everything around it. A settle may not vanish before its hold."""
    from farebox.billing.journal import Journal

    key = world.key(world.account(100 * DOLLAR))
    slot = world.journals / "w1"
    worker = world.worker()
    worker.journal.close()
    worker.journal = Journal(slot, sync="os", segment_bytes_max=4_096)
    for _ in range(5):
        worker.call(key, SMALL)
    long = worker.hold(key, 1_000_000)
    at = worker.journal.segment
    for _ in range(20):
        worker.call(key, SMALL)
    world.post()
    assert worker.journal.segment > at + 3 > 5
    # The first segment has the `Opened` of the life that the slot is in; it is cut down to that line.
    assert segments.remove_posted(world.database, slot) == list(range(2, at))
    assert (slot / "00000001.journal").stat().st_size < 200
    assert set(segments.open_holds(slot)) == {long.id}
    assert world.check() == []
    worker.settle(long, worker.attempt(long, Usage(input=3)))
    world.post()
    assert segments.remove_posted(world.database, slot, most=20) == list(range(at, worker.journal.segment - 1))
    assert segments.open_holds(slot) == {}
    assert world.check() == []
    last = worker.hold(key, 1_000_000)
    worker.crash()
    fresh = world.worker()
    assert [(settle.id, settle.life) for settle in fresh.recovered] == [(last.id, worker.life)], "recovery still knows the life"
    world.post()
    assert world.check() == []


class TestAdjustments:
    """An estimate is trued up by a new row and new transfers; the original stays."""

    def estimated(self, world, account, key, usage=SMALL, hold_nano=50_000_000):
        worker = world.worker()
        hold = worker.hold(key, hold_nano)
        settle = worker.settle(hold, worker.attempt(hold, usage, basis="estimated", flags=("estimated",)))
        world.post()
        return settle

    def adjust(self, world, settle, usage, **more):
        return adjustments.adjust(
            world.database, world.ids, hold_id=settle.id, attempt=1, exact=usage, now_us=world.clock.us, **more
        )

    def test_downwards_refunds_the_credit_that_paid(self, world):
        """Peers row 9: a refund restored the balance and not the used counter."""
        account = world.account(DOLLAR)
        key = world.key(account, DOLLAR)
        settle = self.estimated(world, account, key)
        original = world.rows(settle)
        made = self.adjust(world, settle, Usage(input=1_000, output=200))
        assert made.charge_nano == made.cost_nano == 4_500_002 - settle.charge_nano
        assert world.rows(settle)[0] == original[0]
        assert world.credits(account).used_nano == 4_500_002 == world.balance(account).posted_nano
        assert world.scope(f"key:{key}").posted_nano == 4_500_002
        assert sum(row.prompt_tokens for row in world.rows(settle)) == 1_000
        assert self.adjust(world, settle, Usage(input=1_000, output=200)).revision == 0, "the same again changes nothing"
        assert self.adjust(world, settle, Usage(input=1_000, output=199)).revision == 2
        assert world.check() == []

    def test_a_refund_returns_to_the_credit_that_was_spent_last(self, world):
        account = world.account()
        soon = world.top_up(account, 4_000_000, expires_us=world.clock.us + 1_000)
        later = world.top_up(account, 4_000_000, expires_us=world.clock.us + 2_000)
        never = world.top_up(account, 4_000_000)
        settle = self.estimated(world, account, world.key(account), usage=Usage(input=3_600), hold_nano=10_000_000)
        left = lambda: [-world.sums()[f"credit:{grant.id}"] for grant in (soon, later, never)]  # noqa: E731
        assert left() == [0, 0, 2_999_998]
        self.adjust(world, settle, Usage(input=2_400))
        assert left() == [0, 1_999_998, 4_000_000]
        assert world.check() == []

    def test_upwards_is_our_loss_unless_asked(self, world):
        account = world.account(DOLLAR)
        settle = self.estimated(world, account, world.key(account))
        made = self.adjust(world, settle, Usage(input=1_000, cache_read=200, output=400))
        assert (made.charge_nano, made.cost_nano, made.loss_nano) == (0, 1_000_000, 1_000_000)
        assert world.check() == []
        made = self.adjust(world, settle, Usage(input=1_000, cache_read=200, output=400), may_raise=True)
        assert (made.charge_nano, made.cost_nano, made.loss_nano) == (1_000_000, 0, -1_000_000)
        assert "provider_loss" not in {name for name, amount in world.sums().items() if amount}
        assert world.check() == []

    @pytest.mark.parametrize(
        ("credit", "hold", "raised"), [(6_000_000, 5_800_000, 49_998), (5_800_000, 5_750_002, 0), (5_800_000, 5_800_000, 49_998)]
    )
    def test_upwards_fits_the_hold_and_the_headroom(self, world, credit, hold, raised):
        account = world.account(credit)
        settle = self.estimated(world, account, world.key(account), hold_nano=hold)
        worker = world.workers[-1]
        worker.give_back(f"account:{account}")
        made = self.adjust(world, settle, Usage(input=1_000, cache_read=200, output=400), may_raise=True)
        assert (made.charge_nano, made.loss_nano) == (raised, 1_000_000 - raised)
        assert world.check() == []

    def test_a_recovered_call_with_unknown_cost_gets_it(self, world):
        account = world.account(DOLLAR)
        key = world.key(account)
        worker = world.worker()
        hold = worker.hold(key, 10_000_000)
        worker.crash()
        world.worker()
        world.post()
        settle = Settle(hold.id, "recovered", 0, account, key, (), 0, 0, "", "", (), 0, "")
        assert world.rows(settle)[0].cost_nano is None
        made = self.adjust(world, settle, SMALL)
        assert (made.charge_nano, made.cost_nano) == (0, 5_750_002), "not paid by policy stays unpaid"
        assert world.check() == []

    def test_what_was_estimated_at_nothing_is_not_free_by_policy(self, world):
        """A continuation of which no word was counted (simulation, seed 11845): its charge of 0 was its price."""
        account = world.account(DOLLAR)
        key = world.key(account)
        worker = world.worker()
        hold = worker.hold(key, 50_000_000)
        nothing = worker.attempt(hold, Usage(), basis="estimated", flags=("estimated", "continued"), charge_nano=0)
        settle = worker.settle(hold, nothing)
        world.post()
        made = self.adjust(world, settle, SMALL)
        assert (made.charge_nano, made.cost_nano, made.loss_nano) == (0, 5_750_000, 3_000_000)
        assert world.check() == []
        made = self.adjust(world, settle, SMALL, may_raise=True)
        assert (made.charge_nano, made.cost_nano, made.loss_nano) == (3_000_000, 0, -3_000_000)
        assert world.check() == []

    def test_a_postpaid_refund_lowers_the_receivable_first(self, world):
        account = world.account(kind="postpaid", line_nano=DOLLAR)
        world.top_up(account, 4_000_000, promo=True)
        settle = self.estimated(world, account, world.key(account))
        assert world.sums()[f"receivable:{account}"] == 1_750_002
        self.adjust(world, settle, Usage(input=1_000))
        assert world.sums()[f"receivable:{account}"] == 0
        assert world.credits(account).used_nano == 2_500_002
        assert world.check() == []


def test_a_hold_and_its_end_meet_by_any_id(world):
    """Ids are cut out of the lines; one that JSON escapes is read like before."""
    key = world.key(world.account(100 * DOLLAR))
    worker = world.worker()
    first = worker.hold(key, 1_000)
    ids = ["gen-1", 'gen-"', "gen-\\", "gen-é", "gen-\u2028", ""]
    for name in (*ids, *(f"{name}-open" for name in ids)):
        worker.journal.write(msgspec.structs.replace(first, id=name))
    worker.settle(first)
    end = read_all(world.journals / "w1")
    (settled,) = (record for record in end if isinstance(record, Settle))
    for name in ids:
        worker.journal.write(msgspec.structs.replace(settled, id=name))
    held, opens = segments._read(world.journals / "w1" / "00000001.journal")
    assert held == {f"{name}-open" for name in ids} and opens


def test_a_few_segments_are_removed_at_a_time(world):
    """Reading them keeps the poster from posting."""
    from farebox.billing.journal import Journal

    key = world.key(world.account(100 * DOLLAR))
    slot = world.journals / "w1"
    worker = world.worker()
    worker.journal.close()
    worker.journal = Journal(slot, sync="os", segment_bytes_max=4_096)
    for _ in range(40):
        worker.call(key, SMALL)
    world.post()
    last = worker.journal.segment - segments.KEEP
    assert last > 3 * segments.REMOVED_MAX
    gone: list[int] = []
    removed = [0]
    while removed:
        removed = segments.remove_posted(world.database, slot)
        assert len(removed) <= segments.REMOVED_MAX
        gone += removed
    assert gone == list(range(2, last + 1)), "the first is the line that says in which life the slot is"
    assert world.check() == []
