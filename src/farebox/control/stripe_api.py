"""Stripe, as far as it is needed here: the SDK behind a few functions that answer in our own structs.

Every call that makes something has an idempotency key and a body that follows from it alone, so that repeating it after a lost
answer makes nothing twice. The SDK retries nothing by itself: when to ask again is `control.till`'s business.

    StripeError
      StripeRefused      it said no; asking again gives the same answer
        StripeDeclined   the card's bank did
      StripeUnavailable  no answer, or one that says nothing about what was asked (429, 5xx, a wrong key): ask again later

Synchronous, for threads without an event loop. Answers are untrusted: what is read of them is checked by type.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

CONNECT_S, ANSWER_S = 5, 30
LISTED_MAX = 100
"""Stripe lists no more at once."""
T = TypeVar("T")


class StripeError(Exception):
    """Stripe did not do it."""


class StripeRefused(StripeError):
    """It said no, for good."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class StripeDeclined(StripeRefused):
    """The card was not charged."""

    @property
    def wants_customer(self) -> bool:
        """The bank wants its customer to confirm it."""
        return self.code == "authentication_required"


class StripeUnavailable(StripeError):
    """Whether it was done is not known, or it was not: ask again."""

    def __init__(self, message: str, *, kept: bool = False) -> None:
        """`kept`: Stripe answered with a failure of its own, which it gives again for the same idempotency key."""
        super().__init__(message)
        self.kept = kept


class Session(msgspec.Struct, frozen=True):
    """A page of Stripe's Checkout."""

    id: str
    mode: str
    status: str | None = None
    """`open`, `complete`, `expired`"""
    payment_status: str = ""
    """`paid`, `unpaid`, `no_payment_required`"""
    url: str | None = None
    amount_total: int | None = None
    currency: str | None = None
    client_reference_id: str | None = None
    customer: str | None = None
    payment_intent: str | None = None
    setup_intent: str | None = None


class Intent(msgspec.Struct, frozen=True):
    """Money on its way."""

    id: str
    status: str
    amount_received: int = 0
    currency: str = ""
    metadata: dict[str, str] = {}
    payment_method: str | None = None


class Refund(msgspec.Struct, frozen=True):
    """Money given back."""

    id: str
    status: str | None = None
    """`pending`, `requires_action`, `succeeded`, `failed`, `canceled`"""
    amount: int = 0
    currency: str = ""
    payment_intent: str | None = None
    metadata: dict[str, str] | None = None
    failure_reason: str | None = None


class Dispute(msgspec.Struct, frozen=True):
    """A payment that its card's owner does not accept."""

    id: str
    status: str
    """`needs_response`, `under_review`, `won`, `lost`; `warning_…`: an inquiry, nothing is withheld"""
    amount: int
    currency: str
    payment_intent: str | None = None
    reason: str = ""


class Customer(msgspec.Struct, frozen=True):
    id: str


class SetupIntent(msgspec.Struct, frozen=True):
    """A card that was saved."""

    id: str
    status: str
    customer: str | None = None
    payment_method: str | None = None


class _Intents(msgspec.Struct, frozen=True):
    data: list[Intent]


class _Refunds(msgspec.Struct, frozen=True):
    data: list[Refund]


