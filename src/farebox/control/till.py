"""The till: asks Stripe for pages to pay on, and what became of payments, and has the books give credit for them.

A webhook only says which object to look at. What is credited is read from Stripe, and compared with what was asked for. Should no
webhook come, open payments are looked at all the same. Everything here may be repeated and interrupted: see
`billing.payments.card_payments`.
"""

from collections.abc import Callable

import msgspec

from farebox.billing.invoicing.invoices import Terms
from farebox.billing.payments import auto_topups, bill_payments, card_payments, reversals
from farebox.billing.payments.bill_payments import BillPayment
from farebox.billing.payments.card_payments import Event, Paid, Payment
from farebox.billing.payments.reversals import Reversal
from farebox.control.stripe_api import (
    Dispute,
    Intent,
    Refund,
    Session,
    Stripe,
    StripeDeclined,
    StripeRefused,
    StripeUnavailable,
)
from farebox.ports import Clock, Ids
from farebox.storage.database import Database, StoreError

COLLECT_US = 5_000_000
"""How often accounts that owe something are looked at, and old webhooks forgotten."""
LOOKS_BEFORE_ANEW = 8
"""Looks for a refund of which Stripe said only that it failed itself, minutes all together, before it is asked for anew."""
OURS = "pay-"
BILLS = f"{bill_payments.MARK}-"
"""What our ids of payments begin with, and those of payments of invoices: a page that names another was made by something else
that uses the same Stripe."""


class Pages(msgspec.Struct, frozen=True):
    """Where Stripe's page leads, and what is paid in."""

    success_url: str
    cancel_url: str
    currency: str = "usd"


