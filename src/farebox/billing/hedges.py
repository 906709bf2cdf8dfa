"""Hedged calls in the books: one call, two holds, and which of them holds the answer (docs/decisions/0016). Pure.

The caller knows the call by the first hold's id. The second's is that with an ending, and nobody outside needs it: whoever asks
for the call is told of both.
"""

from collections.abc import Sequence

from farebox.billing.records import Settle

SUFFIX = "-hedge"
"""Behind a call's id: the second hold's."""
OUTRUN = "outrun"
"""The outcome of an attempt whose answer nobody got, since another one's came first."""


def holds_of(call: str) -> tuple[str, str]:
    """The ids of the holds that a call may have."""
    return call, call + SUFFIX


def answering(call: str, settles: Sequence[Settle]) -> Settle | None:
    """The settlement of whoever answered, of those of one call that are posted; None while it is not there yet. Who asks for a
    second hold by its own id is told of that one."""
    if call.endswith(SUFFIX):
        return settles[0] if settles else None
    second = next((one for one in settles if one.id.endswith(SUFFIX)), None)
    first = next((one for one in settles if one is not second), None)
    if second is None or not second.attempts:
        return first
    last = second.attempts[-1]
    if last.outcome == OUTRUN:
        return first
    if last.outcome == "ok" or first is None:
        # Without the first one's nobody knows about one that failed: it may be what the call went on with.
        return second if last.outcome == "ok" else None
    # One that had content has broken off with the client listening, if that was not the first one's.
    beaten = first.state == "voided" or any(one.outcome == OUTRUN for one in first.attempts)
    return second if beaten and last.first_byte_us is not None else first
