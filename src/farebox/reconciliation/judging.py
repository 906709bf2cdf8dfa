"""What both ways of comparing share: our side's records, the terms, and how a difference is classed. Pure.

The tolerances, all of them, and exact:

- **rounding**: a cost may differ by half of the statement's declared step per line, and half a nano-dollar per attempt (each
  of our rows is rounded once). What differs by less is `rounding`: told, and no fault;
- **midnight**: an attempt that was in flight over midnight may stand on either day, but must stand on one of them (`by_day`).
"""

from collections.abc import Callable, Mapping

import msgspec

from farebox.catalog.price import Rates
from farebox.money import PICO_PER_NANO
from farebox.reconciliation.statement import Kind, Statement
from farebox.wires.usage import Usage


class Refused(ValueError):
    """The two sides cannot be compared like this; a sentence that says why."""


class Ours(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt as our books have it, corrections included."""

    hold_id: str
    attempt: int
    model: str
    """The id that was sent upstream."""
    key: str = ""
    request_id: str = ""
    started_us: int
    ended_us: int
    usage: Usage | None
    cost_nano: int | None
    rates: Rates | None = None
    exact: bool = True
    """False: an estimate, or unknown."""

    @property
    def units(self) -> dict[str, int]:
        return {} if self.usage is None else {name: getattr(self.usage, name) for name in self.usage.__struct_fields__}


class Earlier(msgspec.Struct, frozen=True):
    """What was adjusted already, by a finding that was approved."""

    subject: str
    day: str
    model: str
    key: str
    amount_nano: int


class Terms(msgspec.Struct, frozen=True):
    """What a comparison needs beside the two sides."""

    day_of: Callable[[int], str]
    """A moment's day in the provider's zone."""
    offer_of: Callable[[str], str | None]
    """A model id of the provider → the offer's own id; None for one that nobody knows."""
    keys: Mapping[str, str] = {}
    """The provider's names of keys → ours. Empty: keys are not told apart."""
    earlier: tuple[Earlier, ...] = ()


def within_rounding(difference_nano: int, *, lines: int, step_pico: int, attempts: int) -> bool:
    """Whether rounding explains it: each line to its step, each of our attempts to a nano-dollar, by half a step at most."""
    return 2 * abs(difference_nano) * PICO_PER_NANO <= lines * step_pico + attempts * PICO_PER_NANO


def classed(
    exact: bool, *, units_agree: bool | None, difference_nano: int | None, rounded: bool, settled: bool
) -> Kind | None:
    """What a difference between two sides that both exist is; None when there is none.

    `units_agree` and `difference_nano` are None where the statement does not say; `settled`: an earlier adjustment is in our
    figure, so counts that differ are known and done with once the costs agree.
    """
    if difference_nano == 0 and (units_agree is not False or settled):
        return None
    if units_agree is False:
        if settled and rounded:
            return "rounding"
        return "units_differ" if exact else "estimate"
    if difference_nano is None:
        return None
    if rounded:
        return "rounding"
    if units_agree is None:
        return "cost_differs" if exact else "estimate"
    return "price_drift"


def whole_usage(statement: Statement, units: Mapping[str, int], rates: Rates) -> Usage | None:
    """A line's counts as a usage that these rates price rightly; None where it sums up classes of different rates."""
    for name, into in statement.inside.items():
        rate = getattr(rates, name)
        if rate and rate != (getattr(rates, into) if into else 0):
            return None
    return Usage(**units)