def _odd(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


class Till:
    """`round` once, over and over; or `advance` one payment at once."""

    def __init__(
        self,
        database: Database,
        api: Stripe,
        clock: Clock,
        ids: Ids,
        *,
        pages: Pages,
        terms: Terms,
        fail_point: Callable[[str], None],
    ) -> None:
        """`terms` are those of invoices."""
        self._database = database
        self._api = api
        self._clock = clock
        self._ids = ids
        self._pages = pages
        self._terms = terms
        self._fail_point = fail_point
        self._collected_us = 0

    def round(self) -> int:
        """Look into what came and what is due; how much there was. Raises `StoreError`.

        What fails in a way that nobody thought of is said on its row and looked at again later; the others do not wait for it.
        """
        now_us = self._clock.now_us()
        events = self._database.read(lambda connection: card_payments.due_events(connection, now_us))
        for event in events:
            try:
                self._look_into(event)
            except StoreError:
                raise
            except Exception as error:
                card_payments.event_later(self._database, self._ids, event, _odd(error), now_us=self._clock.now_us())
        auto_topups.start_due(self._database, self._ids, self._pages.currency, now_us=now_us)
        payments = self._database.read(lambda connection: card_payments.due(connection, now_us))
        for payment in payments:
            try:
                self.advance(payment)
            except StoreError:
                raise
            except Exception as error:
                card_payments.later(self._database, payment.id, _odd(error), now_us=self._clock.now_us())
        bills = self._database.read(lambda connection: bill_payments.due(connection, now_us))
        for bill in bills:
            try:
                self.advance_bill(bill)
            except StoreError:
                raise
            except Exception as error:
                bill_payments.later(self._database, bill.id, _odd(error), now_us=self._clock.now_us())
        waiting = self._database.read(lambda connection: reversals.due(connection, now_us))
        for reversal in waiting:
            try:
                self.advance_reversal(reversal)
            except StoreError:
                raise
            except Exception as error:
                reversals.later(self._database, reversal.id, _odd(error), now_us=self._clock.now_us())
        if now_us - self._collected_us >= COLLECT_US:
            self._collected_us = now_us
            reversals.collect_all(self._database, self._ids, now_us=now_us)
            card_payments.forget_events(self._database, now_us=now_us)
        return len(events) + len(payments) + len(bills) + len(waiting)

    def advance(self, payment: Payment) -> Payment:
        """Take a payment a step further, if Stripe answers; as it is afterwards."""
        try:
            if payment.state == "wanted":
                return self._charge(payment) if payment.kind == "auto" else self._open(payment)
            if payment.state == "open":
                found = self._see(payment)
                if found.state == "open":
                    card_payments.later(self._database, payment.id, "", now_us=self._clock.now_us())
                return found
        except StripeUnavailable as error:
            # A second page is harmless where the first one's address never got here: nobody can pay on it. A second charge is
            # not: whether there was a first is looked for in Stripe's list, for minutes.
            again = error.kept and payment.state == "wanted" and (payment.kind != "auto" or payment.tries >= LOOKS_BEFORE_ANEW)
            card_payments.later(self._database, payment.id, str(error), new_attempt=again, now_us=self._clock.now_us())
        except StripeRefused as error:
            if payment.kind == "auto" and payment.state == "wanted":
                confirm = isinstance(error, StripeDeclined) and error.wants_customer
                return self._declined(payment, str(error), confirm=confirm)
            return self._end(payment, "failed", str(error))
        return self._again(payment)

    def _see(self, payment: Payment) -> Payment:
        """How a payment that Stripe knows stands there."""
        if payment.session_id is not None:
            return self._look(payment, self._api.session(payment.session_id))
        assert payment.intent_id is not None, "what is open is at Stripe"
        return self._follow_charge(payment, self._api.intent(payment.intent_id))

    def _declined(self, payment: Payment, problem: str, *, confirm: bool = False) -> Payment:
        return auto_topups.declined(
            self._database, self._ids, payment, problem, confirm=confirm, now_us=self._clock.now_us()
        )

    def _charge(self, payment: Payment) -> Payment:
        """Charge a saved card; what was asked before without an answer is looked for first."""
        wish = self._database.read(lambda connection: auto_topups.auto_topup(connection, payment.account_id))
        assert wish is not None and wish.customer_id is not None, "a card is saved for a customer"
        if payment.tries:
            for intent in self._api.intents_of(wish.customer_id):
                if intent.metadata.get("farebox_payment") == payment.id:
                    return self._follow_charge(payment, intent)
        self._fail_point("card.before_call")
        intent = self._api.charge(
            payment_id=payment.id,
            attempt=payment.attempt,
            account_id=payment.account_id,
            amount_minor=payment.amount_minor,
            currency=payment.currency,
            customer_id=wish.customer_id,
            payment_method=wish.payment_method,
        )
        self._fail_point("card.after_call")
        return self._follow_charge(payment, intent)

    def _follow_charge(self, payment: Payment, intent: Intent) -> Payment:
        """Have the books say what became of a charge."""
        if intent.status == "succeeded":
            return self._credit(payment, intent)
        if intent.status in ("processing", "requires_capture"):
            return card_payments.opened(
                self._database, self._ids, payment.id, intent_id=intent.id, now_us=self._clock.now_us()
            )
        return self._declined(payment, f"Stripe says: {intent.status}", confirm=intent.status == "requires_action")

    def _credit(self, payment: Payment, intent: Intent) -> Payment:
        self._fail_point("card.before_credit")
        seen = Paid(intent.amount_received, intent.currency, intent.id)
        found = card_payments.paid(self._database, self._ids, payment.id, seen, now_us=self._clock.now_us())
        self._fail_point("card.after_credit")
        return found

    def _again(self, payment: Payment) -> Payment:
        found = self._database.read(lambda connection: card_payments.payment(connection, payment.id))
        assert found is not None, "rows of payments are never removed"
        return found

    def _open(self, payment: Payment) -> Payment:
        pages = self._pages
        self._fail_point("card.before_call")
        if payment.kind == "setup":
            session = self._api.make_setup_session(
                payment_id=payment.id,
                attempt=payment.attempt,
                customer_id=self._customer(payment.account_id),
                currency=payment.currency,
                success_url=pages.success_url,
                cancel_url=pages.cancel_url,
            )
        else:
            session = self._api.make_session(
                payment_id=payment.id,
                attempt=payment.attempt,
                account_id=payment.account_id,
                amount_minor=payment.amount_minor,
                currency=payment.currency,
                success_url=pages.success_url,
                cancel_url=pages.cancel_url,
            )
        self._fail_point("card.after_call")
        return self._at_page(payment.id, session)

    def _at_page(self, payment_id: str, session: Session) -> Payment:
        return card_payments.opened(
            self._database,
            self._ids,
            payment_id,
            session_id=session.id,
            url=session.url or "",
            now_us=self._clock.now_us(),
        )

    def _customer(self, account_id: str) -> str:
        """Who an account is at Stripe; made when a card is to be saved for the first time."""
        wish = self._database.read(lambda connection: auto_topups.auto_topup(connection, account_id))
        if wish is not None and wish.customer_id is not None:
            return wish.customer_id
        made = self._api.make_customer(account_id)
        auto_topups.set_customer(self._database, account_id, made.id)
        wish = self._database.read(lambda connection: auto_topups.auto_topup(connection, account_id))
        assert wish is not None and wish.customer_id is not None, "it was set a line above, by whoever was first"
        return wish.customer_id

    def _look(self, payment: Payment, session: Session) -> Payment:
        """What a page says about its payment."""
        if payment.kind == "setup":
            return self._look_at_setup(payment, session)
        if session.payment_status == "paid" and session.payment_intent is not None:
            # The page has what was agreed on, the intent what has come in.
            intent = self._api.intent(session.payment_intent)
            return self._credit(payment, intent) if intent.status == "succeeded" else payment
        if session.status == "expired":
            return self._end(payment, "expired", "nobody paid it in time")
        return payment

    def _look_at_setup(self, payment: Payment, session: Session) -> Payment:
        """What a page says about a card that was to be saved."""
        if session.status == "complete" and session.setup_intent is not None:
            found = self._api.setup_intent(session.setup_intent)
            if found.status == "succeeded" and found.payment_method is not None:
                if found.customer != self._customer(payment.account_id):
                    return card_payments.quarantine(
                        self._database, self._ids, payment.id, "the card is another customer's", now_us=self._clock.now_us()
                    )
                auto_topups.saved(self._database, payment, found.payment_method, now_us=self._clock.now_us())
            return self._again(payment)
        if session.status == "expired":
            return self._end(payment, "expired", "nobody saved a card in time")
        return payment

    def _end(self, payment: Payment, state: str, problem: str) -> Payment:
        assert state in ("expired", "failed"), "those ends that Stripe tells"
        return card_payments.end(
            self._database, payment.id, "expired" if state == "expired" else "failed", problem, now_us=self._clock.now_us()
        )

    # --- invoices -----------------------------------------------------------------------------------------------------------

    def advance_bill(self, bill: BillPayment) -> BillPayment:
        """Take the payment of an invoice a step further, if Stripe answers; as it is afterwards."""
        try:
            if bill.state == "wanted":
                return self._open_bill(bill)
            if bill.state == "open":
                assert bill.session_id is not None, "what is open has a page"
                found = self._look_at_bill(bill, self._api.session(bill.session_id))
                if found.state == "open":
                    bill_payments.later(self._database, bill.id, "", now_us=self._clock.now_us())
                return found
        except StripeUnavailable as error:
            again = error.kept and bill.state == "wanted"
            bill_payments.later(self._database, bill.id, str(error), new_attempt=again, now_us=self._clock.now_us())
        except StripeRefused as error:
            return bill_payments.end(self._database, bill.id, "failed", str(error), now_us=self._clock.now_us())
        found = self._database.read(lambda connection: bill_payments.payment(connection, bill.id))
        assert found is not None, "rows of payments are never removed"
        return found

    def _open_bill(self, bill: BillPayment) -> BillPayment:
        self._fail_point("card.before_call")
        session = self._api.make_session(
            payment_id=bill.id,
            attempt=bill.attempt,
            account_id=bill.account_id,
            amount_minor=bill.amount_minor,
            currency=bill.currency,
            success_url=self._pages.success_url,
            cancel_url=self._pages.cancel_url,
            product=f"Invoice {bill.number}",
        )
        self._fail_point("card.after_call")
        return self._bill_at_page(bill.id, session)

    def _bill_at_page(self, bill_id: str, session: Session) -> BillPayment:
        now_us = self._clock.now_us()
        return bill_payments.opened(self._database, bill_id, session_id=session.id, url=session.url or "", now_us=now_us)

    def _look_at_bill(self, bill: BillPayment, session: Session) -> BillPayment:
        """What a page says about the invoice that is paid on it; the amount is the intent's, read from Stripe."""
        now_us = self._clock.now_us()
        if session.payment_status == "paid" and session.payment_intent is not None:
            intent = self._api.intent(session.payment_intent)
            if intent.status != "succeeded":
                return bill
            self._fail_point("card.before_credit")
            seen = Paid(intent.amount_received, intent.currency, intent.id)
            found = bill_payments.paid(self._database, self._ids, self._terms, bill.id, seen, now_us=now_us)
            self._fail_point("card.after_credit")
            return found
        if session.status == "expired":
            return bill_payments.end(self._database, bill.id, "expired", "nobody paid it in time", now_us=now_us)
        return bill

    def _bill_changed(self, session: Session, reference: str) -> tuple[str, str]:
        bill = self._database.read(lambda connection: bill_payments.payment(connection, reference))
        if bill is None:
            return "quarantined", f"it names `{reference}`, which is not known here"
        if bill.session_id is None:
            bill = self._bill_at_page(bill.id, session)
        if bill.session_id != session.id:
            return "quarantined", f"it names `{bill.id}`, whose page is another one"
        found = self._look_at_bill(bill, session)
        return ("quarantined" if found.state == "quarantined" else "done"), found.problem

    def _bill_of(self, intent_id: str | None) -> BillPayment | None:
        """The payment of an invoice that an intent of Stripe's has paid, or is about to."""
        if intent_id is None:
            return None
        found = self._database.read(lambda connection: bill_payments.payment_of_intent(connection, intent_id))
        if found is not None:
            return found
        named = self._api.intent(intent_id).metadata.get("farebox_payment", "")
        return self._database.read(lambda connection: bill_payments.payment(connection, named))

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
        if event.type.startswith("payment_intent."):
            return self._charge_changed(event.object_id)
        if event.type.startswith("refund.") or event.type == "charge.refund.updated":
            return self._went_back(self._api.refund(event.object_id))
        if event.type.startswith("charge.dispute."):
            return self._went_back(self._api.dispute(event.object_id))
        return "ignored", ""

    def _charge_changed(self, intent_id: str) -> tuple[str, str]:
        intent = self._api.intent(intent_id)
        named = intent.metadata.get("farebox_payment", "")
        payment = self._database.read(lambda connection: card_payments.payment(connection, named))
        if payment is None:
            return ("quarantined", f"it names `{named}`, which is not known here") if named.startswith(OURS) else ("ignored", "")
        if payment.kind != "auto":
            return "ignored", "a page's payments are told by their page"
        ended = payment.state in card_payments.CLOSING and intent.status != "succeeded"
        if payment.state in ("credited", "quarantined") or ended:
            return "done", ""
        found = self._follow_charge(payment, intent)
        return ("quarantined" if found.state == "quarantined" else "done"), found.problem

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
            bill = self._bill_of(seen.payment_intent) if payment is None else None
            if bill is not None:
                # An invoice that was paid is open again only by a person's decision.
                return "quarantined", f"it is about `{bill.id}`, the payment of the invoice `{bill.number}`: see to it by hand"
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
        if found.kind == "auto":
            found = self._follow_charge(found, self._api.intent(intent_id))
        elif found.session_id is not None:
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
        if reference.startswith(BILLS):
            return self._bill_changed(session, reference)
        if not reference.startswith(OURS):
            return "ignored", "it is not about a top-up"
        payment = self._database.read(lambda connection: card_payments.payment(connection, reference))
        if payment is None:
            return "quarantined", f"it names `{reference}`, which is not known here"
        if payment.session_id is None:
            # The answer that named the page was lost; whoever got its address has been quick.
            payment = self._at_page(payment.id, session)
        if payment.session_id != session.id:
            return "quarantined", f"it names `{payment.id}`, whose page is another one"
        found = self._look(payment, session)
        return ("quarantined" if found.state == "quarantined" else "done"), found.problem
