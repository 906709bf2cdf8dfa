"""`POST /topups` and `GET /topups/{id}`: a management key of an account asks for a page to pay on, and what became of it;
`/topups/auto`: top-ups by a saved card; `POST /invoices/{number}/pay`: a page to pay an invoice on.

The worker writes down what is wanted and waits a moment for the bookkeeper to have the page from Stripe; nothing here speaks to
Stripe.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import unquote

import msgspec
from sqlalchemy import Connection

from farebox.billing.books.customers import CommandRefused, NotFound
from farebox.billing.payments import auto_topups, bill_payments, card_payments
from farebox.billing.payments.auto_topups import AutoTopUp
from farebox.billing.payments.bill_payments import BillPayment
from farebox.billing.payments.card_payments import Payment
from farebox.edge.info import Page, Question, whole_account
from farebox.edge.key_bodies import Body
from farebox.edge.stripe_webhook import cards_of
from farebox.errors import FareboxError, Kind, invalid
from farebox.gateway import Gateway
from farebox.money import format_amount
from farebox.wires import reading

ID_CHARS_MAX = 128
LOOK_S = 0.1
LOOKS_MAX = 100
"""Ten seconds; who waits longer asks again with the id."""
WAITING_MAX = 16
"""Requests of a worker that wait for a page at a time; others get the id alone."""
P = TypeVar("P", Payment, BillPayment)
_encode = msgspec.json.Encoder().encode


def shown(payment: Payment) -> dict[str, Any]:
    """A payment as its account sees it."""
    return {
        "id": payment.id,
        "status": {"wanted": "pending", "quarantined": "failed"}.get(payment.state, payment.state),
        "amount_usd": format_amount(payment.amount_nano),
        "url": payment.url if payment.state == "open" and payment.url else None,
        "created_at": datetime.fromtimestamp(payment.created_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


async def create(gateway: Gateway, request: Question) -> Page:
    """`POST /topups` `{"amount_usd": "25.00"}`: 201 with the page's address, or 202 if Stripe takes its time. The same
    `idempotency-key` gives the same top-up."""
    principal = await whole_account(gateway, request)
    terms = cards_of(request)
    body = Body(request.body, ("amount_usd",))
    amount_nano = body.budget_nano("amount_usd")
    if amount_nano is None:
        raise reading.missing("amount_usd", 'dollars as a string such as "25.00"')
    command_id = request.headers.get(b"idempotency-key", b"").decode("latin-1") or gateway.ids.new("cmd")
    made, now_us = gateway.ids.new("pay"), gateway.clock.now_us()
    try:
        payment: Payment = await request.library.command(
            lambda database: card_payments.order(
                database, terms, id=made, account_id=principal.account, amount_nano=amount_nano, command_id=command_id,
                now_us=now_us,
            )
        )  # fmt: skip
    except CommandRefused as error:
        raise invalid(str(error)) from None
    payment = await _with_page(request, payment, _known)
    return Page(202 if payment.state == "wanted" else 201, _encode({"data": shown(payment)}))


async def _with_page(request: Question, payment: P, known: Callable[[Connection, str], P | None]) -> P:
    """The payment when it has its page, or as it is after some seconds."""
    if request.library.waiting >= WAITING_MAX or payment.state != "wanted":
        return payment
    request.library.waiting += 1
    try:
        return await _opened(request, payment, known)
    finally:
        request.library.waiting -= 1


async def _opened(request: Question, payment: P, known: Callable[[Connection, str], P | None]) -> P:
    for _ in range(LOOKS_MAX):
        await asyncio.sleep(LOOK_S)
        found = await request.library.read(lambda connection: known(connection, payment.id))
        if found is not None and found.state != "wanted":
            return found
    return payment


def _known(connection: Connection, payment_id: str) -> Payment | None:
    return card_payments.payment(connection, payment_id)


async def pay_invoice(gateway: Gateway, request: Question) -> Page:
    """`POST /invoices/{number}/pay`: 201 with the address of a page to pay what is open of it, or 202 if Stripe takes its time.
    The same `idempotency-key` gives the same payment, with what became of it."""
    principal = await whole_account(gateway, request)
    cards = cards_of(request)
    number, _, verb = unquote(request.path.partition("/invoices/")[2].rstrip("/")).rpartition("/")
    if verb != "pay" or not number:
        raise FareboxError(Kind.NOT_FOUND, "only `POST /v1/invoices/{number}/pay` is here")
    Body(request.body or b"{}", ())
    command_id = request.headers.get(b"idempotency-key", b"").decode("latin-1") or gateway.ids.new("cmd")
    made, now_us, terms = gateway.ids.new(bill_payments.MARK), gateway.clock.now_us(), request.library.terms
    try:
        payment: BillPayment = await request.library.command(
            lambda database: bill_payments.order(
                database, cards, terms, id=made, account_id=principal.account, number=number[:ID_CHARS_MAX],
                command_id=command_id, now_us=now_us,
            )
        )  # fmt: skip
    except NotFound as error:
        raise FareboxError(Kind.NOT_FOUND, f"{error}; `GET /v1/invoices` lists them", param="number") from None
    except CommandRefused as error:
        raise invalid(str(error)) from None
    payment = await _with_page(request, payment, bill_payments.payment)
    data = {
        "id": payment.id,
        "invoice": payment.number,
        "status": {"wanted": "pending", "quarantined": "failed"}.get(payment.state, payment.state),
        "amount_usd": format_amount(payment.amount_nano),
        "url": payment.url if payment.state == "open" and payment.url else None,
    }
    return Page(202 if payment.state == "wanted" else 201, _encode({"data": data}))


async def get(gateway: Gateway, request: Question) -> Page:
    """`GET /topups/{id}`: how a top-up stands."""
    principal = await whole_account(gateway, request)
    cards_of(request)
    wanted = request.path.partition("/topups/")[2].rstrip("/")[:ID_CHARS_MAX]
    found: Payment | None = await request.library.read(lambda connection: _known(connection, wanted))
    if found is None or found.account_id != principal.account:
        raise FareboxError(Kind.NOT_FOUND, f"there is no top-up `{wanted}`", param="id")
    return Page(200, _encode({"data": shown(found)}))


def _auto_shown(wish: AutoTopUp, url: str | None = None) -> dict[str, Any]:
    return {
        "enabled": wish.enabled,
        "below_usd": format_amount(wish.below_nano),
        "amount_usd": format_amount(wish.amount_nano),
        "month_cap_usd": format_amount(wish.month_cap_nano),
        "card_saved": bool(wish.payment_method),
        "declines": wish.declines,
        "problem": wish.problem or None,
        "url": url,
    }


async def get_auto(gateway: Gateway, request: Question) -> Page:
    """`GET /topups/auto`: when the account is topped up by its saved card, and by how much."""
    principal = await whole_account(gateway, request)
    cards_of(request)
    return Page(200, _encode({"data": _auto_shown(await _wish(request, principal.account))}))


async def _wish(request: Question, account: str) -> AutoTopUp:
    found: AutoTopUp | None = await request.library.read(lambda connection: auto_topups.auto_topup(connection, account))
    if found is None:
        raise FareboxError(
            Kind.NOT_FOUND, "the account has no automatic top-up; `POST` its `below_usd`, `amount_usd` and `month_cap_usd`"
        )
    return found


async def set_auto(gateway: Gateway, request: Question) -> Page:
    """`POST /topups/auto`: switch it on with amounts, or off with `"enabled": false`; with a page where no card is saved yet."""
    principal = await whole_account(gateway, request)
    terms = cards_of(request)
    amounts = ("below_usd", "amount_usd", "month_cap_usd")
    body = Body(request.body, (*amounts, "enabled"))
    account, made, now_us = principal.account, gateway.ids.new("pay"), gateway.clock.now_us()
    if body.flag("enabled") is False:
        await _wish(request, account)
        await request.library.command(lambda database: auto_topups.switch_off(database, account))
        return Page(200, _encode({"data": _auto_shown(await _wish(request, account))}))
    nano: list[int] = []
    for name in amounts:
        value = body.budget_nano(name)
        if value is None:
            raise reading.missing(name, 'dollars as a string such as "25.00"')
        nano.append(value)
    try:
        wish: AutoTopUp = await request.library.command(
            lambda database: auto_topups.set_up(
                database, terms, account_id=account, below_nano=nano[0], amount_nano=nano[1], month_cap_nano=nano[2],
                now_us=now_us,
            )
        )  # fmt: skip
        if wish.payment_method:
            return Page(200, _encode({"data": _auto_shown(wish)}))
        page: Payment = await request.library.command(
            lambda database: auto_topups.order_setup(database, terms, id=made, account_id=account, now_us=now_us)
        )
    except CommandRefused as error:
        raise invalid(str(error)) from None
    page = await _with_page(request, page, _known)
    return Page(200, _encode({"data": _auto_shown(wish, page.url or None)}))
