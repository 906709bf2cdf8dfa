"""The part of I8 that is about invoices: they and the open accrual are Σ usage, each row on one of them at most.

Recomputed from the rows, the parts and the documents' own words, with no arithmetic of `farebox.billing.invoicing.invoices`.
"""

import re
from collections import defaultdict
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import msgspec
from sqlalchemy import Connection

from farebox.billing.books.problem import Problem

_EPOCH = date(1970, 1, 1)
_US_PER_DAY = 86_400_000_000
_CENT = 10_000_000


def invoices_are_usage(connection: Connection) -> list[Problem]:
    """I8: documents have exactly the usage of their parts, say what it is, and are numbered without a gap."""
    found: list[Problem] = []

    def say(subject: str, sentence: str) -> None:
        found.append(Problem("I8", subject, sentence))

    taken: dict[str, int] = defaultdict(int)
    accrued = _usage_by_month(connection)
    for row in connection.exec_driver_sql("SELECT * FROM invoice_parts"):
        taken[row.number] += row.charge_nano
        month = (_EPOCH + timedelta(days=row.from_us // _US_PER_DAY)).strftime("%Y-%m")
        following = (_EPOCH + timedelta(days=row.until_us // _US_PER_DAY)).strftime("%Y-%m")
        if row.from_us % _US_PER_DAY or row.until_us % _US_PER_DAY or _following(month) != following:
            say(row.number, f"the part of {row.transfer_id} is not a month")
        if accrued.pop((row.transfer_id, month), 0) != row.charge_nano:
            say(row.number, f"the part of {row.transfer_id} in {month} says {row.charge_nano}, its rows another sum")
    moved = _moved(connection)
    documents = connection.exec_driver_sql("SELECT * FROM invoices ORDER BY number").all()
    for row in documents:
        if taken.pop(row.number, 0) != row.usage_nano:
            say(row.number, f"the document says usage of {row.usage_nano}, its parts another sum")
        if moved.pop((row.number, "rounding"), 0) != abs(row.usage_nano - row.net_nano):
            say(row.number, "its rounding is not booked as it says")
        if moved.pop((row.number, "tax"), 0) != abs(row.tax_nano):
            say(row.number, "its tax is not booked as it says")
        for sentence in _words(row):
            say(row.number, sentence)
    for number in taken:
        say(number, "usage is on a document that does not exist")
    for number, kind in moved:
        say(number, f"{kind} is booked for a document that does not exist")
    for series, last in connection.exec_driver_sql("SELECT series, last FROM document_numbers"):
        numbers = sorted(_numeral(row.number) for row in documents if row.kind == series)
        if numbers != list(range(1, last + 1)):
            say(series, f"the numbers are not 1 to {last} without a gap")
    return found


def _usage_by_month(connection: Connection) -> dict[tuple[str, str], int]:
    """Charges by transfer and UTC month of the call."""
    found: dict[tuple[str, str], int] = defaultdict(int)
    sql = (
        f"SELECT transfer_id, created_us / {_US_PER_DAY} AS day, SUM(charge_nano) AS amount FROM usage "  # noqa: S608
        f"WHERE transfer_id IS NOT NULL AND charge_nano <> 0 GROUP BY transfer_id, created_us / {_US_PER_DAY}"
    )
    for row in connection.exec_driver_sql(sql):
        found[row.transfer_id, (_EPOCH + timedelta(days=int(row.day))).strftime("%Y-%m")] += int(row.amount)
    return found


def _moved(connection: Connection) -> dict[tuple[str, str], int]:
    sql = "SELECT cause_id, cause_kind, amount_nano FROM transfers WHERE cause_kind IN ('rounding', 'tax')"
    return {(row.cause_id, row.cause_kind): row.amount_nano for row in connection.exec_driver_sql(sql)}


def _following(month: str) -> str:
    year, number = int(month[:4]), int(month[5:])
    return f"{year + number // 12}-{number % 12 + 1:02d}"


def _numeral(number: str) -> int:
    digits = re.search(r"[0-9]+$", number)
    return int(digits[0]) if digits else 0


def _nano(text: str) -> int:
    return int(Decimal(text).scaleb(9))


def _words(row: Any) -> list[str]:
    """What a document says against its columns and itself."""
    words = msgspec.json.decode(row.document)
    amounts = {name: _nano(words[name]) for name in ("usage", "net", "rounding", "total", "credit", "due")}
    tax = _nano(words["tax"]["amount"])
    lines = [(_nano(line["amount"]), _nano(line["exact"])) for line in words["lines"]]
    claims = {
        "its lines are not its usage": sum(exact for _, exact in lines) == amounts["usage"] == row.usage_nano,
        "its lines are not its net": sum(cents for cents, _ in lines) == amounts["net"] == row.net_nano,
        "a line is not its usage, rounded to cents": all(
            cents % _CENT == 0 and 2 * abs(cents - exact) <= _CENT for cents, exact in lines
        ),
        "net and rounding are not its usage": amounts["net"] + amounts["rounding"] == amounts["usage"],
        "net and tax are not its total": amounts["net"] + tax == amounts["total"] and tax == row.tax_nano,
        "what is due is not the total less credit": amounts["total"] - amounts["credit"] == amounts["due"],
        "its credit is another": amounts["credit"] == row.credit_nano,
        "its number, account or month is another": (words["number"], words["customer"]["id"], words["month"])
        == (row.number, row.account_id, row.month),
    }
    return [sentence for sentence, true in claims.items() if not true]
