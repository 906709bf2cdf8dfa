"""Forms: the digests of ordinary calls' receipts, most of which differ in a few places only. Pure.

What a receipt says is `receipts.receipt`'s alone. A form is the canonical text that it makes of one call, cut where calls of the
same kind differ: in their owner, id, moments, units, amount and place. A call that is not ordinary (`batch.build` says which)
has no form and goes the long way; a test makes both of anything and finds them equal.
"""

import hashlib
from functools import lru_cache
from typing import Final

import msgspec

from farebox.billing.books.periods import format_moment
from farebox.billing.markup import Fees
from farebox.billing.records import Attempt, Settle, State
from farebox.billing.sealing import receipts
from farebox.billing.sealing.receipts import Place
from farebox.billing.settled import Settled
from farebox.catalog.price import Rates
from farebox.money import format_amount
from farebox.storage.queries import UsageRow

FORMS_MAX: Final = 2_048
"""Forms that are remembered, about 1,100 bytes each."""
_GAP: Final = '"@"'
_GAPS: Final = ("account", "amount", "call", "day", "number", "previous", "created", "key", "posted", "project", "total", "units")
"""Where calls of a kind differ, in the order of the canonical form."""
_encode: Final = msgspec.json.Encoder(order="sorted").encode
_decode_rates: Final = msgspec.json.Decoder(Rates | None).decode
_decode_fees: Final = msgspec.json.Decoder(Fees | None).decode

Bound = tuple[str, str, str, str, str, str, str, str]
"""A form with the owner, the day and the moment of posting in it: what stands before, between and behind the other gaps."""


class Forms:
    """For the receipts of one day and one moment of posting."""

    def __init__(self, day: str, posted_us: int) -> None:
        self._day = day
        self._posted = format_moment(posted_us)
        self._bound: dict[tuple[str | int | bytes, ...], Bound | None] = {}

    def digest(self, call: Settled, number: int, previous: str) -> bytes | None:
        """The SHA-256 of an ordinary call's one receipt; None when there is no form for it."""
        (one,) = call.attempts
        kind = (
            call.account, call.key, call.project, one.n, call.state, one.outcome, one.basis, one.model or call.model,
            one.provider, call.requested, one.upstream_id, one.price_version, bytes(one.rates), one.markup_bp, bytes(one.fees),
            one.plan,
        )  # fmt: skip
        try:
            bound = self._bound[kind]
        except KeyError:
            bound = self._bound[kind] = self._bind(*kind)
        name = call.id
        if bound is None or not (name.isascii() and name.replace("-", "").isalnum()):
            return None
        to_amount, to_call, to_number, to_previous, to_created, to_total, to_units, end = bound
        amount = format_amount(one.charge_nano)
        units = "null" if one.usage is None else _encode(one.usage).decode()
        return hashlib.sha256(
            f"{to_amount}{amount}{to_call}{name}{to_number}{number}{to_previous}{previous}{to_created}"
            f"{format_moment(call.created_us)}{to_total}{amount}{to_units}{units}{end}".encode()
        ).digest()

    def _bind(self, account: str, key: str, project: str, *kind: str | int | bytes) -> Bound | None:
        form = _form(*kind)  # pyright: ignore[reportArgumentType]
        if form is None:
            return None
        account, key, project = (_encode(text).decode()[1:-1] for text in (account, key, project))
        return (
            form[0] + account + form[1], form[2], form[3] + self._day + form[4], form[5], form[6],
            form[7] + key + form[8] + self._posted + form[9] + project + form[10], form[11], form[12],
        )  # fmt: skip


@lru_cache(FORMS_MAX)
def _form(
    n: int, state: State, outcome: str, basis: str, model: str, provider: str, requested: str, upstream_id: str,
    price_version: str, rates: bytes, markup_bp: int, fees: bytes, plan: str,
) -> list[str] | None:  # fmt: skip
    """The canonical text of a call of this kind, cut at its gaps; None when one of its own words looks like a gap."""
    attempt = Attempt(
        n=n, provider=provider, upstream_id=upstream_id, started_us=0, ended_us=0, outcome=outcome, price_version=price_version,
        rates=_decode_rates(rates) if rates else None, markup_bp=markup_bp, fees=_decode_fees(fees) if fees else None, plan=plan,
    )  # fmt: skip
    call = Settle(
        id="", state=state, at_us=0, account="", key="", scopes=(), hold_nano=0, charge_nano=0, surface="", model=model,
        attempts=(attempt,), created_us=0, life="", requested=requested,
    )  # fmt: skip
    row = UsageRow(
        hold_id="@", attempt=n, revision=0, final=True, account_id="@", key_id="@", project="@", end_user="", model=model,
        provider=provider, state=state, outcome=outcome, basis=basis, charge_nano=0, loss_nano=0, cost_nano=0, prompt_tokens=None,
        completion_tokens=None, cached_tokens=None, reasoning_tokens=None, record=_encode(call).decode(), transfer_id=None,
        cost_transfer_id=None, created_us=0, posted_us=0,
    )  # fmt: skip
    content = receipts.receipt(row, Place("@", 0, "@"))
    content |= dict.fromkeys(("amount_usd", "created_at", "posted_at", "total_usd", "units"), "@")
    content["chain"]["number"] = "@"
    pieces = receipts.canonical(content).decode().split(_GAP)
    if len(pieces) != len(_GAPS) + 1:
        return None
    for index, gap in enumerate(_GAPS):
        if gap not in ("number", "units"):
            pieces[index] += '"'
            pieces[index + 1] = '"' + pieces[index + 1]
    return pieces
