"""Payments by card without processes: a till of `control.till` over a billing world and a strict Stripe."""

from sqlalchemy import select

from farebox.billing.invoicing.invoices import Terms
from farebox.billing.payments import card_payments
from farebox.billing.payments.card_payments import CardTerms
from farebox.control.stripe_api import Stripe
from farebox.control.till import Pages, Till
from farebox.ports import TimeOrderedIds
from farebox.storage.payment_tables import stripe_events
from tests.support.stripe_site import SECRET_KEY

DOLLAR = 1_000_000_000
TERMS = CardTerms(5 * DOLLAR, 1_000 * DOLLAR, "usd", b"whsec_x", 300)
PAGES = Pages("https://shop.example/paid", "https://shop.example/")


class Died(BaseException):
    """The process was killed here."""


def make_till(world, site, die_at=None):
    def fail_point(name):
        if name == die_at:
            raise Died

    api = Stripe(SECRET_KEY, api_base=site.origin)
    return Till(world.database, api, world.clock, TimeOrderedIds(world.clock), pages=PAGES, terms=Terms(), fail_point=fail_point)


def order(world, account, amount_nano=25 * DOLLAR, command="one"):
    return card_payments.order(
        world.database, TERMS, id=world.ids.new("pay"), account_id=account, amount_nano=amount_nano, command_id=command,
        now_us=world.clock.us,
    )  # fmt: skip


def again(world, payment):
    return world.database.read(lambda connection: card_payments.payment(connection, payment.id))


def hear(world, event):
    """The webhook, without HTTP."""
    return card_payments.keep_event(
        world.database, id=event["id"], type=event["type"], object_id=event["data"]["object"]["id"], now_us=world.clock.us
    )


def settle(world, till, times=120, *, step_s=1):
    """Rounds until nothing is left to do, so many times with a second in between."""
    for _ in range(times):
        while till.round():
            pass
        world.clock.us += step_s * 1_000_000


def event_states(world):
    query = select(stripe_events.c.id, stripe_events.c.state)
    return dict(tuple(row) for row in world.database.read(lambda connection: connection.execute(query).all()))
