"""Receipts over HTTP: the keys that they are signed with, those of one call, and an account's day with its head.

Days are JSON lines, ready for `farebox receipt verify`: a client that follows `after` until the head has the whole day.
"""

from collections.abc import Callable
from typing import TypeVar

import msgspec
from sqlalchemy import Connection

from farebox.billing.books.periods import parse_day
from farebox.billing.sealing import seals
from farebox.billing.sealing.receipt_keys import KeyFileError, Keys
from farebox.billing.sealing.receipts import Content, canonical
from farebox.billing.sealing.seals import SealBroken
from farebox.edge.info import Page, Question, identified, whole_account
from farebox.edge.library import may_read
from farebox.edge.statements import query_of
from farebox.errors import FareboxError, Kind, invalid
from farebox.gateway import Gateway

T = TypeVar("T")
_encode = msgspec.json.Encoder().encode
LINES_MAX = 500
"""Receipts of one answer: about half a megabyte, and 25 ms to sign."""
ID_MAX = 128
KEYS_TYPE = b"content-type: application/jwk-set+json\r\ncache-control: public, max-age=300\r\n"
LINES_TYPE = b"content-type: application/jsonl\r\n"


async def keys(gateway: Gateway, request: Question) -> Page:
    """`GET /.well-known/farebox-keys.json`: the public keys of all receipts, as a JSON Web Key Set, the newest first."""
    return Page(200, (await _keys(gateway, request)).document, KEYS_TYPE)


async def of_call(gateway: Gateway, request: Question) -> Page:
    """`GET /v1/receipts?id=gen-…`: the signed receipts of a call, one for each attempt and correction."""
    principal = await identified(gateway, request)
    wanted = query_of(request, ("id",)).get("id", "")[:ID_MAX]
    if not wanted:
        raise invalid("`id` is missing: `GET /v1/receipts?id=gen-…`", param="id")
    found = await _read(request, lambda c: seals.of_call(c, principal.account, wanted))
    contents = [content for row, content in found if may_read(principal, row)]
    if not contents:
        raise FareboxError(
            Kind.NOT_FOUND, f"there is no receipt of `{wanted}` on this account; receipts appear within seconds", param="id"
        )
    signer = (await _keys(gateway, request)).signer
    return Page(200, _encode({"object": "list", "data": [signer.signed("receipt", content) for content in contents]}))


async def of_day(gateway: Gateway, request: Question) -> Page:
    """`GET /v1/receipts/{day}?after=0&limit=500`: a day's signed receipts, and, when none is left, its signed head."""
    principal = await whole_account(gateway, request)
    query = query_of(request, ("after", "limit"))
    try:
        day = parse_day(request.path.partition("/receipts/")[2].rstrip("/")[:ID_MAX])
    except ValueError as error:
        raise invalid(str(error), param="day") from None
    after = _count(query, "after", 0, 2**31 - 1)
    limit = _count(query, "limit", LINES_MAX, LINES_MAX)

    def work(connection: Connection) -> tuple[list[Content], Content]:
        page = seals.of_day(connection, principal.account, day, after=after, limit=limit) if limit else []
        return page, seals.head(connection, principal.account, day)

    page, head = await _read(request, work)
    signer = (await _keys(gateway, request)).signer
    lines = [signer.signed("receipt", content) for content in page]
    if not limit or head["receipts"] <= (page[-1]["chain"]["number"] if page else after):
        lines.append(signer.signed("head", head))
    return Page(200, b"".join(canonical(line) + b"\n" for line in lines), LINES_TYPE)


async def _read(request: Question, work: Callable[[Connection], T]) -> T:
    try:
        return await request.library.read(work)
    except SealBroken as error:
        raise FareboxError(Kind.INTERNAL, f"{error}; tell the operator") from None


async def _keys(gateway: Gateway, request: Question) -> Keys:
    try:
        return await request.library.receipt_keys(gateway.clock.now_us())
    except KeyFileError:
        problem = "the keys that receipts are signed with cannot be read; the operator's `farebox doctor` says why"
        raise FareboxError(Kind.UNAVAILABLE, problem) from None


def _count(query: dict[str, str], name: str, usual: int, most: int) -> int:
    text = query.get(name)
    if text is None:
        return usual
    if not (text.isascii() and text.isdigit()) or len(text) > 10 or int(text) > most:
        raise invalid(f"`{name}` must be a whole number from 0 to {most}, not {text[:32]!r}", param=name)
    return int(text)
