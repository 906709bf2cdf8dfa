"""The till: asks Stripe for pages to pay on, and what became of payments, and has the books give credit for them.

A webhook only says which object to look at. What is credited is read from Stripe, and compared with what was asked for. Should no
webhook come, open payments are looked at all the same. Everything here may be repeated and interrupted: see
`billing.card_payments`.
"""

from collections.abc import Callable

import msgspec

from farebox.billing import card_payments, reversals
from farebox.billing.card_payments import Event, Paid, Payment
from farebox.billing.reversals import Reversal
from farebox.control.stripe_api import Dispute, Refund, Session, Stripe, StripeRefused, StripeUnavailable
from farebox.ports import Clock, Ids
from farebox.storage.database import Database

COLLECT_US = 5_000_000
"""How often accounts that owe something are looked at."""
LOOKS_BEFORE_ANEW = 8
"""Looks for a refund of which Stripe said only that it failed itself, minutes all together, before it is asked for anew."""
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
        self._collected_us = 0

    def round(self) -> int:
        """Look into what came and what is due; how much there was. Raises `StoreError`."""
        now_us = self._clock.now_us()
        events = self._database.read(lambda connection: card_payments.due_events(connection, now_us))
        for event in events:
            self._look_into(event)
        payments = self._database.read(lambda connection: card_payments.due(connection, now_us))
        for payment in payments:
            self.advance(payment)
        waiting = self._database.read(lambda connection: reversals.due(connection, now_us))
        for reversal in waiting:
            self.advance_reversal(reversal)
        if now_us - self._collected_us >= COLLECT_US:
            self._collected_us = now_us
            reversals.collect_all(self._database, self._ids, now_us=now_us)
        return len(events) + len(payments) + len(waiting)

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
        if event.type.startswith("refund.") or event.type == "charge.refund.updated":
            return self._went_back(self._api.refund(event.object_id))
        if event.type.startswith("charge.dispute."):
            return self._went_back(self._api.dispute(event.object_id))
        return "ignored", ""

    def _went_back(self, seen: Refund | Dispute) -> tuple[str, str]:
        """A refund or dispute, whoever made it, as it is now."""
        payment: Payment | None = None
        known = self._database.read(lambda connection: reversals.of_stripe(connection, seen.id))
        if known is None and isinstance(seen, Refund):
            named = (seen.metadata or {}).get("farebox_reversal", "")
            known = self._database.read(lambda connection: reversals.reversal(connection, named))
        if known is None:
            if isinstance(seen, Dispute) and seen.status.startswith("warning_"):
                return "ignored", "an inquiry: nothing is withheld"
            if isinstance(seen, Refund) and seen.status in ("failed", "canceled"):
                return "ignored", "it failed before it was known here"
            payment = self._payment_of(seen.payment_intent)
            if payment is None:
                return "ignored", "it is not about a top-up"
            if payment.state != "credited":
                return "done", "nothing was credited for that payment"
        try:
            if known is None:
                assert payment is not None, "it was looked for above"
                known = reversals.found_at_stripe(
                    self._database,
                    self._ids,
                    id=self._ids.new("rev"),
                    payment_id=payment.id,
                    kind="refund" if isinstance(seen, Refund) else "dispute",
                    stripe_id=seen.id,
                    amount_minor=seen.amount,
                    currency=seen.currency,
                    now_us=self._clock.now_us(),
                )
            self._follow(known, seen)
        except reversals.Mismatch as error:
            return "quarantined", str(error)
        return "done", ""

    def _payment_of(self, intent_id: str | None) -> Payment | None:
        """The payment that an intent of Stripe's has paid; it is credited first, should its own webhook come later."""
        if intent_id is None:
            return None
        found = self._database.read(lambda connection: card_payments.payment_of_intent(connection, intent_id))
        if found is not None:
            return found
        named = self._api.intent(intent_id).metadata.get("farebox_payment", "")
        found = self._database.read(lambda connection: card_payments.payment(connection, named))
        if found is None or found.state in ("quarantined", "credited"):
            return found
        if found.session_id is not None:
            found = self._look(found, self._api.session(found.session_id))
        if found.state in ("wanted", "open"):
            raise StripeUnavailable(f"the payment `{found.id}` has not come in yet")
        return found

    # --- money that goes back -----------------------------------------------------------------------------------------------

    def advance_reversal(self, reversal: Reversal) -> Reversal:
        """Take a refund or a dispute a step further, if Stripe answers; as it is afterwards."""
        now_us = self._clock.now_us()
        try:
            seen = self._seen(reversal)
            if seen is not None:
                found = self._follow(reversal, seen)
                if found.state in ("done", "returned"):
                    return found
            reversals.later(self._database, reversal.id, "", now_us=now_us)
        except reversals.Mismatch as error:
            reversals.later(self._database, reversal.id, str(error), now_us=now_us)
        except StripeUnavailable as error:
            # Whether a failure of Stripe's own gave the money back can only be seen in the list of refunds, and not at once.
            anew = error.kept and reversal.state == "wanted" and reversal.tries >= LOOKS_BEFORE_ANEW
            reversals.later(self._database, reversal.id, str(error), new_attempt=anew, now_us=now_us)
        except StripeRefused as error:
            if reversal.state == "wanted":
                return reversals.returned(self._database, self._ids, reversal.id, str(error), now_us=now_us)
            reversals.later(self._database, reversal.id, str(error), now_us=now_us)
        found = self._database.read(lambda connection: reversals.reversal(connection, reversal.id))
        assert found is not None, "rows of reversals are never removed"
        return found

    def _seen(self, reversal: Reversal) -> Refund | Dispute | None:
        if reversal.stripe_id is not None:
            ask = self._api.refund if reversal.kind == "refund" else self._api.dispute
            return ask(reversal.stripe_id)
        payment = self._database.read(lambda connection: card_payments.payment(connection, reversal.payment_id))
        assert payment is not None and payment.intent_id is not None, "what is refunded was paid"
        if reversal.tries:
            for refund in self._api.refunds_of(payment.intent_id):
                if (refund.metadata or {}).get("farebox_reversal") == reversal.id:
                    return refund
        self._fail_point("card.before_call")
        made = self._api.make_refund(
            reversal_id=reversal.id,
            attempt=reversal.attempt,
            intent_id=payment.intent_id,
            amount_minor=reversal.amount_minor,
        )
        self._fail_point("card.after_call")
        return made

    def _follow(self, reversal: Reversal, seen: Refund | Dispute) -> Reversal:
        """Have the books say what Stripe says."""
        now_us = self._clock.now_us()
        if seen.amount != reversal.amount_minor:
            raise reversals.Mismatch(f"`{seen.id}` is over {seen.amount} cents, and was over {reversal.amount_minor}")
        found = reversals.at_stripe(self._database, reversal.id, seen.id, now_us=now_us)
        if seen.status in ("succeeded", "lost"):
            return reversals.done(self._database, self._ids, found.id, now_us=now_us)
        if seen.status in ("failed", "canceled", "won", "warning_closed"):
            why = (seen.failure_reason if isinstance(seen, Refund) else None) or f"Stripe says: {seen.status}"
            return reversals.returned(self._database, self._ids, found.id, why, now_us=now_us)
        return found

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
