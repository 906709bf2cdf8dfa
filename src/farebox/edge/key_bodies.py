"""What a body says about a key: read exactly, field by field; whatever is not understood is a 400 that names it."""

import difflib
import re
from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Any, cast

import msgspec

from farebox.billing.books.periods import parse_moment
from farebox.billing.budgets import Window
from farebox.errors import FareboxError, invalid
from farebox.gate import permissions
from farebox.gate.permissions import Restrictions
from farebox.gateway import Gateway
from farebox.money import MoneyError, format_amount, parse_amount
from farebox.wires import reading

BODY_BYTES_MAX = 64 * 1024
NAME_CHARS_MAX = 200
METADATA_BYTES_MAX = 4096
TAGS_MAX = 8
"""Of a key; a call may have as many of its own."""
TAG_CHARS_MAX = 64
BUDGET_NANO_MAX = 10**18
"""A billion dollars."""
_DIGITS_MAX = 30
_decode = msgspec.json.Decoder(float_hook=Decimal).decode
_SPAN = re.compile(r"([0-9]{1,6})(s|m|h|d|w|mo)")
_UNIT_US = {"s": 10**6, "m": 60 * 10**6, "h": 3600 * 10**6, "d": 86_400 * 10**6, "w": 604_800 * 10**6, "mo": 2_592_000 * 10**6}


