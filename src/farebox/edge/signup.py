"""`POST /signup`: a stranger makes an account and gets its first key, where the operator has switched that on.

Whoever is refused learns nothing about the address: one that has signed up before, a network, a mail domain or a day that has had
its share, all get the same answer. Whoever gets a key does know that the address was new; operators that mind have their own
pages confirm it first, and give only those the token.
"""

import os
from datetime import UTC, datetime
from typing import Any

import msgspec

from farebox.billing.accounts import signups
from farebox.billing.accounts.signups import SignedUp, SignupRefused
from farebox.billing.books.customers import CommandRefused, NewKey
from farebox.edge.info import Page, Question, address_of
from farebox.edge.key_bodies import Body
from farebox.edge.signup_desk import network
from farebox.errors import FareboxError, Kind, invalid
from farebox.gate import keys as secrets
from farebox.gateway import Gateway
from farebox.money import format_amount
from farebox.ports import TimeOrderedIds

TOKEN_HEADER = b"x-farebox-signup-token"
KEY_NAME = "first key"
_encode = msgspec.json.Encoder().encode


async def sign_up(gateway: Gateway, request: Question) -> Page:
    """`POST /signup` `{"email": "ann@example.com"}`: 201 with the account, its credit and its first key, shown this one time."""
    desk = request.library.signup
    if desk is None:
        raise FareboxError(Kind.NOT_FOUND, "nobody signs up here; `signup.endpoint = true` in the configuration switches it on")
    if not desk.trusts(request.headers.get(TOKEN_HEADER, b"")):
        raise FareboxError(
            Kind.PERMISSION, "`x-farebox-signup-token` is missing or not this gateway's", code="signup_token", should_retry=False
        )
    now_us = gateway.clock.now_us()
    # An address that nobody vouches for is in no network, and would be under no limit.
    found = network(address_of(gateway, request))
    if not found:
        raise _refused()
    wait_s = desk.admit(found, now_us)
    if wait_s:
        said = f"too many sign-ups were tried from your network; again in {wait_s} s"
        raise FareboxError(Kind.RATE_LIMIT, said, code="signup_tries", retry_after_s=wait_s, should_retry=False)
    body = Body(request.body, ("email",))
    mail = body.need_text("email", "a mail address such as `ann@example.com`")
    try:
        signups.normal_address(mail)
    except CommandRefused as error:
        raise invalid(f"`email`: {error}", param="email") from None
    secret = secrets.make(os.urandom(secrets.SECRET_BYTES))
    key = NewKey(gateway.ids.new("key"), "", KEY_NAME, gateway.keyring.digest(secret), secrets.hint(secret))
    ids = TimeOrderedIds(gateway.clock)  # the gateway's are its loop's own, and this is done on a thread
    try:
        made: SignedUp = await request.library.command(
            lambda database: signups.sign_up(
                database, ids, desk.terms.rules, mail=mail, network=found, now_us=now_us, first_key=key
            )
        )
    except SignupRefused:
        raise _refused() from None
    return Page(201, _encode({"data": {**_shown(made), "key_id": key.id, "key": secret}}), _HEAD)


_HEAD = b"content-type: application/json\r\ncache-control: no-store\r\n"


def _refused() -> FareboxError:
    """The one answer to whatever cannot be taken."""
    return FareboxError(
        Kind.PERMISSION,
        "this sign-up cannot be taken: an address has one account, and each network, mail domain and day gets so many; "
        "use the key that you have, or ask the operator",
        code="signup_refused",
        should_retry=False,
    )


def _shown(made: SignedUp) -> dict[str, Any]:
    expires = None
    if made.expires_us is not None:
        expires = datetime.fromtimestamp(made.expires_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"account": made.account_id, "credit_usd": format_amount(made.amount_nano), "credit_expires_at": expires}
