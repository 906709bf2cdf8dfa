"""Policies: named preferences of the operator's, from `[policies.NAME]`. Pure.

A policy is called as a model (`policy/support`), or is the default of a key, an account or the whole gateway. Either way its
filters hold: a request can narrow them, never widen. Order and sort are only wishes, so the request's own come first.

A policy may choose among lists of models by a named decision: `decision` is looked up in the table that the router is given,
called with the request, and its answer picks the branch. What is decided, and how, is not this module's business.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from farebox.catalog import catalog
from farebox.catalog.model import CAPABILITIES
from farebox.errors import FareboxError, Kind, invalid
from farebox.quality.rules import RuleError, Rules
from farebox.quality.rules import Section as EscalationSection
from farebox.quality.rules import compiled as compile_rules
from farebox.routing.hedging import Hedge, HedgeError
from farebox.routing.hedging import Section as HedgeSection
from farebox.routing.hedging import compiled as compile_hedge
from farebox.routing.patience import Patience, shorter
from farebox.routing.preferences import (
    MODELS_MAX,
    NONE,
    SUFFIXES,
    Preferences,
    PriceCap,
    ProviderRef,
    Providers,
    provider_preferences,
)
from farebox.wires.call import Call

POLICY_PREFIX = catalog.POLICY_PREFIX
EXAMPLES = "examples"
"""The decision that goes by a policy's own examples."""
EXAMPLES_MAX = 200
EXAMPLE_CHARS_MAX = 2_000
AUTO = catalog.AUTO
"""The model that stands for the policy of this name."""
OPENROUTER_AUTO = "openrouter/auto"
"""The same for clients that were written for OpenRouter, unless a model or an alias has this name."""
WEIGHT_MAX = 1_000_000

Decision = Callable[[Call], str]
"""From a request to the name of a branch."""


class Decisions(msgspec.Struct, frozen=True):
    """A decision that policies may name, and every answer that it can give."""

    decide: Decision
    answers: tuple[str, ...]


class PolicyError(Exception):
    """A policy that cannot be; `place` is the setting inside it."""

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(f"`{place}`: {problem}")
        self.place = place
        self.problem = problem


class Policy(msgspec.Struct, frozen=True):
    """One policy, checked."""

    name: str
    models: tuple[str, ...] = ()
    preferences: Preferences = NONE
    decision: str = ""
    branches: Mapping[str, tuple[str, ...]] = {}
    escalation: Rules | None = None
    examples: Mapping[str, tuple[str, ...]] = {}
    """Messages by tier."""
    hedge: Hedge | None = None

    def names(self, branch: str) -> tuple[str, ...]:
        """The models to try, in order."""
        return self.branches.get(branch) or self.models

    def named_models(self) -> list[tuple[str, tuple[str, ...]]]:
        """Every list of models in it, by the setting that names them."""
        found = [("models", self.models), ("fallbacks", self.preferences.fallbacks), *_named(self.branches)]
        return found if self.escalation is None else [*found, ("escalation.to", self.escalation.to)]

    @property
    def callable(self) -> bool:
        """Whether it names models of its own, so that it can be called as one."""
        return bool(self.models or self.branches)


NO_POLICY = Policy("")


class Called(NamedTuple):
    """What a model's name means that is a policy's."""

    policy: Policy
    suffix: str
    """`floor`, `nitro`, or empty."""


class ExamplesSection(Protocol):
    """What `[policies.NAME.examples]` says."""

    @property
    def tiers(self) -> Mapping[str, tuple[str, ...]]: ...


class Section(Protocol):
    """What a `[policies.NAME]` section says (`farebox.config.PolicySection`)."""

    @property
    def models(self) -> tuple[str, ...]: ...
    @property
    def fallbacks(self) -> tuple[str, ...]: ...
    @property
    def weights(self) -> Mapping[str, int]: ...
    @property
    def require(self) -> tuple[str, ...]: ...
    @property
    def regions(self) -> tuple[str, ...]: ...
    @property
    def partition(self) -> str: ...
    @property
    def attempts_max(self) -> int | None: ...
    @property
    def headers_s(self) -> float | None: ...
    @property
    def first_token_s(self) -> float | None: ...
    @property
    def chunk_s(self) -> float | None: ...
    @property
    def total_s(self) -> float | None: ...
    @property
    def decision(self) -> str | None: ...
    @property
    def branches(self) -> Mapping[str, tuple[str, ...]]: ...
    @property
    def examples(self) -> "ExamplesSection | None": ...
    @property
    def escalation(self) -> "EscalationSection | None": ...
    @property
    def hedge(self) -> "HedgeSection | None": ...
    def provider(self) -> Mapping[str, Any]:
        """The settings that are also members of a request's `provider` object, by those names; null where unset."""
        ...


