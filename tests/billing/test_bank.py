"""The bank test (reliability.md T3): real processes and threads on one database, while the books are kept beside them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from farebox.billing.books import ledger

PROCESSES = 3
ACCOUNTS = 8


def bank(world, calls):
    # The hot account runs dry and is topped up while everybody wants it; the others have enough.
    accounts = [world.account(60_000), *(world.account(10**12) for _ in range(ACCOUNTS - 1))]
    owners = [f"{account}/{world.key(account, 10**12)}" for account in accounts]
    script = Path(__file__).with_name("bank_process.py")
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "error", script, world.url, world.journals, f"w{number}", str(number), str(calls), *owners],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    given = 60_000
    posted = 0
    while any(process.poll() is None for process in running):
        found = world.post()
        assert not found.refused and not found.reduced and not found.lost and not found.damaged
        posted += found.calls
        if given < 160_000:
            world.top_up(accounts[0], 20_000)
            given += 20_000
        ledger.expire(world.database, world.ids, now_us=world.clock.us)
    results = [json.loads(process.communicate()[0]) for process in running]
    while world.post().records:
        pass
    assert [result["failed"] for result in results] == [[]] * PROCESSES, "no deadlock and no time-out is surfaced"
    for account in accounts:
        charged = sum(result["charged"].get(account, 0) for result in results)
        balance = world.balance(account)
        assert balance.posted_nano == charged == world.credits(account).used_nano, "to the nano-dollar"
        assert balance.allotted_nano == 0 and balance.posted_nano <= balance.limit_nano
    assert world.check() == []
    return results


def test_processes_and_threads_share_budgets_exactly(world):
    """Peers rows 4, 18, 19, 28, 29: in-memory deltas, lost rows, deadlocks under load, check-then-act."""
    results = bank(world, calls=20)
    assert sum(result["refused"] for result in results) > 0, "the hot account ran dry"


@pytest.mark.full
def test_processes_and_threads_share_budgets_exactly_for_long(world):
    bank(world, calls=3_000)
