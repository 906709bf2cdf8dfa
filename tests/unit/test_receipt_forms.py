"""Receipts by form: the same bytes as the long way makes, of whatever calls; and which calls have none."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from farebox.billing.markup import Fees
from farebox.billing.posting import batch
from farebox.billing.records import Attempt, Settle
from farebox.billing.sealing import receipts
from farebox.billing.sealing.receipt_forms import Forms
from farebox.billing.sealing.receipts import START, Place
from farebox.billing.settled import Settled
from farebox.catalog.price import Rates
from farebox.ports import SystemClock, TimeOrderedIds
from farebox.storage.queries import UsageRow
from farebox.wires.usage import Usage

DAY, POSTED_US = "2026-11-23", 1_795_392_000_000_000
TEXTS = st.sampled_from(["", "openai", "openai/gpt-4o", "@", '"@"', "é\u2028\x07\\", "a b"])
IDS = st.sampled_from(["gen-1", "gen-008DxL6zSODCaGT1gbcigw", 'gen-"', "gen-é", "@", ""])
COUNTS = st.integers(0, 2**40)
AMOUNTS = st.integers(0, 2**62) | st.sampled_from([0, 10, 1_000_000_000])
MOMENTS = st.integers(0, 4_000_000_000_000_000)
USAGES = st.builds(Usage, input=COUNTS, cache_read=COUNTS, output=COUNTS, web_searches=COUNTS)
FEES = st.builds(Fees, COUNTS, st.none() | COUNTS, st.none(), st.booleans())
ATTEMPTS = st.builds(
    Attempt, n=st.integers(1, 3), provider=TEXTS, upstream_id=TEXTS, started_us=MOMENTS, ended_us=MOMENTS,
    outcome=st.sampled_from(["ok", "client_gone"]), usage=st.none() | USAGES,
    basis=st.sampled_from(["reported", "estimated", "none"]), flags=st.sampled_from([(), (), ("reported_cost",), ("drained",)]),
    price_version=TEXTS, rates=st.none() | st.builds(Rates, input=COUNTS, output=COUNTS, request=COUNTS),
    markup_bp=st.integers(-10_000, 100_000), fees=st.none() | FEES,
    plan=TEXTS, cost_nano=st.none() | AMOUNTS, charge_nano=AMOUNTS, loss_nano=st.sampled_from([0, 0, 0, 5]), model=TEXTS,
    provider_cost_usd=st.just("0.1"), raw_usage=TEXTS,
)  # fmt: skip


@st.composite
def settled(draw):
    attempts = draw(st.lists(ATTEMPTS, max_size=2) | st.tuples(ATTEMPTS))
    attempts = tuple(msgspec.structs.replace(one, n=n) if n > 1 else one for n, one in enumerate(attempts, 1))
    charge = sum(one.charge_nano for one in attempts)
    return Settle(
        id=draw(IDS), state=draw(st.sampled_from(["settled", "recovered"])), at_us=1, account=draw(TEXTS), key=draw(TEXTS),
        scopes=(), hold_nano=charge, charge_nano=charge, surface="", model=draw(TEXTS), attempts=attempts,
        created_us=draw(MOMENTS), life="life-1",
        project=draw(TEXTS), end_user=draw(TEXTS), requested=draw(TEXTS), tags=draw(st.sampled_from([(), ("a",)])),
    )  # fmt: skip


def posted(*calls):
    """Rows as the poster makes them, each with its call if it is ordinary."""
    words = [msgspec.json.encode(call) for call in calls]
    read = [(msgspec.json.decode(text, type=Settled), text.decode()) for text in words]
    made = batch.build(read, TimeOrderedIds(SystemClock()), POSTED_US, batch.Care())
    return list(zip(made.rows, made.ordinary, strict=True))


@given(st.lists(settled(), min_size=1, max_size=3), st.integers(1, 10**6))
def test_a_form_makes_what_the_long_way_makes(calls, number):
    forms, previous, ordinary = Forms(DAY, POSTED_US), START, 0
    for row, call in [*posted(*calls), *posted(*calls)]:
        wanted = receipts.digest(receipts.receipt(UsageRow(*row), Place(DAY, number, previous)))
        if call is not None:
            ordinary += 1
            found = forms.digest(call, number, previous)
            assert found is None or found.hex() == wanted
        previous = wanted
    assert ordinary == 2 * sum(
        len(call.attempts) == 1 and not call.attempts[0].flags and not call.attempts[0].loss_nano for call in calls
    )


USUAL = Attempt(
    n=1, provider="openai", upstream_id="gpt-4o", started_us=1, ended_us=2, outcome="ok", usage=Usage(input=8, output=16),
    basis="reported", price_version="openai/gpt-4o@2026-11-23", rates=Rates(input=2_500_000, output=10_000_000),
    cost_nano=180_000, charge_nano=180_000,
)  # fmt: skip


def call(name="gen-1", attempt=USUAL, **more):
    values = dict(
        id=name, state="settled", at_us=2, account="acc-1", key="key-1", scopes=(), hold_nano=10**9,
        charge_nano=attempt.charge_nano, surface="chat_completions",
        model="openai/gpt-4o", attempts=(attempt,), created_us=1, life="life-1",
    )  # fmt: skip
    return Settle(**(values | more))


def formed(one):
    ((_, ordinary),) = posted(one)
    return ordinary is not None and Forms(DAY, POSTED_US).digest(ordinary, 1, START) is not None


def test_the_usual_call_has_a_form_and_the_odd_one_has_none():
    assert formed(call()) and formed(call(account='an "account"', requested='é"\x07', project="@"))
    assert not formed(call('gen-"1"')), "a name that JSON would write otherwise"
    assert not formed(call(requested="@")), "a word that looks like a gap"
    assert not formed(call(attempt=msgspec.structs.replace(USUAL, flags=("drained",))))
    assert not formed(call(attempt=msgspec.structs.replace(USUAL, loss_nano=1)))
