"""The rate limiter against an exact model of GCRA, its places, its tokens and their true-up."""

import os
import random
import time
from fractions import Fraction
from heapq import heappop, heappush

import msgspec
import pytest

from farebox.config import limits as config_limits
from farebox.gate.ladder import Ladder, Tier
from farebox.gate.limit_table import IDLE_US, PROBES_MAX, LimitTable, TableFull, mark_of, table_bytes
from farebox.gate.limiter import Admission, Holder, Limiter, concerned, with_classes
from farebox.gate.limits import LIMIT_MAX, Limits, Refusal, Standing, lowest, restored, stored

DECISIONS = 1_000_000 if os.environ.get("FAREBOX_FULL") else 100_000
DECISION_US_MAX = 5
MINUTE_US = 60_000_000
DAY_US = 86_400_000_000
START_US = 77_000_000_000
"""Machines have run for a while."""


def holder(id: str = "key:k", **limits: int) -> Holder:
    return Holder(id, f"the key `{id}`", Limits(**limits))


def admitted(limiter: Limiter, *holders: Holder, tokens: int = 0, now_us: int = START_US) -> Admission:
    found = limiter.admit(holders, tokens, now_us)
    assert isinstance(found, Admission), found
    return found


def refused(limiter: Limiter, *holders: Holder, tokens: int = 0, now_us: int = START_US) -> Refusal:
    found = limiter.admit(holders, tokens, now_us)
    assert isinstance(found, Refusal), found.standing
    return found


class Exact:
    """GCRA as its definition has it, in fractions: a theoretical arrival time, an interval, a tolerance (virtual scheduling)."""

    def __init__(self, maximum: int, period_us: int, tick_us: int = 1) -> None:
        self.interval = Fraction(period_us, maximum)
        self.tolerance = period_us
        self.tick_us = tick_us
        self.arrival = Fraction(0)

    def at(self, now_us: int) -> int:
        return now_us // self.tick_us * self.tick_us

    def conforms(self, count: int, now_us: int) -> bool:
        now = self.at(now_us)
        return max(self.arrival, Fraction(now)) + count * self.interval - now <= self.tolerance

    def take(self, count: int, now_us: int) -> None:
        self.arrival = max(self.arrival, Fraction(self.at(now_us))) + count * self.interval


# --- against the exact model -------------------------------------------------------------------------------------------------


def test_every_decision_is_that_of_the_exact_model() -> None:
    """Decisions over three holders at once: none differs, so nothing is let in that should not be, and nothing is refused. What
    calls used beyond their estimate is owed from their end on."""
    chance = random.Random(11)
    holders = (
        holder("account:a", requests_per_minute=700, tokens_per_minute=90_001),
        holder("project:p", requests_per_minute=59, tokens_per_day=7_000_003),
        holder("key:k", requests_per_minute=613, tokens_per_minute=33_333),
    )
    requests = [Exact(700, MINUTE_US), Exact(59, MINUTE_US), Exact(613, MINUTE_US)]
    tokens_of = [Exact(90_001, MINUTE_US), Exact(7_000_003, DAY_US, 1_000), Exact(33_333, MINUTE_US)]
    limiter = Limiter()
    now_us, let_in = START_US, 0
    for _ in range(DECISIONS):
        now_us += chance.choice((0, 1, 7, 1_003, 40_000, 900_000))
        tokens = chance.randrange(1, 2_000)
        found = limiter.admit(holders, tokens, now_us)
        passes = all(one.conforms(1, now_us) for one in requests) and all(one.conforms(tokens, now_us) for one in tokens_of)
        assert isinstance(found, Admission) == passes, (found, now_us)
        if not isinstance(found, Admission):
            continue
        let_in += 1
        used = tokens + chance.choice((0, 0, 500))
        found.release(used, now_us)
        for one in requests:
            one.take(1, now_us)
        for one in tokens_of:
            one.take(tokens, now_us)
            one.take(used - tokens, now_us)
    assert DECISIONS / 4 > let_in > DECISIONS / 20, "both answers were asked for often"
    assert not limiter.in_flight()


