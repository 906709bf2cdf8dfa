"""The price book: proposals wait, what asks for confirmation is not approved by accident, versions are never changed."""

import pytest

from farebox.billing.accounts import price_book
from farebox.billing.books.customers import CommandRefused
from farebox.catalog.model import Model, Offer
from farebox.catalog.price import Price, Rates, Schedule
from farebox.catalog.record import PriceRecord, RatesRecord
from farebox.storage import queries
from farebox.storage.database import RowRefused

RATES = Rates(input=2_000_000, output=8_000_000)
OFFER = Offer("lab", "m", "openai_chat", (Price("v", "1970-01-01", Schedule(RATES)),), 9, 9)
MODEL = Model("l/m", "m", 9, 9, (OFFER,))


def propose(world, input, output="8.00", bp=1_000):
    record = PriceRecord(
        RatesRecord(input, output, cache_read="0", cache_write="0", audio_input="0", image_input="0", reasoning="0",
                    audio_output="0", image_output="0"),
        effective_from="2026-11-23",
    )  # fmt: skip
    found = price_book.compare(MODEL, OFFER, record, bp=bp, source="a list")
    assert found is not None
    (made,) = price_book.propose(world.database, world.ids, [found], now_us=world.clock.us)
    return made


def decide(world, proposal, state="approved", confirmed=False):
    return price_book.decide(world.database, world.ids, proposal.id, state, confirmed=confirmed, now_us=world.clock.us)


def test_an_ordinary_change_is_approved_and_told(world):
    before = world.database.read(queries.current_version)
    made = propose(world, "2.20", "8.80")
    assert made.findings == [] and world.database.read(price_book.versions) == []
    assert decide(world, made).state == "approved"
    (version,) = world.database.read(price_book.versions)
    assert version == made.version and version.record.rates.input == "2.20"
    assert world.database.read(price_book.revision) == 1
    assert world.database.read(queries.current_version) == before + 1, "gateways look"
    assert world.outbox("price_changed") == [(version.version, 0)]
    with pytest.raises(CommandRefused, match="waits for a decision"):
        decide(world, made)
    with pytest.raises(CommandRefused, match="never reused"):
        decide(world, propose(world, "2.20", "8.80"))


def test_a_finding_has_to_be_confirmed(world):
    made = propose(world, "5.00")
    with pytest.raises(CommandRefused, match="l/m at lab: input: more than doubles"):
        decide(world, made)
    assert world.database.read(price_book.versions) == []
    assert decide(world, made, confirmed=True).state == "approved"


def test_a_rejected_proposal_changes_nothing_and_may_come_again(world):
    made = propose(world, "2.30")
    decide(world, made, "rejected")
    assert world.database.read(price_book.proposals) == [] and world.database.read(price_book.revision) == 0
    again = propose(world, "2.30")
    assert again.id != made.id and propose(world, "2.30").id == again.id, "what waits is not proposed twice"


def test_a_price_above_ours_is_an_alarm(world):
    assert propose(world, "2.10").passed == ()
    made = propose(world, "2.50", "8.80")
    assert made.passed == ("input",), "2.20 is what customers pay with ten percent"
    assert world.outbox("margin_alarm") == [(made.version.version, 0)]


def test_versions_are_never_changed(world):
    decide(world, propose(world, "2.20"))
    for statement in ("UPDATE price_versions SET provider = 'x'", "DELETE FROM price_versions"):
        with pytest.raises(RowRefused, match="append-only"):
            world.database.write(lambda c, sql=statement: c.exec_driver_sql(sql))


def test_the_order_of_approval_survives_a_clock_that_is_set_back(world):
    first = propose(world, "2.20")
    second = propose(world, "2.30")
    decide(world, first)
    world.clock.us -= 3_600_000_000
    decide(world, second)
    assert [one.record.rates.input for one in world.database.read(price_book.versions)] == ["2.20", "2.30"]
