"""Breakdown: a usage row's charge by unit class and fee, exact to the nano-dollar. Pure.

A charge is rounded once, as a whole. To show it by class, its list part is divided in proportion to what the classes cost
exactly, by largest remainder, so that the parts add up to it; what the markup put on top (or took off) is the fee:

    charge = Σ parts at list price + fee

Where the customer's own key was used, the parts have quantities and no amounts, and the fee is all.

A correction's record restates its attempt, while its row has differences: its breakdown is the restated one less the one before.
"""

from collections.abc import Iterable, Iterator

import msgspec

from farebox.billing.books import evidence
from farebox.billing.meter import CONTINUED_FLAG
from farebox.billing.pricing import charge_nano, owed_nano
from farebox.billing.records import Attempt
from farebox.money import PICO_PER_NANO, divide_half_even
from farebox.storage.queries import UsageRow
from farebox.wires.usage import Usage

UNITS = (*Usage.TOKEN_CLASSES, "web_searches", "request")
"""Every class that has a rate; `request` counts calls with a fee of their own."""
_INPUTS = frozenset(Usage.TOKEN_CLASSES[:6])


class Part(msgspec.Struct, frozen=True):
    """One class of one row. A correction's quantity and amount are differences."""

    quantity: int
    rate_pico: int
    """The list price per unit, pico-dollars."""
    list_nano: int


class Breakdown(msgspec.Struct, frozen=True):
    """A row's charge, by class."""

    parts: dict[str, Part]
    fee_nano: int

    @property
    def list_nano(self) -> int:
        return sum(part.list_nano for part in self.parts.values())

    @property
    def charge_nano(self) -> int:
        return self.list_nano + self.fee_nano


NOTHING = Breakdown({}, 0)


def allocate(total: int, weights: list[int]) -> list[int]:
    """Divide an integer in proportion to weights (not negative, not all zero), by largest remainder; the parts add up to it."""
    whole = sum(weights)
    sign = -1 if total < 0 else 1
    shares = [divmod(abs(total) * weight, whole) for weight in weights]
    parts = [quotient for quotient, _ in shares]
    rest = abs(total) - sum(parts)
    # Equal remainders: the earlier class, so that the same row always gives the same parts.
    for index in sorted(range(len(shares)), key=lambda index: -shares[index][1])[:rest]:
        parts[index] += 1
    return [sign * part for part in parts]


def breakdown(attempt: Attempt, charged_nano: int) -> Breakdown:
    """What an attempt that was charged so much consists of; nothing for one that was not charged."""
    usage, rates = attempt.usage, attempt.rates
    if not charged_nano or usage is None or rates is None:
        assert not charged_nano, "a charge follows from usage and rates (I9)"
        return NOTHING
    continued = CONTINUED_FLAG in attempt.flags
    counted: list[tuple[str, int, int]] = []
    for unit in UNITS:
        quantity = (1 if rates.request else 0) if unit == "request" else getattr(usage, unit)
        if quantity and not (continued and (unit in _INPUTS or unit == "request")):
            counted.append((unit, quantity, getattr(rates, unit)))
    weights = [quantity * rate for _, quantity, rate in counted]
    pico = sum(weights)
    reported = "reported_cost" in attempt.flags and attempt.cost_nano is not None and not continued
    listed = attempt.cost_nano if reported and attempt.cost_nano is not None else divide_half_even(pico, PICO_PER_NANO)
    listed = owed_nano(listed, attempt.fees)  # what the provider bills the customer itself is on no bill of ours
    price = charged_nano + attempt.loss_nano if reported else charge_nano(pico, attempt.markup_bp, attempt.fees)
    if charged_nano < price:
        # Cut to the hold: what was delivered comes first, the fee has what is left.
        listed = min(listed, charged_nano)
    if not pico:
        if not counted:
            return Breakdown({}, charged_nano)
        weights = [quantity for _, quantity, _ in counted]
    shares = allocate(listed, weights)
    parts = {unit: Part(quantity, rate, share) for (unit, quantity, rate), share in zip(counted, shares, strict=True)}
    return Breakdown(parts, charged_nano - listed)


def less(after: Breakdown, before: Breakdown) -> Breakdown:
    """The difference of two breakdowns of one attempt."""
    parts: dict[str, Part] = {}
    for unit in UNITS:
        new, old = after.parts.get(unit), before.parts.get(unit)
        if new is None and old is None:
            continue
        rate = new.rate_pico if new is not None else old.rate_pico if old is not None else 0
        quantity = (new.quantity if new else 0) - (old.quantity if old else 0)
        amount = (new.list_nano if new else 0) - (old.list_nano if old else 0)
        if quantity or amount:
            parts[unit] = Part(quantity, rate, amount)
    return Breakdown(parts, after.fee_nano - before.fee_nano)


def broken_down(rows: Iterable[UsageRow]) -> Iterator[tuple[UsageRow, Attempt | None, Breakdown]]:
    """Rows in the order of calls, attempts and revisions → each with its attempt's record and its own breakdown."""
    place: tuple[str, int] | None = None
    charged, before = 0, NOTHING
    for row in rows:
        if (row.hold_id, row.attempt) != place:
            place = (row.hold_id, row.attempt)
            charged, before = 0, NOTHING
        attempt = evidence.attempt(row)
        charged += row.charge_nano
        if attempt is None:
            yield row, None, NOTHING
            continue
        whole = breakdown(attempt, charged)
        own = less(whole, before) if row.revision else whole
        before = whole
        assert own.charge_nano == row.charge_nano, "a row's parts are its charge"
        yield row, attempt, own
