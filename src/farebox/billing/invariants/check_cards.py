"""Checks of payments by card: I2 for what they brought and what went back, recomputed from the transfers."""

from typing import Any

from sqlalchemy import Connection

from farebox.billing.books.problem import Problem


def _rows(connection: Connection, sql: str) -> list[Any]:
    return list(connection.exec_driver_sql(sql))


def payments_are_credit(connection: Connection) -> list[Problem]:
    """Each credited payment has one grant, of its account and amount, and each grant of a payment its payment."""
    found = [
        Problem("I2", row.id, "the payment is credited, and its grant is not what was paid")
        for row in _rows(
            connection,
            "SELECT p.id FROM card_payments AS p LEFT JOIN grants AS g ON g.id = p.grant_id "
            "WHERE p.state = 'credited' AND p.kind <> 'setup' AND (g.id IS NULL OR g.account_id <> p.account_id "
            "OR g.amount_nano <> p.amount_nano OR g.kind <> 'paid' OR g.command_id <> 'card:' || p.id)",
        )
    ]
    return found + [
        Problem("I2", row.id, "the grant is of a payment that is not credited")
        for row in _rows(
            connection,
            "SELECT g.id FROM grants AS g WHERE substr(g.command_id, 1, 5) = 'card:' AND NOT EXISTS "
            "(SELECT 1 FROM card_payments AS p WHERE p.grant_id = g.id AND p.state = 'credited')",
        )
    ]


def bills_are_payments(connection: Connection) -> list[Problem]:
    """Each invoice that was paid by card has one transfer, of its account and amount, and each such transfer its payment."""
    found = [
        Problem("I2", row.id, "the invoice is paid by card, and its transfer is not what was paid")
        for row in _rows(
            connection,
            "SELECT b.id FROM bill_payments AS b LEFT JOIN transfers AS t ON t.cause_kind = 'payment' "
            "AND t.cause_id = 'card:' || b.id WHERE b.state = 'paid' "
            "AND (t.id IS NULL OR t.account_id <> b.account_id OR t.amount_nano <> b.amount_nano)",
        )
    ]
    return found + [
        Problem("I2", row.id, "the transfer is of a payment by card that was not paid")
        for row in _rows(
            connection,
            "SELECT t.id FROM transfers AS t WHERE t.cause_kind = 'payment' AND substr(t.cause_id, 1, 10) = 'card:bill-' "
            "AND NOT EXISTS (SELECT 1 FROM bill_payments AS b WHERE 'card:' || b.id = t.cause_id AND b.state = 'paid')",
        )
    ]


def reversals_are_transfers(connection: Connection) -> list[Problem]:
    """What is owed, what was withdrawn from grants, and what is on its way back, each the sum of its transfers."""
    found: list[Problem] = []
    owed = {
        row.name.removeprefix("clawback:"): int(row.amount)
        for row in _rows(
            connection,
            "SELECT name, SUM(amount) AS amount FROM (SELECT debit AS name, amount_nano AS amount FROM transfers "
            "UNION ALL SELECT credit, -amount_nano FROM transfers) AS entries "
            "WHERE substr(name, 1, 9) = 'clawback:' GROUP BY name",
        )
    }
    stored = {row.account_id: row.owed_nano for row in _rows(connection, "SELECT account_id, owed_nano FROM clawbacks")}
    for account in sorted(owed.keys() | stored.keys()):
        if owed.get(account, 0) != stored.get(account, 0):
            problem = f"it owes {stored.get(account, 0)} for money that went back, its transfers say {owed.get(account, 0)}"
            found.append(Problem("I2", account, problem))
    withdrawn = {
        row.name.removeprefix("credit:"): int(row.amount)
        for row in _rows(
            connection,
            "SELECT name, SUM(amount) AS amount FROM (SELECT debit AS name, amount_nano AS amount FROM transfers "
            "WHERE substr(credit, 1, 9) = 'clawback:' AND substr(debit, 1, 7) = 'credit:' "
            "UNION ALL SELECT credit, -amount_nano FROM transfers "
            "WHERE debit IN ('refunds', 'disputes') AND substr(credit, 1, 7) = 'credit:') AS entries GROUP BY name",
        )
    }
    parts = "SELECT id, amount_nano, remaining_nano, expired_nano, reversed_nano FROM grants WHERE reversed_nano <> 0"
    reversed_ = {row.id: row for row in _rows(connection, parts)}
    for grant in sorted(withdrawn.keys() | reversed_.keys()):
        row = reversed_.get(grant)
        said = 0 if row is None else row.reversed_nano
        if said != withdrawn.get(grant, 0):
            problem = f"the grant says {said} were withdrawn, its transfers {withdrawn.get(grant, 0)}"
            found.append(Problem("I2", grant, problem))
        if row is not None and row.remaining_nano + row.expired_nano + row.reversed_nano > row.amount_nano:
            found.append(Problem("I2", grant, "the grant's parts are more than the grant"))
    for kind in ("refund", "dispute"):
        sql = f"SELECT COALESCE(SUM(amount_nano), 0) FROM reversals WHERE kind = '{kind}' AND state IN ('wanted', 'open')"  # noqa: S608
        waiting = int(_rows(connection, sql)[0][0])
        name = f"{kind}s"
        sql = (
            f"SELECT COALESCE(SUM(CASE WHEN credit = '{name}' THEN amount_nano ELSE -amount_nano END), 0) FROM transfers "  # noqa: S608
            f"WHERE credit = '{name}' OR debit = '{name}'"
        )
        booked = int(_rows(connection, sql)[0][0])
        if waiting != booked:
            found.append(Problem("I2", name, f"{waiting} are on their way back, transfers say {booked}"))
    return found
