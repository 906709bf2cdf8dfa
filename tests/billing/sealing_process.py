"""A sealer that is killed: `python sealing_process.py url rows-max when`, `before` its third commit or `after` it."""

import os
import signal
import sys

from farebox.billing.sealing import seals
from farebox.ports import SystemClock
from farebox.storage.database import Database

url, rows_max, when = sys.argv[1], int(sys.argv[2]), sys.argv[3]
visits = 0


def visit(here: str) -> None:
    global visits
    if here == when:
        visits += 1
        if visits == 3:
            os.kill(os.getpid(), signal.SIGKILL)


database = Database.open(url)
while seals.seal(database, SystemClock(), rows_max=rows_max, before_commit=lambda: visit("before")).more:
    visit("after")
