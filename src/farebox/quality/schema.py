"""Schema: whether a JSON value is what a JSON schema says, within bounds. Pure.

It knows what structured outputs of the providers know: types, `enum`, `const`, `properties`, `required`, `additionalProperties`,
`items`, `prefixItems`, lengths and ranges, `anyOf`, `oneOf`, `allOf`, `not`, and `$ref` within the schema. What it does not know
it lets pass: its word that a value is wrong is always right.
"""

from typing import Any, cast

import msgspec

STEPS_MAX = 20_000
"""Looks at a value under a schema; what is larger than that counts as right."""
DEPTH_MAX = 64

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "boolean": (bool,), "null": (type(None),),
}  # fmt: skip


class _Large(Exception):
    """More than is looked at."""


def invalid(text: str | bytes, schema: bytes | None) -> str:
    """What is wrong with a JSON text under a schema (None: any object), in words; empty when nothing is."""
    try:
        value = msgspec.json.decode(text)
        rule = None if schema is None else msgspec.json.decode(schema)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "it is not JSON"
    if rule is None:
        return "" if isinstance(value, dict) else "it is not an object"
    try:
        return _Checking(rule).problem(value, rule, "the answer", 0)
    except (_Large, RecursionError):
        return ""


class _Checking:
    def __init__(self, root: Any) -> None:
        self._root = root
        self._steps = 0

    def problem(self, value: Any, rule: Any, place: str, depth: int) -> str:
        self._steps += 1
        if self._steps > STEPS_MAX or depth > DEPTH_MAX:
            raise _Large
        if isinstance(rule, bool):
            return "" if rule else f"{place} is not allowed"
        if not isinstance(rule, dict):
            return ""
        known = cast("dict[str, Any]", rule)
        reference = known.get("$ref")
        if isinstance(reference, str):
            found = self.problem(value, self._referred(reference), place, depth + 1)
            if found:
                return found
        found = _own(value, known, place) or self._combined(value, known, place, depth)
        if found:
            return found
        if isinstance(value, dict):
            return self._object(cast("dict[str, Any]", value), known, place, depth)
        return self._array(cast("list[Any]", value), known, place, depth) if isinstance(value, list) else ""

    def _referred(self, reference: str) -> Any:
        """What `#/$defs/name` means; anything else allows everything."""
        found = self._root
        if not reference.startswith("#"):
            return True
        for step in reference[1:].split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, dict) or step not in found:
                return True
            found = cast("dict[str, Any]", found)[step]
        return found

    def _combined(self, value: Any, rule: dict[str, Any], place: str, depth: int) -> str:
        for name in ("anyOf", "oneOf"):
            options = rule.get(name)
            if isinstance(options, list) and options:
                fits = sum(not self.problem(value, one, place, depth + 1) for one in cast("list[Any]", options))
                if not fits or (name == "oneOf" and fits > 1):
                    return f"{place} fits none of `{name}`" if not fits else f"{place} fits several of `oneOf`"
        every = rule.get("allOf")
        for one in cast("list[Any]", every) if isinstance(every, list) else ():
            found = self.problem(value, one, place, depth + 1)
            if found:
                return found
        if "not" in rule and not self.problem(value, rule["not"], place, depth + 1):
            return f"{place} is what it must not be"
        return ""

    def _object(self, value: dict[str, Any], rule: dict[str, Any], place: str, depth: int) -> str:
        required = rule.get("required")
        for name in cast("list[Any]", required) if isinstance(required, list) else ():
            if name not in value:
                return f"{place} has no `{name}`"
        named = rule.get("properties")
        properties = cast("dict[str, Any]", named) if isinstance(named, dict) else {}
        others = rule.get("additionalProperties", True)
        if "patternProperties" in rule:
            others = True
        for name, item in value.items():
            if name not in properties and others is False:
                return f"{place} has `{name}`, which is not allowed"
            found = self.problem(item, properties.get(name, others), f"`{name}`", depth + 1)
            if found:
                return found
        return ""

    def _array(self, value: list[Any], rule: dict[str, Any], place: str, depth: int) -> str:
        listed = rule.get("prefixItems")
        first = cast("list[Any]", listed) if isinstance(listed, list) else []
        for index, item in enumerate(value):
            own = first[index] if index < len(first) else rule.get("items", True)
            found = self.problem(item, own, f"{place}[{index}]", depth + 1)
            if found:
                return found
        return ""


def _own(value: Any, rule: dict[str, Any], place: str) -> str:
    """What a schema says of a value without looking into it."""
    kind = rule.get("type")
    if kind is not None and not any(_is(value, one) for one in (cast("list[Any]", kind) if isinstance(kind, list) else [kind])):
        return f"{place} is not of type {kind}"
    options = rule.get("enum")
    if isinstance(options, list) and not any(_same(value, one) for one in cast("list[Any]", options)):
        return f"{place} is not one of its values"
    if "const" in rule and not _same(value, rule["const"]):
        return f"{place} is not its value"
    for kind, low, high in _BOUNDS:
        if isinstance(value, kind) and not isinstance(value, bool):
            size = cast("float", value) if kind is _NUMBER else len(cast("str", value))
            least, most = rule.get(low), rule.get(high)
            if isinstance(least, int | float) and size < least:
                return f"{place} is less than its `{low}`"
            if isinstance(most, int | float) and size > most:
                return f"{place} is more than its `{high}`"
    return ""


_NUMBER = (int, float)
_BOUNDS: tuple[tuple[Any, str, str], ...] = (
    (_NUMBER, "minimum", "maximum"),
    (str, "minLength", "maxLength"),
    (list, "minItems", "maxItems"),
    (dict, "minProperties", "maxProperties"),
)


def _is(value: Any, kind: Any) -> bool:
    if kind == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "integer":
        return isinstance(value, int | float) and not isinstance(value, bool) and value == int(value)
    known = _TYPES.get(kind) if isinstance(kind, str) else None
    return known is None or isinstance(value, known)


def _same(first: Any, second: Any) -> bool:
    """Equal as JSON: `true` is not 1."""
    return first == second and isinstance(first, bool) == isinstance(second, bool)
