"""Markup plans: how a cost becomes a charge, by account, model, provider and the month's volume. Pure integers.

    fee    = percent of the cost + a fixed amount per call, not below its floor, not above its cap
    charge = cost + fee, exact until it is rounded once, half-even

What applies to one call is its `Terms`: chosen before the hold, frozen into it, and written on its usage row, so that a plan that
changes meanwhile changes nothing about it, and the row recomputes from itself (I9). The volume is what the account was charged
in the UTC month for calls that are posted; it chooses the percentage of later calls and re-rates no earlier one.

A call by the customer's own key at a provider costs the house nothing there. Its charge is the plan's BYOK fee alone, by the same
formula without the cost:

    charge = percent of the list price + a fixed amount per call, not below the floor, not above the cap
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Protocol

import msgspec

from farebox.money import AMOUNT_NANO_MAX, BASIS_POINTS, MoneyError, divide_half_even, format_amount, parse_amount, parse_percent

BP_MIN = -BASIS_POINTS
"""A discount of everything; below it a charge would be negative."""
BP_MAX = 100_000
FEE_NANO_MAX = 1_000_000_000_000
"""A thousand dollars for one call is a typing error."""
BANDS_MAX = 20
RULES_MAX = 200


class Fees(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a plan has beside its percentage. Nano-dollars per charged call."""

    per_call_nano: int = 0
    min_nano: int | None = None
    """The fee is at least this."""
    max_nano: int | None = None
    """The fee is at most this."""
    own_key: bool = False
    """The provider bills the customer itself, whose key it was: the fee is all that is charged, and we owe nothing."""


