"""What is said: a message of the outbox as an event, as a sentence and as mail. Pure.

A body is `{"type": …, "id": …, "timestamp": …, "data": {…}}`, as Standard Webhooks recommends; money is decimal strings of US
dollars under names that end in `_usd`.
"""

from collections.abc import Callable, Mapping
from email.message import EmailMessage
from typing import Literal

import msgspec

from farebox.money import format_amount

BODY_BYTES_MAX = 64 * 1024
"""Longer values are left out of a body: the outbox has them."""
VALUE_CHARACTERS_MAX = 2_000
LEFT_OUT = frozenset({"record"})
"""Of a payload: the journal's own words, which are for the operator's eyes."""

Audience = Literal["customer", "operator"]
Data = Mapping[str, str | int]


class Event(msgspec.Struct, frozen=True):
    """A kind of message: its public name, who may be told, and how it reads."""

    type: str
    audience: Audience
    sentence: Callable[[Data], str]


class Letter(msgspec.Struct, frozen=True):
    """A message ready to be told: `data` has its money as decimal strings."""

    id: str
    kind: str
    created_at: str
    """RFC 3339, UTC."""
    data: dict[str, str | int]

    @property
    def event(self) -> Event:
        return EVENTS[self.kind]


def _who(data: Data) -> str:
    return str(data.get("account_name") or data.get("account", "?"))


def _threshold(data: Data) -> str:
    spent = f"${data['posted_usd']} of ${data['limit_usd']}"
    return f"{data['scope']} of {_who(data)} has spent {data['percent']}% of its budget: {spent}"


def _forecast(data: Data) -> str:
    return (
        f"{data['scope']} of {_who(data)} will have used up its budget of ${data['limit_usd']} by {data['used_up_at']} "
        f"at this pace; ${data['posted_usd']} are spent, ${data['expected_usd']} would be"
    )


def _spike(data: Data) -> str:
    return (
        f"{_who(data)} spent ${data['hour_usd']} since {data['hour']}, more than {data['factor']} times the usual "
        f"${data['usual_usd']} of that hour"
    )


def _low(data: Data) -> str:
    return f"{_who(data)} has ${data['left_usd']} left, less than ${data['below_usd']}"


def _runway(data: Data) -> str:
    days, hours = divmod(int(data["left_hours"]), 24)
    return (
        f"{_who(data)} has ${data['left_usd']} left, enough for {days} days and {hours} hours at ${data['per_day_usd']} a day"
    )


