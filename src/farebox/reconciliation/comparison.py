"""The comparison: a statement and our records → findings, each with its class. Pure."""

from collections.abc import Iterable

from farebox.reconciliation.by_day import by_day
from farebox.reconciliation.by_request import by_request
from farebox.reconciliation.judging import Ours, Terms
from farebox.reconciliation.statement import Finding, Statement


def compare(statement: Statement, ours: Iterable[Ours], terms: Terms) -> list[Finding]:
    """Every difference, by day. `ours` may begin before the statement's first day and end after its last.

    Raises `judging.Refused` when adjustments that were made by coarser statements stand in the way.
    """
    found = by_request(statement, ours, terms) if statement.by_request else by_day(statement, ours, terms)
    return sorted(found, key=lambda one: (one.day, one.model, one.key, one.subject))
