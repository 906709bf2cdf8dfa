"""Why a model name gives no model to call, said so that the caller knows what to write or to switch on."""

from collections.abc import Sequence
from typing import Any

from farebox.catalog.model import Model
from farebox.catalog.retired import Retired
from farebox.errors import FareboxError, Kind
from farebox.providers.registry import PROVIDERS

NAME_SHOWN_MAX = 128
"""Letters of an unknown name that are repeated in the answer."""
CANDIDATES_SHOWN_MAX = 8
LOCAL = "local"


class ModelNotFound(FareboxError):
    """404 `model_not_found`, about the field `model`. `details["suggestions"]` are slugs to try."""

    def __init__(self, message: str, suggestions: Sequence[str] = (), **details: Any) -> None:
        super().__init__(
            Kind.MODEL_NOT_FOUND, message, param="model", details={"suggestions": list(suggestions), **details}
        )


def _shown(name: str) -> str:
    return name if len(name) <= NAME_SHOWN_MAX else name[:NAME_SHOWN_MAX] + "…"


def _listed(names: Sequence[str], word: str) -> str:
    """`a`, `b` or `c`"""
    quoted = [f"`{name}`" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} {word} {quoted[-1]}"


def unknown(name: str, suggestions: Sequence[str]) -> ModelNotFound:
    advice = f"did you mean {_listed(suggestions, 'or')}? " if suggestions else ""
    return ModelNotFound(f"there is no model `{_shown(name)}`; {advice}`GET /v1/models` lists what can be called", suggestions)


def ambiguous(name: str, slugs: Sequence[str]) -> ModelNotFound:
    shown = slugs[:CANDIDATES_SHOWN_MAX]
    return ModelNotFound(
        f"`{_shown(name)}` could be {_listed(shown, 'or')}; write the full name of the one you mean", shown, ambiguous=True
    )


def retired(name: str, entry: Retired, known: bool) -> ModelNotFound:
    """`known`: the successor is in the catalog, so it can be suggested as a name to write."""
    advice = f"use `{entry.successor}` instead" if known else "`GET /v1/models` lists what can be called"
    return ModelNotFound(
        f"`{_shown(name)}` was retired by its vendor on {entry.retired}; {advice}",
        (entry.successor,) if known else (),
        retired=entry.retired,
        successor=entry.successor,
    )


def _switch(provider: str) -> tuple[str, str]:
    """(what to do to switch a provider on, the variable to set or nothing)."""
    row = PROVIDERS.get(provider)
    if provider == LOCAL:
        return "install the local model with `pip install 'farebox[local]'`", ""
    if row is not None and row.credential.env:
        return f"set `{row.credential.env[0]}` for {row.title}", row.credential.env[0]
    return f"add `[providers.{provider}]` to the configuration", ""


def switched_off(name: str, model: Model, providers: Sequence[str]) -> ModelNotFound:
    """A model that is known, but not one of the providers that may serve this name is on."""
    ways = [_switch(provider) for provider in providers]
    what = f"`{_shown(name)}`" if name == model.slug else f"`{_shown(name)}` (`{model.slug}`)"
    return ModelNotFound(
        f"{what} is known, but no provider of it is switched on here; {', or '.join(way for way, _ in ways)}",
        providers=list(providers),
        environment=[variable for _, variable in ways if variable],
    )
