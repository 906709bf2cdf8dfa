"""A small valid instance of a JSON schema: what the model writes in JSON mode and as tool arguments. Pure."""

from collections.abc import Iterator
from typing import Any, cast

from farebox.simulator.words import VOCABULARY, numbers

DEPTH_MAX = 12
"""Deeper schemas end in `null` (or an empty value): a recursive schema must not grow without end."""
ITEMS_MAX = 16

_FORMATS = {
    "date": "2026-01-02",
    "date-time": "2026-01-02T03:04:05Z",
    "time": "03:04:05Z",
    "duration": "PT1H",
    "email": "rider@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "uri": "https://example.com/",
}


def instance(schema: object, key: int) -> Any:
    """An instance with the required properties (all of them when none is required), words drawn by `key`."""
    return _make(schema, schema, numbers(key), 0)


def _mapping(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _resolve(root: object, reference: str) -> object:
    node: object = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        if part:
            node = _mapping(node).get(part.replace("~1", "/").replace("~0", "~"))
    return node


def _make(schema: object, root: object, draw: Iterator[int], depth: int) -> Any:
    rules = _mapping(schema)
    if depth > DEPTH_MAX:
        return None
    if "$ref" in rules:
        return _make(_resolve(root, str(rules["$ref"])), root, draw, depth + 1)
    if "const" in rules:
        return rules["const"]
    if rules.get("enum"):
        choices = cast("list[Any]", rules["enum"])
        return choices[next(draw) % len(choices)]
    for union in ("anyOf", "oneOf"):
        if rules.get(union):
            return _make(rules[union][0], root, draw, depth + 1)
    if rules.get("allOf"):
        merged: dict[str, Any] = {}
        for part in rules["allOf"]:
            merged |= _mapping(_resolve(root, str(part["$ref"])) if "$ref" in _mapping(part) else part)
        return _make(merged | {name: rule for name, rule in rules.items() if name != "allOf"}, root, draw, depth + 1)
    kind = rules.get("type", "object" if "properties" in rules else "array" if "items" in rules else "string")
    if isinstance(kind, list):
        kinds = cast("list[Any]", kind)
        kind = kinds[0] if kinds else "null"
    return _of_kind(str(kind), rules, root, draw, depth)


def _of_kind(kind: str, rules: dict[str, Any], root: object, draw: Iterator[int], depth: int) -> Any:
    match kind:
        case "object":
            properties = _mapping(rules.get("properties"))
            required = cast("list[str]", rules.get("required") or list(properties))
            return {name: _make(properties.get(name, {}), root, draw, depth + 1) for name in required}
        case "array":
            count = min(max(int(rules.get("minItems", 0)), 1), int(rules.get("maxItems", 1)) or 0, ITEMS_MAX)
            prefix = cast("list[Any]", rules.get("prefixItems") or [])
            count = max(count, len(prefix), int(rules.get("minItems", 0)))
            return [
                _make(prefix[at] if at < len(prefix) else rules.get("items", {}), root, draw, depth + 1) for at in range(count)
            ]
        case "integer" | "number":
            return _number(rules, draw)
        case "boolean":
            return bool(next(draw) & 1)
        case "null":
            return None
        case _:
            return _string(rules, draw)


def _number(rules: dict[str, Any], draw: Iterator[int]) -> int | float:
    low = rules.get("minimum")
    if low is None and "exclusiveMinimum" in rules:
        low = rules["exclusiveMinimum"] + 1
    high = rules.get("maximum")
    if high is None and "exclusiveMaximum" in rules:
        high = rules["exclusiveMaximum"] - 1
    step = rules.get("multipleOf")
    if step:
        return step * -(-(low or 0) // step)
    if low is None:
        low = 0 if high is None else min(0, high)
    if high is None:
        high = low + 99
    span = int(high - low)
    return low + (next(draw) % (span + 1) if span > 0 else 0)


def _string(rules: dict[str, Any], draw: Iterator[int]) -> str:
    known = _FORMATS.get(str(rules.get("format", "")))
    if known is not None:
        return known
    text = VOCABULARY[next(draw) % len(VOCABULARY)]
    return text.ljust(int(rules.get("minLength", 0)), "x")[: int(rules.get("maxLength", len(text) + 10**6))]
