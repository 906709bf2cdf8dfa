"""Preferences: what a caller, or a policy, wants of routing. Pure.

The dialect is OpenRouter's (`models`, `route`, `provider: {…}`, the suffixes `:floor` and `:nitro`), with LiteLLM's `fallbacks`,
`num_retries` and `timeout`; it is the same on every surface. Whatever is not understood is a 400 that names the field: a
preference that is quietly dropped is a promise broken. Null and the empty list are the same as an absent field.

Callers repeat themselves, so a `Reader` remembers what it has read by the fields' bytes.
"""

import difflib
from collections.abc import Collection, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

import msgspec

from farebox.errors import invalid
from farebox.routing.patience import RETRIES_MAX, TIMEOUT_S_MAX, Patience
from farebox.wires import call as calls
from farebox.wires import reading
from farebox.wires.call import Call

FIELDS = ("models", "route", "provider", "fallbacks", "num_retries", "timeout")
"""Top-level request fields that are preferences. `session_id` is read apart: it differs from conversation to conversation."""
MODELS_MAX = 6
"""Models that one call may go through, the first included."""
NAMES_MAX = 32
"""Entries of a list of providers."""
NAME_CHARS_MAX = 256
REMEMBERED_MAX = 1024
REMEMBERED_BYTES_MAX = 4096
MEASURE_MAX = 10**9
"""Of a latency or a throughput that is preferred."""
PICO_PER_USD_PER_MILLION = 10**6
PICO_PER_USD = 10**12
SUFFIXES: dict[str, tuple["SortKey", str]] = {"floor": ("price", "flex"), "nitro": ("throughput", "priority")}
"""Suffix of a model's name → how offers are sorted, and the service tier that is asked for where an offer has it."""

SortKey = Literal["price", "throughput", "latency"]
SORTS = ("price", "throughput", "latency")
PARTITIONS = ("model", "none")
QUANTIZATIONS = ("int4", "int8", "fp4", "fp6", "fp8", "fp16", "bf16", "fp32", "unknown")
PERCENTILES = ("p50", "p75", "p90", "p99")
PRICE_CLASSES = ("prompt", "completion", "request", "image", "audio")

_ALIASES = {"google-ai-studio": "google", "google-gemini": "google", "moonshotai": "moonshot", "z-ai": "zai", "x-ai": "xai"}
"""Providers that OpenRouter calls by another name than we do."""


class ProviderRef(msgspec.Struct, frozen=True, order=True):
    """A provider, or one variant of it: `openai`, `azure/eu`."""

    name: str
    variant: str = ""

    def __str__(self) -> str:
        return f"{self.name}/{self.variant}" if self.variant else self.name


class Percentiles(msgspec.Struct, frozen=True):
    """Bounds by percentile; None where nothing is asked."""

    p50: float | None = None
    p75: float | None = None
    p90: float | None = None
    p99: float | None = None


class PriceCap(msgspec.Struct, frozen=True):
    """The most that a caller pays, markup included: pico-dollars per token, per request for `request`. None: no cap."""

    prompt: int | None = None
    completion: int | None = None
    request: int | None = None
    image: int | None = None
    audio: int | None = None


