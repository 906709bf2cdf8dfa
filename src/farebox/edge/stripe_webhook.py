"""`POST /stripe/webhook`: believes a webhook as far as its signature goes, keeps which object it is about, and says so.

    Stripe-Signature: t=1795392000,v1=…,v1=…     HMAC-SHA256 of `t.body` under the endpoint's secret (docs.stripe.com/webhooks)

The signature is over the body's own bytes, so it is checked before anything is read of them. 200 is said when the event is in the
database: what is said otherwise makes Stripe send it again, for days. Looking into it is the bookkeeper's business.
"""

import hashlib
import hmac
import re

import msgspec

from farebox.billing.payments import card_payments
from farebox.billing.payments.card_payments import CardTerms
from farebox.edge.info import Page, Question
from farebox.errors import FareboxError, Kind, invalid
from farebox.gateway import Gateway

BODY_BYTES_MAX = 256 * 1024
HEADER_BYTES_MAX = 2_048
SIGNATURES_MAX = 16
ID_CHARS_MAX = 255
_STAMP = re.compile(r"[0-9]{1,12}")


class _Object(msgspec.Struct):
    id: str = ""


class _Data(msgspec.Struct):
    object: _Object = msgspec.field(default_factory=_Object)


class _Event(msgspec.Struct):
    """What is read of a webhook: which object changed; not what it says about it."""

    id: str
    type: str
    object: str = ""
    data: _Data = msgspec.field(default_factory=_Data)


_decode = msgspec.json.Decoder(_Event).decode


def check_signature(header: str, body: bytes, secret: bytes, *, tolerance_s: int, now_s: int) -> str:
    """Empty if the body was signed with the secret not long ago, else what is wrong. Pure."""
    assert secret, "an empty secret signs everything (CVE-2026-41432)"
    if len(header) > HEADER_BYTES_MAX:
        return "it is too long"
    stamps: list[str] = []
    signatures: list[str] = []
    for part in header.split(","):
        name, _, value = part.strip().partition("=")
        if name == "t":
            stamps.append(value)
        elif name == "v1":
            signatures.append(value)
    if len(stamps) != 1 or _STAMP.fullmatch(stamps[0]) is None or not 1 <= len(signatures) <= SIGNATURES_MAX:
        return "it has no time and signature as `t=…,v1=…`"
    wanted = hmac.new(secret, stamps[0].encode() + b"." + body, hashlib.sha256).hexdigest().encode()
    # All of them are compared: how long it takes says nothing.
    good = [hmac.compare_digest(wanted, one.encode("utf-8", "replace")) for one in signatures]
    if not any(good):
        return "it was not made with this endpoint's secret, or the body was changed"
    if abs(now_s - int(stamps[0])) > tolerance_s:
        return f"it is not from the last {tolerance_s} seconds"
    return ""


async def webhook(gateway: Gateway, request: Question) -> Page:
    """Keep an event of Stripe's."""
    terms = cards_of(request)
    if len(request.body) > BODY_BYTES_MAX:
        raise FareboxError(Kind.TOO_LARGE, f"a webhook is at most {BODY_BYTES_MAX} bytes")
    now_us = gateway.clock.now_us()
    header = request.headers.get(b"stripe-signature", b"").decode("latin-1")
    wrong = check_signature(
        header, request.body, terms.webhook_secret, tolerance_s=terms.tolerance_s, now_s=now_us // 1_000_000
    )
    if wrong:
        raise invalid(f"the header `stripe-signature` cannot be believed: {wrong}", param="stripe-signature")
    try:
        event = _decode(request.body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise invalid("the body is not an event of Stripe's") from None
    about = event.data.object.id
    if event.object != "event" or not 0 < len(event.id) <= ID_CHARS_MAX or max(len(event.type), len(about)) > ID_CHARS_MAX:
        raise invalid("the body is not an event of Stripe's")
    await request.library.command(
        lambda database: card_payments.keep_event(database, id=event.id, type=event.type, object_id=about, now_us=now_us)
    )
    gateway.fail_point("card.after_event")
    return Page(200, b'{"received":true}')


def cards_of(request: Question) -> CardTerms:
    """What is taken by card; nothing: there is no such thing here."""
    terms = request.library.cards
    if terms is None:
        raise FareboxError(
            Kind.NOT_FOUND, "payments by card are not taken here; `[stripe]` in the configuration switches them on"
        )
    return terms
