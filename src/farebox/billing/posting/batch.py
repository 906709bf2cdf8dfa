"""A batch: settled calls turned into rows and sums, in memory, before the transaction that posts them.

Nearly every batch is ordinary, and is built without asking the database anything (`build`). A batch that the database refuses
— a hold that is final already, an allotment that was released by hand — is built again with a `Care`: the decisions, call by
call, that `billing.posting.care` takes from what the database has.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from farebox.billing import own_keys
from farebox.billing.books import transfers as entries
from farebox.billing.books.transfers import Transfer
from farebox.billing.settled import Settled, SettledAttempt
from farebox.billing.tail import attempt_texts
from farebox.ports import Ids

USAGE_COLUMNS: Final = (
    "hold_id", "attempt", "revision", "final", "account_id", "key_id", "project", "end_user", "model", "provider", "state",
    "outcome", "basis", "charge_nano", "loss_nano", "cost_nano", "prompt_tokens", "completion_tokens", "cached_tokens",
    "reasoning_tokens", "record", "transfer_id", "cost_transfer_id", "created_us", "posted_us", "tags",
)  # fmt: skip

_OWN_KEY: Final = own_keys.MARK.encode()

UsageRow = tuple[str | int | bool | None, ...]


class NeedsCare(Exception):
    """This batch is not ordinary: build it again with a `Care`."""


class Care:
    """Decisions about the calls of a batch, by their index in it."""

    __slots__ = ("allowed_nano", "refused", "uncovered")

    def __init__(self) -> None:
        self.refused: dict[int, str] = {}
        """Not posted at all, with the reason."""
        self.allowed_nano: dict[int, int] = {}
        """Charged no more than this; the rest is our loss."""
        self.uncovered: dict[int, list[str]] = {}
        """Scopes in which no allotment covers the call: charged against free headroom."""


class Batch:
    """All that one transaction writes, but for what depends on rows it must lock first."""

    __slots__ = (
        "calls", "charge_nano", "charges", "cost_nano", "covered", "id", "loss_nano", "ordinary", "own_keys", "rows",
        "transfers", "uncovered",
    )

    def __init__(self, id: str) -> None:
        self.id = id
        self.rows: list[UsageRow] = []
        self.ordinary: list[Settled | None] = []
        """For each row: its call, if the row says all of it and no more than `billing.sealing.receipt_forms` knows a form for."""
        self.own_keys = False
        """Customers' own keys at providers may have answered some of it."""
        self.transfers: list[Transfer] = []
        self.charges: dict[str, int] = {}
        """By account."""
        self.covered: dict[tuple[str, str], int] = {}
        """By scope and life: from allotted to posted."""
        self.uncovered: dict[str, int] = {}
        """By scope: straight to posted."""
        self.calls = 0
        self.charge_nano = 0
        self.cost_nano = 0
        self.loss_nano = 0


class _Sums:
    """Amounts by account or provider, each with the id of the transfer that will carry it."""

    def __init__(self, ids: Ids) -> None:
        self._ids = ids
        self.amounts: dict[str, int] = {}
        self.transfer_ids: dict[str, str] = {}

    def add(self, owner: str, amount_nano: int) -> str:
        try:
            self.amounts[owner] += amount_nano
            return self.transfer_ids[owner]
        except KeyError:
            self.amounts[owner] = amount_nano
            found = self.transfer_ids[owner] = self._ids.new("trf")
            return found


def fault(call: Settled) -> str | None:
    """Why a settle record cannot be true, or None."""
    attempts = call.attempts
    if any(one.charge_nano < 0 or one.loss_nano < 0 or (one.cost_nano or 0) < 0 for one in attempts):
        return "a negative amount"
    if any(later.n <= earlier.n for earlier, later in pairwise(attempts)) or any(one.n < 1 for one in attempts):
        return "attempts out of order"
    if sum(one.charge_nano for one in attempts) != call.charge_nano:
        return "the attempts' charges are not the call's"
    if call.charge_nano > call.hold_nano:
        return "a charge above the hold"
    return None


