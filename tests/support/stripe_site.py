"""A strict Stripe on a real socket: it knows the calls that are made here and refuses whatever Stripe would refuse.

Checked in every request: the key, the API version of the installed SDK, known parameters only, and, where something is made, the
idempotency key: the same key with another body is Stripe's 400 `idempotency_error`, with the same body the first answer again, a
failure's, too (docs.stripe.com/api/idempotent_requests). What happens at Stripe's pages is done by methods (`pay`, `expire`).
Webhooks are signed as documented (docs.stripe.com/webhooks#verify-manually) and sent when the test says so, as often and in the
order it wants.
"""

import hashlib
import hmac
import itertools
import json
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qsl

import stripe

SECRET_KEY = "sk_test_" + "4eC39HqLyjWDarjtT1zdp7dc"
WEBHOOK_SECRET = "whsec_" + "c2VjcmV0LW9mLXRoZS1zdGFuZC1pbg"
API_VERSION: str = stripe.api_version
BODY_BYTES_MAX = 64 * 1024

Fault = Literal["500", "500_after", "429", "lost"]
"""`500`: nothing was done. `500_after`: it was. `lost`: it was done, and the connection ends without an answer."""


class Refusal(Exception):
    def __init__(self, status: int, kind: str, message: str, code: str | None = None, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"type": kind, "message": message, **({"code": code} if code else {}), **more}}


def refuse_unknown(given: dict[str, Any], known: set[str], path: str) -> None:
    for name in given:
        if name not in known:
            text = f"Received unknown parameter: {path}{name}"
            raise Refusal(400, "invalid_request_error", text, "parameter_unknown", param=name)


def missing(name: str) -> Refusal:
    return Refusal(400, "invalid_request_error", f"Missing required param: {name}.", "parameter_missing", param=name)


def unform(body: bytes) -> dict[str, Any]:
    """`a[b][0]=c` → `{"a": {"b": {"0": "c"}}}`."""
    found: dict[str, Any] = {}
    for name, value in parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=bool(body)):
        steps = name.replace("]", "").split("[")
        place = found
        for step in steps[:-1]:
            place = place.setdefault(step, {})
        place[steps[-1]] = value
    return found