def compiled(name: str, section: Section, providers: Providers, decisions: Mapping[str, Decisions]) -> Policy:
    """A checked policy. Raises `PolicyError`, which names the setting, or `FareboxError` for those shared with requests."""
    at = f"policies.{name}"
    if not name or not all(character.isalnum() or character in "-_." for character in name):
        raise PolicyError(at, "a policy's name has letters, digits, `-`, `_` and `.` only, since it is called as `policy/NAME`")
    preferences = provider_preferences(section.provider(), providers, at)
    unknown = sorted(set(section.require) - set(CAPABILITIES))
    if unknown:
        raise PolicyError(f"{at}.require", f"unknown capability {', '.join(unknown)}; known: {', '.join(CAPABILITIES)}")
    weights: list[tuple[ProviderRef, int]] = []
    for provider, weight in section.weights.items():
        if not 0 < weight <= WEIGHT_MAX:
            raise PolicyError(f"{at}.weights.{provider}", f"{weight} is not a whole number from 1 to {WEIGHT_MAX}")
        weights.append((providers.ref(provider, f"{at}.weights"), weight))
    if weights and (preferences.order or preferences.sort is not None):
        other = "order" if preferences.order else "sort"
        raise PolicyError(f"{at}.weights", f"`weights` and `{other}` both say who comes first; write one of them")
    for setting, names in (("models", section.models), ("fallbacks", section.fallbacks), *_named(section.branches)):
        if len(names) > MODELS_MAX:
            raise PolicyError(f"{at}.{setting}", f"has {len(names)} models; at most {MODELS_MAX} are tried")
        for model in names:
            if model.startswith(POLICY_PREFIX):
                raise PolicyError(f"{at}.{setting}", f"{model!r} is a policy; name models, so that no policy leads to itself")
    _check_decision(at, section, decisions)
    escalation = _escalation(at, section)
    _check_together(at, section, decisions, () if escalation is None else escalation.to)
    patience = Patience(section.headers_s, section.first_token_s, section.chunk_s, section.total_s)
    return Policy(
        name=name,
        models=section.models,
        preferences=msgspec.structs.replace(
            preferences,
            fallbacks=section.fallbacks,
            weights=tuple(weights),
            require=frozenset(section.require),
            regions=section.regions,
            attempts_max=section.attempts_max,
            patience=None if patience == Patience() else patience,
        ),
        decision=section.decision or "",
        branches=dict(section.branches),
        escalation=escalation,
        examples=_examples(f"{at}.examples", section),
        hedge=_hedge(f"{at}.hedge", section),
    )


def _hedge(at: str, section: Section) -> Hedge | None:
    """The checked rules of a policy that hedges."""
    if section.hedge is None:
        return None
    try:
        return compile_hedge(section.hedge)
    except HedgeError as error:
        raise PolicyError(f"{at}.{error.setting}", error.problem) from None


def _examples(at: str, section: Section) -> Mapping[str, tuple[str, ...]]:
    """The checked examples of a policy that sorts by them; there are some of two tiers at least."""
    found: Mapping[str, tuple[str, ...]] = {} if section.examples is None else section.examples.tiers
    if section.decision != EXAMPLES:
        if section.examples is not None:
            raise PolicyError(at, f'examples need `decision = "{EXAMPLES}"`')
        return {}
    if len(found) < 2:
        raise PolicyError(at, "give examples of two tiers at least: a message goes where it is most alike")
    count = sum(map(len, found.values()))
    if count > EXAMPLES_MAX:
        raise PolicyError(at, f"{count} examples are more than {EXAMPLES_MAX}")
    for tier, texts in found.items():
        for index, text in enumerate(texts):
            if not text.strip() or len(text) > EXAMPLE_CHARS_MAX:
                raise PolicyError(f"{at}.{tier}[{index}]", f"an example has 1 to {EXAMPLE_CHARS_MAX} characters")
    return found