class Terms(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one call is charged by."""

    plan: str = ""
    """The plan's name, with the rule and the volume that chose these terms."""
    bp: int = 0
    """On top of the cost, in basis points; negative is a discount."""
    fees: Fees | None = None


class Band(msgspec.Struct, frozen=True):
    """Terms for accounts whose month's charges are above an amount."""

    above_nano: int
    terms: Terms


class OwnKeyTerms(msgspec.Struct, frozen=True):
    """What calls by a customer's own provider key are charged."""

    free_calls: int
    """Of an account in a UTC month, as posted."""
    free: Terms
    """Of those."""
    then: Terms
    """Of all later ones."""

    def at(self, calls: int) -> Terms:
        """After so many calls in the month."""
        return self.then if calls >= self.free_calls else self.free


OWN_KEY_BP = 500
OWN_KEY_FREE_CALLS = 1_000_000
"""A plan that says nothing of BYOK has OpenRouter's terms: 5 % of the list price after a million calls in the month."""
OWN_KEY_FREE_CALLS_MAX = 1_000_000_000_000


def own_key_terms(
    name: str, *, free_calls: int = OWN_KEY_FREE_CALLS, bp: int = OWN_KEY_BP, fees: Fees | None = None
) -> OwnKeyTerms:
    """The terms of a plan for customers' own keys."""
    label = f"{name} BYOK".strip()
    then = msgspec.structs.replace(fees or Fees(), own_key=True)
    return OwnKeyTerms(free_calls, Terms(f"{label} free", 0, Fees(own_key=True)), Terms(label, bp, then))


class Rule(msgspec.Struct, frozen=True):
    """Terms for the models and providers that match both patterns (`*` stands for anything)."""

    model: str
    provider: str
    bands: tuple[Band, ...]
    """Ascending; the first is for every volume."""


class MarkupPlan(msgspec.Struct, frozen=True, eq=False):
    """A plan: rules in the order of asking, the last for everything that no other one names."""

    name: str
    rules: tuple[Rule, ...]
    found: dict[tuple[str, str], Rule] = msgspec.field(default_factory=dict[tuple[str, str], Rule])
    """Rules looked up so far, by model and provider; no larger than the catalog."""
    thresholds_nano: tuple[int, ...] = ()
    """Volumes at which something changes, ascending; worked out of the rules."""
    own_key: OwnKeyTerms = own_key_terms("")
    """For calls by customers' own provider keys."""

    def __post_init__(self) -> None:
        found = sorted({band.above_nano for rule in self.rules for band in rule.bands[1:]})
        msgspec.structs.force_setattr(self, "thresholds_nano", tuple(found))

    def terms(self, model: str, provider: str, volume_nano: int = 0) -> Terms:
        """What a call of this model at this provider is charged by."""
        rule = self.found.get((model, provider))
        if rule is None:
            rule = self.found[model, provider] = next(
                one for one in self.rules if fnmatchcase(model, one.model) and fnmatchcase(provider, one.provider)
            )
        bands = rule.bands
        chosen = bands[0]
        for band in bands[1:]:
            if volume_nano > band.above_nano:
                chosen = band
        return chosen.terms

    def step(self, volume_nano: int) -> int:
        """How many thresholds a volume has passed: between two of them, all terms stay the same."""
        return bisect_left(self.thresholds_nano, volume_nano)


def flat(bp: int, name: str = "") -> MarkupPlan:
    """A plan of one percentage."""
    return MarkupPlan(name, (Rule("*", "*", (Band(0, Terms(name, bp)),)),), own_key=own_key_terms(name))


NO_MARKUP = flat(0)


def marked_up_nano(numerator: int, denominator: int, bp: int, fees: Fees | None, *, up: bool = False) -> int:
    """A cost of numerator/denominator nano-dollars with its markup, rounded once: half-even, or up, for a hold. The markup alone,
    where the cost is the customer's own.

    All in units of 1 / (denominator × 10,000) nano-dollars, where every part is an integer.
    """
    unit = denominator * BASIS_POINTS
    fee = numerator * bp
    if fees is not None:
        fee += fees.per_call_nano * unit
        if fees.min_nano is not None:
            fee = max(fee, fees.min_nano * unit)
        if fees.max_nano is not None:
            fee = min(fee, fees.max_nano * unit)
    total = fee if fees is not None and fees.own_key else numerator * BASIS_POINTS + fee
    return -(-total // unit) if up else divide_half_even(total, unit)


# --- from the configuration ---------------------------------------------------------------------------------------------


class VolumeEntry(Protocol):
    @property
    def above(self) -> str: ...
    @property
    def percent(self) -> str: ...


class TermsEntry(Protocol):
    @property
    def percent(self) -> str: ...
    @property
    def per_call(self) -> str: ...
    @property
    def fee_min(self) -> str | None: ...
    @property
    def fee_max(self) -> str | None: ...
    @property
    def volume(self) -> Sequence[VolumeEntry]: ...


class RuleEntry(TermsEntry, Protocol):
    @property
    def model(self) -> str: ...
    @property
    def provider(self) -> str: ...


class OwnKeyEntry(Protocol):
    @property
    def free_calls(self) -> int: ...
    @property
    def percent(self) -> str: ...
    @property
    def per_call(self) -> str: ...
    @property
    def fee_min(self) -> str | None: ...
    @property
    def fee_max(self) -> str | None: ...


class PlanEntry(TermsEntry, Protocol):
    """What `farebox.config.MarkupSection` says."""

    @property
    def byok(self) -> OwnKeyEntry: ...
    @property
    def rules(self) -> Sequence[RuleEntry]: ...


class MarkupError(ValueError):
    """A plan that cannot be: `place` is the setting, below the plan's own name."""

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(f"`{place}`: {problem}")
        self.place = place


def plan_from_config(name: str, entry: PlanEntry) -> MarkupPlan:
    """A `[markup.NAME]` table. Raises `MarkupError` naming the setting that is wrong."""
    if len(entry.rules) > RULES_MAX:
        raise MarkupError("rules", f"{len(entry.rules)} rules are more than {RULES_MAX}")
    rules: list[Rule] = []
    for index, rule in enumerate(entry.rules):
        place = f"rules[{index}]."
        if rule.model == rule.provider == "*":
            raise MarkupError(place + "model", "a rule for every model and provider hides the plan's own terms; name some")
        if any((rule.model, rule.provider) == (known.model, known.provider) for known in rules):
            raise MarkupError(place + "model", "an earlier rule names the same model and provider; write one of them")
        label = " ".join(part for part in (rule.model, rule.provider) if part != "*")
        rules.append(Rule(rule.model, rule.provider, _bands(rule, f"{name} ({label})", place)))
    return MarkupPlan(name, (*rules, Rule("*", "*", _bands(entry, name, ""))), own_key=_own_key(name, entry.byok))


def _own_key(name: str, entry: OwnKeyEntry) -> OwnKeyTerms:
    if not 0 <= entry.free_calls <= OWN_KEY_FREE_CALLS_MAX:
        raise MarkupError("byok.free_calls", f"{entry.free_calls} is not from 0 to {OWN_KEY_FREE_CALLS_MAX}")
    bp = _percent(entry.percent, "byok.percent")
    if bp < 0:
        raise MarkupError("byok.percent", f"{entry.percent} is negative, and there is no cost to give a discount on")
    return own_key_terms(name, free_calls=entry.free_calls, bp=bp, fees=_fees(entry, "byok."))


def _fees(entry: TermsEntry | OwnKeyEntry, place: str) -> Fees:
    fees = Fees(
        _fee(entry.per_call, place + "per_call"),
        None if entry.fee_min is None else _fee(entry.fee_min, place + "fee_min"),
        None if entry.fee_max is None else _fee(entry.fee_max, place + "fee_max"),
    )
    if fees.min_nano is not None and fees.max_nano is not None and fees.min_nano > fees.max_nano:
        raise MarkupError(place + "fee_min", f"{entry.fee_min} is above `fee_max` {entry.fee_max}")
    return fees


def _bands(entry: TermsEntry, label: str, place: str) -> tuple[Band, ...]:
    fees = _fees(entry, place)
    known = None if fees == Fees() else fees
    bands = [Band(0, Terms(label, _percent(entry.percent, place + "percent"), known))]
    if len(entry.volume) > BANDS_MAX:
        raise MarkupError(place + "volume", f"{len(entry.volume)} steps are more than {BANDS_MAX}")
    for index, step in enumerate(entry.volume):
        at = f"{place}volume[{index}]."
        above = _amount(step.above, at + "above")
        if above <= bands[-1].above_nano:
            raise MarkupError(at + "above", f"{step.above} must be more than the step before it")
        terms = Terms(f"{label} above {format_amount(above)}", _percent(step.percent, at + "percent"), known)
        bands.append(Band(above, terms))
    return tuple(bands)


def _percent(text: str, place: str) -> int:
    try:
        bp = parse_percent(text)
    except MoneyError as error:
        raise MarkupError(place, str(error)) from None
    if not BP_MIN <= bp <= BP_MAX:
        raise MarkupError(place, f"{text} is not from {BP_MIN // 100} to {BP_MAX // 100} percent")
    return bp


def _amount(text: str, place: str) -> int:
    try:
        nano = parse_amount(text)
    except MoneyError as error:
        raise MarkupError(place, str(error)) from None
    if not 0 <= nano <= AMOUNT_NANO_MAX:
        raise MarkupError(place, f"{text} is negative")
    return nano


def _fee(text: str, place: str) -> int:
    nano = _amount(text, place)
    if nano > FEE_NANO_MAX:
        raise MarkupError(place, f"{text} is more than {format_amount(FEE_NANO_MAX)} USD for one call")
    return nano


def ended_free_calls(plans: Mapping[str, MarkupPlan], plan: str, before: int, after: int) -> bool:
    """Whether the last free call by an own key has been made."""
    found = plans.get(plan)
    return found is not None and before < found.own_key.free_calls <= after


def changed_level(plans: Mapping[str, MarkupPlan], plan: str, before_nano: int, after_nano: int) -> bool:
    """Whether a volume that grew has passed a step of the account's plan."""
    found = plans.get(plan)
    return found is not None and any(before_nano <= step < after_nano for step in found.thresholds_nano)
