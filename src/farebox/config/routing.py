"""The configuration's sections about routing: policies, and the default one. Read by `farebox.config`.

A policy shares most of its settings with a request's `provider` object; `PolicySection.provider` says them in its words.
"""

from collections.abc import Callable
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from farebox.money import MoneyError, parse_amount


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class PriceCapSection(_Section, frozen=True):
    """Dearer offers are not called. Decimal strings, markup included."""

    prompt: str | None = None
    """USD per million input tokens."""
    completion: str | None = None
    """USD per million output tokens."""
    request: str | None = None
    """USD per call."""
    image: str | None = None
    """USD per million image tokens."""
    audio: str | None = None
    """USD per million audio tokens."""


class PercentilesSection(_Section, frozen=True):
    """Bounds by percentile."""

    p50: float | None = None
    """The median."""
    p75: float | None = None
    """Three quarters."""
    p90: float | None = None
    """Nine tenths."""
    p99: float | None = None
    """All but a hundredth."""


class ExamplesSection(_Section, frozen=True):
    """Messages as users write them, by tier: up to 200 of up to 2,000 characters. A call goes where its last message is most
    alike."""

    easy: tuple[str, ...] = ()
    """For the branch `easy`."""
    medium: tuple[str, ...] = ()
    """For the branch `medium`."""
    hard: tuple[str, ...] = ()
    """For the branch `hard`."""

    @property
    def tiers(self) -> dict[str, tuple[str, ...]]:
        """Those that there are."""
        found = {"easy": self.easy, "medium": self.medium, "hard": self.hard}
        return {tier: texts for tier, texts in found.items() if texts}


class EscalationSection(_Section, frozen=True):
    """The policy's models answer first; where that answer will not do, those of `to` answer instead. Both are billed. What
    was streamed is never taken back."""

    to: tuple[str, ...] = ()
    """The strong models: the first, or, when it cannot answer, the next."""
    streams: Literal["never", "withhold"] = "never"
    """`"never"`: a stream goes out as it comes and is not looked at. `"withhold"`: nothing of it goes out before its end but
    keep-alives; one of more than 2 MiB is released and stays."""
    refused: bool = True
    """It declines, or says that it does not know."""
    truncated: bool = True
    """It was cut off, and not by a cap of the caller's that the strong model would meet as well."""
    schema: bool = True
    """The caller asked for JSON, and it is none, or not by its schema."""
    confidence_percent: int | None = None
    """Its tokens are less probable than this, on average; only where the caller asks for `logprobs`."""
    self_rating_percent: int | None = None
    """Asked in a second, short request how sure it is of its answer, it says less than this. That request is billed as well."""
    must_match: str | None = None
    """A regular expression that is not found in it; one that takes longer than 20 ms is given up."""
    must_not_match: str | None = None
    """A regular expression that is found in it."""


class HedgeSection(_Section, frozen=True):
    """A second provider of the same model is asked when the first is slower than 95 % of its answers of the last half hour: to
    its first content, or, where nothing is streamed, to the whole answer. Who has content first answers; the other one is hung
    up on where that stops its bill, else read on to its usage."""

    samples_min: int = 50
    """Answers that have to be measured before; 1 to 1000000."""
    delay_min_ms: int = 100
    """The first provider is waited for at least so long; 0 to 600000."""
    charge: Literal["winner", "both"] = "winner"
    """Who pays for the answer that nobody got: `"winner"`, the operator; `"both"`, the customer."""


class Hedging(_Section, frozen=True):
    """What hedges of all policies together may waste."""

    waste_per_day: str = "1.00"
    """USD a day for answers that nobody got, decimal string. Each worker has an equal share of it."""
    time_zone: str = "UTC"
    """Whose days: an IANA name, e.g. `"Europe/Berlin"`."""


