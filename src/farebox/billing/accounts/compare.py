"""Compare: what an account's calls would have cost directly at each provider that offers their models. Pure.

Each call is priced anew at every offer of its model: by the list price in force on its day, at its own prompt size and hour, on
the standard service tier, summed exactly and rounded once per line. An offer that had no price for one of the calls is left
out of that model, since a sum over some of them would look cheap.
"""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from farebox.billing.books.periods import format_day
from farebox.billing.meter import CONTINUED_FLAG
from farebox.billing.own_keys import MARK, provider_nano
from farebox.billing.pricing import cost_pico, in_peak, rest_pico
from farebox.billing.records import Attempt
from farebox.catalog.model import Model, Offer
from farebox.catalog.price import Rates, Schedule
from farebox.money import PICO_PER_NANO, divide_half_even, format_amount
from farebox.storage.queries import UsageRow
from farebox.wires.usage import Usage


class Direct(msgspec.Struct, frozen=True):
    """The calls of a model (or of all that a provider offers) at one provider's list price. Nano-dollars."""

    provider: str
    """With the offer's variant, where there are several: `bedrock#us`."""
    models: int
    calls: int
    direct_nano: int
    here_nano: int
    """What the same calls cost here."""

    @property
    def difference_nano(self) -> int:
        """Positive: going there would have cost more."""
        return self.direct_nano - self.here_nano


class Comparison(msgspec.Struct, frozen=True):
    """One model's calls, or all of them."""

    model: str
    calls: int
    here_nano: int
    as_served_nano: int
    """At the list price of the providers that answered them."""
    cheapest: str
    """The provider whose list price would have been lowest; empty when no offer has a price for all calls, and in the total."""
    cheapest_nano: int
    """What the calls would have cost there; in the total the sum over the models, where there is none what they cost here."""
    direct: tuple[Direct, ...]
    """The cheapest first."""


class _Model:
    def __init__(self, offers: tuple[Offer, ...]) -> None:
        self.offers = offers
        self.calls = 0
        self.here = 0
        self.as_served = 0
        self.pico = [0] * len(offers)
        self.priced = [0] * len(offers)


class Comparing:
    """Calls being added up; the catalog's models by slug."""

    def __init__(self, model_of: Callable[[str], Model | None]) -> None:
        self._model_of = model_of
        self._models: dict[str, _Model] = {}

    def add(self, row: UsageRow, attempt: Attempt, charged_nano: int) -> None:
        """One charged attempt, with what it was charged in all."""
        usage = attempt.usage
        if usage is None or attempt.rates is None:
            return
        continued = CONTINUED_FLAG in attempt.flags
        found = self._models.get(row.model)
        if found is None:
            model = self._model_of(row.model)
            found = self._models[row.model] = _Model(() if model is None else model.offers)
        found.calls += not continued
        # By an own key, what is paid here is what the provider bills, and the fee.
        found.here += charged_nano + provider_nano(attempt)
        found.as_served += _price(usage, attempt.rates, continued)
        day = format_day(row.created_us)
        for index, offer in enumerate(found.offers):
            schedule = _schedule(offer, day, row.created_us)
            if schedule is None:
                continue
            found.priced[index] += not continued
            found.pico[index] += _price(usage, schedule.at(usage.prompt_tokens), continued)

    def result(self) -> tuple[tuple[Comparison, ...], Comparison]:
        """Per model, the dearest here first, and in all."""
        models = [_model_result(slug, found) for slug, found in self._models.items()]
        models.sort(key=lambda one: (-one.here_nano, one.model))
        return tuple(models), _total(models)


def _schedule(offer: Offer, day: str, now_us: int) -> Schedule | None:
    price = offer.price_on(day)
    if price is None:
        return None
    off = price.off_peak
    if off is not None and not in_peak(off.peak_minutes_utc, off.weekends_off_peak, now_us):
        return off.schedule
    return price.standard


def _price(usage: Usage, rates: Rates, continued: bool) -> int:
    """In pico-dollars. Who goes directly sends the input once, even if the answer came in parts here."""
    return rest_pico(usage, rates) if continued else cost_pico(usage, rates)


def _nano(pico: int) -> int:
    return divide_half_even(pico, PICO_PER_NANO)


def _model_result(slug: str, found: _Model) -> Comparison:
    providers = [offer.provider for offer in found.offers]
    direct: list[Direct] = []
    for index, offer in enumerate(found.offers):
        if found.priced[index] != found.calls:
            continue
        name = f"{offer.provider}#{offer.variant}" if providers.count(offer.provider) > 1 and offer.variant else offer.provider
        direct.append(Direct(name, 1, found.calls, _nano(found.pico[index]), found.here))
    direct.sort(key=lambda one: (one.direct_nano, one.provider))
    best = direct[0] if direct else None
    return Comparison(
        slug,
        found.calls,
        found.here,
        _nano(found.as_served),
        best.provider if best else "",
        best.direct_nano if best else found.here,
        tuple(direct),
    )


def _total(models: Iterable[Comparison]) -> Comparison:
    found = list(models)
    by_provider: dict[str, Direct] = {}
    for one in found:
        for direct in one.direct:
            known = by_provider.get(direct.provider, Direct(direct.provider, 0, 0, 0, 0))
            by_provider[direct.provider] = Direct(
                direct.provider,
                known.models + 1,
                known.calls + direct.calls,
                known.direct_nano + direct.direct_nano,
                known.here_nano + direct.here_nano,
            )
    return Comparison(
        "",
        sum(one.calls for one in found),
        sum(one.here_nano for one in found),
        sum(one.as_served_nano for one in found),
        "",
        sum(one.cheapest_nano for one in found),
        tuple(sorted(by_provider.values(), key=lambda one: (-one.models, one.direct_nano, one.provider))),
    )


def compare(
    rows: Iterable[UsageRow], attempt_of: Callable[[UsageRow], Attempt | None], model_of: Callable[[str], Model | None]
) -> tuple[tuple[Comparison, ...], Comparison]:
    """Usage rows in the order of calls, attempts and revisions → the comparison per model and in all.

    An attempt counts by its last revision, with all that it was charged; what nobody paid for is left out. Here, a call by an own
    key cost what its provider bills, and the fee.
    """
    comparing = Comparing(model_of)
    last: UsageRow | None = None
    charged = 0

    def done() -> None:
        if last is None or not (charged or MARK in last.record):
            return
        attempt = attempt_of(last)
        if attempt is not None and (charged or attempt.own_key):
            comparing.add(last, attempt, charged)

    for row in rows:
        if last is not None and (row.hold_id, row.attempt) != (last.hold_id, last.attempt):
            done()
            charged = 0
        charged += row.charge_nano
        last = row
    done()
    return comparing.result()


def compared(one: Comparison) -> dict[str, Any]:
    """A comparison with stable names; amounts are decimal strings, a positive difference is what going there costs more."""
    return {
        "model": one.model or None,
        "requests": one.calls,
        "here_usd": format_amount(one.here_nano),
        "as_served_usd": format_amount(one.as_served_nano),
        "cheapest": one.cheapest or None,
        "cheapest_usd": format_amount(one.cheapest_nano),
        "direct": [
            {
                "provider": direct.provider,
                "models": direct.models,
                "requests": direct.calls,
                "direct_usd": format_amount(direct.direct_nano),
                "here_usd": format_amount(direct.here_nano),
                "difference_usd": format_amount(direct.difference_nano),
            }
            for direct in one.direct
        ],
    }
