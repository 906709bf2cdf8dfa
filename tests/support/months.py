"""Random clean months at a provider, as our records and as its invoice, and faults for the invoice that know their class."""

import random
from collections import defaultdict
from datetime import UTC, datetime

import msgspec

from farebox.billing.pricing import cost_pico
from farebox.catalog.price import Rates
from farebox.money import divide_half_even
from farebox.reconciliation.judging import Ours, Terms
from farebox.reconciliation.statement import Line, Statement
from farebox.wires.usage import Usage

DAY_US = 86_400_000_000
START_US = 1_793_491_200_000_000
"""2026-11-01T00:00:00Z"""
DAYS = 30
MODELS = {
    f"model-{number}": Rates(
        input=1_250_000 * number, cache_read=125_000 * number, cache_write_5m=1_250_000 * number, output=10_000_000 * number,
        reasoning=10_000_000 * number,
    )
    for number in range(1, 31)
}  # fmt: skip
KEYS = {"key_a": "lab#1", "key_b": "lab#2", "key_c": "lab#3"}
BY_REQUEST = (
    "missing_here", "missing_there", "billed_twice", "unknown_model", "units_differ", "price_drift", "estimate", "unknown_cost",
)  # fmt: skip
BY_DAY = ("missing_here", "missing_there", "unknown_model", "units_differ", "price_drift", "estimate", "unknown_cost")


