"""Receipts: what one usage row says, as a document that its customer can check, and its place in the day's chain. Pure.

A receipt is a JSON object. What is hashed and signed is its **canonical form**: keys sorted, no white space, strings escaped as
little as possible, numbers only as integers up to 2⁵³ - 1 (the rules of RFC 8785, which for such values are these); money and
rates are decimal strings of US dollars. Its `format` names what the fields mean: another meaning is another format, and an old
one stays readable.

Each receipt has the SHA-256 of the one before it, so a chain runs through everything that an account was ever charged for:

    digest(receipt) = SHA-256(canonical(receipt)), in which `chain` = {day, number in the day, digest of the receipt before}

The content follows from the row alone, and rows never change: so nothing but the digest has to be kept (`billing.sealing.seals`).
End users and tags are left out: a receipt is there to be passed on.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NoReturn, cast

import msgspec

from farebox.billing.books import evidence
from farebox.billing.books.periods import format_moment
from farebox.billing.meter import REPORTED_COST_FLAG
from farebox.billing.records import Attempt, Settle
from farebox.catalog.price import Rates
from farebox.money import format_amount, format_percent, format_unit_rate
from farebox.storage.queries import UsageRow
from farebox.wires.usage import Usage

RECEIPT = "farebox-receipt-1"
HEAD = "farebox-head-1"
FORMAT = 1
"""What `seals.format` says of a receipt in the form of `RECEIPT`."""
START = "0" * 64
"""What the first receipt of an account has for the one before it."""
INTEGER_MAX = 2**53 - 1
RATES_MAX = 512
"""Rate vectors whose texts are remembered."""
_CLASSES = (*Usage.TOKEN_CLASSES, "web_searches")
_encode = msgspec.json.Encoder(order="sorted").encode

Content = dict[str, Any]
"""A JSON object: strings, integers, booleans, null, lists and objects of these."""


class Place(msgspec.Struct, frozen=True):
    """Where a receipt stands in its account's chain."""

    day: str
    """The UTC day of the sealing, `2026-11-23`."""
    number: int
    """1 for the day's first."""
    previous: str
    """The digest, in hexadecimal, of the account's receipt before it; `START` for the first of all."""


class NotCanonical(ValueError):
    """Bytes that are no receipt: the sentence says why."""


def canonical(content: Mapping[str, Any]) -> bytes:
    """The bytes that are hashed and signed. Raises `NotCanonical` for text that is not Unicode."""
    try:
        return _encode(content)
    except UnicodeEncodeError:
        raise NotCanonical("a text has half of a surrogate pair") from None


def digest(content: Mapping[str, Any]) -> str:
    """The link to the next receipt: 64 hexadecimal digits."""
    return hashlib.sha256(canonical(content)).hexdigest()


def parse(text: bytes) -> Content:
    """Read an object again, however it is spaced. Raises `NotCanonical` for what a canonical form cannot say."""
    try:
        found: object = json.loads(
            text.decode(), object_pairs_hook=_pairs, parse_int=_integer, parse_float=_no_number, parse_constant=_no_number
        )
    except NotCanonical:
        raise
    except UnicodeDecodeError:
        raise NotCanonical("not UTF-8") from None
    except (ValueError, RecursionError):
        raise NotCanonical("not JSON") from None
    if not isinstance(found, dict):
        raise NotCanonical("not a JSON object")
    canonical(cast("Content", found))
    return cast("Content", found)


def _pairs(pairs: list[tuple[str, Any]]) -> Content:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise NotCanonical("a name stands twice in one object")
    return found


def _integer(text: str) -> int:
    if len(text) > 17 or abs(int(text)) > INTEGER_MAX:
        raise NotCanonical(f"the number {text[:20]} is too large")
    return int(text)


def _no_number(text: str) -> NoReturn:
    raise NotCanonical(f"the number {text[:20]} is not an integer")


