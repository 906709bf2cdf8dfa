"""`kill -9` under load, for the tests that say who dies when: the books and the provider's true bill agree to the nano-dollar.

Forty-eight callers on both surfaces, some of whom vanish, call models that answer, fail, break off and lie, while processes are
killed and started again. Then everything is stopped cleanly and compared by `tests/support/reconcile.py`, which shares no code
with the gateway: what the books say exactly must be exact, and what they admit not to know is corrected by the true bill, after
which nothing may differ. `FAREBOX_FULL=1` or `-m full` kills more often.
"""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from farebox.billing.accounts import adjustments
from farebox.billing.invariants import checks
from farebox.billing.sealing import seals
from farebox.catalog.price import Rates
from farebox.ports import SystemClock, TimeOrderedIds
from farebox.simulator.testing import SimulatorProcess
from farebox.storage.database import Database
from farebox.wires.usage import Usage
from tests.support import reconcile
from tests.support.callers import Fate, Load, body_for
from tests.support.chains import audited
from tests.support.reconcile import Report, read_bill, read_books
from tests.support.running import Farebox, model, offer, provider, wait_until

CALLERS = 48
FULL = bool(os.environ.get("FAREBOX_FULL"))
SEED = int(os.environ.get("FAREBOX_SEED", "0")) or time.time_ns() % 1_000_000

OFFERS: dict[str, tuple[tuple[str, str], ...]] = {
    # model → (provider, what the simulated model does); the first offer is tried first
    "k/answers": (("lab", "sim+tokens=24+delay-chunk=4ms"),),
    "k/long": (("lab", "sim+tokens=700+delay-chunk=3ms"),),
    "k/thinks": (("lab", "sim+thinking=20+tokens=12+delay-first=60ms"),),
    "k/cached": (("lab", "sim+prompt=90+cached=64+tokens=9+delay-first=30ms"),),
    "k/fails-over": (("down", "sim+status=503"), ("lab", "sim+tokens=15+delay-chunk=3ms")),
    "k/early-error": (("down", "sim+error-before-content"), ("lab", "sim+tokens=14+delay-chunk=3ms")),
    "k/limited": (("lab", "sim+status=429+delay-headers=40ms"),),
    "k/dies": (("lab", "sim+tokens=40+delay-chunk=3ms+reset-after=12"),),
    "k/breaks": (("lab", "sim+tokens=40+delay-chunk=3ms+error-in-stream=9"),),
    "k/silent-usage": (("lab", "sim+tokens=11+usage=missing+delay-first=30ms"),),
    "k/twice": (("lab", "sim+tokens=13+usage=duplicate+delay-first=30ms"),),
    "k/runs-on": (("stubborn", "sim+tokens=60+delay-chunk=3ms+ignore-hangup"),),
    "k/messages": (("ant", "sim+tokens=24+delay-chunk=4ms"),),
    "k/messages-long": (("ant", "sim+tokens=500+delay-chunk=3ms"),),
    "k/messages-dies": (("ant", "sim+tokens=40+delay-chunk=3ms+reset-after=12"),),
}
PRICE = {"input": "2.50", "cached_input": "0.25", "output": "10.00"}
CHEAP = {"input": "0.01", "output": "0.02"}
WEIGHTS = {"k/answers": 6, "k/messages": 4, "k/long": 2}


def configuration(origin: str) -> str:
    chat = f"{origin}/v1"
    text = provider("lab", chat, extra="abort_stops_billing = true") + provider("down", chat)
    text += provider("stubborn", chat, extra="abort_stops_billing = false")
    text += provider("ant", f"{origin}/v1", wire="anthropic_messages", extra="abort_stops_billing = true")
    text += '[routing]\npolicy = "cheapest"\n[policies.cheapest]\nsort = "price"\n'
    text += "[attempts]\nbackoff_ms = 20\nbackoff_max_ms = 60\n"
    for slug, offers in OFFERS.items():
        text += model(slug, *(offer(name, id, **(CHEAP if name == "down" else PRICE)) for name, id in offers))
    return text


