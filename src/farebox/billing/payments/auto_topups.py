"""Top-ups by a saved card: when an account falls below what it says, its card is charged while nobody is there.

    saved      a setup page was completed: the card may be charged
    start      the books say the account is below its threshold  → a row of `card_payments`, `auto`, before Stripe is asked
    declined   the card was not charged                          → told, tried again after a pause, and after some times never
    confirm    the bank wants its customer                       → a page to pay the same on, whose address is told

An account has one such payment under way at a time, which the database guards, and its row's id makes the idempotency key; so
neither two bookkeepers nor a crash between any two steps charge a card twice for one crossing. What is under way counts for the
month's cap.
"""

import msgspec
from sqlalchemy import Connection, func, insert, select, text, update

from farebox.billing.books.customers import CommandRefused, lock_account
from farebox.billing.books.ledger import COMMAND_AMOUNT_NANO_MAX
from farebox.billing.books.outbox import Message, put
from farebox.billing.books.scopes import lock, target_nano
from farebox.billing.budgets import window_name, window_start_us
from farebox.billing.payments import card_payments as cards
from farebox.billing.payments.card_payments import CONFIRM, NANO_PER_CENT, OWN, PROBLEM_CHARS_MAX, CardTerms, Payment
from farebox.money import format_amount
from farebox.ports import Ids
from farebox.storage.database import Database
from farebox.storage.payment_tables import auto_topups, card_payments

DECLINES_MAX = 3
"""In a row; after that it is switched off until somebody switches it on again."""
PAUSES_US = (3_600_000_000, 86_400_000_000)
"""After the first and each further decline: an hour, a day."""
AT_ONCE = 50


class AutoTopUp(msgspec.Struct, frozen=True):
    """A row of `auto_topups`."""

    account_id: str
    below_nano: int
    amount_nano: int
    month_cap_nano: int
    customer_id: str | None
    payment_method: str
    enabled: bool
    declines: int
    problem: str
    next_us: int


def auto_topup(connection: Connection, account_id: str) -> AutoTopUp | None:
    row = connection.execute(select(auto_topups).where(auto_topups.c.account_id == account_id)).one_or_none()
    return None if row is None else AutoTopUp(*row)


def set_up(
    database: Database, terms: CardTerms, *, account_id: str, below_nano: int, amount_nano: int, month_cap_nano: int, now_us: int
) -> AutoTopUp:
    """Switch it on with these amounts; declines are forgotten. Raises `CommandRefused`."""
    if not terms.min_nano <= amount_nano <= terms.max_nano or amount_nano % NANO_PER_CENT:
        raise CommandRefused(
            f"a top-up by card is in whole cents from {format_amount(terms.min_nano)} to {format_amount(terms.max_nano)} USD, "
            f"not {format_amount(amount_nano)}"
        )
    if not 0 <= below_nano <= COMMAND_AMOUNT_NANO_MAX:
        raise CommandRefused("the balance to top up at is not negative")
    if not amount_nano <= month_cap_nano <= COMMAND_AMOUNT_NANO_MAX:
        raise CommandRefused(f"the month's cap is at least one top-up, {format_amount(amount_nano)} USD")

    def work(connection: Connection) -> AutoTopUp:
        account = lock_account(connection, account_id)
        if account.kind != "prepaid":
            raise CommandRefused(f"the account `{account_id}` is postpaid: it pays its invoices")
        values = {"below_nano": below_nano, "amount_nano": amount_nano, "month_cap_nano": month_cap_nano}
        values |= {"enabled": True, "declines": 0, "problem": "", "next_us": now_us}
        if auto_topup(connection, account_id) is None:
            connection.execute(insert(auto_topups).values(account_id=account_id, **values))
        else:
            connection.execute(update(auto_topups).where(auto_topups.c.account_id == account_id).values(**values))
        found = auto_topup(connection, account_id)
        assert found is not None, "it was written a line above"
        return found

    return database.write(work)


def switch_off(database: Database, account_id: str) -> None:
    """Charge the card no more by itself; a charge that is under way goes on."""
    mine = auto_topups.c.account_id == account_id
    values = {"enabled": False, "declines": 0, "problem": ""}
    database.write(lambda connection: connection.execute(update(auto_topups).where(mine).values(**values)))


def order_setup(database: Database, terms: CardTerms, *, id: str, account_id: str, now_us: int) -> Payment:
    """Ask for a page where a card can be saved."""

    def work(connection: Connection) -> Payment:
        lock_account(connection, account_id)
        if auto_topup(connection, account_id) is None:
            raise CommandRefused(f"the account `{account_id}` has no automatic top-up yet; say below what, and how much")
        cards.check_open(connection, account_id)
        command = f"{account_id}:{OWN}setup:{id}"
        return cards.write_wanted(
            connection, id, account_id, "setup", amount_nano=0, currency=terms.currency, command=command, now_us=now_us
        )

    return database.write(work)


def set_customer(database: Database, account_id: str, customer_id: str) -> None:
    """Who the account is at Stripe; the first one stays."""
    mine = (auto_topups.c.account_id == account_id) & auto_topups.c.customer_id.is_(None)
    database.write(lambda connection: connection.execute(update(auto_topups).where(mine).values(customer_id=customer_id)))


