"""The plan: which offers a call is tried at, in which order, and why. Pure; `farebox.routing.router` makes it."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from farebox.billing.bound import Bound
from farebox.billing.pricing import affordable_output_tokens, worst_case_nano
from farebox.billing.quotes import Quote
from farebox.errors import FareboxError, Kind
from farebox.quality import rating
from farebox.routing.complexity.classify import Assessment
from farebox.routing.filters import Exclusion
from farebox.routing.own_keys import is_own
from farebox.routing.patience import Patience
from farebox.routing.standing import Entry, Standing
from farebox.wires.call import Call

TRANSLATION: Final = "translation"
"""The rule by which an offer is left out whose wire cannot express the call."""
CONTINUATION: Final = "continuation"
"""The rule by which an offer is not asked to go on with a broken-off answer."""


class Candidate:
    """One offer in the plan."""

    __slots__ = ("bound", "cached_bp", "entry", "hold_nano", "quoted", "target")

    def __init__(self, entry: Entry, quoted: Quote, bound: Bound, hold_nano: int, cached_bp: int = 0) -> None:
        self.entry: Final = entry
        """Why it stands where it stands, and what is sent to it."""
        self.target: Final = entry.target
        self.quoted: Final = quoted
        self.bound: Final = bound
        self.hold_nano: Final = hold_nano
        self.cached_bp: Final = cached_bp
        """The share of the prompt that is expected in the offer's cache, in basis points (`routing.expected`)."""

    def within(self, bound: Bound, hold_nano: int) -> "Candidate":
        """The same under other bounds."""
        return Candidate(self.entry, self.quoted, bound, hold_nano, self.cached_bp)


class Plan:
    """Candidates in the order of trying; `hold_nano` covers the dearest of them."""

    __slots__ = (
        "assessment", "attempts_max", "candidates", "excluded", "hold_nano", "input_estimate", "later_turn", "patience",
        "standing", "sticky",
    )

    def __init__(
        self,
        candidates: tuple[Candidate, ...],
        hold_nano: int,
        input_estimate: int,
        excluded: tuple[Exclusion, ...] = (),
        standing: Standing | None = None,
        attempts_max: int | None = None,
        patience: Patience | None = None,
        sticky: str = "",
        later_turn: bool = False,
        assessment: Assessment | None = None,
    ) -> None:
        self.candidates: Final = candidates
        self.hold_nano: Final = hold_nano
        self.input_estimate: Final = input_estimate
        self.excluded: Final = excluded
        """Offers left out for what the call itself needs; those that preferences exclude are in the standing."""
        self.standing: Final = standing
        self.attempts_max: Final = attempts_max
        """Tries over all candidates, in place of the configured number."""
        self.patience: Final = patience
        self.sticky: Final = sticky
        """`session` or `conversation`, when calls like this one go to the same offer."""
        self.later_turn: Final = later_turn
        """The conversation has gone on since its opening, so its beginning may be cached where it was answered."""
        self.assessment: Final = assessment
        """How the call was sorted before it was planned, where examples did that."""

    def of(
        self,
        candidates: tuple[Candidate, ...],
        hold_nano: int,
        left_out: tuple[Exclusion, ...] = (),
        patience: Patience | None = None,
    ) -> "Plan":
        """The same plan of other candidates. `patience`: where it had none of its own."""
        return Plan(
            candidates,
            hold_nano,
            self.input_estimate,
            (*self.excluded, *left_out),
            self.standing,
            self.attempts_max,
            self.patience or patience,
            self.sticky,
            self.later_turn,
            self.assessment,
        )

    def escalates(self, call: Call) -> bool:
        """Whether the first answer is looked at, and a stronger model may answer instead."""
        standing = self.standing
        if standing is None or not standing.looks(streamed=call.stream):
            return False
        return any(one.target.model.slug in standing.strong for one in self.candidates)

    @property
    def left_out(self) -> tuple[Exclusion, ...]:
        """Every offer that was left out, and why."""
        return self.excluded if self.standing is None else (*self.standing.excluded, *self.excluded)


def held_nano(candidates: Sequence[Candidate], standing: Standing | None, *, streamed: bool) -> int:
    """What is held for a plan: the dearest candidate, or, where an answer may be followed by a stronger model's, the dearest of
    each kind together."""
    if standing is None or not standing.looks(streamed=streamed):
        return max(one.hold_nano for one in candidates)
    strong = max((one.hold_nano for one in candidates if one.target.model.slug in standing.strong), default=0)
    weak = max((one.hold_nano for one in candidates if one.target.model.slug not in standing.strong), default=0)
    rules = standing.escalation
    if not strong or rules is None or rules.self_rating_percent is None:
        return weak + strong
    asked = max((rating_nano(one) for one in candidates if one.target.model.slug not in standing.strong), default=0)
    return weak + asked + strong