class Preferences(msgspec.Struct, frozen=True, kw_only=True):
    """What may serve a call and in which order. The defaults want nothing."""

    fallbacks: tuple[str, ...] = ()
    """Models to go on with when the first one cannot answer, in this order."""
    order: tuple[ProviderRef, ...] = ()
    only: tuple[ProviderRef, ...] = ()
    """Empty: any."""
    ignore: tuple[ProviderRef, ...] = ()
    allow_fallbacks: bool = True
    """False: nobody but the first provider (with `order`, but those of the list)."""
    require_parameters: bool = False
    """Only offers that understand every parameter of the request."""
    no_training: bool = False
    """`data_collection: "deny"`: only providers that do not train on prompts."""
    zdr: bool = False
    """Only providers that retain nothing."""
    distillable: bool = False
    """Only models whose text may train other models."""
    quantizations: tuple[str, ...] = ()
    sort: SortKey | None = None
    across_models: bool = False
    """`partition: "none"`: all models' offers are sorted as one list."""
    throughput_min: Percentiles | None = None
    """Tokens per second; offers below it go behind the others."""
    latency_max_ms: Percentiles | None = None
    """Milliseconds to the first token; offers above it go behind the others."""
    price_max: PriceCap | None = None
    attempts_max: int | None = None
    patience: Patience | None = None
    weights: tuple[tuple[ProviderRef, int], ...] = ()
    """Shares of the calls by provider, in place of the price's (policies only); a provider that is not named gets none."""
    require: frozenset[str] = frozenset()
    """Capabilities that an offer must have whether or not the call uses them (policies only)."""
    regions: tuple[str, ...] = ()
    """Only providers that say that they stay in one of these regions (policies only)."""
    tier: str = ""
    """The service tier to ask for where an offer has a price for it and the call names none (suffixes only)."""


NONE = Preferences()


class Providers(msgspec.Struct, frozen=True):
    """The names by which providers may be called: their own, their titles, and OpenRouter's."""

    known: Mapping[str, str]
    """Folded spelling → name."""

    @classmethod
    def of(cls, titles: Mapping[str, str]) -> "Providers":
        """From names to titles, such as `{"openai": "OpenAI"}`."""
        known = {_folded(title): name for name, title in titles.items()}
        known.update({_folded(alias): name for alias, name in _ALIASES.items() if name in titles})
        known.update({_folded(name): name for name in titles})
        return cls(known)

    def ref(self, text: str, path: str) -> ProviderRef:
        """`azure/eu` → a reference. An unknown provider is a 400."""
        name, _, variant = text.partition("/")
        found = self.known.get(_folded(name))
        if found is None:
            near = difflib.get_close_matches(_folded(name), self.known, n=1)
            fix = f"did you mean `{self.known[near[0]]}`?" if near else f"known: {', '.join(sorted(set(self.known.values())))}"
            raise invalid(f"`{path}`: there is no provider {reading.shown(text)}; {fix}", param=path)
        return ProviderRef(found, variant)


