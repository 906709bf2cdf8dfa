"""Evidence: the journal's own words that stand on a usage row, read again.

A row's `record` is, on the final row of a call, the whole `Settle`; on every other row the `Attempt`.
"""

import msgspec

from farebox.billing.records import Attempt, Settle
from farebox.storage.queries import UsageRow

_decode_settle = msgspec.json.Decoder(Settle).decode
_decode_attempt = msgspec.json.Decoder(Attempt).decode


def settle(row: UsageRow) -> Settle:
    """The terminal record of a call, from its final row."""
    assert row.final, "the final row has the record of its call"
    return _decode_settle(row.record)


def attempt(row: UsageRow) -> Attempt | None:
    """The attempt that a row is about; None for a call that ended before anything was sent."""
    if not row.final:
        return _decode_attempt(row.record)
    attempts = settle(row).attempts
    return attempts[-1] if attempts else None