def day_of(us: int) -> str:
    return datetime.fromtimestamp(us // 1_000_000, UTC).strftime("%Y-%m-%d")


FIRST, LAST = day_of(START_US), day_of(START_US + DAYS * DAY_US - 1)


def offer_of(model: str) -> str | None:
    return model.removesuffix("-2026-01-01") if model.startswith("model-") else None


TERMS = Terms(day_of=day_of, offer_of=offer_of, keys=KEYS)


def cost_of(usage: Usage, model: str = "model-1") -> int:
    """Nano-dollars."""
    return divide_half_even(cost_pico(usage, MODELS[model]), 1_000)


def clean_month(seed: int, calls: int) -> list[Ours]:
    """Attempts of a month and its edges: some over midnight, some that failed and cost nothing, or nobody knows what."""
    chance = random.Random(seed)
    made: list[Ours] = []
    for number in range(calls):
        model = chance.choice(list(MODELS))
        start = START_US + chance.randrange(-DAY_US // 2, (DAYS * DAY_US) + DAY_US // 2)
        end = start + chance.randrange(1_000_000, 30_000_000)
        if chance.random() < 0.02:  # over midnight
            start = START_US + DAY_US * chance.randrange(DAYS + 1) - 1_000_000
            end = start + 5_000_000
        usage: Usage | None = Usage(
            input=chance.randrange(100, 20_000), cache_read=chance.choice((0, 0, 4_096)), output=chance.randrange(20, 3_000),
            reasoning=chance.choice((0, 500)),
        )  # fmt: skip
        cost: int | None = cost_of(usage, model)
        exact = True
        fate = chance.random()
        if fate < 0.03:
            usage, cost = None, 0  # refused
        elif fate < 0.05:
            usage, cost, exact = None, None, False  # nobody knows, and the provider did not bill it
        elif fate < 0.07:
            exact = False  # an estimate that is right
        made.append(
            Ours(
                hold_id=f"gen-{number}", attempt=1, model=model, key=chance.choice(list(KEYS.values())),
                request_id=f"req-{number}", started_us=start, ended_us=end, usage=usage, cost_nano=cost, rates=MODELS[model],
                exact=exact,
            )
        )  # fmt: skip
    return made


class Invoice:
    """The provider's side, call by call, before it is written as lines."""

    def __init__(self, months: list[Ours], seed: int) -> None:
        chance = random.Random(seed + 1)
        names = {ours: theirs for theirs, ours in KEYS.items()}
        self.chance = chance
        self.entries: list[Line] = []
        for one in months:
            if not one.cost_nano:
                continue
            day = chance.choice((day_of(one.started_us), day_of(one.ended_us)))
            if not FIRST <= day <= LAST:
                continue
            dated = "-2026-01-01" if chance.random() < 0.3 else ""
            self.entries.append(
                Line(
                    day=day, model=one.model + dated, key=names[one.key], request_id=one.request_id, requests=1,
                    units={name: count for name, count in one.units.items() if count}, cost_nano=one.cost_nano,
                )
            )  # fmt: skip

    def by_request(self) -> Statement:
        lines = [msgspec.structs.replace(line, place=f"line {number}") for number, line in enumerate(self.entries)]
        self.chance.shuffle(lines)
        return _statement(lines)

    def by_day(self, *, step_pico: int = 0, apart: bool = False) -> Statement:
        """Sums by day, model and key; `apart`: usage by key, and costs in lines of their own, without."""
        sums: dict[tuple[str, str, str], list[Line]] = defaultdict(list)
        for line in self.entries:
            sums[line.day, line.model, line.key].append(line)
        lines: list[Line] = []
        costs: dict[tuple[str, str], int] = defaultdict(int)
        for (day, model, key), group in sums.items():
            units: dict[str, int] = defaultdict(int)
            for line in group:
                for name, count in (line.units or {}).items():
                    units[name] += count
            cost = sum(line.cost_nano or 0 for line in group)
            costs[day, model] += cost
            if step_pico:
                cost = divide_half_even(cost * 1_000, step_pico) * step_pico // 1_000
            requests = sum(line.requests or 0 for line in group)
            lines.append(
                Line(day=day, model=model, key=key, requests=requests, units=dict(units), cost_nano=None if apart else cost)
            )
        if apart:
            lines += [Line(day=day, model=model, cost_nano=cost) for (day, model), cost in costs.items()]
        return _statement(lines, step_pico)


def _statement(lines: list[Line], step_pico: int = 0) -> Statement:
    return Statement(provider="lab", first_day=FIRST, last_day=LAST, lines=tuple(lines), step_pico=step_pico)


def quiet(month: list[Ours]) -> list[Ours]:
    """Attempts that a fault can be about: exact, billed, whole within a day of the month."""
    billed = [one for one in month if one.cost_nano and one.exact and day_of(one.started_us) == day_of(one.ended_us)]
    return [one for one in billed if FIRST <= day_of(one.started_us) <= LAST]


def plant(kind: str, one: Ours, month: dict[str, Ours], invoice: Invoice, chance: random.Random) -> str:
    """One fault about one attempt. The class that it has to be found as."""
    index = next(index for index, line in enumerate(invoice.entries) if line.request_id == one.request_id)
    line = invoice.entries[index]
    assert line.units is not None and line.cost_nano is not None
    more = {**line.units, "output": line.units["output"] + chance.randrange(1, 500)}
    priced = cost_of(Usage(**more), one.model)
    if kind == "missing_here":
        del month[one.hold_id]
    elif kind == "missing_there":
        del invoice.entries[index]
    elif kind == "billed_twice":
        invoice.entries.append(line)
    elif kind == "unknown_model":
        strange = f"strange-{one.hold_id}"
        invoice.entries.append(msgspec.structs.replace(line, model=strange, request_id=f"other-{line.request_id}"))
    elif kind == "units_differ":
        invoice.entries[index] = msgspec.structs.replace(line, units=more, cost_nano=priced)
    elif kind == "price_drift":
        drift = max(line.cost_nano * chance.randrange(1, 40) // 100, 1_000) * chance.choice((1, -1))
        invoice.entries[index] = msgspec.structs.replace(line, cost_nano=line.cost_nano + drift)
    elif kind == "estimate":
        invoice.entries[index] = msgspec.structs.replace(line, units=more, cost_nano=priced)
        month[one.hold_id] = msgspec.structs.replace(one, exact=False)
    else:
        assert kind == "unknown_cost"
        month[one.hold_id] = msgspec.structs.replace(one, usage=None, cost_nano=None, exact=False)
        return "estimate"
    return kind