# --- what it says ------------------------------------------------------------------------------------------------------------


def receipt(row: UsageRow, place: Place) -> Content:
    """The receipt of a usage row.

    `amount_usd` is what this row moves, a difference where it corrects an earlier one; `total_usd` what the attempt is charged
    since then, and `uncharged_usd` what of its price the operator bears. `units` and `rates_usd` (per unit) are those of the
    attempt, null where nothing is known; a class that is not there is zero.
    """
    call = evidence.settle(row) if row.final else None
    attempt = evidence.attempt(row) if call is None else call.attempts[-1] if call.attempts else None
    total, uncharged = row.charge_nano, row.loss_nano
    if row.revision and attempt is not None:
        total, uncharged = attempt.charge_nano, attempt.loss_nano
    content: Content = {
        "format": RECEIPT,
        "chain": {"day": place.day, "number": place.number, "previous": place.previous},
        "account": row.account_id,
        "key": row.key_id,
        "project": row.project,
        "call": row.hold_id,
        "attempt": row.attempt,
        "revision": row.revision,
        "final": row.final,
        "state": row.state,
        "outcome": row.outcome,
        "basis": row.basis,
        "created_at": format_moment(row.created_us),
        "posted_at": format_moment(row.posted_us),
        "model": row.model,
        "provider": row.provider,
        "amount_usd": format_amount(row.charge_nano),
        "total_usd": format_amount(total),
        "uncharged_usd": format_amount(uncharged),
        **_priced(attempt),
    }
    if call is not None:
        content["requested_model"] = call.requested
        content["attempts"] = _attempts(call)
    return content


def _priced(attempt: Attempt | None) -> Content:
    """What decides an attempt's price."""
    if attempt is None:
        return {"units": None, "rates_usd": None, "price_version": "", "markup": None, "flags": [], "upstream_model": ""}
    usage, rates = attempt.usage, attempt.rates
    content: Content = {
        "upstream_model": attempt.upstream_id,
        "flags": list(attempt.flags),
        "units": None,
        "rates_usd": None,
        "price_version": attempt.price_version,
        "markup": _markup(attempt),
    }
    if usage is not None:
        content["units"] = {name: count for name in _CLASSES if (count := getattr(usage, name))}
    if rates is not None:
        content["rates_usd"] = _rates(rates)
    if REPORTED_COST_FLAG in attempt.flags:
        content["reported_cost_usd"] = attempt.provider_cost_usd
    return content


@lru_cache(RATES_MAX)
def _rates(rates: Rates) -> Mapping[str, str]:
    """The same few rate vectors are on nearly all rows."""
    priced = ((name, getattr(rates, name)) for name in (*_CLASSES, "request"))
    return {name: format_unit_rate(rate) for name, rate in priced if rate}


def _markup(attempt: Attempt) -> Content:
    content: Content = {"plan": attempt.plan, "percent": format_percent(attempt.markup_bp)}
    fees = attempt.fees
    if fees is not None:
        for name, nano in (("per_call_usd", fees.per_call_nano), ("min_usd", fees.min_nano), ("max_usd", fees.max_nano)):
            if nano is not None:
                content[name] = format_amount(nano)
        if fees.own_key:
            content["own_key"] = True
    return content


def _attempts(call: Settle) -> Sequence[Content]:
    """All attempts of a call, on the receipt that ends it; each has a receipt of its own with its price."""
    return [
        {"attempt": one.n, "provider": one.provider, "upstream_model": one.upstream_id, "outcome": one.outcome}
        for one in call.attempts
    ]


def head(*, account: str, day: str, count: int, opening: str, last: str, final: bool) -> Content:
    """What a day's chain comes to: how many receipts, the digests before the first and of the last; `final`: none will follow."""
    return {
        "format": HEAD,
        "account": account,
        "day": day,
        "receipts": count,
        "opening": opening,
        "last": last,
        "final": final,
    }
