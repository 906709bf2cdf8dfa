"""The router: from a call, its preferences and the offers' health to a plan. Pure: time and chance are arguments.

What calls have in common is worked out once (`farebox.routing.standing`) and remembered by wire, model, preferences and policy;
what is left for each call is to see whether its own needs exclude an offer, to draw the order, and to price the few candidates
that can be tried.

Order, when nobody wishes otherwise: healthy offers first; among them by chance, weighted by the inverse square of the price, and
for a conversation always the same (`farebox.routing.sticky`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import log
from typing import Final, NamedTuple

import msgspec

from farebox.billing.bounds import NO_WINDOW, TOOL_TEMPLATE_TOKENS, bound_within, estimated_input, input_bound
from farebox.billing.markup import NO_MARKUP, MarkupPlan, Terms
from farebox.billing.pricing import worst_case_nano
from farebox.billing.quotes import Quote
from farebox.catalog.catalog import Catalog
from farebox.errors import invalid
from farebox.ports import Random
from farebox.routing import filters, fitness, hosted, sticky
from farebox.routing.allowance import Allowance, model_refused, offers_refused
from farebox.routing.caching import Caching
from farebox.routing.complexity.classify import Assessment
from farebox.routing.expected import uncached_nano
from farebox.routing.filters import Exclusion
from farebox.routing.measured import Measured
from farebox.routing.own_keys import OwnKey, OwnTargets, is_own
from farebox.routing.plan import TRANSLATION, Candidate, Plan, held_nano, refusal
from farebox.routing.policy import NO_POLICY, Policies, combined, lower_cap
from farebox.routing.preferences import MODELS_MAX, NONE, Preferences, Reader, session_of, split_suffix
from farebox.routing.preparing import beyond, prepare, resolve_chain, suffixed
from farebox.routing.standing import RANK_EJECTED, RANK_TIGHT, Entry, Group, Standing
from farebox.routing.sticky import finish_time
from farebox.routing.target import Target
from farebox.wires.call import Call

STANDINGS_MAX: Final = 4096
EXPLORE_SHARE: Final = 0.05
"""Of the calls that are sorted by a measurement, the share that goes first to an offer without one, so that it gets one."""

Expresses = Callable[[Call, Candidate], str | None]
"""What keeps a call from being translated for a candidate, if anything does."""


class Router:
    """One worker's routing: a snapshot of what can be called, and memories that only save time."""

    def __init__(
        self,
        catalog: Catalog,
        by_wire: Mapping[str, Mapping[str, tuple[Target, ...]]],
        *,
        policies: Policies,
        reader: Reader,
        health: Measured,
        attempts_max: int,
        default_policy: str = "",
    ) -> None:
        self.catalog = catalog
        self.by_wire = by_wire
        self.policies = policies
        self.reader = reader
        self.health = health
        self.attempts_max = attempts_max
        self.default_policy = default_policy
        self.caching = Caching()
        any_target = next((found[0] for by_slug in by_wire.values() for found in by_slug.values() if found), None)
        self._usual = NO_MARKUP if any_target is None else any_target.markup
        self._standings: dict[tuple[object, ...], Standing] = {}
        self._own_standings: dict[tuple[object, ...], Standing] = {}
        """Those of callers with keys of their own at providers: there may be as many as there are customers."""
        self._own_targets = OwnTargets(health.forget_key)

    def over(self, catalog: Catalog, by_wire: Mapping[str, Mapping[str, tuple[Target, ...]]]) -> "Router":
        """The same router over another catalog and other offers."""
        made = Router(
            catalog,
            by_wire,
            policies=self.policies,
            reader=self.reader,
            health=self.health,
            attempts_max=self.attempts_max,
            default_policy=self.default_policy,
        )
        made.caching = self.caching
        made._own_targets = self._own_targets.over()
        return made

    def plan(
        self,
        call: Call,
        *,
        now_us: int,
        day: str,
        random: Random,
        policy: str = "",
        allowance: Allowance | None = None,
        markup: MarkupPlan | None = None,
        volume_nano: int = 0,
        own_keys: tuple[OwnKey, ...] = (),
        own_key_calls: int = 0,
        session: str = "",
        expresses: Expresses | None = None,
        everything: bool = False,
        assessment: Assessment | None = None,
        sayable: bool = False,
    ) -> Plan:
        """The plan of a call. Raises the 400 or 404 that the caller is told when nobody can answer it.

        `policy` and `allowance` are the caller's own, `markup` its account's own, `volume_nano` what that was charged this month,
        `own_keys` its account's keys at providers, `own_key_calls` how many calls were made by them this month,
        `session` the conversation's name from a header; all may be empty. `everything` keeps also the offers that no attempt is
        left for. `assessment` is the call's, where it was sorted before. `sayable`: only offers that `expresses` has nothing
        against.
        """
        pays = markup or self._usual
        if call.plain:
            wanted = NONE
        else:
            wanted = self.reader.read(call)
            session = session_of(call) or session
        policy = policy or self.default_policy
        branch = ""
        called = self.policies.named.get(call.model)
        if called is not None:
            branch = self.policies.branch(called.policy, call) if assessment is None else assessment.tier
        # Preferences are remembered by their reader and kept alive by the standing: here, their identity stands for them.
        step = pays.step(volume_nano) if volume_nano else 0
        own: OwnKeys | None = None
        epoch, standings = self.health.epoch, self._standings
        if own_keys:
            own = OwnKeys(own_keys, pays.own_key.at(own_key_calls))
            epoch, standings = epoch + self.health.own_epoch, self._own_standings
        key = (call.wire, call.model, call.service_tier, policy, branch, id(wanted), pays.name, step, allowance, own)
        standing = standings.get(key)
        if standing is None or now_us >= standing.until_us or standing.epoch != epoch:
            standing = self._prepare(call, wanted, policy, branch, allowance, pays, volume_nano, own, now_us, day)
            if len(standings) >= STANDINGS_MAX:
                standings.clear()
            standings[key] = standing
        groups = standing.groups
        if len(groups) == 1 and len(groups[0].entries) == 1 and standing.simple and not sayable:
            group = groups[0]
            estimate = estimated_input(call)
            if _fits(group, call, estimate):
                found = _candidates(call, group.entries, estimate, now_us)
                patience, attempts_max = standing.wanted.patience, standing.wanted.attempts_max
                return Plan(
                    tuple(found), found[0].hold_nano, estimate, (), standing, attempts_max, patience, assessment=assessment
                )
        return self._choose(call, standing, now_us, random, session, expresses, everything, assessment, sayable)

    def _prepare(
        self,
        call: Call,
        wanted: Preferences,
        policy: str,
        branch: str,
        allowance: Allowance | None,
        markup: MarkupPlan,
        volume_nano: int,
        own_keys: "OwnKeys | None",
        now_us: int,
        day: str,
    ) -> Standing:
        own = self.policies.get(policy) if policy else NO_POLICY
        called, own_wishes = NO_POLICY, wanted
        names: Sequence[str] = (call.model,)
        meant = self.policies.called(call.model)
        if meant is not None:
            called = meant.policy
            # The suffix of a policy's name is the request's own wish, as a sort of its own is.
            own_wishes = suffixed(wanted, meant.suffix)
            names = called.names(branch)
            if called.escalation is not None:
                names = (*names, *called.escalation.to)
        both = combined(combined(own_wishes, called), own)
        names = tuple(dict.fromkeys((*names, *both.fallbacks)))
        asked = frozenset(wanted.fallbacks)
        if not asked.isdisjoint(names[MODELS_MAX:]):
            first = f"those of `{call.model}`" if called is not NO_POLICY else "`model`"
            raise invalid(f"`models` makes {len(names)} models with {first}; at most {MODELS_MAX} are tried", param="models")
        # A policy may name what cannot be called everywhere; what the caller names is meant.
        chain = resolve_chain(self.catalog, names, frozenset(names) - asked - {call.model})
        chain, left = chain[:MODELS_MAX], chain[MODELS_MAX:]
        if allowance is not None:
            # A model that the call names itself is refused in so many words; those it would fall back to are left out.
            if called is NO_POLICY and not allowance.allows_model(chain[0][2].slug):
                raise model_refused(chain[0][2].slug, allowance)
            if allowance.price_max is not None:
                both = msgspec.structs.replace(both, price_max=lower_cap(both.price_max, allowance.price_max))
        by_name = {call.model, *wanted.fallbacks}
        own_ways: list[Preferences] = []
        for base, suffix, _ in chain:
            if suffix and f"{base}:{suffix}" in by_name:
                # The caller's wish, as a sort of its own is: before a policy's wishes, never past its filters.
                way = combined(combined(suffixed(own_wishes, suffix), called), own)
                own_ways.append(msgspec.structs.replace(way, price_max=both.price_max))
            else:
                own_ways.append(suffixed(both, suffix))
        standing = prepare(
            chain,
            own_ways,
            self.by_wire[call.wire],
            both,
            asked=wanted,
            markup=markup,
            volume_nano=volume_nano,
            wire=call.wire,
            service_tier=call.service_tier,
            policy=", ".join(filter(None, (own.name, called.name, branch))),
            health=self.health,
            now_us=now_us,
            day=day,
            allowance=allowance,
            own_keys=() if own_keys is None else own_keys.keys,
            own_key_terms=None if own_keys is None else own_keys.terms,
            own_targets=self._own_targets,
        )
        if left:
            standing = replace(standing, excluded=(*standing.excluded, *beyond(left, self.by_wire[call.wire])))
        hedge = own.hedge if called.hedge is None else called.hedge
        if hedge is not None:
            standing = replace(standing, hedge=hedge)
        if called.escalation is None:
            return standing
        named = {split_suffix(name)[0] for name in called.escalation.to}
        strong = frozenset(meaning.slug for name, _, meaning in chain if name in named)
        return replace(standing, escalation=called.escalation, strong=strong)

    def _crowd(self, entry: Entry) -> int:
        """Offers of the house that are full go behind the others, and before those that are out."""
        if entry.rank >= RANK_EJECTED:
            return 2
        return 1 if self.health.full(entry.target) and not is_own(entry.target) else 0

    def _choose(
        self,
        call: Call,
        standing: Standing,
        now_us: int,
        random: Random,
        session: str,
        expresses: Expresses | None,
        everything: bool,
        assessment: Assessment | None,
        sayable: bool,
    ) -> Plan:
        """The general case: several offers, or one that needs a closer look."""
        estimate = estimated_input(call)
        groups, wanted = standing.groups, standing.wanted
        draw = CHANCE if standing.alone else Draw.of(call, standing.caching, session)
        excluded: list[Exclusion] = []
        candidates: list[Candidate] = []
        models = 0
        room = max(wanted.attempts_max or self.attempts_max, len(groups))
        for index, group in enumerate(groups):
            entries = _ordered(call, group, estimate, now_us, draw, random, excluded)
            if self.health.limited and len(entries) > 1:
                entries = sorted(entries, key=self._crowd)
            # Every later model keeps one try. Beside those that there are tries for, there is one more that certainly can be told
            # the call for each, but the first, that may not be: who cannot is passed over (`Flight.said`), and takes no try.
            keep = max(room - (len(groups) - 1 - index), 1)
            if everything and not group.first_offer_only:
                keep = len(entries)
            if standing.simple and not sayable:
                if group.first_offer_only and entries:
                    entries = _of_offer(entries, entries[0])
                picked = _candidates(call, entries[:keep], estimate, now_us)
            else:
                picked = _checked(
                    call, entries, keep, estimate, now_us, standing, expresses, excluded,
                    first_offer_only=group.first_offer_only, sayable=sayable,
                )  # fmt: skip
            room -= len(picked)
            models += bool(picked)
            if standing.mixed and picked and not (call.plain or sayable or everything or group.first_offer_only):
                doubtful = sum(one.target.wire != call.wire for one in picked[0 if candidates else 1 :])
                after = entries.index(picked[-1].entry) + 1
                certain = [entry for entry in entries[after:] if entry.target.wire == call.wire]
                picked += _checked(
                    call, certain, doubtful, estimate, now_us, standing, expresses, excluded,
                    first_offer_only=False, sayable=False,
                )  # fmt: skip
            candidates += picked
        if not candidates:
            everything_excluded = (*standing.excluded, *excluded)
            raise offers_refused(call.model, everything_excluded) or refusal(call, everything_excluded)
        first = candidates[0]
        if draw.later_turn and first.entry.caching:
            share_bp = self.caching.share_bp(first.target)
            candidates[0] = Candidate(first.entry, first.quoted, first.bound, first.hold_nano, share_bp)
        attempts = wanted.attempts_max
        if models > (attempts or self.attempts_max):
            attempts = models
        hold = 0
        if standing.escalation is not None:
            hold = held_nano(candidates, standing, streamed=call.stream)
        else:
            for candidate in candidates:
                hold = max(hold, candidate.hold_nano)
        return Plan(
            tuple(candidates),
            hold,
            estimate,
            tuple(excluded),
            standing,
            attempts,
            wanted.patience,
            draw.sticky,
            draw.later_turn,
            assessment,
        )