@pytest.mark.parametrize("seed", range(5))
def test_true_up_never_lets_in_more_than_if_the_use_had_been_known(seed: int) -> None:
    """Calls overlap, and give back what they did not use, when they end. A GCRA that knew before what each will use admits every
    call that we admit; and one without true-up refuses many of them."""
    chance = random.Random(seed)
    period = (60_000, MINUTE_US) if seed % 2 else (86_400, DAY_US, 1_000)
    key = holder(tokens_per_minute=60_000) if seed % 2 else holder(tokens_per_day=86_400)
    limiter = Limiter()
    knowing, naive = Exact(*period), Exact(*period)
    flying: list[tuple[int, int, Admission, int]] = []
    now_us, let_in, naive_in, burst, wasteful = START_US, 0, 0, 0, False
    for n in range(DECISIONS // 10):
        # Now and then nothing comes for a while, what lies in the bucket flows off although its calls go on, and then many come.
        if not burst:
            now_us += chance.choice((0, 50, 20_000, 300_000)) * (1 if seed % 2 else 5)
            if chance.random() < 0.02:
                now_us += chance.choice((1_000_000, 20_000_000, 70_000_000)) * (1 if seed % 2 else 1_000)
                burst, wasteful = 40, chance.random() < 0.5
        else:
            burst -= 1
            now_us += 1_000
        while flying and flying[0][0] <= now_us:
            ends_us, _, slot, used = heappop(flying)
            slot.release(used, max(ends_us, now_us))
        tokens = chance.randrange(100, 6_000)
        if naive.conforms(tokens, now_us):
            naive.take(tokens, now_us)
            naive_in += 1
        found = limiter.admit([key], tokens, now_us)
        if isinstance(found, Admission):
            used = 0 if burst and wasteful else chance.choice((tokens, tokens, tokens, tokens // 10, 0))
            assert knowing.conforms(used, now_us), f"call {n} was let in although its tokens were not there"
            knowing.take(used, now_us)
            long_us = chance.randrange(60_000_000, 110_000_000) * (1 if seed % 2 else 1_000)
            lasts_us = chance.choice((0, 20_000_000) if used == tokens else (2_000_000, long_us))
            heappush(flying, (now_us + lasts_us, n, found, used))
            let_in += 1
    assert let_in > naive_in, "what was not used serves others"


def test_a_late_return_is_not_taken_out_of_what_others_took_since() -> None:
    """A long call reserved the whole minute and used nothing. By its end its tokens have flowed off long ago; giving them back
    then would let a second whole minute in at once."""
    limiter, key = Limiter(), holder(tokens_per_minute=600)
    long = admitted(limiter, key, tokens=600)
    later_us = START_US + MINUTE_US
    admitted(limiter, key, tokens=600, now_us=later_us)
    long.release(0, later_us)
    assert refused(limiter, key, tokens=1, now_us=later_us).limit == "tokens_per_minute"


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_what_was_not_used_comes_back_in_whatever_order_calls_end(order: tuple[int, ...]) -> None:
    limiter, key = Limiter(), holder(tokens_per_minute=20_000, tokens_per_day=86_400_000)
    slots = [admitted(limiter, key, tokens=4_000) for _ in range(4)]
    for n in order:
        slots[n].release(100, START_US)
    assert limiter.standing([key], START_US).tokens_left == 19_600
    # A second later the bucket still had more than what they had reserved: all of it comes back but for what flowed.
    slots = [admitted(limiter, key, tokens=4_000) for _ in range(4)]
    for n in order:
        slots[n].release(100, START_US + 1_000_000)
    assert limiter.standing([key], START_US + 1_000_000).tokens_left == 20_000 - 800 + 333


def test_a_decision_takes_microseconds() -> None:
    """The best of several stretches: the machine may be busy with something else."""
    holders = (
        holder("account:a", requests_per_minute=10**9, tokens_per_minute=10**10, concurrent_calls=10),
        holder("key:k", requests_per_minute=10**9, concurrent_calls=10),
    )
    limiter = Limiter()
    decided_us = ended_us = 1e9
    for _ in range(20):
        began = time.perf_counter()
        slots = [limiter.admit(holders, 100, START_US + n) for n in range(10)]
        decided = time.perf_counter()
        for slot in slots:
            assert isinstance(slot, Admission)
            slot.release(90, START_US + 20)
        decided_us = min(decided_us, (decided - began) * 100_000)
        ended_us = min(ended_us, (time.perf_counter() - decided) * 100_000)
    assert decided_us < DECISION_US_MAX, f"{decided_us:.1f} µs for two holders"
    assert ended_us < DECISION_US_MAX, f"{ended_us:.1f} µs for their true-up and release"


# --- limits, one by one ------------------------------------------------------------------------------------------------------


def test_a_minute_of_requests_may_come_at_once_and_the_next_waits_a_second() -> None:
    limiter, key = Limiter(), holder(requests_per_minute=60)
    for _ in range(60):
        assert limiter.refusal([key], START_US) is None
        admitted(limiter, key)
    said = Refusal("requests_per_minute", key.whose, 60, 1_000_000)
    assert refused(limiter, key) == said == limiter.refusal([key], START_US)
    assert limiter.refusal([key], START_US + 1_000_000) is None
    admitted(limiter, key, now_us=START_US + 1_000_000)


def test_places_come_back_and_belong_to_their_holder() -> None:
    limiter, key = Limiter(), holder(concurrent_calls=2)
    first, _ = admitted(limiter, key), admitted(limiter, key)
    assert refused(limiter, key) == Refusal("concurrent_calls", key.whose, 2, 1_000_000) == limiter.refusal([key], START_US)
    admitted(limiter, holder("key:other", concurrent_calls=2))
    first.release(0, START_US)
    admitted(limiter, key)
    with pytest.raises(AssertionError):
        first.release(0, START_US)


def test_all_limits_of_all_holders_or_none() -> None:
    """What one limit refuses takes nothing from any other: neither requests nor tokens nor places."""
    limiter = Limiter()
    account = holder("account:a", requests_per_minute=100, concurrent_calls=100, tokens_per_minute=1_000, tokens_per_day=1_000)
    key = holder(tokens_per_minute=10)
    admitted(limiter, account, key, tokens=10).release(10, START_US)
    before = limiter.standing([account], START_US)
    for _ in range(50):
        assert refused(limiter, account, key, tokens=5) == Refusal("tokens_per_minute", key.whose, 10, 30_000_000)
    assert limiter.standing([account], START_US) == before == Standing(100, 99, 600_000, 1_000, 990, 600_000)
    assert not limiter.in_flight()


def test_of_several_limits_the_one_is_named_that_lasts_longest() -> None:
    limiter = Limiter()
    account = holder("account:a", requests_per_minute=60)
    key = holder(requests_per_minute=6, tokens_per_day=86_400)
    for _ in range(6):
        admitted(limiter, account, key, tokens=14_400)
    assert refused(limiter, account, key, tokens=1).limit == "requests_per_minute"
    assert refused(limiter, account, key, tokens=60).limit == "tokens_per_day"


def test_what_was_not_used_comes_back_and_what_was_used_beyond_is_owed() -> None:
    limiter, key = Limiter(), holder(tokens_per_minute=600)
    admitted(limiter, key, tokens=500).release(100, START_US)
    assert limiter.standing([key], START_US) == Standing(0, 0, 0, 600, 500, 10_000_000)
    admitted(limiter, key, tokens=100).release(1_100, START_US)
    assert limiter.standing([key], START_US) == Standing(0, 0, 0, 600, 0, 120_000_000)
    assert refused(limiter, key, tokens=1).retry_after_us == 60_100_000


def test_a_call_that_nobody_knows_the_use_of_keeps_what_it_reserved() -> None:
    limiter, key = Limiter(), holder(tokens_per_minute=600)
    admitted(limiter, key, tokens=500).release(None, START_US)
    assert limiter.standing([key], START_US).tokens_left == 100


def test_more_than_a_limit_allows_at_all_is_taken_as_all_of_it() -> None:
    """Else a call with a large cap could never be made."""
    limiter, key = Limiter(), holder(tokens_per_minute=100, tokens_per_day=10_000)
    slot = admitted(limiter, key, tokens=5_000)
    assert refused(limiter, key, tokens=1).limit == "tokens_per_minute"
    slot.release(40, START_US)
    assert limiter.standing([key], START_US) == Standing(0, 0, 0, 100, 60, 24_000_000)
    admitted(limiter, key, tokens=60).release(10**15, START_US)
    assert refused(limiter, key, now_us=START_US + DAY_US, tokens=1).retry_after_us > DAY_US, "nothing overflows"


def test_models_of_a_class_have_further_limits() -> None:
    limiter = Limiter()
    of_class = Limits(requests_per_minute=1, tokens_per_minute=50)
    account = with_classes("account:a", "the account", Limits(), (("openai/*", of_class),))
    admitted(limiter, *concerned([account], {"openai/gpt"}), tokens=50)
    said = refused(limiter, *concerned([account], {"openai/gpt", "mistral/small"}), tokens=1)
    assert said.limit == "requests_per_minute for openai/*" and said.whose == "the account"
    admitted(limiter, *concerned([account], {"mistral/small"}), tokens=50)


def test_another_limit_holds_at_once_and_forgives_nothing() -> None:
    limiter = Limiter()
    for _ in range(10):
        admitted(limiter, holder(requests_per_minute=10))
    refused(limiter, holder(requests_per_minute=10))
    for _ in range(10):
        admitted(limiter, holder(requests_per_minute=20))
    refused(limiter, holder(requests_per_minute=20))
    refused(limiter, holder(requests_per_minute=10), now_us=START_US + MINUTE_US // 2)


def test_a_clock_of_another_worker_that_is_ahead_gives_nothing_back() -> None:
    limiter, key = Limiter(), holder(requests_per_minute=60)
    for _ in range(60):
        admitted(limiter, key, now_us=START_US + 500)
    refused(limiter, key, now_us=START_US)
    assert refused(limiter, key, now_us=START_US + 500).retry_after_us == 1_000_000


def test_limits_of_two_are_the_lower_of_each_and_survive_the_database() -> None:
    one, other = Limits(requests_per_minute=5, tokens_per_day=7), Limits(requests_per_minute=9, concurrent_calls=3)
    both = Limits(requests_per_minute=5, concurrent_calls=3, tokens_per_day=7)
    assert lowest(one, other) == both == lowest(other, one) == restored(stored(both))
    assert stored(Limits()) == "" and restored("") == Limits()
    with pytest.raises(msgspec.ValidationError):
        restored('{"request_per_minute":5}')


def test_the_configuration_takes_no_limit_that_does_not_fit() -> None:
    assert config_limits.LIMIT_MAX == LIMIT_MAX


def test_odd_rates_never_divide_by_zero() -> None:
    for rate in (1, 59, 61, LIMIT_MAX):
        odd = holder(requests_per_minute=rate, tokens_per_day=rate, tokens_per_minute=rate)
        admitted(Limiter(), odd, tokens=LIMIT_MAX).release(2**40, START_US)


# --- the table ---------------------------------------------------------------------------------------------------------------


def two_workers(slots: int = 256) -> tuple[LimitTable, LimitTable]:
    cells = memoryview(bytearray(table_bytes(2, slots))).cast("q")
    return LimitTable(cells, workers=2, worker=0, slots=slots), LimitTable(cells, workers=2, worker=1, slots=slots)


def test_workers_share_limits_and_a_dead_ones_places_come_back() -> None:
    tables = two_workers()
    one, other = (Limiter(table) for table in tables)
    # Each process makes its own holders.
    mine, theirs = holder(requests_per_minute=5, concurrent_calls=2), holder(requests_per_minute=5, concurrent_calls=2)
    admitted(one, mine)
    kept = admitted(other, theirs)
    assert refused(one, mine).limit == refused(other, theirs).limit == "concurrent_calls"
    tables[1].forget_column(0)
    admitted(other, theirs)
    assert refused(one, mine).limit == "concurrent_calls"
    kept.release(0, START_US)
    admitted(one, mine)
    assert limits_left(other, theirs) == 1, "what was taken stays taken, whoever died"
    assert list(one.in_flight().values()) == [1] == list(other.in_flight().values())


def test_what_another_worker_has_reserved_is_not_given_back_out_of_what_was_let_in_since() -> None:
    """As with one worker: the tokens of a call that takes long flow off, whoever looks at the bucket meanwhile."""
    one, other = (Limiter(table) for table in two_workers())
    mine, theirs = holder(tokens_per_minute=600), holder(tokens_per_minute=600)
    long = admitted(one, mine, tokens=600)
    later_us = START_US + MINUTE_US
    admitted(other, theirs, tokens=600, now_us=later_us)
    long.release(0, later_us)
    assert refused(other, theirs, tokens=1, now_us=later_us).limit == "tokens_per_minute"
    assert refused(one, mine, tokens=1, now_us=later_us).limit == "tokens_per_minute"


def limits_left(limiter: Limiter, one: Holder) -> int:
    return limiter.standing([one], START_US).requests_left


def test_an_idle_owner_is_forgotten_a_busy_one_never_and_more_are_refused() -> None:
    table = LimitTable.private(PROBES_MAX)
    limiter = Limiter(table)
    busy = holder("key:busy", concurrent_calls=1)
    slot = admitted(limiter, busy)
    others = [holder(f"key:{n}", requests_per_minute=60) for n in range(PROBES_MAX - 1)]
    for other in others:
        admitted(limiter, other).release(0, START_US)
    late = holder("key:late", requests_per_minute=1)
    with pytest.raises(TableFull):
        limiter.admit([late], 0, START_US + IDLE_US)
    admitted(limiter, late, now_us=START_US + IDLE_US + 1)
    assert refused(limiter, busy, now_us=START_US + IDLE_US + 1).limit == "concurrent_calls"
    slot.release(0, START_US + IDLE_US + 1)
    admitted(limiter, busy, now_us=START_US + IDLE_US + 1)
    # Who lost its slot to somebody else finds another.
    for other in others[:10]:
        admitted(limiter, other, now_us=START_US + 3 * IDLE_US)


def test_marks_are_never_that_of_an_empty_slot() -> None:
    marks = {mark_of(f"key:{n}") for n in range(10_000)}
    assert len(marks) == 10_000 and 0 not in marks


# --- the ladder --------------------------------------------------------------------------------------------------------------

LADDER = Ladder(
    [
        Tier("free", Limits(requests_per_minute=1)),
        Tier("one", Limits(), paid_nano=5 * 10**9),
        Tier("two", Limits(), paid_nano=50 * 10**9, age_us=7 * DAY_US),
    ],
    "free",
)


def test_accounts_climb_as_far_as_they_have_come_and_never_down() -> None:
    reached = LADDER.reached
    assert reached("", paid_nano=0, age_us=10**15) == ""
    assert reached("", paid_nano=5 * 10**9, age_us=0) == "one"
    assert reached("free", paid_nano=60 * 10**9, age_us=6 * DAY_US) == "one"
    assert reached("free", paid_nano=60 * 10**9, age_us=7 * DAY_US) == "two"
    assert reached("two", paid_nano=0, age_us=0) == "two"


def test_a_tier_that_is_gone_counts_as_the_lowest() -> None:
    found = LADDER.of("gold")
    assert found is not None and found.name == "free"
    assert Ladder([], "").of("") is None and Ladder(LADDER.tiers, "").of("") is None