def build(calls: Sequence[tuple[Settled, str]], ids: Ids, now_us: int, care: Care | None = None) -> Batch:
    """Rows, sums and transfers of a batch. Raises `NeedsCare` when there is no care and a record is not ordinary."""
    batch = Batch(ids.new("batch"))
    charges, costs, losses = _Sums(ids), _Sums(ids), _Sums(ids)
    spent: dict[tuple[str, tuple[str, ...], str], int] = {}
    append, ordinary = batch.rows.append, batch.ordinary.append
    for index, (call, text) in enumerate(calls):
        account = call.account
        attempts = call.attempts
        allowed: int | None = None
        if care is not None:
            if index in care.refused:
                continue
            allowed = care.allowed_nano.get(index)
        batch.calls += 1
        if len(attempts) == 1 and allowed is None:
            one = attempts[0]
            charge, loss, cost, usage = one.charge_nano, one.loss_nano, one.cost_nano, one.usage
            if charge != call.charge_nano or not 0 <= charge <= call.hold_nano or loss < 0 or one.n < 1:
                raise NeedsCare
            transfer = cost_transfer = None
            if charge:
                transfer = charges.add(account, charge)
            if cost:
                if cost < 0:
                    raise NeedsCare
                cost_transfer = costs.add(one.provider, cost)
            if loss:
                losses.add(account, loss)
            prompt = completion = cached = reasoning = None
            if usage is not None:
                prompt = (
                    usage.input + usage.cache_read + usage.cache_write_5m + usage.cache_write_1h
                    + usage.audio_input + usage.image_input
                )  # fmt: skip
                cached, reasoning = usage.cache_read, usage.reasoning
                completion = usage.output + reasoning + usage.audio_output + usage.image_output
            ordinary(None if loss or one.flags else call)
            if one.fees and bytes(one.fees).find(_OWN_KEY) >= 0:
                batch.own_keys = True
            append((
                call.id, one.n, 0, True, account, call.key, call.project, call.end_user, one.model or call.model, one.provider,
                call.state, one.outcome, one.basis, charge, loss, cost, prompt, completion, cached, reasoning, text, transfer,
                cost_transfer, call.created_us, now_us, bytes(call.tags).decode() if call.tags else "",
            ))  # fmt: skip
        else:
            if care is None and fault(call) is not None:
                raise NeedsCare
            charge = _add_attempts(batch, call, text, allowed, charges, costs, losses, now_us)
        if charge:
            uncovered = care.uncovered.get(index) if care is not None else None
            if uncovered is not None:
                for scope in uncovered:
                    batch.uncovered[scope] = batch.uncovered.get(scope, 0) + charge
            key = (
                account,
                call.scopes if uncovered is None else tuple(scope for scope in call.scopes if scope not in uncovered),
                call.life,
            )
            spent[key] = spent.get(key, 0) + charge
    for (account, scopes, life), amount in spent.items():
        if care is None and f"account:{account}" not in scopes:
            raise NeedsCare
        for scope in scopes:
            batch.covered[scope, life] = batch.covered.get((scope, life), 0) + amount
    _close(batch, charges, costs, losses, ids, now_us)
    return batch


def _add_attempts(
    batch: Batch, call: Settled, text: str, allowed: int | None, charges: _Sums, costs: _Sums, losses: _Sums, now_us: int
) -> int:
    """The rows of a call with any number of attempts; what it is charged in all.

    When less is allowed than was charged, the last attempts are cut first: the earlier ones were delivered before them.
    """
    attempts = call.attempts or (SettledAttempt(0, "", call.state),)
    texts = [*attempt_texts(text)[:-1], text]
    room = call.charge_nano if allowed is None else allowed
    total = 0
    for one, words in zip(attempts, texts, strict=True):
        charge = min(one.charge_nano, room)
        loss = one.loss_nano + one.charge_nano - charge
        room -= charge
        total += charge
        if loss:
            losses.add(call.account, loss)
        usage = one.usage
        batch.ordinary.append(None)
        batch.own_keys = batch.own_keys or _OWN_KEY in bytes(one.fees)
        batch.rows.append((
            call.id, one.n, 0, words is text, call.account, call.key, call.project, call.end_user, one.model or call.model,
            one.provider, call.state, one.outcome, one.basis, charge, loss, one.cost_nano, usage.prompt_tokens if usage else None,
            usage.completion_tokens if usage else None, usage.cache_read if usage else None,
            usage.reasoning if usage else None, words, charges.add(call.account, charge) if charge else None,
            costs.add(one.provider, one.cost_nano) if one.cost_nano else None, call.created_us, now_us,
            bytes(call.tags).decode(),
        ))  # fmt: skip
    return total


def _close(batch: Batch, charges: _Sums, costs: _Sums, losses: _Sums, ids: Ids, now_us: int) -> None:
    """One transfer per account, provider and loss-bearing account."""
    for account, amount in charges.amounts.items():
        batch.transfers.append(
            Transfer(
                charges.transfer_ids[account],
                now_us,
                entries.receivable(account),
                entries.REVENUE,
                amount,
                account,
                "usage",
                f"{batch.id}:{account}",
            )
        )
    for provider, amount in costs.amounts.items():
        payable = entries.provider_payable(provider)
        cause = f"{batch.id}:{provider}"
        batch.transfers.append(
            Transfer(costs.transfer_ids[provider], now_us, entries.PROVIDER_COST, payable, amount, None, "cost", cause)
        )
    for account, amount in losses.amounts.items():
        cause = f"{batch.id}:{account}"
        batch.transfers.append(
            Transfer(losses.transfer_ids[account], now_us, entries.PROVIDER_LOSS, entries.REVENUE, amount, account, "loss", cause)
        )
    batch.charges = charges.amounts
    batch.charge_nano = sum(charges.amounts.values())
    batch.cost_nano = sum(costs.amounts.values())
    batch.loss_nano = sum(losses.amounts.values())