@dataclass
class StripeSite:
    """`with StripeSite() as site: …`; its objects are plain dicts in Stripe's shapes."""

    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    calls: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Method, path, idempotency key, in the order of their coming."""
    refund_status: str = "succeeded"
    """Of new refunds: `pending` where a bank takes its time."""
    card: str = "ok"
    """How saved cards answer: `ok`, `processing`, `card_declined`, `authentication_required`."""
    faults: list[tuple[str, str, Fault]] = field(default_factory=list)
    """Each strikes once: method, a path's beginning, what goes wrong."""

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._answers: dict[str, tuple[str, int, bytes]] = {}
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                site._serve(self, "GET")

            def do_POST(self) -> None:
                site._serve(self, "POST")

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> "StripeSite":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def config(self, more: str = "") -> str:
        """A `[stripe]` section for it."""
        return (
            f'[stripe]\nsecret_key = "{SECRET_KEY}"\nwebhook_secret = "{WEBHOOK_SECRET}"\napi_base = "{self.origin}"\n{more}\n'
        )

    def _new(self, prefix: str) -> str:
        return f"{prefix}_{next(self._numbers):024d}"

    # --- HTTP -----------------------------------------------------------------------------------------------------------

    def _serve(self, handler: BaseHTTPRequestHandler, method: str) -> None:
        size = int(handler.headers.get("content-length") or 0)
        assert size <= BODY_BYTES_MAX
        raw = handler.rfile.read(size)
        path, _, query = handler.path.partition("?")
        key = handler.headers.get("idempotency-key")
        with self._lock:
            self.calls.append((method, path, key))
            fault = next((one for one in self.faults if one[0] == method and path.startswith(one[1])), None)
            if fault is not None:
                self.faults.remove(fault)
            status, body = self._answer(handler, method, path, raw if method == "POST" else query.encode(), key, fault)
        if fault is not None and fault[2] == "lost":
            handler.close_connection = True
            handler.connection.close()
            return
        handler.send_response(status)
        handler.send_header("content-type", "application/json")
        handler.send_header("request-id", "req_stand_in")
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def _answer(
        self, handler: BaseHTTPRequestHandler, method: str, path: str, raw: bytes, key: str | None, fault: Any
    ) -> tuple[int, bytes]:
        kind = fault[2] if fault is not None else ""
        mark = hashlib.sha256(f"{method} {path}\n".encode() + raw).hexdigest()
        try:
            self._check(handler)
            if kind == "429":
                raise Refusal(429, "invalid_request_error", "Too many requests", "rate_limit")
            if method == "POST" and key is None:
                raise AssertionError(f"{path}: what makes something has an idempotency key")
            if method == "POST" and key in self._answers:
                known, status, body = self._answers[key]
                if known != mark:
                    text = "Keys for idempotent requests can only be used with the same parameters they were first used with."
                    raise Refusal(400, "idempotency_error", text)
                return status, body
            if kind == "500":
                status, found = 500, {"error": {"type": "api_error", "message": "An unknown error occurred"}}
            else:
                status, found = self._do(method, path, unform(raw))
                if kind == "500_after":
                    status, found = 500, {"error": {"type": "api_error", "message": "An unknown error occurred"}}
        except Refusal as refusal:
            body = json.dumps(refusal.body).encode()
            # A declined card is an outcome and kept under its key; a request that could not be run is not.
            if method == "POST" and key is not None and refusal.status == 402:
                self._answers[key] = (mark, 402, body)
            return refusal.status, body
        body = json.dumps(found).encode()
        if method == "POST" and key is not None:
            self._answers[key] = (mark, status, body)
        return status, body

    def _check(self, handler: BaseHTTPRequestHandler) -> None:
        if handler.headers.get("authorization") != f"Bearer {SECRET_KEY}":
            raise Refusal(401, "invalid_request_error", "Invalid API Key provided: sk_test_****")
        version = handler.headers.get("stripe-version")
        if version != API_VERSION:
            raise Refusal(400, "invalid_request_error", f"Invalid Stripe API version: {version}")
        if handler.command == "POST" and handler.headers.get("content-type") != "application/x-www-form-urlencoded":
            raise Refusal(400, "invalid_request_error", "Invalid content type")

    def _do(self, method: str, path: str, given: dict[str, Any]) -> tuple[int, Any]:
        assert path.startswith("/v1/"), path
        steps = path.removeprefix("/v1/").split("/")
        match method, *steps:
            case "POST", "checkout", "sessions":
                return 200, self._make_session(given)
            case "GET", "checkout", "sessions", id:
                return 200, self._get(id, "checkout.session")
            case "GET", "payment_intents", id:
                return 200, self._get(id, "payment_intent")
            case "POST", "customers":
                refuse_unknown(given, {"metadata"}, "")
                made = {"id": self._new("cus"), "object": "customer", "metadata": given.get("metadata", {}), "livemode": False}
                self.objects[made["id"]] = made
                return 200, made
            case "GET", "setup_intents", id:
                return 200, self._get(id, "setup_intent")
            case "POST", "payment_intents":
                return 200, self._charge(given)
            case "GET", "payment_intents":
                refuse_unknown(given, {"customer", "limit"}, "")
                found = [one for one in self.objects.values() if one["object"] == "payment_intent"]
                found = [one for one in found if one["customer"] == given["customer"]]
                return 200, {"object": "list", "data": found[::-1][: int(given["limit"])], "has_more": False, "url": path}
            case "POST", "refunds":
                return 200, self._make_refund(given)
            case "GET", "refunds":
                refuse_unknown(given, {"payment_intent", "limit"}, "")
                found = [one for one in self.objects.values() if one["object"] == "refund"]
                found = [one for one in found if one["payment_intent"] == given["payment_intent"]]
                return 200, {"object": "list", "data": found[::-1][: int(given["limit"])], "has_more": False, "url": path}
            case "GET", "refunds", id:
                return 200, self._get(id, "refund")
            case "GET", "disputes", id:
                return 200, self._get(id, "dispute")
        raise Refusal(404, "invalid_request_error", f"Unrecognized request URL ({method}: {path}).")

    def _get(self, id: str, kind: str) -> dict[str, Any]:
        found = self.objects.get(id)
        if found is None or found["object"] != kind:
            raise Refusal(404, "invalid_request_error", f"No such {kind}: '{id}'", "resource_missing", param="id")
        return found

    # --- objects ----------------------------------------------------------------------------------------------------------

    def _make_session(self, given: dict[str, Any]) -> dict[str, Any]:
        known = {
            "mode", "client_reference_id", "line_items", "metadata", "payment_intent_data", "success_url", "cancel_url",
            "customer", "currency",
        }  # fmt: skip
        refuse_unknown(given, known, "")
        for name in ("mode", "success_url"):
            if name not in given:
                raise missing(name)
        if given["mode"] == "setup":
            self._get(given.get("customer", ""), "customer")
        total, currency = 0, given.get("currency", "")
        for index, item in given.get("line_items", {}).items():
            refuse_unknown(item, {"price_data", "quantity"}, f"line_items[{index}]")
            price = item["price_data"]
            refuse_unknown(price, {"currency", "unit_amount", "product_data"}, f"line_items[{index}][price_data]")
            total += int(price["unit_amount"]) * int(item["quantity"])
            currency = price["currency"]
        if total < 50 and given["mode"] == "payment":
            text = "The Checkout Session's total amount due must add up to at least $0.50 usd"
            raise Refusal(400, "invalid_request_error", text, "amount_too_small")
        made = {
            "id": self._new("cs_test"), "object": "checkout.session", "mode": given["mode"], "status": "open",
            "payment_status": "unpaid", "amount_total": total, "currency": currency, "livemode": False,
            "client_reference_id": given.get("client_reference_id"), "metadata": given.get("metadata", {}),
            "customer": given.get("customer"), "payment_intent": None, "setup_intent": None, "created": int(time.time()),
            "success_url": given["success_url"], "cancel_url": given.get("cancel_url"),
            "expires_at": int(time.time()) + 86_400,
        }  # fmt: skip
        made["url"] = f"https://checkout.stripe.com/c/pay/{made['id']}#fid" + "x" * 200
        made["_intent_metadata"] = given.get("payment_intent_data", {}).get("metadata", {})
        self.objects[made["id"]] = made
        return made

    def save_card(self, session_id: str) -> dict[str, Any]:
        """Somebody saves a card at a setup page; the event."""
        with self._lock:
            session = self.objects[session_id]
            assert (session["mode"], session["status"]) == ("setup", "open")
            intent = {
                "id": self._new("seti"), "object": "setup_intent", "status": "succeeded", "customer": session["customer"],
                "payment_method": self._new("pm"), "usage": "off_session",
            }  # fmt: skip
            self.objects[intent["id"]] = intent
            session |= {"status": "complete", "payment_status": "no_payment_required", "setup_intent": intent["id"], "url": None}
            return self.event("checkout.session.completed", session)

    def _charge(self, given: dict[str, Any]) -> dict[str, Any]:
        known = {"amount", "currency", "customer", "payment_method", "off_session", "confirm", "metadata"}
        refuse_unknown(given, known, "")
        for name in ("amount", "currency"):
            if name not in given:
                raise missing(name)
        self._get(given["customer"], "customer")
        owner = [one for one in self.objects.values() if one["object"] == "setup_intent"]
        if given["customer"] not in [one["customer"] for one in owner if one["payment_method"] == given["payment_method"]]:
            raise Refusal(400, "invalid_request_error", "The payment method does not belong to the customer", "resource_missing")
        assert (given["off_session"], given["confirm"]) == ("true", "true")
        failed = self.card in ("card_declined", "authentication_required")
        status = "requires_payment_method" if failed else "processing" if self.card == "processing" else "succeeded"
        made = {
            "id": self._new("pi"), "object": "payment_intent", "status": status, "amount": int(given["amount"]),
            "amount_received": int(given["amount"]) if status == "succeeded" else 0, "currency": given["currency"],
            "livemode": False, "metadata": given.get("metadata", {}), "customer": given["customer"],
            "latest_charge": self._new("ch"), "payment_method": given["payment_method"], "created": int(time.time()),
        }  # fmt: skip
        self.objects[made["id"]] = made
        if failed:
            text = "Your card was declined." if self.card == "card_declined" else "Your card requires authentication."
            raise Refusal(402, "card_error", text, self.card, decline_code="generic_decline", payment_intent=made)
        return made

    def charges(self) -> list[int]:
        """What saved cards were charged, in cents."""
        found = [one for one in self.objects.values() if one["object"] == "payment_intent" and one["customer"] is not None]
        return [one["amount_received"] for one in found if one["status"] == "succeeded"]

    def _make_refund(self, given: dict[str, Any]) -> dict[str, Any]:
        refuse_unknown(given, {"payment_intent", "amount", "reason", "metadata"}, "")
        intent = self._get(given.get("payment_intent", ""), "payment_intent")
        before = [one for one in self.objects.values() if one["object"] == "refund" and one["payment_intent"] == intent["id"]]
        left = intent["amount_received"] - sum(one["amount"] for one in before if one["status"] != "failed")
        amount = int(given.get("amount", left))
        if left <= 0:
            raise Refusal(400, "invalid_request_error", "Charge has already been refunded.", "charge_already_refunded")
        if not 0 < amount <= left:
            text = f"Refund amount (${amount}) is greater than unrefunded amount on charge (${left})"
            raise Refusal(400, "invalid_request_error", text, param="amount")
        made = {
            "id": self._new("re"), "object": "refund", "amount": amount, "currency": intent["currency"],
            "payment_intent": intent["id"], "charge": intent["latest_charge"], "status": self.refund_status,
            "reason": given.get("reason"), "metadata": given.get("metadata", {}), "created": int(time.time()),
        }  # fmt: skip
        self.objects[made["id"]] = made
        return made

    def refund(self, intent_id: str, amount: int) -> dict[str, Any]:
        """Somebody refunds at the dashboard; the event."""
        with self._lock:
            return self.event("refund.created", self._make_refund({"payment_intent": intent_id, "amount": amount}))

    def move(self, id: str, status: str) -> dict[str, Any]:
        """A refund or a dispute goes on; the event."""
        with self._lock:
            found = self.objects[id]
            found["status"] = status
            if found["object"] == "dispute":
                return self.event("charge.dispute.closed" if status in ("won", "lost") else "charge.dispute.updated", found)
            if status == "failed":
                found["failure_reason"] = "expired_or_canceled_card"
            return self.event("refund.failed" if status == "failed" else "refund.updated", found)

    def dispute(self, intent_id: str, amount: int, status: str = "needs_response") -> dict[str, Any]:
        """The card's owner disputes a payment; the event."""
        with self._lock:
            intent = self.objects[intent_id]
            made = {
                "id": self._new("du"), "object": "dispute", "amount": amount, "currency": intent["currency"], "status": status,
                "payment_intent": intent_id, "charge": intent["latest_charge"], "reason": "fraudulent", "metadata": {},
                "created": int(time.time()), "is_charge_refundable": False,
            }  # fmt: skip
            self.objects[made["id"]] = made
            return self.event("charge.dispute.created", made)

    def pay(self, session_id: str, *, amount: int | None = None, currency: str | None = None) -> dict[str, Any]:
        """Somebody pays at the page; the event. `amount` and `currency` are what came in, if that is something else."""
        with self._lock:
            session = self.objects[session_id]
            assert session["status"] == "open", "a page is paid once"
            received = session["amount_total"] if amount is None else amount
            intent = {
                "id": self._new("pi"), "object": "payment_intent", "status": "succeeded", "amount": received,
                "amount_received": received, "currency": currency or session["currency"], "livemode": False,
                "metadata": session["_intent_metadata"], "customer": None, "latest_charge": self._new("ch"),
                "payment_method": self._new("pm"), "created": int(time.time()),
            }  # fmt: skip
            self.objects[intent["id"]] = intent
            session |= {"status": "complete", "payment_status": "paid", "payment_intent": intent["id"], "url": None}
            return self.event("checkout.session.completed", session)

    def expire(self, session_id: str) -> dict[str, Any]:
        with self._lock:
            session = self.objects[session_id]
            session |= {"status": "expired", "url": None}
            return self.event("checkout.session.expired", session)

    # --- webhooks ---------------------------------------------------------------------------------------------------------

    def event(self, type: str, about: dict[str, Any], **changed: Any) -> dict[str, Any]:
        """An event in Stripe's shape, with a snapshot of its object; `changed` is what the snapshot lies about."""
        made = {
            "id": self._new("evt"), "object": "event", "api_version": API_VERSION, "created": int(time.time()), "type": type,
            "livemode": False, "pending_webhooks": 1, "request": {"id": None, "idempotency_key": None},
            "data": {"object": {**about, **changed}},
        }  # fmt: skip
        self.events.append(made)
        return made

    @staticmethod
    def signature(body: bytes, *, secret: str = WEBHOOK_SECRET, at: int | None = None) -> str:
        stamp = int(time.time()) if at is None else at
        good = hmac.new(secret.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
        return f"t={stamp},v1={good},v0={'0' * 64}"

    def send(self, url: str, event: dict[str, Any], *, signature: str | None = None) -> int:
        """Deliver an event once; the status."""
        body = json.dumps(event, indent=2).encode()
        headers = {"content-type": "application/json; charset=utf-8", "stripe-signature": signature or self.signature(body)}
        request = urllib.request.Request(url, data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def deliver(self, url: str, event: dict[str, Any], *, timeout_s: float = 60.0) -> int:
        """Deliver as Stripe does: again and again until it is accepted; how many tries that took."""
        deadline = time.monotonic() + timeout_s
        for tries in itertools.count(1):
            try:
                if self.send(url, event) == 200:
                    return tries
            except OSError:
                pass
            assert time.monotonic() < deadline, f"{event['type']} was not accepted in {timeout_s} s"
            time.sleep(0.05)
        raise AssertionError("unreachable")