def check_hedging(hedging: Hedging, refuse: Callable[[str, str], None]) -> None:
    """What types alone cannot say."""
    try:
        if parse_amount(hedging.waste_per_day) < 0:
            refuse("hedging.waste_per_day", f"{hedging.waste_per_day} is negative; write 0 to hedge nothing")
    except MoneyError as error:
        refuse("hedging.waste_per_day", str(error))
    try:
        ZoneInfo(hedging.time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        refuse(
            "hedging.time_zone",
            f"there is no time zone `{hedging.time_zone}` on this machine; write an IANA name such as `Europe/Berlin`",
        )


class PolicySection(_Section, frozen=True):
    """Named preferences, called as the model `policy/NAME` or set as a default. Callers can narrow its filters, never widen them;
    their own `order` and `sort` come before its."""

    models: tuple[str, ...] = ()
    """What `policy/NAME` calls: the first, or, when it cannot answer, the next."""
    fallbacks: tuple[str, ...] = ()
    """Models to go on with, whatever model was called, unless the caller names its own. One call goes through 6 models at most,
    those of `models` (or of one branch) and of `escalation.to` included."""
    order: tuple[str, ...] = ()
    """Providers to try first, in this order; `"azure/eu"` means one variant."""
    only: tuple[str, ...] = ()
    """No other providers."""
    ignore: tuple[str, ...] = ()
    """Never these providers."""
    allow_fallbacks: bool = True
    """`false`: only the first provider, or only those of `order`."""
    sort: Literal["price", "throughput", "latency"] | None = None
    """Unset: by chance, weighted by the inverse square of the price, and for a conversation always the same."""
    partition: Literal["model", "none"] = "model"
    """`"none"` sorts the offers of all its models as one list."""
    weights: dict[str, int] = {}
    """Shares of the calls by provider, in place of prices; providers without one are only for when the others fail."""
    require: tuple[str, ...] = ()
    """Capabilities that an offer must have: `"tools"`, `"vision"`…"""
    regions: tuple[str, ...] = ()
    """Only providers with one of these in their `regions`."""
    data_collection: Literal["allow", "deny"] = "allow"
    """`"deny"`: only providers known not to train on prompts."""
    zdr: bool = False
    """Only providers known to retain nothing."""
    enforce_distillable_text: bool = False
    """Only models whose text may train other models."""
    quantizations: tuple[str, ...] = ()
    """Only offers of these precisions; `"unknown"` means those that do not state one."""
    require_parameters: bool = False
    """Only offers that take every parameter of the request."""
    max_price: PriceCapSection | None = None
    """Dearer offers are not called."""
    preferred_min_throughput: float | PercentilesSection | None = None
    """Tokens per second (a number means the median); slower offers go behind the others."""
    preferred_max_latency: float | PercentilesSection | None = None
    """Seconds to the first token; slower offers go behind the others."""
    attempts_max: int | None = None
    """Tries per call, 1 to 6; at least one for each model."""
    headers_s: float | None = None
    """In place of `attempts.headers_s`, and so on."""
    first_token_s: float | None = None
    """In place of `attempts.first_token_s`."""
    chunk_s: float | None = None
    """In place of `attempts.chunk_s`."""
    total_s: float | None = None
    """In place of `attempts.total_s`."""
    decision: str | None = None
    """What chooses among `branches`, call by call: `"complexity"`, by how hard a request is, or `"examples"`."""
    branches: dict[str, tuple[str, ...]] = {}
    """Models by the decision's answers; an answer without any takes `models`."""

    examples: ExamplesSection | None = None
    """For the decision `"examples"`."""
    escalation: EscalationSection | None = None
    """When a stronger model answers instead."""
    hedge: HedgeSection | None = None
    """When a second provider is asked beside a slow first one."""

    def provider(self) -> dict[str, Any]:
        """The settings that requests have, too, as a request's `provider` object."""
        shared = {
            "order": self.order,
            "only": self.only,
            "ignore": self.ignore,
            "allow_fallbacks": self.allow_fallbacks,
            "data_collection": self.data_collection,
            "zdr": self.zdr,
            "enforce_distillable_text": self.enforce_distillable_text,
            "quantizations": self.quantizations,
            "require_parameters": self.require_parameters,
            "sort": None if self.sort is None else {"by": self.sort, "partition": self.partition},
            "max_price": self.max_price,
            "preferred_min_throughput": self.preferred_min_throughput,
            "preferred_max_latency": self.preferred_max_latency,
        }
        return msgspec.json.decode(msgspec.json.encode(shared))


class Routing(_Section, frozen=True):
    """How calls find their provider when neither the caller nor its key or account says so."""

    policy: str | None = None
    """The policy of every key whose account and self have none."""


class HealthSection(_Section, frozen=True):
    """When an offer that fails is left alone, and for how long."""

    failures_in_a_row: int = 5
    """So many failures one after the other take a model at a key out."""
    failed_percent: int = 50
    """So does this share of the attempts of the window."""
    window_s: int = 30
    """The window."""
    samples_min: int = 20
    """The share counts from so many attempts in it."""
    ejection_s: int = 30
    """The first time out; the n-th in short order is n times as long. Then one call tries the offer."""
    ejection_max_s: int = 300
    """The longest time out."""
    probe_s: int = 10
    """How often a provider with a `probe` is asked how it is."""
    ejected_max_percent: int = 100
    """At most this share of a model's offers, but always one, is put behind the others; of more, those that did best lately stay
    among them. With 100 all may be: they are then tried as if none were."""
