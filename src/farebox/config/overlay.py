"""Laying one configuration over another: what the upper one says comes first. Pure, over the raw tables of two TOML files."""

from typing import Any, cast

NAMED = frozenset({"policies", "markup"})
"""Tables of names whose entries are replaced whole: half of two policies is neither."""


def laid_over(lower: dict[str, Any], upper: dict[str, Any]) -> dict[str, Any]:
    """A new table. A `[policies.NAME]` or `[markup.NAME]` and a `[[models]]` entry of the same slug are replaced whole, other
    sections setting by setting."""
    found = dict(lower)
    for name, value in upper.items():
        known = found.get(name)
        if name == "models" and isinstance(value, list) and isinstance(known, list):
            found[name] = _models(cast("list[Any]", known), cast("list[Any]", value))
        elif isinstance(value, dict) and isinstance(known, dict):
            above, below = cast("dict[str, Any]", value), cast("dict[str, Any]", known)
            found[name] = {**below, **above} if name in NAMED else _deep(below, above)
        else:
            found[name] = value
    return found


def _deep(lower: dict[str, Any], upper: dict[str, Any]) -> dict[str, Any]:
    found = dict(lower)
    for name, value in upper.items():
        known = found.get(name)
        both = isinstance(value, dict) and isinstance(known, dict)
        found[name] = _deep(cast("dict[str, Any]", known), cast("dict[str, Any]", value)) if both else value
    return found


def _models(lower: list[Any], upper: list[Any]) -> list[Any]:
    def slug(entry: Any) -> Any:
        return cast("dict[str, Any]", entry).get("slug") if isinstance(entry, dict) else None

    replaced = {slug(entry) for entry in upper}
    return [*(entry for entry in lower if slug(entry) not in replaced), *upper]
