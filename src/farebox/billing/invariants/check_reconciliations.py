"""The check of reconciliations: what findings say they moved is what transfers moved. SQL of its own, as in `checks`."""

from sqlalchemy import Connection

from farebox.billing.books.problem import Problem


def findings_are_transfers(connection: Connection) -> list[Problem]:
    """I5, the part of reconciliation: an approved finding and its transfer move the same, at the same provider."""
    said = {
        f"{row.run_id}:{row.number}": (row.provider, int(row.adjusted_nano))
        for row in connection.exec_driver_sql(
            "SELECT f.run_id, f.number, f.adjusted_nano, r.provider FROM reconciliation_findings AS f "
            "JOIN reconciliations AS r ON r.id = f.run_id WHERE f.adjusted_nano <> 0"
        )
    }
    found: list[Problem] = []
    for row in connection.exec_driver_sql(
        "SELECT cause_id, debit, credit, amount_nano FROM transfers WHERE cause_kind = 'reconciliation'"
    ):
        rises = row.debit == "provider_cost"
        payable = row.credit if rises else row.debit
        moved = int(row.amount_nano) if rises else -int(row.amount_nano)
        provider, amount = said.pop(row.cause_id, ("", 0))
        if payable != f"provider_payable:{provider}" or (not rises and row.credit != "provider_cost") or moved != amount:
            found.append(Problem("I5", row.cause_id, f"the transfer moves {moved} to {payable}, its finding says {amount}"))
    silent = "the finding says it moved {}, no transfer did"
    return found + [Problem("I5", cause, silent.format(amount)) for cause, (_, amount) in said.items()]
