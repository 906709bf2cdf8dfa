"""Checked access to a client's JSON: each complaint names the field's path, the value found and what to send instead.

A value of null is the same as an absent one throughout (clients.md, "nulls as absent"). Paths read like
`messages[3].content[0].type`.
"""

from typing import Any, TypeVar, cast

import msgspec

from farebox.errors import FareboxError, invalid

SHOWN_CHARS_MAX = 60
"""How much of a wrong value a message repeats."""

T = TypeVar("T")


def shown(value: Any) -> str:
    """The value as JSON, cut short, for a message."""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= SHOWN_CHARS_MAX else text[: SHOWN_CHARS_MAX - 1] + "…"


def wrong(path: str, value: Any, expected: str) -> FareboxError:
    return invalid(f"`{path}` is {shown(value)}; send {expected}.", param=path)


def missing(path: str, expected: str) -> FareboxError:
    return invalid(f"`{path}` is missing; send {expected}.", param=path)


def decode(raw: msgspec.Raw | None, path: str) -> Any:
    """The JSON in `raw`; None when absent or null."""
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise invalid(f"`{path}` is not valid JSON; send a well-formed body.", param=path) from None
    except RecursionError:
        raise invalid(f"`{path}` is nested too deeply; send a flatter structure.", param=path) from None


def obj(value: Any, path: str, expected: str = "an object") -> dict[str, Any]:
    if not isinstance(value, dict):
        raise wrong(path, value, expected)
    return cast("dict[str, Any]", value)


def array(value: Any, path: str, expected: str = "an array") -> list[Any]:
    if not isinstance(value, list):
        raise wrong(path, value, expected)
    return cast("list[Any]", value)


def text(value: Any, path: str, expected: str = "a string") -> str:
    if not isinstance(value, str):
        raise wrong(path, value, expected)
    return value


def flag(value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        raise wrong(path, value, "true or false")
    return value


def integer(value: Any, path: str, expected: str = "an integer") -> int:
    """An integer; `1.0` is one too, for clients that have no integers."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong(path, value, expected)
    return value


def number(value: Any, path: str) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise wrong(path, value, "a number")
    return value


def opt_text(fields: dict[str, Any], name: str, path: str) -> str | None:
    value = fields.get(name)
    return None if value is None else text(value, f"{path}.{name}" if path else name)


def opt_flag(fields: dict[str, Any], name: str, path: str) -> bool | None:
    value = fields.get(name)
    return None if value is None else flag(value, f"{path}.{name}" if path else name)


def opt_obj(fields: dict[str, Any], name: str, path: str) -> dict[str, Any] | None:
    value = fields.get(name)
    return None if value is None else obj(value, f"{path}.{name}" if path else name)


def need_text(fields: dict[str, Any], name: str, path: str, expected: str = "a string") -> str:
    value = fields.get(name)
    where = f"{path}.{name}" if path else name
    if value is None:
        raise missing(where, expected)
    return text(value, where, expected)


def positive(value: Any, path: str) -> int:
    found = integer(value, path, "a whole number of at least 1")
    if found < 1:
        raise wrong(path, value, "a whole number of at least 1")
    return found


def raws(fields: dict[str, Any], known: frozenset[str]) -> dict[str, msgspec.Raw]:
    """The members that are not `known` and not null, encoded again."""
    return {k: msgspec.Raw(msgspec.json.encode(v)) for k, v in fields.items() if k not in known and v is not None}


def encoded(value: Any) -> bytes | None:
    return None if value is None else msgspec.json.encode(value)


DATA_URL_HEAD_MAX = 200
"""Where the comma of a `data:` URL must be found."""


def data_url(url: str) -> tuple[str, str] | None:
    """`data:image/png;base64,AAAA` → ("image/png", "AAAA"); None for any other URL."""
    if url[:5].lower() != "data:":
        return None
    comma = url.find(",", 5, DATA_URL_HEAD_MAX)
    if comma < 0:
        return None
    head = url[5:comma].split(";")
    if head[-1].strip().lower() != "base64":
        return None
    return head[0].strip().lower(), url[comma + 1 :]