class Body:
    """A JSON object with known members. Null is a value: it takes a limit away."""

    def __init__(self, raw: bytes, known: Collection[str], *, empty: bool = False) -> None:
        """`empty`: no body at all is an empty object."""
        if len(raw) > BODY_BYTES_MAX:
            raise invalid(f"the body is larger than {BODY_BYTES_MAX} bytes")
        self._raw = raw
        if empty and not raw.strip():
            self.fields: dict[str, Any] = {}
            return
        try:
            found = _decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, ArithmeticError):
            raise invalid("the body is not valid JSON; send an object") from None
        except RecursionError:
            raise invalid("the body is nested too deeply") from None
        if not isinstance(found, dict):
            raise invalid("the body must be a JSON object")
        self.fields = cast("dict[str, Any]", found)
        for name in self.fields:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                fix = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(sorted(known))}"
                raise invalid(f"`{name[:64]}` is not a field here; {fix}", param=name[:64])

    def __contains__(self, name: str) -> bool:
        return name in self.fields

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self.fields.get(name) is not None

    def text(self, name: str, chars_max: int = NAME_CHARS_MAX) -> str | None:
        value = reading.opt_text(self.fields, name, "")
        if value is not None and len(value) > chars_max:
            raise invalid(f"`{name}` is longer than {chars_max} characters", param=name)
        return value

    def need_text(self, name: str, expected: str) -> str:
        value = self.text(name)
        if not value:
            raise reading.missing(name, expected)
        return value

    def flag(self, name: str) -> bool | None:
        return reading.opt_flag(self.fields, name, "")

    def texts(self, name: str) -> list[str]:
        """A list of texts; null is an empty one."""
        value = self.fields.get(name)
        items = [] if value is None else reading.array(value, name, "a list of strings")
        return [reading.text(item, f"{name}[{index}]") for index, item in enumerate(items)]

    def budget_nano(self, name: str) -> int | None:
        """USD as a number or a decimal string, read without a float; null is no budget."""
        value = self.fields.get(name)
        if value is None:
            return None
        expected = f"dollars from 0 to {format_amount(BUDGET_NANO_MAX)}, with at most 9 decimals"
        if isinstance(value, bool) or not isinstance(value, (int, Decimal, str)):
            raise reading.wrong(name, value, expected)
        try:
            nano = parse_amount(value if isinstance(value, str) else _plain(value))
        except (MoneyError, ArithmeticError):
            raise reading.wrong(name, value, expected) from None
        if not 0 <= nano <= BUDGET_NANO_MAX:
            raise reading.wrong(name, value, expected)
        return nano

    def moment_us(self, name: str, now_us: int) -> int | None:
        """A time to come, RFC 3339; null is never."""
        text = self.text(name, 64)
        if text is None:
            return None
        try:
            found = parse_moment(text, now_us)
        except (ValueError, OverflowError) as error:
            raise invalid(f"`{name}`: {error}", param=name) from None
        if found <= now_us:
            raise invalid(f"`{name}` has passed already; send a time to come, or null for never", param=name)
        return found

    def expiry_us(self, name: str, now_us: int) -> int | None:
        """A span from now, such as `30d`; null is never."""
        span = self.span_us(name)
        return None if span is None else now_us + span

    def span_us(self, name: str) -> int | None:
        """`30s`, `15m`, `24h`, `30d`, `2w`, `1mo`."""
        text = self.text(name, 64)
        if text is None:
            return None
        found = _SPAN.fullmatch(text)
        if found is None:
            raise reading.wrong(name, text, "a span such as 30m, 24h, 30d or 1mo")
        return int(found[1]) * _UNIT_US[found[2]]

    def window(self, name: str, words: Mapping[str, Window]) -> Window:
        """How often a budget begins anew; null is never."""
        text = self.text(name, 64)
        if text is None:
            return "none"
        if text not in words:
            raise reading.wrong(name, text, f"one of {', '.join(words)}, or null")
        return words[text]

    def tags(self, name: str) -> str:
        """The column's JSON for a list of tags."""
        found = self.texts(name)
        if len(found) > TAGS_MAX:
            raise invalid(f"`{name}` has more than {TAGS_MAX} tags", param=name)
        for index, tag in enumerate(found):
            if not 0 < len(tag) <= TAG_CHARS_MAX:
                raise invalid(f"`{name}[{index}]` must have 1 to {TAG_CHARS_MAX} characters", param=f"{name}[{index}]")
        return msgspec.json.encode(list(dict.fromkeys(found))).decode() if found else ""

    def metadata(self, name: str, **more: str) -> str:
        """The column's JSON for an object of the caller's own."""
        given: dict[str, Any] = {}
        if self.has(name):
            reading.obj(self.fields[name], name)
            given = msgspec.json.decode(self._raw)[name]
        given = {**given, **more}
        text = msgspec.json.encode(given).decode() if given else ""
        if len(text.encode()) > METADATA_BYTES_MAX:
            raise invalid(f"`{name}` is larger than {METADATA_BYTES_MAX} bytes", param=name)
        return text

    def scopes(self, name: str) -> str:
        """Scopes for a key that is made over HTTP: never `manage`."""
        words = self.texts(name)
        if "manage" in words:
            raise invalid(
                f"`{name}`: keys for managing keys are made at the command line, `farebox keys create --scope manage`", param=name
            )
        return permissions.checked_scopes(words, name)

    def restrictions(self, gateway: Gateway, before: Restrictions, names: Mapping[str, str]) -> Restrictions:
        """Restrictions after the body: `names` are those of its fields for models, providers, max_price and ips; a field that is
        there replaces, and empty or null lifts."""
        values: dict[str, Any] = {name: getattr(before, name) for name in Restrictions.__struct_fields__}
        catalog = gateway.market.catalog
        for kind, name in names.items():
            if name not in self.fields:
                continue
            if kind == "models":
                slugs = [model.slug for model in catalog.list_models()]
                values[kind] = permissions.model_patterns(self.texts(name), name, catalog.slug_of, slugs)
            elif kind == "providers":
                known = {target.provider.name for found in gateway.market.targets.values() for target in found}
                values[kind] = permissions.provider_patterns(self.texts(name), name, known)
            elif kind == "ips":
                values[kind] = permissions.networks(self.texts(name), name)
            else:
                values[kind] = permissions.prices(_texts(self.fields[name]), name)
        return Restrictions(**values)


def _plain(value: int | Decimal) -> str:
    """Digits without an exponent; `ArithmeticError` for a number that no amount is like."""
    if isinstance(value, int):
        if abs(value) > BUDGET_NANO_MAX:
            raise ArithmeticError
        return str(value)
    if not value.is_finite() or abs(value.adjusted()) > _DIGITS_MAX:
        raise ArithmeticError
    return format(value, "f")


def _texts(value: Any) -> Any:
    """Numbers of a price cap as texts, so that they stay exact."""
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, dict):
        return {name: _texts(item) for name, item in cast("dict[str, Any]", value).items()}
    return value


def refuse_promises(body: Body, fields: Collection[str], why: Mapping[str, str]) -> None:
    """Refuse fields of another product that we know and do not keep, unless they ask for nothing."""
    for name in fields:
        if body.fields.get(name) not in (None, [], {}, "", False):
            raise unkept(name, why.get(name, "it is not kept here; leave it out"))


def unkept(name: str, why: str) -> FareboxError:
    return invalid(f"`{name}`: {why}", param=name)
