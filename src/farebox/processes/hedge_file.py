"""What a worker's hedges have wasted today, in a small file of its own: a new life of the worker does not begin the day anew.

Written once a second if it has changed: a worker that is killed may forget a second of it.
"""

import os
from pathlib import Path

import msgspec

from farebox.routing.hedging import Waste

SUFFIX = ".hedges"


class _Day(msgspec.Struct):
    until_us: int
    spent_nano: int


def save(waste: Waste, path: Path) -> None:
    """Write it down, if there is something new."""
    if not waste.changed:
        return
    fresh = path.with_suffix(f"{SUFFIX}.new")
    fresh.write_bytes(msgspec.json.encode(_Day(waste.until_us, waste.spent_nano)))
    os.replace(fresh, path)
    waste.changed = False


def restore(waste: Waste, path: Path) -> None:
    """Take up what an earlier life wrote. A file that cannot be read is none."""
    try:
        day = msgspec.json.decode(path.read_bytes(), type=_Day)
    except (OSError, msgspec.MsgspecError):
        return
    waste.restore(day.until_us, max(day.spent_nano, 0))
