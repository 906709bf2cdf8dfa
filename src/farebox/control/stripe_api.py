"""Stripe, as far as it is needed here: the SDK behind a few functions that answer in our own structs.

Every call that makes something has an idempotency key and a body that follows from it alone, so that repeating it after a lost
answer makes nothing twice. The SDK retries nothing by itself: when to ask again is `control.till`'s business.

    StripeError
      StripeRefused      it said no; asking again gives the same answer
      StripeUnavailable  no answer, or one that says nothing about what was asked (429, 5xx, a wrong key): ask again later

Synchronous, for threads without an event loop. Answers are untrusted: what is read of them is checked by type.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

CONNECT_S, ANSWER_S = 5, 30
REFUNDS_MAX = 100
"""Of one payment; Stripe lists no more at once."""
T = TypeVar("T")


class StripeError(Exception):
    """Stripe did not do it."""


class StripeRefused(StripeError):
    """It said no, for good."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


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
        cancel_url: str,
    ) -> Session:
        """A page where a top-up can be paid. The same payment and attempt give the same page."""
        marks = {"farebox_payment": payment_id, "farebox_account": account_id}
        item = {
            "price_data": {"currency": currency, "unit_amount": amount_minor, "product_data": {"name": "Credit"}},
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
        wanted = {"payment_intent": intent_id, "limit": REFUNDS_MAX}
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
            raise StripeRefused(_said(error), error.code or "") from None
        try:
            return msgspec.json.decode(found.last_response.body, type=shape)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise StripeUnavailable(f"Stripe's answer cannot be read: {error}") from None


def _said(error: Any) -> str:
    """Its message, without what it was asked: an error's text may hold a key's end, never the key."""
    return " ".join(str(error.user_message or error).split())[:300]