class OwnKeys(NamedTuple):
    """A caller's keys at providers, and what calls by them are charged."""

    keys: tuple[OwnKey, ...]
    terms: Terms


class Draw:
    """What decides where chance would: a conversation, if it is one that should stay where it is."""

    __slots__ = ("hash", "later_turn", "sticky")

    def __init__(self, hash: int = 0, sticky: str = "", later_turn: bool = False) -> None:
        self.hash = hash
        self.sticky = sticky
        self.later_turn = later_turn

    @classmethod
    def of(cls, call: Call, caching: bool, session: str) -> "Draw":
        """`caching`: some offer has a prompt cache to come back to."""
        found, later = sticky.opening(call) if caching else (0, False)
        if session:
            return cls(sticky.session_hash(session), "session", later)
        return cls(found, "conversation", later) if caching else CHANCE


CHANCE: Final = Draw()
"""No conversation."""


def _fits(group: Group, call: Call, estimate: int) -> bool:
    """Whether every entry certainly can take the call, seen from the group's smallest limits."""
    cap = call.output_cap or 0
    return (
        cap <= group.output_min
        and estimate + cap + TOOL_TEMPLATE_TOKENS <= group.input_min
        and (not call.needs or call.needs <= group.common)
    )


def _ordered(
    call: Call,
    group: Group,
    estimate: int,
    now_us: int,
    draw: Draw,
    random: Random,
    excluded: list[Exclusion],
) -> Sequence[Entry]:
    """The group's entries in the order of trying, without those that cannot take the call."""
    entries = group.entries
    if _fits(group, call, estimate):
        if len(entries) == 1:
            return entries
        if group.mode == "chance" and group.level:
            # The usual case, kept short: all are equals but for their weights.
            if draw.sticky:
                session = draw.hash
                times = [-log(sticky.draw(session, entry.salt)) * entry.distance for entry in entries]
            else:
                times = [-log(1.0 - random.uniform()) * entry.distance for entry in entries]
            return [entries[place] for place in sorted(range(len(times)), key=times.__getitem__)]
        ranked = [(entry.rank, entry) for entry in entries]
    else:
        ranked = []
        for entry in entries:
            offer = entry.target.offer
            problem = fitness.unfit(call, offer)
            if problem is None and call.hosted:
                problem = hosted.refused(call, entry.target, _quote(entry, now_us))
            if problem is not None:
                excluded.append(Exclusion(entry.target.model.slug, offer.provider, offer.id, *problem))
                continue
            ranked.append((entry.rank + (RANK_TIGHT if fitness.doubtful(call, offer, estimate) else 0), entry))
    keyed: list[tuple[int, float, float, int, Entry]] = []
    for index, (rank, entry) in enumerate(ranked):
        if group.mode == "chance":
            chance = sticky.draw(draw.hash, entry.salt) if draw.sticky else 1.0 - random.uniform()
            last = finish_time(chance, entry.distance)
        elif group.mode == "price":
            last = float(uncached_nano(call, _quote(entry, now_us), estimate, entry.target.offer))
        else:
            last = 0.0
        keyed.append((rank, entry.position, last, index, entry))
    keyed.sort()
    found = [item[-1] for item in keyed]
    if group.explore and random.uniform() < EXPLORE_SHARE:
        _explore(found, random)
    return found


