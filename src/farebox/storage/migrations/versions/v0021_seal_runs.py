"""Seals in runs instead of one row each, in another table; the chains stay what they are."""

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

SEALS_AT_ONCE = 10_000
RUN_MAX = 250
_PAGE = sa.text(
    "SELECT s.account_id, s.day, s.number, COALESCE(u.posted_us, 0) AS posted_us, s.format, s.hold_id, s.attempt, s.revision, "
    "s.digest FROM seals AS s LEFT JOIN usage AS u "
    "ON u.hold_id = s.hold_id AND u.attempt = s.attempt AND u.revision = s.revision "
    "WHERE (s.account_id, s.day, s.number) > (:account, :day, :number) "
    "ORDER BY s.account_id, s.day, s.number LIMIT :limit"
)


def upgrade() -> None:
    made = op.create_table(
        "seal_runs",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("day", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("posted_us", sa.BigInteger(), nullable=False),
        sa.Column("format", sa.Integer(), nullable=False),
        sa.Column("receipts", sa.Text(), nullable=False),
        sa.Column("digests", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("account_id", "day", "number", name=op.f("pk_seal_runs")),
    )
    op.create_index(op.f("ix_seal_runs_posted_us_account_id"), "seal_runs", ["posted_us", "account_id"], unique=False)
    _carry_over(made)
    op.drop_table("seals")
    if op.get_context().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER seal_runs_no_{verb.lower()} BEFORE {verb} ON seal_runs "
                "BEGIN SELECT RAISE(ABORT, 'seal_runs is append-only'); END"
            )
    else:
        for verb in ("UPDATE", "DELETE", "TRUNCATE"):
            op.execute(
                f"CREATE TRIGGER seal_runs_no_{verb.lower()} BEFORE {verb} ON seal_runs "
                "FOR EACH STATEMENT EXECUTE FUNCTION farebox_append_only()"
            )


def _carry_over(table: sa.Table) -> None:
    """A page of seals at a time; a seal begins a run where it does not go on with the one before it, of the same posting."""
    connection = op.get_bind()
    place: dict[str, Any] = {"account": "", "day": "", "number": 0, "limit": SEALS_AT_ONCE}
    while page := connection.execute(_PAGE, place).all():
        runs: list[list[sa.Row[Any]]] = []
        for seal in page:
            if not runs or len(runs[-1]) >= RUN_MAX or not _goes_on(runs[-1][-1], seal):
                runs.append([])
            runs[-1].append(seal)
        connection.execute(table.insert(), [_run(seals) for seals in runs])
        place |= {"account": page[-1].account_id, "day": page[-1].day, "number": page[-1].number}


def _goes_on(before: sa.Row[Any], seal: sa.Row[Any]) -> bool:
    same = ("account_id", "day", "posted_us", "format")
    return seal.number == before.number + 1 and all(getattr(before, name) == getattr(seal, name) for name in same)


def _run(seals: Sequence[sa.Row[Any]]) -> dict[str, Any]:
    keys = [[seal.hold_id, seal.attempt, seal.revision] for seal in seals]
    return {
        "account_id": seals[0].account_id,
        "day": seals[0].day,
        "number": seals[0].number,
        "posted_us": seals[0].posted_us,
        "format": seals[0].format,
        "receipts": json.dumps(keys, ensure_ascii=False, separators=(",", ":")),
        "digests": b"".join(bytes(seal.digest) for seal in seals),
    }


def downgrade() -> None:
    raise NotImplementedError("the ledger goes forward only")