def _escalation(at: str, section: Section) -> Rules | None:
    """The checked rules of a policy that escalates: there is somebody to answer first, and room for those who answer then."""
    if section.escalation is None:
        return None
    at = f"{at}.escalation"
    try:
        rules = compile_rules(section.escalation)
    except RuleError as error:
        raise PolicyError(f"{at}.{error.setting}", error.problem) from None
    first = [section.models, *section.branches.values()]
    if not any(first):
        raise PolicyError(at, "give the policy `models`, or a `decision` with branches, that answer first")
    if section.partition == "none":
        raise PolicyError(at, 'with `partition = "none"` nobody knows who answers first; sort by model')
    for model in rules.to:
        if model.startswith(POLICY_PREFIX):
            raise PolicyError(f"{at}.to", f"{model!r} is a policy; name models, so that no policy leads to itself")
    return rules


def _named(branches: Mapping[str, tuple[str, ...]]) -> list[tuple[str, tuple[str, ...]]]:
    return [(f"branches.{name}", models) for name, models in branches.items()]


def _check_decision(at: str, section: Section, decisions: Mapping[str, Decisions]) -> None:
    """Every answer of the decision has its branch, and no branch is never taken."""
    if section.decision is None:
        if section.branches:
            raise PolicyError(f"{at}.branches", "branches need a `decision` that chooses among them")
        return
    known = decisions.get(section.decision)
    if known is None:
        raise PolicyError(
            f"{at}.decision", f"there is no decision {section.decision!r}; known: {', '.join(sorted(decisions)) or 'none'}"
        )
    for answer in known.answers:
        if not section.branches.get(answer) and not section.models:
            raise PolicyError(
                f"{at}.branches", f"`{section.decision}` may answer {answer!r}; give it models, or give the policy `models`"
            )
    for branch in section.branches:
        if branch not in known.answers:
            raise PolicyError(
                f"{at}.branches.{branch}", f"`{section.decision}` never answers this; it answers {', '.join(known.answers)}"
            )


def _check_together(at: str, section: Section, decisions: Mapping[str, Decisions], to: tuple[str, ...]) -> None:
    """No call has more models by the policy alone than are tried for one: its later ones would be lost without a word."""
    answers = decisions[section.decision].answers if section.decision is not None else ()
    first = {f"branches.{answer}": section.branches.get(answer, ()) for answer in answers}
    if not all(first.values()) or not first:
        first["models"] = section.models
    for setting, models in first.items():
        if not models:
            continue
        lists = [(setting, models), ("escalation.to", to), ("fallbacks", section.fallbacks)]
        count = len({name for _, names in lists for name in names})
        if count > MODELS_MAX:
            *others, last = [name for name, names in lists if names]
            said = f"{', '.join(f'`{name}`' for name in others)} and `{last}` make" if others else f"`{last}` makes"
            raise PolicyError(f"{at}.{last}", f"{said} {count} models together; at most {MODELS_MAX} are tried for one call")


class Policies:
    """All policies of the configuration."""

    def __init__(
        self,
        policies: Sequence[Policy] = (),
        decisions: Mapping[str, Decisions] | None = None,
        *,
        taken: Collection[str] = (),
    ) -> None:
        """`taken` are names of models and aliases: they mean no policy."""
        self._by_name = {policy.name: policy for policy in policies}
        self._decisions = decisions or {}
        self._auto = (AUTO,) if OPENROUTER_AUTO in taken else (AUTO, OPENROUTER_AUTO)
        self.deciding = frozenset(policy.name for policy in policies if policy.decision)
        self.named: dict[str, Called] = {}
        """Policies that can be called, by every name of a model that calls them, those with a suffix included."""
        for policy in self._by_name.values():
            if policy.callable:
                for name in (f"{POLICY_PREFIX}{policy.name}", *(self._auto if policy.name == AUTO else ())):
                    self.named[name] = Called(policy, "")
                    self.named.update({f"{name}:{suffix}": Called(policy, suffix) for suffix in SUFFIXES})

    def __iter__(self) -> Iterator[Policy]:
        return iter(self._by_name.values())

    def get(self, name: str) -> Policy:
        """A default policy. One that is gone from the configuration refuses the call: its filters may have been a promise."""
        found = self._by_name.get(name)
        if found is None:
            raise FareboxError(
                Kind.PERMISSION,
                f"the policy `{name}` of this key or account is not in the configuration; its operator has to mend that",
                details={"policy": name},
            )
        return found

    def called(self, model: str) -> Called | None:
        """The policy that a request names as its model; None where it names a model. Raises the 404 for a name that is a policy's
        and cannot be called."""
        found = self.named.get(model)
        base, _, suffix = model.partition(":")
        if found is not None or not (base in self._auto or base.startswith(POLICY_PREFIX)):
            return found
        if base in self.named:
            known = " and ".join(f"`{base}:{one}`" for one in SUFFIXES)
            raise FareboxError(
                Kind.MODEL_NOT_FOUND,
                f"`{base}` has no suffix `{suffix[:64]}`; there are {known}, or call it without one",
                param="model",
            )
        name = AUTO if base in self._auto else base.removeprefix(POLICY_PREFIX)
        known = ", ".join(f"`{POLICY_PREFIX}{policy.name}`" for policy in self._by_name.values() if policy.callable)
        problem = "names no models of its own" if name in self._by_name else "does not exist"
        raise FareboxError(
            Kind.MODEL_NOT_FOUND,
            f"the policy `{name[:64]}` {problem}; can be called: {known or 'none'}",
            param="model",
        )

    def decision(self, model: str) -> str:
        """What the policy that is called by this name chooses its models by; empty for a model, or a policy without choice."""
        found = self.named.get(model)
        return "" if found is None else found.policy.decision

    def branch(self, policy: Policy, call: Call) -> str:
        """What the policy's decision says of a call; empty without one."""
        return self._decisions[policy.decision].decide(call) if policy.decision else ""