PRICES = {
    (name, id): reconcile.rates(**(CHEAP if name == "down" else PRICE)) for offers in OFFERS.values() for name, id in offers
}


def choose(chance: random.Random) -> tuple[Fate, dict[str, Any]]:
    """One caller's next call."""
    slugs = list(OFFERS)
    slug = chance.choices(slugs, [WEIGHTS.get(slug, 1) for slug in slugs])[0]
    surface = chance.choice(("chat", "messages"))
    stream = chance.random() < 0.65
    leave = None
    if chance.random() < 0.15:
        leave = chance.choice((0, 1, 300, 2_000)) if stream else 0
    fate = Fate(surface, slug, stream, leave)
    return fate, body_for(surface, slug, stream=stream, text=f"hello {chance.randrange(1000)}", max_tokens=1000)


@dataclass
class Bench:
    """A gateway, a provider, callers, and what was seen of them."""

    box: Farebox
    provider: SimulatorProcess
    chance: random.Random
    kills: Counter[str] = field(default_factory=Counter)
    first_answers_s: list[float] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"sqlite:///{self.box.folder / 'farebox.db'}"

    @property
    def journals(self) -> Path:
        return self.box.folder / "journal"

    def note(self, what: str) -> None:
        self.kills[what] += 1

    def check_ledger(self) -> None:
        with Database.open(self.url) as database:
            violations = checks.check(database, self.journals)
        assert not violations, f"seed {SEED}, after {dict(self.kills)}: {violations[:5]}"

    def kill(self, target: str, load: Load) -> None:
        """Kill, bring back what does not come back by itself, and wait for an answer that was made afterwards."""
        box = self.box
        assert box.process is not None
        if target in ("worker", "bookkeeper"):
            # A child that fell a moment ago may not be back yet.
            wait_until(lambda: target in box.children(), f"a {target} to kill")
        before = box.children()
        self.note(target)
        started = time.monotonic()
        if target in ("worker", "bookkeeper"):
            os.kill(before[target], signal.SIGKILL)
            wait_until(lambda: box.children().get(target, before[target]) != before[target], f"a new {target}")
        elif target == "supervisor":
            os.kill(box.process.pid, signal.SIGKILL)
            box.kill()
            wait_until(lambda: not any(map(alive, before.values())), "the kernel ends the children with their parent")
            started = time.monotonic()
            box.start(wait=False)
        else:
            box.kill()
            started = time.monotonic()
            box.start(wait=False)
        # Every caller may have an answer of before in its hands, and not have counted it yet.
        answered = load.answered + (CALLERS if target in ("all", "supervisor") else 0)
        wait_until(lambda: load.answered > answered, f"an answer after the {target} was killed: {box.log()}", timeout_s=45)
        if target != "bookkeeper":
            self.first_answers_s.append(time.monotonic() - started)


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextmanager
def bench_in(folder: Path) -> Iterator[Bench]:
    """A bench whose files are in `folder`; whatever is left of its processes is ended."""
    with SimulatorProcess(bill_path=folder / "bill.jsonl", seed=SEED) as provider:
        box = Farebox(folder / "box", config=configuration(provider.origin), server="drain_s = 20.0", billing="drain_s = 10.0")
        box.do("topup", "default", "100000.00")
        try:
            yield Bench(box, provider, random.Random(SEED))
        finally:
            box.kill()


