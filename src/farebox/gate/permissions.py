"""What an API key may do: its scopes and restrictions, as they are written, stored and held against a request. Pure.

Scopes say which endpoints a key may call; `manage` is for keys that make other keys, and never goes together with `inference`:
a key that lies in a program's environment cannot make others, and one that makes others cannot spend. Restrictions say which
models, providers and prices a call may have, and from which addresses it may come.
"""

import re
from collections.abc import Callable, Collection, Iterable
from typing import Any, cast

import msgspec

from farebox.errors import FareboxError, Kind, invalid
from farebox.gate.addresses import Network, network
from farebox.money import format_rate, format_unit_rate
from farebox.routing.allowance import Allowance, means
from farebox.routing.preferences import PRICE_CLASSES, PriceCap, price_cap

SCOPES = ("inference", "read_usage", "manage")
USUAL_SCOPES = frozenset({"inference", "read_usage"})
PATTERNS_MAX = 200
PATTERN_CHARS_MAX = 200
NETWORKS_MAX = 200
_PATTERN = re.compile(r"[A-Za-z0-9._:/@+~*-]+")
_AS_BEFORE = {"usage": "read_usage"}
"""How scopes were stored before they had these names."""


class Restrictions(msgspec.Struct, frozen=True, omit_defaults=True):
    """As stored and shown; empty is unrestricted."""

    models: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    max_price: dict[str, str] = {}
    """USD per million tokens (`request`: each) by class: `prompt`, `completion`, `request`, `image`, `audio`."""
    ips: tuple[str, ...] = ()
    """Networks in CIDR notation."""


UNRESTRICTED = Restrictions()


class Permit(msgspec.Struct, frozen=True):
    """Scopes and restrictions as the gate and the router use them."""

    scopes: frozenset[str] = USUAL_SCOPES
    allowance: Allowance | None = None
    networks: tuple[Network, ...] = ()


# --- stored text ------------------------------------------------------------------------------------------------------------


def stored(restrictions: Restrictions) -> str:
    """The column's text; empty for none."""
    return "" if restrictions == UNRESTRICTED else msgspec.json.encode(restrictions).decode()


def restored(text: str) -> Restrictions:
    """From the column. What cannot be read raises: a restriction that is not understood must not be none."""
    return msgspec.json.decode(text, type=Restrictions) if text else UNRESTRICTED


def scope_words(text: str) -> frozenset[str]:
    """The scopes of a `permissions` column; words that are not known permit nothing."""
    return frozenset(_AS_BEFORE.get(word, word) for word in text.split())


def permit(permissions: str, restrictions: str) -> Permit:
    """What a key's two columns allow."""
    found = restored(restrictions)
    allowance = None
    if found.models or found.providers or found.max_price:
        allowance = Allowance(found.models, found.providers, price_cap(found.max_price, "max_price"))
    return Permit(scope_words(permissions), allowance, tuple(network(text, "ips") for text in found.ips))


def shown(permit: Permit) -> dict[str, Any]:
    """What a key may do, as its owner is told."""
    allowance = permit.allowance or Allowance()
    return {
        "scopes": [scope for scope in SCOPES if scope in permit.scopes],
        "allowed_models": allowance.models,
        "allowed_providers": allowance.providers,
        "max_price": _prices(allowance.price_max) or None,
        "allowed_ips": [str(one) for one in permit.networks],
    }


# --- what people write ------------------------------------------------------------------------------------------------------


def checked_scopes(words: Collection[str], path: str) -> str:
    """The column's text for a list of scopes. A 400 names what cannot be."""
    for word in words:
        if word not in SCOPES:
            raise invalid(f"`{path}`: {word[:64]!r} is not a scope; known: {', '.join(SCOPES)}", param=path)
    if not words:
        raise invalid(f"`{path}` is empty; give at least one of {', '.join(SCOPES)}", param=path)
    if "inference" in words and "manage" in words:
        raise invalid(
            f"`{path}`: a key is either for `inference` or for `manage`; make two keys, so that no program that calls models can "
            "make keys",
            param=path,
        )
    return " ".join(scope for scope in SCOPES if scope in words)