EVENTS: dict[str, Event] = {
    "budget_threshold": Event("budget.threshold", "customer", _threshold),
    "budget_forecast": Event("budget.forecast", "customer", _forecast),
    "spend_spike": Event("spend.spike", "customer", _spike),
    "low_balance": Event("balance.low", "customer", _low),
    "runway": Event("balance.runway", "customer", _runway),
    "invoice_ready": Event("invoice.ready", "customer", lambda data: f"the invoice {data['number']} of {_who(data)} is ready"),
    "credit_note_ready": Event(
        "credit_note.ready", "customer", lambda data: f"the credit note {data['number']} of {_who(data)} is ready"
    ),
    "invoice_overdue": Event(
        "invoice.overdue",
        "customer",
        lambda data: f"the invoice {data['number']} of {_who(data)} is {data['days_late']} days late, ${data['open_usd']} open",
    ),
    "account_paused": Event("account.paused", "customer", lambda data: f"{_who(data)} is paused: an invoice is long overdue"),
    "account_resumed": Event("account.resumed", "customer", lambda data: f"{_who(data)} is served again"),
    "settle_refused": Event(
        "books.settle_refused", "operator", lambda data: f"the call {data['hold']} was not posted: {data['reason']}"
    ),
    "settle_reduced": Event(
        "books.settle_reduced",
        "operator",
        lambda data: f"the call {data['hold']} was charged ${data['allowed_usd']} of ${data['charge_usd']}: no budget had more",
    ),
    "payment_quarantined": Event(
        "payment.quarantined",
        "operator",
        lambda data: f"a payment by card was not credited, {data['about']} of {_who(data)}: {data['problem']}",
    ),
    "payment_disputed": Event(
        "payment.disputed",
        "operator",
        lambda data: (
            f"{_who(data)} disputes {data['payment']}: ${data['amount_usd']} are withheld; answer {data['dispute']} at Stripe"
        ),
    ),
    "payment_authentication": Event(
        "payment.authentication",
        "customer",
        lambda data: f"the bank of {_who(data)} wants ${data['amount_usd']} to be confirmed; pay here: {data['url']}",
    ),
    "auto_topup_declined": Event(
        "auto_topup.declined",
        "customer",
        lambda data: f"the card of {_who(data)} was not charged ${data['amount_usd']}: {data['problem']}",
    ),
    "auto_topup_disabled": Event(
        "auto_topup.disabled",
        "customer",
        lambda data: f"{_who(data)} is not topped up by itself any more: {data['declines']} times its card was not charged",
    ),
    "auto_topup_capped": Event(
        "auto_topup.capped",
        "customer",
        lambda data: f"{_who(data)} is not topped up by itself this month any more: ${data['cap_usd']} are its most",
    ),
    "payment_refunded": Event(
        "payment.refunded", "customer", lambda data: f"${data['amount_usd']} of {_who(data)} were refunded to the card"
    ),
    "credit_below_zero": Event(
        "credit.below_zero",
        "customer",
        lambda data: f"{_who(data)} owes ${data['owed_usd']} for money that went back; calls are refused until it is topped up",
    ),
    "test": Event("test", "customer", lambda _: "this is a test: alerts arrive here"),
}
"""By the outbox's kind. A kind that is not here is told to nobody."""

EVENT_TYPES = tuple(event.type for event in EVENTS.values() if event.type != "test")


def letter(
    *, message_id: str, kind: str, payload: Mapping[str, str | int], window: str, created_at: str, names: Mapping[str, str]
) -> Letter:
    """An outbox row → what is told. `names` are accounts' names by their ids."""
    data: dict[str, str | int] = {}
    for name, value in payload.items():
        if name in LEFT_OUT:
            continue
        if name.endswith("_nano") and isinstance(value, int):
            data[name.removesuffix("_nano") + "_usd"] = format_amount(value)
        else:
            data[name] = value[:VALUE_CHARACTERS_MAX] if isinstance(value, str) else value
    account = payload.get("account")
    if isinstance(account, str) and account in names:
        data["account_name"] = names[account]
    if window:
        data["window"] = window
    return Letter(message_id, kind, created_at, data)


def body(letter: Letter) -> bytes:
    """The JSON of a webhook."""
    words = {"type": letter.event.type, "id": letter.id, "timestamp": letter.created_at, "data": letter.data}
    data = msgspec.json.encode(words)
    assert len(data) <= BODY_BYTES_MAX, "payloads are a few short values"
    return data


def sentence(letter: Letter) -> str:
    """One line for people."""
    said = letter.event.sentence(letter.data)
    return said[:1].upper() + said[1:] + "."


def slack_body(letter: Letter) -> bytes:
    """The JSON of an incoming webhook as Slack and its like take it; names cannot become mentions or links."""
    text = sentence(letter).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return msgspec.json.encode({"text": text})


def mail(letter: Letter, *, sender: str, recipient: str) -> EmailMessage:
    """A plain text mail. Its Message-ID is the message's own, so repeats are recognised by what sorts mail."""
    made = EmailMessage()
    made["From"] = sender
    made["To"] = recipient
    made["Subject"] = "Farebox: " + _one_line(sentence(letter))
    made["Message-ID"] = f"<{letter.id}@{sender.rpartition('@')[2].rstrip('>')}>"
    made["Auto-Submitted"] = "auto-generated"
    lines = [f"{name}: {value}" for name, value in letter.data.items()]
    made.set_content("\n".join([sentence(letter), "", *lines, f"time: {letter.created_at}", f"message: {letter.id}"]))
    return made


def _one_line(text: str) -> str:
    return " ".join(text.split())