class Stripe:
    """One account at Stripe."""

    def __init__(self, secret_key: str, *, api_base: str) -> None:
        # Here, because only who takes money by card needs it, and it takes a while to load.
        import stripe

        stripe.enable_telemetry = False
        self._errors = stripe
        self._client: Any = stripe.StripeClient(
            secret_key,
            base_addresses={"api": api_base},
            max_network_retries=0,
            http_client=stripe.RequestsClient(timeout=(CONNECT_S, ANSWER_S)),
        )

    def make_session(
        self, *, payment_id: str, attempt: int, account_id: str, amount_minor: int, currency: str, success_url: str,
        cancel_url: str, product: str = "Credit",
    ) -> Session:
        """A page where a top-up, or an invoice, can be paid. The same payment and attempt give the same page."""
        marks = {"farebox_payment": payment_id, "farebox_account": account_id}
        item = {
            "price_data": {"currency": currency, "unit_amount": amount_minor, "product_data": {"name": product}},
            "quantity": 1,
        }
        wanted = {
            "mode": "payment",
            "client_reference_id": payment_id,
            "line_items": [item],
            "metadata": marks,
            "payment_intent_data": {"metadata": marks},
            "success_url": success_url,
            "cancel_url": cancel_url,
        }
        return self._make(Session, self._client.v1.checkout.sessions.create, wanted, f"farebox-session-{payment_id}-{attempt}")

    def make_customer(self, account_id: str) -> Customer:
        """Who an account is at Stripe. The same account gives the same customer, for a day."""
        wanted = {"metadata": {"farebox_account": account_id}}
        return self._make(Customer, self._client.v1.customers.create, wanted, f"farebox-customer-{account_id}")

    def make_setup_session(
        self, *, payment_id: str, attempt: int, customer_id: str, currency: str, success_url: str, cancel_url: str
    ) -> Session:
        """A page where a card can be saved, to be charged later without its owner."""
        wanted = {
            "mode": "setup",
            "client_reference_id": payment_id,
            "customer": customer_id,
            "currency": currency,
            "metadata": {"farebox_payment": payment_id},
            "success_url": success_url,
            "cancel_url": cancel_url,
        }
        return self._make(Session, self._client.v1.checkout.sessions.create, wanted, f"farebox-session-{payment_id}-{attempt}")

    def setup_intent(self, setup_intent_id: str) -> SetupIntent:
        """What became of a card that was to be saved."""
        return self._ask(SetupIntent, self._client.v1.setup_intents.retrieve, setup_intent_id)

    def charge(
        self, *, payment_id: str, attempt: int, account_id: str, amount_minor: int, currency: str, customer_id: str,
        payment_method: str,
    ) -> Intent:
        """Charge a saved card while its owner is away. Raises `StripeDeclined`. The same payment and attempt charges once."""
        wanted = {
            "amount": amount_minor,
            "currency": currency,
            "customer": customer_id,
            "payment_method": payment_method,
            "off_session": True,
            "confirm": True,
            "metadata": {"farebox_payment": payment_id, "farebox_account": account_id},
        }
        return self._make(Intent, self._client.v1.payment_intents.create, wanted, f"farebox-intent-{payment_id}-{attempt}")

    def intents_of(self, customer_id: str) -> list[Intent]:
        """The newest payments of a customer."""
        wanted = {"customer": customer_id, "limit": LISTED_MAX}
        return self._ask(_Intents, self._client.v1.payment_intents.list, wanted).data

    def session(self, session_id: str) -> Session:
        """A page as it is now."""
        return self._ask(Session, self._client.v1.checkout.sessions.retrieve, session_id)

    def intent(self, intent_id: str) -> Intent:
        """A payment as it is now."""
        return self._ask(Intent, self._client.v1.payment_intents.retrieve, intent_id)

    def make_refund(self, *, reversal_id: str, attempt: int, intent_id: str, amount_minor: int) -> Refund:
        """Give money back. The same reversal and attempt is the same refund."""
        wanted = {
            "payment_intent": intent_id,
            "amount": amount_minor,
            "reason": "requested_by_customer",
            "metadata": {"farebox_reversal": reversal_id},
        }
        return self._make(Refund, self._client.v1.refunds.create, wanted, f"farebox-refund-{reversal_id}-{attempt}")

    def refund(self, refund_id: str) -> Refund:
        """A refund as it is now."""
        return self._ask(Refund, self._client.v1.refunds.retrieve, refund_id)

    def refunds_of(self, intent_id: str) -> list[Refund]:
        """The newest refunds of a payment."""
        wanted = {"payment_intent": intent_id, "limit": LISTED_MAX}
        return self._ask(_Refunds, self._client.v1.refunds.list, wanted).data

    def dispute(self, dispute_id: str) -> Dispute:
        """A dispute as it is now."""
        return self._ask(Dispute, self._client.v1.disputes.retrieve, dispute_id)

    def _make(self, shape: type[T], make: Callable[..., Any], wanted: dict[str, Any], key: str) -> T:
        return self._ask(shape, make, wanted, {"idempotency_key": key})

    def _ask(self, shape: type[T], ask: Callable[..., Any], *arguments: Any) -> T:
        errors = self._errors
        try:
            found = ask(*arguments)
        except (errors.AuthenticationError, errors.PermissionError) as error:
            raise StripeUnavailable(f"Stripe does not take the secret key: {_said(error)}") from None
        except errors.StripeError as error:
            status = error.http_status
            if status is None or status in (409, 429) or status >= 500:
                raise StripeUnavailable(f"Stripe did not do it: {_said(error)}", kept=(status or 0) >= 500) from None
            if isinstance(error, errors.IdempotencyError):
                # The key was used for another body, such as another card's: what came of that one has to be looked for.
                raise StripeUnavailable(f"Stripe was asked for something else before: {_said(error)}", kept=True) from None
            if isinstance(error, errors.CardError):
                raise StripeDeclined(_said(error), error.code or "") from None
            raise StripeRefused(_said(error), error.code or "") from None
        try:
            return msgspec.json.decode(found.last_response.body, type=shape)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise StripeUnavailable(f"Stripe's answer cannot be read: {error}") from None


def _said(error: Any) -> str:
    """Its message, without what it was asked: an error's text may hold a key's end, never the key."""
    return " ".join(str(error.user_message or error).split())[:300]