def _folded(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


def split_suffix(name: str) -> tuple[str, str]:
    """`openai/gpt-4o:floor` → (`openai/gpt-4o`, `floor`); a name without one of our suffixes stays whole."""
    base, colon, suffix = name.rpartition(":")
    return (base, suffix) if colon and base and suffix in SUFFIXES else (name, "")


class Reader:
    """Reads preferences out of requests, and remembers those it has read."""

    def __init__(self, providers: Providers) -> None:
        self._providers = providers
        self._remembered: dict[tuple[bytes | None, ...], Preferences] = {}

    def read(self, call: Call) -> Preferences:
        """What the request's fields want. Raises a 400 that names the field."""
        if call.plain:
            return NONE
        fields = call.fields
        if fields.keys().isdisjoint(FIELDS):
            return NONE
        key = tuple(None if (raw := fields.get(name)) is None else bytes(raw) for name in FIELDS)
        found = self._remembered.get(key)
        if found is not None:
            return found
        values = {name: reading.decode(fields.get(name), name) for name in FIELDS if name in fields}
        found = request_preferences(values, self._providers)
        if sum(len(part) for part in key if part is not None) <= REMEMBERED_BYTES_MAX:
            if len(self._remembered) >= REMEMBERED_MAX:
                self._remembered.clear()
            self._remembered[key] = found
        return found


def request_preferences(values: Mapping[str, Any], providers: Providers) -> Preferences:
    """Decoded request fields → what is wanted."""
    route = values.get("route")
    if route is not None and route != "fallback":
        raise reading.wrong("route", route, '"fallback", or leave it out')
    models = _names(values.get("models"), "models", MODELS_MAX)
    fallbacks = _names(values.get("fallbacks"), "fallbacks", MODELS_MAX - 1)
    if models and fallbacks:
        raise invalid("`models` and `fallbacks` say the same thing in two ways; send one of them", param="fallbacks")
    retries = values.get("num_retries")
    attempts_max = None
    if retries is not None:
        count = reading.integer(retries, "num_retries", f"a whole number from 0 to {RETRIES_MAX}")
        if not 0 <= count <= RETRIES_MAX:
            raise reading.wrong("num_retries", retries, f"a whole number from 0 to {RETRIES_MAX}")
        attempts_max = count + 1
    timeout = values.get("timeout")
    patience = None
    if timeout is not None:
        seconds = reading.number(timeout, "timeout")
        if not 0 < seconds <= TIMEOUT_S_MAX:
            raise reading.wrong("timeout", timeout, f"seconds, above 0 and up to {TIMEOUT_S_MAX}")
        patience = Patience(total_s=float(seconds))
    given = values.get("provider")
    asked = NONE if given is None else provider_preferences(reading.obj(given, "provider"), providers)
    return msgspec.structs.replace(asked, fallbacks=models or fallbacks, attempts_max=attempts_max, patience=patience)


PROVIDER_FIELDS = (
    "order", "only", "ignore", "allow_fallbacks", "require_parameters", "data_collection", "zdr", "enforce_distillable_text",
    "quantizations", "sort", "preferred_min_throughput", "preferred_max_latency", "max_price",
)  # fmt: skip


def provider_preferences(given: Mapping[str, Any], providers: Providers, at: str = "provider") -> Preferences:
    """The `provider` object. `at` is where it stands, for errors."""
    check_names(given, PROVIDER_FIELDS, at)

    def path(name: str) -> str:
        return f"{at}.{name}" if at else name

    def flag(name: str, default: bool) -> bool:
        value = given.get(name)
        return default if value is None else reading.flag(value, path(name))

    def refs(name: str) -> tuple[ProviderRef, ...]:
        entries = _names(given.get(name), path(name), NAMES_MAX)
        found = tuple(providers.ref(entry, f"{path(name)}[{index}]") for index, entry in enumerate(entries))
        return tuple(dict.fromkeys(found))

    collection = given.get("data_collection")
    if collection not in (None, "allow", "deny"):
        raise reading.wrong(path("data_collection"), collection, '"allow" or "deny"')
    sort, across = _sort(given.get("sort"), path("sort"))
    quantizations = _names(given.get("quantizations"), path("quantizations"), len(QUANTIZATIONS))
    for index, name in enumerate(quantizations):
        if name not in QUANTIZATIONS:
            raise reading.wrong(f"{path('quantizations')}[{index}]", name, _one_of(QUANTIZATIONS))
    latency = _percentiles(given.get("preferred_max_latency"), path("preferred_max_latency"))
    return Preferences(
        order=refs("order"),
        only=refs("only"),
        ignore=refs("ignore"),
        allow_fallbacks=flag("allow_fallbacks", True),
        require_parameters=flag("require_parameters", False),
        no_training=collection == "deny",
        zdr=flag("zdr", False),
        distillable=flag("enforce_distillable_text", False),
        quantizations=quantizations,
        sort=sort,
        across_models=across,
        throughput_min=_percentiles(given.get("preferred_min_throughput"), path("preferred_min_throughput")),
        latency_max_ms=None if latency is None else _times_1000(latency),
        price_max=price_cap(given.get("max_price"), path("max_price")),
    )


def check_names(given: Collection[str], known: Collection[str], at: str) -> None:
    """Refuse a member that is not known, with the nearest one that is."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            fix = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(known)}"
            path = f"{at}.{name}" if at else name
            raise invalid(f"`{path[:NAME_CHARS_MAX]}` is not a preference; {fix}", param=path[:NAME_CHARS_MAX])


def _names(value: Any, path: str, count_max: int) -> tuple[str, ...]:
    """A list of names. Absent, null and empty are the same."""
    if value is None:
        return ()
    found: list[str] = []
    for index, item in enumerate(reading.array(value, path, "a list of names")):
        name = reading.text(item, f"{path}[{index}]", "a name")
        if not 0 < len(name) <= NAME_CHARS_MAX:
            raise reading.wrong(f"{path}[{index}]", item, f"a name of 1 to {NAME_CHARS_MAX} characters")
        found.append(name)
    if len(found) > count_max:
        raise invalid(f"`{path}` has {len(found)} entries; at most {count_max} are allowed", param=path)
    return tuple(found)


def _one_of(words: Collection[str]) -> str:
    return "one of " + ", ".join(f'"{word}"' for word in words)


def _sort(value: Any, path: str) -> tuple[SortKey | None, bool]:
    if value is None:
        return None, False
    across = False
    by: Any = value
    if isinstance(value, dict):
        given = reading.obj(value, path)
        check_names(given, ("by", "partition"), path)
        partition = given.get("partition")
        if partition is not None and partition not in PARTITIONS:
            raise reading.wrong(f"{path}.partition", partition, _one_of(PARTITIONS))
        across = partition == "none"
        by = given.get("by")
        path += ".by"
        if by is None:
            if across:
                raise reading.missing(path, _one_of(SORTS) + ": models are only merged to be sorted")
            return None, False
    for key in ("price", "throughput", "latency"):
        if by == key:
            return key, across
    raise reading.wrong(path, by, _one_of(SORTS))


def _percentiles(value: Any, path: str) -> Percentiles | None:
    """A number means the median."""
    if value is None:
        return None
    if not isinstance(value, dict):
        return Percentiles(p50=_positive(value, path, ", or an object of percentiles"))
    given = reading.obj(value, path)
    check_names(given, PERCENTILES, path)
    found = {name: _positive(item, f"{path}.{name}") for name, item in given.items() if item is not None}
    return Percentiles(**found) if found else None


def _positive(value: Any, path: str, otherwise: str = "") -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= MEASURE_MAX:
        raise reading.wrong(path, value, f"a positive number, at most {MEASURE_MAX}{otherwise}")
    return float(value)


def _times_1000(seconds: Percentiles) -> Percentiles:
    values = (seconds.p50, seconds.p75, seconds.p90, seconds.p99)
    return Percentiles(*(None if value is None else value * 1000 for value in values))


def price_cap(value: Any, path: str) -> PriceCap | None:
    """USD per million tokens, for `request` USD each; numbers or decimal strings. Read exactly, as decimals, never as floats."""
    if value is None:
        return None
    given = reading.obj(value, path)
    check_names(given, PRICE_CLASSES, path)
    found: dict[str, int] = {}
    for name, item in given.items():
        if item is not None:
            unit = PICO_PER_USD if name == "request" else PICO_PER_USD_PER_MILLION
            found[name] = _pico(item, unit, f"{path}.{name}")
    return PriceCap(**found) if found else None


def _pico(value: Any, unit: int, path: str) -> int:
    """A price as whole pico-dollars, rounded down: a rate is whole, so it is within the cap exactly when within this."""
    expected = "dollars as a number or a decimal string, 0 or more"
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise reading.wrong(path, value, expected)
    try:
        # `str` of a float is the shortest decimal that means it: what the caller wrote.
        amount = Decimal(str(value))
    except InvalidOperation:
        raise reading.wrong(path, value, expected) from None
    if not amount.is_finite() or not 0 <= amount <= PICO_PER_USD:
        raise reading.wrong(path, value, expected)
    return int(amount * unit)


def session_of(call: Call) -> str:
    """The conversation's own name from the body: `session_id`, or else OpenAI's `prompt_cache_key`; empty without one."""
    if call.plain:
        return ""
    fields = call.fields
    found = calls.text(fields, "session_id", length_max=NAME_CHARS_MAX)
    if found:
        return found
    # The provider's field, so it is for the provider to complain about.
    hint = fields.get("prompt_cache_key")
    return "" if hint is None else bytes(hint)[:NAME_CHARS_MAX].decode("utf-8", "replace").strip('"')
