"""All receipts of a database, signed and audited as a customer would: by the public key alone."""

from collections.abc import Iterator

import msgspec
from sqlalchemy import Connection, func, select

from farebox.billing.sealing import seal_runs as runs
from farebox.billing.sealing import seals as sealing
from farebox.billing.sealing.receipt_audit import Report, audit
from farebox.billing.sealing.receipts import canonical
from farebox.billing.sealing.signatures import Signer, key_set, read_key_set
from farebox.storage.database import Database
from farebox.storage.tables import seal_runs, usage

SIGNER = Signer(bytes(32))
PUBLIC = read_key_set(msgspec.json.encode(key_set([SIGNER.public])))


def sealed(database: Database) -> list[tuple[runs.Run, tuple[str, int, int]]]:
    """Every seal in the order of the chains: its run and its usage row's key."""
    return database.read(lambda connection: [(run, key) for run in runs.in_order(connection) for key in run.row_keys()])


def exported(database: Database) -> list[bytes]:
    """The signed lines of every account and day, each day with its head."""

    def lines(connection: Connection) -> Iterator[bytes]:
        days = select(seal_runs.c.account_id, seal_runs.c.day).distinct().order_by(seal_runs.c.account_id, seal_runs.c.day)
        for account, day in connection.execute(days).all():
            after = 0
            while page := sealing.of_day(connection, account, day, after=after):
                after = page[-1]["chain"]["number"]
                yield from (canonical(SIGNER.signed("receipt", content)) for content in page)
            yield canonical(SIGNER.signed("head", sealing.head(connection, account, day)))

    return database.read(lambda connection: list(lines(connection)))


def audited(database: Database) -> Report:
    """Every usage row has one receipt, and all of them make whole chains; what the audit says of them."""
    report = audit(exported(database), PUBLIC)
    assert report.findings == [], report.findings[:5]
    rows = database.read(lambda connection: connection.execute(select(func.count()).select_from(usage)).scalar_one())
    charged = database.read(lambda connection: connection.execute(select(func.sum(usage.c.charge_nano))).scalar_one())
    assert (report.receipts, report.amount_nano) == (rows, int(charged or 0)), "each row is in one receipt"
    return report
