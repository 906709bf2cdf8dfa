"""One gateway process of the bank test: threads that take, hold, settle and return money as fast as they can.

`python bank_process.py url journal-folder slot seed calls key…`; prints what it charged and how often it was refused, as JSON.
"""

import json
import random
import sys
import threading
from pathlib import Path

from farebox.billing.books import allotments
from farebox.billing.books.allotments import ScopeRequest
from farebox.billing.budgets import Scope
from farebox.billing.journal import Journal
from farebox.billing.records import Attempt, Closed, Hold, Opened, Settle
from farebox.catalog.price import Rates
from farebox.ports import SystemClock, TimeOrderedIds
from farebox.storage.database import Database
from farebox.wires.usage import Usage

THREADS = 4
RATES = Rates(input=1_000)


class Gateway:
    """Purses, a journal, a lock: what the event loop is in the real one."""

    def __init__(self, url: str, slot: Path) -> None:
        self.database = Database.open(url)
        self.clock = SystemClock()
        self.ids = TimeOrderedIds(self.clock)
        self.journal = Journal(slot, sync="os", segment_bytes_max=256 * 1024)
        self.life = self.ids.new("life")
        self.journal.write(Opened(self.life, self.clock.now_us()))
        self.lock = threading.Lock()
        self.granted: dict[str, int] = {}
        self.used: dict[str, int] = {}
        self.charged: dict[str, int] = {}
        self.refused = 0

    def call(self, account: str, key: str, chance: random.Random) -> None:
        amount = chance.randrange(1_000, 5_000)
        scopes = [Scope(f"account:{account}", "account", account), Scope(f"key:{key}", "key", key)]
        # One thread after another asks for a scope, as a purse's lock makes them.
        with self.lock:
            requests = [
                ScopeRequest(scope, need, need * chance.choice((1, 8)))
                for scope in scopes
                if (need := amount - self.granted.get(scope.id, 0) + self.used.get(scope.id, 0)) > 0
            ]
            if requests:
                taken = allotments.take(self.database, requests, life=self.life, now_us=self.clock.now_us())
                for request, got in zip(requests, taken, strict=True):
                    self.granted[request.scope.id] = self.granted.get(request.scope.id, 0) + got.granted_nano
                if not all(got.granted_nano for got in taken):
                    self.refused += 1
                    return
            for scope in scopes:
                self.used[scope.id] = self.used.get(scope.id, 0) + amount
            now, hold = self.clock.now_us(), self.ids.new("gen")
            names = tuple(scope.id for scope in scopes)
            self.journal.write(Hold(hold, now, account, key, names, amount, "chat", "m", "p", "m", "v", RATES))
        charge = chance.randrange(0, amount + 1)
        used = Usage(input=charge)
        attempt = Attempt(
            1, "p", "m", now, now, "ok", usage=used, basis="reported", rates=RATES, cost_nano=charge, charge_nano=charge
        )
        with self.lock:
            self.journal.write(
                Settle(hold, "settled", now, account, key, names, amount, charge, "chat", "m", (attempt,), now, self.life)
            )
            self.charged[account] = self.charged.get(account, 0) + charge
            for scope in scopes:
                self.used[scope.id] -= amount - charge
            if chance.random() < 0.1:
                for scope in scopes:
                    self.granted[scope.id] = self.used[scope.id]
                    allotments.give_back(self.database, scope.id, life=self.life, granted_nano=self.granted[scope.id])


def main(url: str, folder: str, slot: str, seed: str, calls: str, *owners: str) -> None:
    gateway = Gateway(url, Path(folder) / slot)
    pairs = [owner.split("/") for owner in owners]
    failed: list[str] = []

    def run(number: int) -> None:
        chance = random.Random(f"{seed}-{number}")
        try:
            for _ in range(int(calls)):
                # The first pair is the hot one.
                account, key = pairs[0] if chance.random() < 0.5 else chance.choice(pairs)
                gateway.call(account, key, chance)
        except BaseException as error:
            failed.append(repr(error))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gateway.journal.write(Closed(gateway.life, gateway.clock.now_us()))
    gateway.journal.close()
    gateway.database.close()
    sys.stdout.write(json.dumps({"charged": gateway.charged, "refused": gateway.refused, "failed": failed}))


if __name__ == "__main__":
    main(*sys.argv[1:])