def saved(database: Database, payment: Payment, payment_method: str, *, now_us: int) -> None:
    """A card was saved on a setup page: it is the one to charge from now on."""

    def work(connection: Connection) -> None:
        lock_account(connection, payment.account_id)
        found = cards.payment(connection, payment.id)
        if found is None or found.state not in ("wanted", "open"):
            return
        mine = auto_topups.c.account_id == payment.account_id
        connection.execute(update(auto_topups).where(mine).values(payment_method=payment_method, declines=0, next_us=now_us))
        ended = {"state": "credited", "ended_us": now_us}
        connection.execute(update(card_payments).where(card_payments.c.id == payment.id).values(**ended))

    database.write(work)


_LOW = (
    "SELECT a.account_id FROM auto_topups AS a JOIN scopes AS s ON s.id = 'account:' || a.account_id "
    "JOIN accounts AS c ON c.id = a.account_id WHERE a.enabled AND a.payment_method <> '' AND a.next_us <= :now_us "
    "AND c.kind = 'prepaid' AND c.status = 'active' "
    "AND COALESCE(s.wanted_limit_nano, s.limit_nano) - s.posted_nano < a.below_nano "
    "AND NOT EXISTS (SELECT 1 FROM card_payments AS p WHERE p.account_id = a.account_id AND p.kind = 'auto' "
    "AND p.state IN ('wanted', 'open')) ORDER BY a.account_id LIMIT :at_once"
)


def start_due(database: Database, ids: Ids, currency: str, *, now_us: int) -> int:
    """Write a payment for every account that is below its threshold and has none under way; how many."""
    marks = {"now_us": now_us, "at_once": AT_ONCE}
    low = database.read(lambda connection: list(connection.execute(text(_LOW), marks).scalars()))
    return sum(database.write(lambda connection, id=id: _start(database, connection, ids, id, currency, now_us)) for id in low)


def _start(database: Database, connection: Connection, ids: Ids, account_id: str, currency: str, now_us: int) -> int:
    account = lock_account(connection, account_id)
    wish = auto_topup(connection, account_id)
    scope = lock(connection, f"account:{account_id}")
    assert scope is not None, "an account is created with its scope"
    running = select(card_payments.c.id).where(
        card_payments.c.account_id == account_id, card_payments.c.kind == "auto", card_payments.c.state.in_(("wanted", "open"))
    )
    if (
        wish is None
        or not wish.enabled
        or wish.next_us > now_us
        or account.status != "active"
        or target_nano(scope) - scope["posted_nano"] >= wish.below_nano
        or connection.execute(running).one_or_none() is not None
    ):
        return 0
    month_us = window_start_us("month", now_us)
    charged = select(func.coalesce(func.sum(card_payments.c.amount_nano), 0)).where(
        card_payments.c.account_id == account_id,
        card_payments.c.kind == "auto",
        card_payments.c.created_us >= month_us,
        card_payments.c.state.in_(("wanted", "open", "credited", "quarantined")),
    )
    if int(connection.execute(charged).scalar_one()) + wish.amount_nano > wish.month_cap_nano:
        about: dict[str, str | int] = {"account": account_id, "cap_nano": wish.month_cap_nano}
        put(database, connection, ids, [Message("auto_topup_capped", account_id, about, window_name("month", now_us))], now_us)
        later = auto_topups.c.account_id == account_id
        # Looked at again now and then: the month may end, the cap may be raised (which resets this).
        connection.execute(update(auto_topups).where(later).values(next_us=now_us + PAUSES_US[0]))
        return 0
    made = ids.new("pay")
    command = f"{account_id}:{OWN}auto:{made}"
    cards.write_wanted(
        connection, made, account_id, "auto", amount_nano=wish.amount_nano, currency=currency, command=command, now_us=now_us
    )
    return 1


def declined(
    database: Database, ids: Ids, payment: Payment, problem: str, *, confirm: bool = False, now_us: int
) -> Payment:
    """The card was not charged: tell, and wait; after `DECLINES_MAX` times in a row switch it off. `confirm`: the bank wants its
    customer, who gets a page to pay on."""

    def work(connection: Connection) -> Payment:
        lock_account(connection, payment.account_id)
        found = cards.payment(connection, payment.id)
        assert found is not None, "rows of payments are never removed"
        if found.state in cards.CLOSING:
            return found
        account = found.account_id
        said = problem[:PROBLEM_CHARS_MAX]
        ended = {"state": "declined", "problem": said, "ended_us": now_us}
        connection.execute(update(card_payments).where(card_payments.c.id == found.id).values(**ended))
        wish = auto_topup(connection, account)
        assert wish is not None, "who is charged has said so"
        declines = wish.declines + 1
        off = declines >= DECLINES_MAX
        pause_us = PAUSES_US[min(declines, len(PAUSES_US)) - 1]
        values = {"declines": declines, "problem": said, "next_us": now_us + pause_us, "enabled": wish.enabled and not off}
        connection.execute(update(auto_topups).where(auto_topups.c.account_id == account).values(**values))
        about: dict[str, str | int] = {"account": account, "amount_nano": found.amount_nano, "problem": said}
        messages = [Message("auto_topup_declined", found.id, about)]
        if off:
            messages.append(Message("auto_topup_disabled", found.id, {"account": account, "declines": declines}))
        put(database, connection, ids, messages, now_us)
        if confirm:
            cards.write_wanted(
                connection, ids.new("pay"), account, "checkout", amount_nano=found.amount_nano, currency=found.currency,
                command=f"{account}:{CONFIRM}{found.id}", now_us=now_us,
            )  # fmt: skip
        result = cards.payment(connection, found.id)
        assert result is not None, "it was there above"
        return result

    return database.write(work)