def _explore(entries: list[Entry], random: Random) -> None:
    """Put an offer without measurements first, if there is one as good as the first in every other respect."""
    unknown = [entry for entry in entries[1:] if entry.unmeasured and entry.rank == entries[0].rank]
    if unknown and not entries[0].unmeasured:
        chosen = unknown[int(random.uniform() * len(unknown))]
        entries.remove(chosen)
        entries.insert(0, chosen)


def _quote(entry: Entry, now_us: int) -> Quote:
    if entry.quoted is not None:
        return entry.quoted
    # A price that changes by the hour is asked for at the moment of the call.
    found = entry.target.quote_at(now_us, entry.day, entry.tier, entry.terms)
    assert found is not None, "it had a price today when the standing was made"
    return found


def _candidates(call: Call, entries: Sequence[Entry], estimate: int, now_us: int) -> list[Candidate]:
    """Entries priced for a call: their bounds and their holds."""
    found: list[Candidate] = []
    model = None
    widest = 0
    cap, choices, searches = call.output_cap, call.choices, call.web_searches_max
    for entry in entries:
        target = entry.target
        if target.model is not model:
            model = target.model
            widest = input_bound(call, model=model.slug, context_window=NO_WINDOW)
        quoted = entry.quoted
        if quoted is None:
            quoted = _quote(entry, now_us)
        bound = bound_within(widest, entry.context_window, entry.output_max, cap, choices)
        worst = worst_case_nano(
            quoted, input_tokens=bound.input_tokens, output_tokens=bound.output_tokens, web_searches=searches
        )
        found.append(Candidate(entry, quoted, bound, worst))
    return found


