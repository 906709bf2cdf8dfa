"""Counts from a provider, which are not to be trusted: the slow, tolerant half of reading usage, shared by the wires.

A wire first decodes a usage object into a typed struct; when that fails, something in the object is odd, and this module
finds out what: absent fields stay absent, null is absent, and a count that is negative, fractional, not a number or larger
than `COUNT_MAX` makes an anomaly named after its field (billing.md §1). Nothing here raises.
"""

from decimal import Decimal, InvalidOperation
from typing import Any, cast

import msgspec

from farebox.wires.usage import COUNT_MAX

COST_DECIMALS_MAX = 30
"""Decimals kept of a provider's own charge; more is noise from its floats."""


def members(raw: bytes) -> dict[str, Any] | None:
    """The object in `raw`; None when it is null, no object or no JSON."""
    try:
        value: Any = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def find(fields: dict[str, Any], path: tuple[str, ...]) -> Any:
    """The value at `path`, or None when any step of it is missing."""
    value: Any = fields
    for name in path:
        if not isinstance(value, dict):
            return None
        value = cast("dict[str, Any]", value).get(name)
    return value


def count(value: Any, name: str, anomalies: list[str]) -> int | None:
    """A count, or None when it is absent or unusable; why it is unusable goes into `anomalies`."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        anomalies.append(f"not_a_number:{name}")
        return None
    if isinstance(value, float):
        if not value.is_integer():
            anomalies.append(f"fractional:{name}")
            return None
        value = int(value)
    return bounded(value, name, anomalies)


def bounded(value: int | None, name: str, anomalies: list[str]) -> int | None:
    """`count` for what is known to be an integer."""
    if value is None or 0 <= value <= COUNT_MAX:
        return value
    anomalies.append(f"negative:{name}" if value < 0 else f"too_large:{name}")
    return None


class _Cost(msgspec.Struct):
    total_cost: msgspec.Raw = msgspec.Raw(b"null")


def cost_usd(raw: bytes, divisor: int, anomalies: list[str]) -> str | None:
    """A provider's own charge as a plain decimal string of dollars: evidence, so kept exactly as its digits say.

    The value may be a number or Perplexity's object with `total_cost`. None when absent or unusable.
    """
    if raw[:1] == b"{":
        try:
            raw = bytes(msgspec.json.decode(raw, type=_Cost).total_cost)
        except msgspec.DecodeError:
            return None
    if raw == b"null":
        return None
    try:
        value = Decimal(raw.decode("ascii")) / divisor
    except (InvalidOperation, UnicodeDecodeError):
        anomalies.append("not_a_number:cost")
        return None
    if not value.is_finite() or abs(value.adjusted()) > COST_DECIMALS_MAX:
        anomalies.append("out_of_range:cost")
        return None
    if value < 0:
        anomalies.append("negative:cost")
        return None
    return format(value.normalize(), "f") if value else "0"