def reconciled(bench: Bench, fates: list[Fate]) -> str:
    """Stop cleanly, compare, correct what the books do not know, compare again; the figures in a sentence."""
    box = bench.box
    assert box.stop() == 0, box.log()
    wait_until(
        lambda: all(truth.reason != "unfinished" for truth in read_bill(bench.provider.bill_path).values()),
        "the provider ends every attempt",
    )
    books, bill = read_books(bench.url), read_bill(bench.provider.bill_path)
    assert reconcile.is_posted(bench.url, bench.journals), "a clean stop leaves nothing unposted"
    report = reconcile.reconcile(books, bill, PRICES)
    assert not report.problems, f"seed {SEED}: {len(report.problems)} problems: {report.problems[:5]}"
    assert books.allotted == 0, f"seed {SEED}: held after a clean stop: {books.scopes}"
    assert not books.outbox, f"seed {SEED}: the poster refused or reduced: {books.outbox[:3]}"
    compare_with_callers(books, fates)
    bench.check_ledger()
    gap = report.invoice_nano - books.costs
    correct(bench, report)
    after = read_books(bench.url)
    final = reconcile.reconcile(after, bill, PRICES)
    assert not final.problems, f"seed {SEED}: {final.problems[:5]}"
    for row, usage in final.listed.values():
        owed = reconcile.cost(usage, PRICES[row.provider, row.words["upstream_id"]])
        assert row.cost == owed, f"seed {SEED}: {row.name} is neither corrected nor right by luck"
    assert after.costs == after.moved("provider_cost") == final.invoice_nano
    assert sum(row.cost or 0 for row in after.rows) == sum(
        reconcile.cost(truth.usage, PRICES[provider_of(after, name), truth.model]) for name, truth in bill.items()
    )
    bench.check_ledger()
    box.check_books()
    with Database.open(bench.url) as database:
        # The corrections above are the only rows that a clean stop has left to seal.
        while seals.seal(database, SystemClock()).more:
            pass
        audited(database)
    return (
        f"seed {SEED}: {sum(bench.kills.values())} kills {dict(bench.kills)}, {len(fates)} calls, {len(bill)} attempts: "
        f"{report.exact} exact, {len(report.listed)} corrected {dict(report.flags)} ({gap} nano-dollars before, "
        f"{final.invoice_nano - after.costs} after), outcomes "
        f"{dict(Counter(row.outcome for row in books.rows))}, duplicates {report.duplicates}, held {books.allotted}; "
        f"first answer after {', '.join(f'{seconds:.1f}' for seconds in sorted(bench.first_answers_s))} s"
    )


_provider_names: dict[str, str] = {}


def provider_of(books: reconcile.Books, name: str) -> str:
    if name not in _provider_names:
        _provider_names.update({row.name: row.provider for row in books.rows})
    return _provider_names[name]


def correct(bench: Bench, report: Report) -> None:
    """True up every row that was listed, by the true bill."""
    ids = TimeOrderedIds(SystemClock())
    with Database.open(bench.url) as database:
        for row, usage in report.listed.values():
            prices = PRICES[row.provider, row.words["upstream_id"]]
            dear, answer = prices["input"], prices["output"]
            rates = Rates(input=dear, cache_read=prices.get("cache_read", dear), output=answer, reasoning=answer)
            exact, now_us = Usage(**usage), SystemClock().now_us()
            adjustments.adjust(database, ids, hold_id=row.hold, attempt=row.attempt, exact=exact, rates=rates, now_us=now_us)


def compare_with_callers(books: reconcile.Books, fates: list[Fate]) -> None:
    """What callers were told is what the books say."""
    calls: dict[str, list[reconcile.Row]] = {}
    for row in books.rows:
        calls.setdefault(row.hold, []).append(row)
    complete = 0
    for fate in fates:
        if fate.generation is None:
            continue
        rows = calls.get(fate.generation)
        where = f"seed {SEED}: {fate.generation} ({fate.model}, {fate.surface}, stream {fate.stream})"
        assert rows, f"{where}: its caller has its id, the books have nothing"
        if not fate.complete:
            continue
        complete += 1
        assert rows[-1].state == "settled", f"{where}: its caller got all of it, and it is {rows[-1].state}"
        assert not any("recovered" in row.flags for row in rows), f"{where}: a finished call was recovered"
        if fate.model != "k/silent-usage":
            assert rows[-1].basis == "reported", f"{where}: its caller got all of it, and it is {rows[-1].basis}"
        assert fate.cost_usd is not None, f"{where}: no cost in the answer: {fate.body[-300:]!r}"
        whole, _, fraction = fate.cost_usd.partition(".")
        told = int(whole) * 10**9 + int(fraction.ljust(9, "0"))
        assert told == sum(row.charge for row in rows), f"{where}: told {told}, charged {[row.charge for row in rows]}"
    assert complete > 0, "some calls were answered"
