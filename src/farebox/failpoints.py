"""Fail points: named places where a test can kill the process. Inert unless the environment names one.

`FAREBOX_FAILPOINT=settle.after_journal:3` kills the process (SIGKILL, nothing is cleaned up) the third time it gets there.
"""

import os
import signal
from collections.abc import Callable, Mapping
from typing import Final

VARIABLE: Final = "FAREBOX_FAILPOINT"
POINTS: Final = (
    # The records of a turn of the loop are on the file; then what waited for them has been sent. The other places in a worker
    # lie within a turn: there, its records and bytes are still in memory.
    "turn.after_commit",
    "turn.after_send",
    "hold.after_journal",
    "attempt.after_head",
    "stream.after_first_chunk",
    "stream.after_checkpoint",
    "settle.after_journal",
    "reconcile.before_commit",
    "reconcile.after_commit",
    "poster.before_commit",
    "poster.after_commit",
    "seal.before_commit",
    "seal.after_commit",
    "alert.after_claim",
    "alert.after_send",
    # Payments by card: the webhook is kept, not answered; the row is written, Stripe not asked; it has answered, that is not
    # written; the credit is in its transaction; it is given, the event not ended.
    "card.after_event",
    "card.before_call",
    "card.after_call",
    "card.before_credit",
    "card.after_credit",
)


def _inert(_name: str) -> None:
    pass


def armed(environment: Mapping[str, str]) -> Callable[[str], None]:
    """The function to call at each point. Raises ValueError for a name that is not in `POINTS`."""
    wanted = environment.get(VARIABLE)
    if not wanted:
        return _inert
    name, _, count_text = wanted.partition(":")
    if name not in POINTS:
        raise ValueError(f"{VARIABLE}: there is no fail point `{name}`; known: {', '.join(POINTS)}")
    left = int(count_text or "1")

    def visit(here: str) -> None:
        nonlocal left
        if here == name:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return visit