def combined(request: Preferences, policy: Policy) -> Preferences:
    """A request's preferences under a policy. Raises a 400 where the request wants what the policy excludes."""
    ours = policy.preferences
    if policy is NO_POLICY or ours is NONE:
        return request
    if request is NONE:
        return ours
    own_order = bool(request.order or request.sort is not None)
    first = request if own_order else ours
    only, others_too = ours.only, ours.allow_fallbacks
    if own_order and ours.order and not others_too:
        # Nobody but those of its list: that is a filter, in whatever order the request wants them.
        only, others_too = _narrowed(ours.order, only, policy.name), True
    return Preferences(
        fallbacks=request.fallbacks or ours.fallbacks,
        order=first.order,
        sort=first.sort,
        across_models=first.across_models,
        tier=first.tier,
        weights=() if own_order else ours.weights or request.weights,
        only=_narrowed(request.only, only, policy.name),
        ignore=tuple(dict.fromkeys((*request.ignore, *ours.ignore))),
        allow_fallbacks=request.allow_fallbacks and others_too,
        require_parameters=request.require_parameters or ours.require_parameters,
        no_training=request.no_training or ours.no_training,
        zdr=request.zdr or ours.zdr,
        distillable=request.distillable or ours.distillable,
        quantizations=_both(request.quantizations, ours.quantizations, "provider.quantizations", policy.name),
        throughput_min=request.throughput_min or ours.throughput_min,
        latency_max_ms=request.latency_max_ms or ours.latency_max_ms,
        price_max=lower_cap(request.price_max, ours.price_max),
        attempts_max=_least(request.attempts_max, ours.attempts_max),
        patience=shorter(request.patience, ours.patience),
        require=request.require | ours.require,
        regions=_both(request.regions, ours.regions, "regions", policy.name),
    )


def _narrowed(request: tuple[ProviderRef, ...], ours: tuple[ProviderRef, ...], name: str) -> tuple[ProviderRef, ...]:
    if not request or not ours:
        return request or ours
    found: list[ProviderRef] = []
    for ref in request:
        for allowed in ours:
            if ref.name == allowed.name and (not allowed.variant or not ref.variant or ref.variant == allowed.variant):
                found.append(ref if ref.variant else allowed)
    if not found:
        raise _excluded("provider.only", ", ".join(map(str, ours)), name)
    return tuple(dict.fromkeys(found))


def _both(request: tuple[str, ...], ours: tuple[str, ...], path: str, name: str) -> tuple[str, ...]:
    if not request or not ours:
        return request or ours
    found = tuple(item for item in request if item in ours)
    if not found:
        raise _excluded(path, ", ".join(ours), name)
    return found


def _excluded(path: str, allowed: str, name: str) -> FareboxError:
    return invalid(f"`{path}`: the policy `{name}` allows only {allowed}", param=path)


def lower_cap(first: PriceCap | None, second: PriceCap | None) -> PriceCap | None:
    """The cap that holds when both do."""
    if first is None or second is None:
        return first or second
    return PriceCap(*(_least(getattr(first, name), getattr(second, name)) for name in PriceCap.__struct_fields__))


def _least(first: int | None, second: int | None) -> int | None:
    return min((value for value in (first, second) if value is not None), default=None)
