"""Transfers: the double-entry ledger's one kind of entry, and the names of its accounts.

    credit:{grant}           what a grant still owes the customer            (credit balance)
    receivable:{account}     what a customer owes us                         (debit balance)
    cash                     money received                                  (debit)
    promo_expense            credit given away                               (debit)
    revenue                  what calls are worth at their price             (credit)
    provider_cost            what calls cost us                              (debit)
    provider_payable:{name}  what we owe a provider                          (credit)
    provider_loss            the part of a price above its hold: ours        (debit)
    rounding, breakage       invoices' remainders; credit that expired       (credit)
    tax_payable              tax on invoices, owed to the state              (credit)
    clawback:{account}       owed because money went back after its credit was spent   (debit)
    refunds, disputes        money on its way back; withheld until it is decided       (credit)

A transfer moves an amount from its debit to its credit account, so debits equal credits by construction (I1). It has one
cause, `kind` + `id`, unique: a command or batch that comes twice is refused by the database. Platform accounts keep no
balance row; they are sums of transfers.
"""

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection

from farebox.money import AMOUNT_NANO_MAX
from farebox.storage.database import Database
from farebox.storage.tables import transfers

CASH = "cash"
PROMO_EXPENSE = "promo_expense"
REVENUE = "revenue"
PROVIDER_COST = "provider_cost"
PROVIDER_LOSS = "provider_loss"
ROUNDING = "rounding"
BREAKAGE = "breakage"
TAX_PAYABLE = "tax_payable"
REFUNDS = "refunds"
DISPUTES = "disputes"

PLATFORM = (CASH, PROMO_EXPENSE, REVENUE, PROVIDER_COST, PROVIDER_LOSS, ROUNDING, BREAKAGE, TAX_PAYABLE, REFUNDS, DISPUTES)


def credit(grant_id: str) -> str:
    return f"credit:{grant_id}"


def receivable(account_id: str) -> str:
    return f"receivable:{account_id}"


def clawback(account_id: str) -> str:
    return f"clawback:{account_id}"


def provider_payable(provider: str) -> str:
    return f"provider_payable:{provider}"


class Transfer(msgspec.Struct, frozen=True):
    """One movement of `amount_nano` nano-dollars."""

    id: str
    at_us: int
    debit: str
    credit: str
    amount_nano: int
    account_id: str | None
    """The customer it concerns; None for what is between us and a provider."""
    cause_kind: str
    """`usage`, `cost`, `loss`, `spend`, `top_up`, `promo`, `payment`, `expiry`, `correction`, `rounding`, `tax`,
    `reconciliation`…"""
    cause_id: str


_COLUMNS = ("id", "at_us", "debit", "credit", "amount_nano", "account_id", "cause_kind", "cause_id")


def insert_transfers(database: Database, connection: Connection, made: Sequence[Transfer]) -> None:
    """Write transfers; `RowRefused` when a cause was there already."""
    for transfer in made:
        assert 0 < transfer.amount_nano <= AMOUNT_NANO_MAX, "a transfer moves a positive 64-bit amount"
        assert transfer.debit != transfer.credit, "a transfer has two accounts"
    database.insert_rows(connection, transfers, _COLUMNS, [msgspec.structs.astuple(transfer) for transfer in made])