def rating_nano(candidate: Candidate) -> int:
    """The most that a candidate's rating of its own answer costs."""
    return worst_case_nano(
        candidate.quoted, input_tokens=rating.INPUT_TOKENS_MAX, output_tokens=rating.OUTPUT_TOKENS_MAX, web_searches=0
    )


def refusal(call: Call, excluded: Sequence[Exclusion]) -> FareboxError:
    """No offer is left: the 400 that says which requirement excluded which offer."""
    if all(item.rule == "price" for item in excluded):
        tier = f" on service tier `{call.service_tier}`" if call.service_tier else ""
        return FareboxError(
            Kind.MODEL_NOT_PRICED,
            f"`{call.model}` has no price in force{tier}, and what has no price is never sent; give its offer a price in the "
            "configuration, or call another model",
            param="model",
        )
    reasons = "; ".join(f"`{item.provider}/{item.id}`: {item.reason} (`{item.rule}`)" for item in excluded[:_REASONS_MAX])
    more = f"; and {len(excluded) - _REASONS_MAX} more" if len(excluded) > _REASONS_MAX else ""
    rules = list(dict.fromkeys(item.rule for item in excluded))
    kind, param = Kind.NO_OFFER, rules[0] if len(rules) == 1 else "model"
    if rules == ["context"]:
        kind, param = Kind.CONTEXT_LENGTH, "messages"
    return FareboxError(
        kind,
        f"no offer of `{call.model}` can take this call: {reasons}{more}",
        param=param,
        details={"excluded": [msgspec.structs.asdict(item) for item in excluded]},
    )


_REASONS_MAX: Final = 8


def affordable(call: Call, found: Plan, available_nano: int) -> int:
    """The largest output cap per choice that the money covers on every candidate."""
    tokens = min(
        affordable_output_tokens(
            candidate.quoted,
            input_tokens=candidate.bound.input_tokens,
            available_nano=available_nano,
            web_searches=call.web_searches_max,
            choices=call.choices,
        )
        for candidate in found.candidates
    )
    if found.standing is None or not found.standing.looks(streamed=call.stream):
        return tokens
    # Two answers out of one purse: no closed form, and rare.
    least, most = 0, min(tokens, max(candidate.bound.cap for candidate in found.candidates))
    while least < most:
        middle = (least + most + 1) // 2
        if lowered(call, found, middle).hold_nano <= available_nano:
            least = middle
        else:
            most = middle - 1
    return least


def passed_over(candidate: Candidate, rule: str, reason: str) -> Exclusion:
    """Why a candidate of a plan was not asked after all."""
    target = candidate.target
    return Exclusion(target.model.slug, target.provider.name, target.offer.id, rule, reason)


def without(found: Plan, left_out: Mapping[int, Exclusion]) -> Plan:
    """The plan as it turned out: without the candidates that could not be told the call, by their places. One that could only not
    go on with another's answer stays."""
    kept = tuple(
        one for n, one in enumerate(found.candidates) if n not in left_out or left_out[n].rule != TRANSLATION
    )
    return found.of(kept, found.hold_nano, tuple(left_out.values()))


def own_keys_only(found: Plan, *, streamed: bool) -> Plan | None:
    """The plan with the caller's own keys alone; None where that is no other plan, or none."""
    kept = tuple(candidate for candidate in found.candidates if is_own(candidate.target))
    if not kept or len(kept) == len(found.candidates):
        return None
    left_out = tuple(
        Exclusion(item.target.model.slug, item.target.provider.name, item.target.offer.id, "balance", "too little is left for it")
        for item in found.candidates
        if not is_own(item.target)
    )
    hold_nano = held_nano(kept, found.standing, streamed=streamed)
    return found.of(kept, hold_nano, left_out)


def lowered(call: Call, found: Plan, cap: int) -> Plan:
    """The same plan with a lower output cap, to be written into the upstream request."""
    candidates: list[Candidate] = []
    for candidate in found.candidates:
        limits = candidate.bound
        output = cap * call.choices
        hold = worst_case_nano(
            candidate.quoted, input_tokens=limits.input_tokens, output_tokens=output, web_searches=call.web_searches_max
        )
        candidates.append(candidate.within(Bound(limits.input_tokens, output, cap, False), hold))
    hold_nano = held_nano(candidates, found.standing, streamed=call.stream)
    return found.of(tuple(candidates), hold_nano)
