"""The till: asks Stripe for pages to pay on, and what became of payments, and has the books give credit for them.

A webhook only says which object to look at. What is credited is read from Stripe, and compared with what was asked for. Should no
webhook come, open payments are looked at all the same. Everything here may be repeated and interrupted: see
`billing.card_payments`.
"""

from collections.abc import Callable

import msgspec

from farebox.billing import card_payments
from farebox.billing.card_payments import Event, Paid, Payment
from farebox.control.stripe_api import Session, Stripe, StripeRefused, StripeUnavailable
from farebox.ports import Clock, Ids
from farebox.storage.database import Database

OURS = "pay-"
"""What our ids of payments begin with: a page that names another was made by something else that uses the same Stripe."""


class Pages(msgspec.Struct, frozen=True):
    """Where Stripe's page leads."""

    success_url: str
    cancel_url: str


class Till:
    """`round` once, over and over; or `advance` one payment at once."""

    def __init__(
        self, database: Database, api: Stripe, clock: Clock, ids: Ids, *, pages: Pages, fail_point: Callable[[str], None]
    ) -> None:
        self._database = database
        self._api = api
        self._clock = clock
        self._ids = ids
        self._pages = pages
        self._fail_point = fail_point

    def round(self) -> int:
        """Look into what came and what is due; how much there was. Raises `StoreError`."""
        now_us = self._clock.now_us()
        events = self._database.read(lambda connection: card_payments.due_events(connection, now_us))
        for event in events:
            self._look_into(event)
        payments = self._database.read(lambda connection: card_payments.due(connection, now_us))
        for payment in payments:
            self.advance(payment)
        return len(events) + len(payments)

    def advance(self, payment: Payment) -> Payment:
        """Take a payment a step further, if Stripe answers; as it is afterwards."""
        try:
            if payment.state == "wanted":
                return self._open(payment)
            if payment.session_id is not None and payment.state == "open":
                found = self._look(payment, self._api.session(payment.session_id))
                if found.state == "open":
                    card_payments.later(self._database, payment.id, "", now_us=self._clock.now_us())
                return found
        except StripeUnavailable as error:
            # A second page is harmless where the first one's address never got here: nobody can pay on it.
            again = error.kept and payment.state == "wanted"
            card_payments.later(self._database, payment.id, str(error), new_attempt=again, now_us=self._clock.now_us())
        except StripeRefused as error:
            return self._end(payment, "failed", str(error))
        return self._again(payment)

    def _again(self, payment: Payment) -> Payment:
        found = self._database.read(lambda connection: card_payments.payment(connection, payment.id))
        assert found is not None, "rows of payments are never removed"
        return found

    def _open(self, payment: Payment) -> Payment:
        self._fail_point("card.before_call")
        session = self._api.make_session(
            payment_id=payment.id,
            attempt=payment.attempt,
            account_id=payment.account_id,
            amount_minor=payment.amount_minor,
            currency=payment.currency,
            success_url=self._pages.success_url,
            cancel_url=self._pages.cancel_url,
        )
        self._fail_point("card.after_call")
        return card_payments.opened(
            self._database, payment.id, session_id=session.id, url=session.url or "", now_us=self._clock.now_us()
        )

    def _look(self, payment: Payment, session: Session) -> Payment:
        """What a page says about its payment."""
        if session.payment_status == "paid" and session.payment_intent is not None:
            # The page has what was agreed on, the intent what has come in.
            intent = self._api.intent(session.payment_intent)
            if intent.status != "succeeded":
                return payment
            self._fail_point("card.before_credit")
            seen = Paid(intent.amount_received, intent.currency, intent.id)
            found = card_payments.paid(self._database, self._ids, payment.id, seen, now_us=self._clock.now_us())
            self._fail_point("card.after_credit")
            return found
        if session.status == "expired":
            return self._end(payment, "expired", "nobody paid it in time")
        return payment

    def _end(self, payment: Payment, state: str, problem: str) -> Payment:
        assert state in ("expired", "failed"), "those ends that Stripe tells"
        return card_payments.end(
            self._database, payment.id, "expired" if state == "expired" else "failed", problem, now_us=self._clock.now_us()
        )

    # --- webhooks -----------------------------------------------------------------------------------------------------------

    def _look_into(self, event: Event) -> None:
        try:
            state, problem = self._outcome(event)
        except StripeUnavailable as error:
            card_payments.event_later(self._database, self._ids, event, str(error), now_us=self._clock.now_us())
            return
        except StripeRefused as error:
            state, problem = "quarantined", str(error)
        assert state in ("done", "ignored", "quarantined"), "the ends of an event"
        card_payments.end_event(
            self._database,
            self._ids,
            event,
            "done" if state == "done" else "ignored" if state == "ignored" else "quarantined",
            problem,
            now_us=self._clock.now_us(),
        )

    def _outcome(self, event: Event) -> tuple[str, str]:
        """What came of it: `done`, `ignored`, or `quarantined` and why."""
        if event.type.startswith("checkout.session."):
            return self._session_changed(event.object_id)
        return "ignored", ""

    def _session_changed(self, session_id: str) -> tuple[str, str]:
        session = self._api.session(session_id)
        reference = session.client_reference_id or ""
        if not reference.startswith(OURS):
            return "ignored", "it is not about a top-up"
        payment = self._database.read(lambda connection: card_payments.payment(connection, reference))
        if payment is None:
            return "quarantined", f"it names `{reference}`, which is not known here"
        if payment.session_id is None:
            # The answer that named the page was lost; whoever got its address has been quick.
            payment = card_payments.opened(
                self._database, payment.id, session_id=session.id, url=session.url or "", now_us=self._clock.now_us()
            )
        if payment.session_id != session.id:
            return "quarantined", f"it names `{payment.id}`, whose page is another one"
        found = self._look(payment, session)
        return ("quarantined" if found.state == "quarantined" else "done"), found.problem