def _checked(
    call: Call,
    entries: Sequence[Entry],
    keep: int,
    estimate: int,
    now_us: int,
    standing: Standing,
    expresses: Expresses | None,
    excluded: list[Exclusion],
    *,
    first_offer_only: bool,
    sayable: bool,
) -> list[Candidate]:
    """The first `keep` candidates that also pass what can only be checked with the call's own bounds and parameters."""
    wanted, allowance = standing.wanted, standing.allowance
    picked: list[Candidate] = []
    for entry in entries:
        if len(picked) >= keep:
            break
        if first_offer_only and picked and entry.target.offer is not picked[0].target.offer:
            continue
        candidate = _candidates(call, (entry,), estimate, now_us)[0]
        problem = None
        if wanted.price_max is not None:
            quoted, tokens = candidate.quoted, candidate.bound.input_tokens
            reachable = [rates for tier in (quoted.schedule, *quoted.service_tiers.values()) for rates in tier.reachable(tokens)]
            problem = None if allowance is None else allowance.too_dear(reachable, quoted)
            problem = problem or filters.too_dear(wanted.price_max, reachable, quoted)
        if problem is None and wanted.require_parameters:
            problem = _misses(call, candidate, expresses)
        if problem is None and sayable and expresses is not None:
            unsayable = expresses(call, candidate)
            problem = None if unsayable is None else (TRANSLATION, unsayable)
        if problem is None:
            picked.append(candidate)
        else:
            offer = entry.target.offer
            excluded.append(Exclusion(entry.target.model.slug, offer.provider, offer.id, *problem))
    return picked


def _of_offer(entries: Sequence[Entry], one: Entry) -> list[Entry]:
    """Those of one offer: a customer's keys at its provider, and the house's."""
    return [entry for entry in entries if entry.target.offer is one.target.offer]


def _misses(call: Call, candidate: Candidate, expresses: Expresses | None) -> tuple[str, str] | None:
    """A parameter of the call that the candidate does not understand."""
    if candidate.target.wire == call.wire:
        unknown = fitness.unknown_parameters(call, candidate.target)
        said = ", ".join(f"`{name}`" for name in unknown)
        return ("provider.require_parameters", f"it does not take {said}") if unknown else None
    problem = None if expresses is None else expresses(call, candidate)
    return None if problem is None else ("provider.require_parameters", problem)
