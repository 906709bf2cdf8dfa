"""The outbox: what somebody must be told, written in the transaction that makes it true and sent afterwards.

A message is unique by kind, subject, window, threshold and epoch (how often the limit has changed), so a condition is told once
however often it is seen, survives a crash, and is told again when the window or the limit is another one.
"""

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection, text

from farebox.ports import Ids
from farebox.storage.database import Database

THRESHOLDS_PERCENT = (50, 80, 100)
"""Soft alerts on what is posted; hard stops are the limit's own business."""

_PUT = (
    "INSERT INTO outbox (id, kind, subject, window_name, threshold, epoch, payload, created_us) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (kind, subject, window_name, threshold, epoch) DO NOTHING"
)


class Message(msgspec.Struct, frozen=True):
    """`budget_threshold`, `settle_refused`, `settle_reduced`…, and what it is about."""

    kind: str
    subject: str
    payload: dict[str, str | int]
    window: str = ""
    threshold: int = 0
    epoch: int = 0


def put(database: Database, connection: Connection, ids: Ids, messages: Sequence[Message], now_us: int) -> int:
    """Write messages that are not there yet; how many were new."""
    rows = [
        (
            ids.new("msg"),
            message.kind,
            message.subject,
            message.window,
            message.threshold,
            message.epoch,
            msgspec.json.encode(message.payload).decode(),
            now_us,
        )
        for message in messages
    ]
    return database.execute_many(connection, _PUT, rows)


def alert_thresholds(
    database: Database, connection: Connection, ids: Ids, touched: Sequence[str], percents: Sequence[int], now_us: int
) -> None:
    """Tell of every threshold that the posted charges of these scopes have reached, once per window and limit.

    A balance is no budget: how much of all credit ever bought is spent tells nothing, so accounts have `billing.accounts.alerts`'
    low balance instead.
    """
    if not touched or not percents:
        return
    lowest = min(percents)
    marks = ", ".join("?" * len(touched))
    columns = (
        "id, account_id, window_name, COALESCE(soft_limit_nano, wanted_limit_nano, limit_nano) AS limit_nano, posted_nano, "
        "epoch, alerted_percent"
    )
    for scope in database.rows(connection, f"SELECT {columns} FROM scopes WHERE id IN ({marks}) AND kind <> 'account'", touched):  # noqa: S608
        reached = scope.posted_nano * 100 // scope.limit_nano if scope.limit_nano else 0
        if reached < lowest or reached <= scope.alerted_percent:
            continue
        due = [percent for percent in sorted(percents) if scope.alerted_percent < percent <= reached]
        if not due:
            continue
        payload: dict[str, str | int] = {
            "scope": scope.id,
            "account": scope.account_id,
            "limit_nano": scope.limit_nano,
            "posted_nano": scope.posted_nano,
        }
        messages = [
            Message("budget_threshold", scope.id, {**payload, "percent": percent}, scope.window_name, percent, scope.epoch)
            for percent in due
        ]
        put(database, connection, ids, messages, now_us)
        connection.execute(
            text("UPDATE scopes SET alerted_percent = :percent WHERE id = :id"), {"percent": due[-1], "id": scope.id}
        )