def patterns(values: Iterable[Any], path: str) -> tuple[str, ...]:
    """Checked patterns of models or providers, each once."""
    found: dict[str, None] = {}
    for index, value in enumerate(values):
        at = f"{path}[{index}]"
        if not isinstance(value, str) or len(value) > PATTERN_CHARS_MAX or _PATTERN.fullmatch(value) is None:
            raise invalid(f"`{at}`: {str(value)[:64]!r} is not a name, in which `*` stands for any characters", param=at)
        found[value.lower()] = None
    if len(found) > PATTERNS_MAX:
        raise invalid(f"`{path}` has {len(found)} entries; at most {PATTERNS_MAX} are allowed", param=path)
    return tuple(found)


def model_patterns(values: Iterable[Any], path: str, resolve: Callable[[str], str], slugs: Collection[str]) -> tuple[str, ...]:
    """Checked patterns of models. A name without `*` becomes its slug, by `resolve`, which refuses what is no model; a pattern
    has to mean one of `slugs`: a restriction with a typing error would be noticed by nobody but the key's user.
    """
    found: dict[str, None] = {}
    for index, pattern in enumerate(patterns(values, path)):
        at = f"{path}[{index}]"
        if "*" in pattern:
            if not any(means((pattern,), slug) for slug in slugs):
                raise invalid(f"`{at}`: no model is called {pattern!r}; `GET /v1/models` lists them", param=at)
            found[pattern] = None
            continue
        try:
            found[resolve(pattern).lower()] = None
        except FareboxError as error:
            raise invalid(f"`{at}`: {error.message}", param=at) from None
    return tuple(found)


def provider_patterns(values: Iterable[Any], path: str, names: Collection[str]) -> tuple[str, ...]:
    """Checked patterns of providers, each meaning one that is known."""
    found = patterns(values, path)
    for index, pattern in enumerate(found):
        if not any(means((pattern.partition("/")[0],), name) for name in names):
            at = f"{path}[{index}]"
            raise invalid(f"`{at}`: there is no provider {pattern!r}; known: {', '.join(sorted(names))}", param=at)
    return found


def networks(values: Iterable[Any], path: str) -> tuple[str, ...]:
    """Checked networks in their usual spelling, each once."""
    found: dict[str, None] = {}
    for index, value in enumerate(values):
        at = f"{path}[{index}]"
        if not isinstance(value, str):
            raise invalid(f"`{at}` must be a network such as `10.0.0.0/8` or `2001:db8::/32`", param=at)
        found[str(network(value, at))] = None
    if len(found) > NETWORKS_MAX:
        raise invalid(f"`{path}` has {len(found)} entries; at most {NETWORKS_MAX} are allowed", param=path)
    return tuple(found)


def prices(value: Any, path: str) -> dict[str, str]:
    """A cap in USD per million tokens: one number for prompt and completion alike, or an object by class."""
    if value is None:
        return {}
    given = cast("dict[str, Any]", value) if isinstance(value, dict) else {"prompt": value, "completion": value}
    return _prices(price_cap(given, path))


def _prices(cap: PriceCap | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in PRICE_CLASSES:
        most = None if cap is None else getattr(cap, name)
        if most is not None:
            found[name] = format_unit_rate(most) if name == "request" else format_rate(most)
    return found


# --- held against a request -------------------------------------------------------------------------------------------------


def scope_missing(hint: str, scopes: Collection[str], needed: str) -> FareboxError:
    """The 403 of a key that is for something else."""
    has = ", ".join(f"`{scope}`" for scope in SCOPES if scope in scopes) or "nothing"
    what = {
        "inference": "call models",
        "read_usage": "read usage and balances",
        "manage": "manage keys",
    }[needed]
    return FareboxError(
        Kind.PERMISSION,
        f"the API key `{hint}` may not {what}: that takes the scope `{needed}`, and it has {has}; use another key",
        code="scope_missing",
        should_retry=False,
        details={"needed": needed, "scopes": sorted(scopes)},
    )


def address_refused(hint: str, address: str, allowed: Collection[Network]) -> FareboxError:
    """The 403 of a key that is used from somewhere else."""
    shown = ", ".join(f"`{one}`" for one in list(allowed)[:8])
    return FareboxError(
        Kind.PERMISSION,
        f"the API key `{hint}` may not be used from `{address or 'an unknown address'}`; it may be from {shown}",
        code="address_not_allowed",
        should_retry=False,
        details={"address": address},
    )
