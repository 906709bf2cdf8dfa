"""The world: workers, a bookkeeper, six providers and their customers in one thread, under a virtual clock.

A run has two phases. First the faults that the seed drew, over a few bursts of calls; then everything is healed, and the world
must come to rest: every call answered, every hold ended, every slot free. What remains is compared by `audit`.
"""

import asyncio
import contextlib
import hashlib
import io
import signal
from collections import deque
from typing import Any

from farebox.app import Worker
from farebox.billing.accounts import provider_keys
from farebox.billing.books import customers as commands
from farebox.billing.books import ledger
from farebox.billing.journal import JournalError, SlotBusy
from farebox.config import Loaded
from farebox.config import file as config
from farebox.gate import keys
from farebox.outside import Outside
from farebox.processes.bookkeeper import BATCH_RECORDS_MAX, RETRY_S, Bookkeeper
from farebox.processes.worker import serve
from farebox.simulator.plan import Plan
from farebox.storage.database import Database, StoreError
from farebox.vault.vault import Vault
from tests.simulation import audit, market, outages
from tests.simulation.callers import Caller, order, probe
from tests.simulation.loop import ProcessLoop, Scheduler, Stuck
from tests.simulation.market import DAY_US, EPOCH_US, Version
from tests.simulation.mischief import mischief
from tests.simulation.network import ListeningSocket, Network
from tests.simulation.options import CLASSES, Options
from tests.simulation.outages import HealthWatch
from tests.simulation.places import CountedIds, Faults, ProcessDatabase, ProcessJournal, SeededRandom, VirtualClock
from tests.simulation.shelf import shelf
from tests.simulation.upstreams import VENDORS, Upstream

EVENTS_KEPT = 200
BURST_US = 8_000_000
REST_US = 400_000_000
"""Within this time of a healed world everything must be at rest."""
RESTART_S = 1.0
LOOK_US = 100_000
RECOVERED_US = 400_000_000
"""After this time nothing is avoided any more for what it did before."""
PROBES = 1_000_000
"""Numbers of calls from here on are those of a healed world."""
PROBED = 3


class Process:
    """A worker or the bookkeeper, in one of its lives."""

    def __init__(self, world: "World", name: str, number: int, version: Version) -> None:
        self.world = world
        self.name = name
        self.number = number
        self.versions = [(world.scheduler.awake_us, version)]
        """Whose prices it sold at from when on."""
        self.frozen: dict[str, Version] = {}
        """By hold: the version whose prices it froze."""
        self.loop = ProcessLoop(world.scheduler, world.network, name)
        self.faults = Faults(f"{world.options.seed}/faults of {name}")
        self.worker: Worker | None = None
        self.journal: ProcessJournal | None = None
        self.task: asyncio.Task[None] | None = None
        self.ending = False
        self.ready_us = 0
        """Since when it serves."""
        self.watch = HealthWatch()
        delays = world.options.random(f"delays of {name}")

        def delay_us() -> int:
            if not world.healed and delays.random() < world.rates["store_slow"]:
                return int(delays.random() ** 3 * 4_000_000)
            return 80 + int(delays.random() * 300)

        self.loop.executor_delay_us = delay_us
        self.faults.on_crash = self._crashed
        clock = VirtualClock(world.scheduler, EPOCH_US, world.skew_us(name))
        self.outside = Outside(
            clock=clock,
            random=SeededRandom(f"{world.options.seed}/random of {name}"),
            ids=CountedIds(number),
            open_database=lambda _: ProcessDatabase(shelf().engine, self.loop, self.faults, world.log),
            open_journal=self._open_journal,
            fail_point=self.faults.visit,
        )

    def _open_journal(self, slot: Any, sync: Any) -> ProcessJournal:
        try:
            self.journal = ProcessJournal(slot, sync, self.loop, self.faults, self.world.log)
        except SlotBusy as error:
            # Who had it has ended before: a worker that waited for it would wait for ever, since no time passes meanwhile.
            raise AssertionError(f"{error}, though nobody lives who could hold it") from error
        self.journal.written = lambda records: audit.at_any_moment(self.world, self, records)  # type: ignore[method-assign]
        return self.journal

    def versions_since(self, since_us: int) -> list[Version]:
        """Those in force at some moment since."""
        ends_us = [start_us for start_us, _ in self.versions[1:]] + [self.world.scheduler.awake_us]
        return [version for end_us, (_, version) in zip(ends_us, self.versions, strict=True) if end_us >= since_us]

    @property
    def handling(self) -> int:
        """Requests that are being handled, those included whose callers are gone."""
        return self.loop.doing().count("App._run")

    @property
    def busy(self) -> bool:
        """Whether a request, a call or a refill is under way, or a record waits to be written."""
        assert self.worker is not None
        books, holds = self.worker.books, self.worker.books.holds
        return bool(self.handling or self.worker.gateway.flights or books.unwritten or holds.open_count or holds._tasks)

    def give_up(self) -> None:
        """The process ends: what waited in memory for a full disk is lost, and its holds will be recovered."""
        if self.worker is not None:
            self.world.never_written.update(settle.id for settle in self.worker.books.unwritten)

    def _crashed(self, place: str) -> None:
        self.give_up()
        self.world.log(f"{self.name} dies at {place}")
        self.loop.kill()
        self.world.fallen.append(self)


class Enough(Exception):
    """The first problem has been found; what follows from it is of no interest."""


class World:
    """One run of one seed."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.events: deque[str] = deque(maxlen=EVENTS_KEPT)
        self._hash = hashlib.blake2b(digest_size=16)
        self.scheduler = Scheduler(options.random("schedule").getrandbits(64), shuffled=options.shuffled)
        self.network = Network(f"{options.seed}/network")
        self.healed = False
        self.rates = {name: options.rate(name) for name in CLASSES}
        self.problems: list[str] = []
        self.planned: dict[str, Plan] = {}
        """By the gateway's name of the attempt: what its provider would say in full."""
        self.never_written: set[str] = set()
        """Calls whose settlement a full disk kept in memory until their process ended."""
        self.ordered: dict[str, str] = {}
        """And what its provider was told to do."""
        self.folder = shelf().clear()
        self.people = ProcessLoop(self.scheduler, self.network, "callers")
        self.chaos = ProcessLoop(self.scheduler, self.network, "chaos")
        self.fallen: list[Process] = []
        self.lives: list[Process] = []
        self.workers: dict[int, Process] = {}
        self.books: Process | None = None
        self.versions: list[Version] = []
        self._loaded: tuple[int, Loaded] | None = None
        self._looked_us = 0
        self.callers: list[Caller] = []
        self.secrets: list[tuple[str, str, str]] = []
        """Account, key id, secret."""
        self.revoked: dict[str, int] = {}
        """Keys, and when they were revoked."""
        self.crashes = 0
        self.upstreams = [Upstream(self, vendor, self.folder) for vendor in VENDORS]
        self._skew = options.random("skew")
        self._commands = 0

    # --- what happened ---------------------------------------------------------------------------------------------------

    def log(self, text: str) -> None:
        line = f"{self.scheduler.now_us / 1e6:14.6f} {text}"
        self.events.append(line)
        self._hash.update(line.encode())

    @property
    def digest(self) -> str:
        """The whole event log in 16 bytes."""
        return self._hash.hexdigest()

    def problem(self, text: str) -> None:
        self.log(f"PROBLEM {text}")
        self.problems.append(text)

    # --- the people ------------------------------------------------------------------------------------------------------

    def database(self) -> Database:
        """The operator's own way to the books; without faults."""
        return Database(shelf().engine, random=SeededRandom("operator"))

    def now_us(self) -> int:
        return EPOCH_US + self.scheduler.now_us

    def command(self) -> str:
        self._commands += 1
        return f"command-{self._commands}"

    def skew_us(self, name: str) -> int:
        return int(self._skew.uniform(-3e6, 3e6)) if self.rates["skew"] else 0

    def found(self) -> None:
        """Accounts, credit, keys."""
        ids = CountedIds(0)
        pepper = bytes.fromhex("5a" * 32)
        with contextlib.closing(self.database()) as database:
            self.ids = ids
            for customer in market.customers(self.options.seed, scarce="scarce" in self.options.classes):
                account = ids.new("acc")
                limit = 0 if customer.prepaid else customer.credit_nano
                kind = "prepaid" if customer.prepaid else "postpaid"
                commands.create_account(
                    database, id=account, name=customer.name, kind=kind, credit_limit_nano=limit, now_us=self.now_us()
                )
                if customer.prepaid:
                    self.top_up(account, customer.credit_nano)
                for budget, window in customer.keys:
                    self._key(database, pepper, account, budget, window)
                if "own_keys" in self.options.classes:
                    self._own_keys(database, account, customer.name)

    def _key(self, database: Database, pepper: bytes, account: str, budget: int | None, window: str) -> None:
        secret = keys.make(hashlib.blake2b(f"{len(self.secrets)}".encode(), digest_size=32).digest())
        key = self.ids.new("key")
        new = commands.NewKey(
            id=key,
            account_id=account,
            name=key,
            digest=keys.digest(secret, pepper),
            hint=keys.hint(secret),
            budget_nano=budget,
            budget_window=window,  # type: ignore[arg-type]
        )
        commands.create_key(database, new, now_us=self.now_us())
        self.secrets.append((account, key, secret))

    def _own_keys(self, database: Database, account: str, name: str) -> None:
        """Keys of a customer's own at providers: of some one, of some two, some of them always used."""
        chance = self.options.random(f"own keys of {name}")
        commands.set_markup(database, account, market.OWN_PLAN, now_us=self.now_us())
        vault = Vault(self.folder / "byok-master.json")
        for provider in market.OWN_AT:
            for number in range(chance.choice((0, 1, 1, 2))):
                new = provider_keys.NewProviderKey(
                    id=f"own-{name}-{provider}-{number}", account_id=account, provider=provider, hint="…",
                    secret=f"sk-{name}-{provider}-{number}", always_use=chance.random() < 0.3,
                )  # fmt: skip
                provider_keys.create(database, vault, new, now_us=self.now_us())

    def top_up(self, account: str, amount_nano: int) -> None:
        now_us = self.now_us()
        ledger.top_up(
            self.database(), self.ids, command_id=self.command(), account_id=account, amount_nano=amount_nano, now_us=now_us
        )

    # --- processes -------------------------------------------------------------------------------------------------------

    def configure(self) -> Version:
        """Write the next version of the configuration."""
        classes = self.options.classes
        hedges, probed = "hedging" in classes, "probes" in classes
        version = market.version(self.options.seed, len(self.versions), hedges=hedges, probed=probed)
        self.versions.append(version)
        sync = self.options.random("sync").choice(("always", "interval", "os"))
        (self.folder / "farebox.toml").write_text(version.text(str(self.folder), sync))
        return version

    def loaded(self) -> Loaded:
        """The newest version, parsed once."""
        number = len(self.versions)
        if self._loaded is None or self._loaded[0] != number:
            self._loaded = number, config.load(self.folder / "farebox.toml", {})
        return self._loaded[1]

    def _born(self, name: str) -> Process:
        number = len(self.lives) + 1
        process = Process(self, f"{name}.{number}", number, self.versions[-1])
        self.lives.append(process)
        if not self.healed:
            options, faults = self.options, process.faults
            faults.crash = options.crash_rate("bookkeeper_crash" if name == "books" else "worker_crash")
            faults.store_unavailable = options.crash_rate("store_away") * 4
            faults.store_lost_ack = options.crash_rate("lost_ack") * 4
            faults.torn = bool(options.rate("torn"))
        return process

    def start_worker(self, slot: int) -> None:
        version = self.versions[-1]
        process = self._born(f"worker {slot}")
        self.workers[slot] = process
        self.log(f"{process.name} starts with configuration {version.number}")

        def ready(worker: Worker) -> None:
            process.worker = worker
            process.ready_us = self.scheduler.now_us
            if version.probed:
                process.watch.over(worker.gateway.health)
            # Fibers go on in a fixed order; as tasks, calls meet in any.
            process.loop.look_after(worker.turn.fibers, as_tasks=bool((self.options.seed + slot) % 2))
            worker.gateway.metrics.crashed = lambda place, error: self._internal_error(process, place, error)  # type: ignore[method-assign]

        async def live() -> None:
            try:
                listening: Any = ListeningSocket("gateway.test")
                await serve(self.loaded(), listening, slot, None, process.outside, ready)
            except (JournalError, StoreError) as error:
                # As the real process does: it ends, and the supervisor starts another.
                self.log(f"{process.name} cannot go on: {error}")
            except Exception as error:
                self.problem(f"{process.name} ended: {error!r}")
            self._ended(process, slot)

        process.task = process.loop.create_task(live())

    def _internal_error(self, process: Process, place: str, error: BaseException) -> None:
        if process.loop.dead:
            return
        if place in ("housekeeping", "shutdown") and isinstance(error, StoreError):
            self.log(f"{process.name}: {place}: {error}")
            return
        self.problem(f"{process.name}: internal error in {place}: {error!r}")

    def _ended(self, process: Process, slot: int) -> None:
        """A worker's process ends by itself."""
        self.log(f"{process.name} has ended")
        process.give_up()
        if process.loop.dead:
            return
        for task in list(process.loop.tasks):
            if task is not process.task and not task.done() and not task.cancelling():
                self.problem(f"{process.name} leaves a task: {task}")
                task.print_stack()
        process.loop.kill()
        self.fallen.append(process)

    def start_books(self) -> None:
        process = self.books = self._born("books")
        self.log(f"{process.name} starts")
        pace_s = self.options.random("pace").choice((0.2, 1.0, 1.0, 3.0, 8.0))
        bookkeeper = Bookkeeper(self.loaded(), process.outside)

        async def live() -> None:
            while not process.ending:
                try:
                    records = await process.loop.run_in_executor(None, bookkeeper.round)
                except (StoreError, JournalError) as error:
                    self.log(f"{process.name}: {error}")
                    await asyncio.sleep(RETRY_S)
                    continue
                if records < BATCH_RECORDS_MAX:
                    await asyncio.sleep(pace_s)

        process.task = process.loop.create_task(live())

    def raise_the_fallen(self) -> None:
        """Bury who died; the supervisor starts another a moment later."""
        while self.fallen:
            process = self.fallen.pop()
            process.loop.bury()
            if process.journal is not None:
                process.journal.abandon()
            self.problems += process.loop.errors
            process.loop.errors.clear()
            self.crashes += 1
            slot = next((slot for slot, worker in self.workers.items() if worker is process), None)
            if slot is not None:
                del self.workers[slot]
                if not self.closing:
                    self.chaos.after(int(RESTART_S * 1e6), self.start_worker, slot)
            elif process is self.books:
                self.books = None
                if not self.closing:
                    self.chaos.after(int(RESTART_S * 1e6), self.start_books)

    # --- the run ---------------------------------------------------------------------------------------------------------

    closing = False

    def run(self) -> list[str]:
        """The whole run; every problem in a sentence."""
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors):
            try:
                self._run()
            except Enough:
                pass
            except Stuck as error:
                self.problem(str(error))
            finally:
                self._tear_down()
        if errors.getvalue():
            self.problem(f"written to standard error: {errors.getvalue()[-500:]}")
        return self.problems

    def _run(self) -> None:
        options = self.options
        self.found()
        self.configure()
        self.network.split_bytes = options.random("split").choice((1, 16, 200)) if self.rates["fragments"] else 0
        for slot in range(options.workers):
            self.start_worker(slot)
        self.start_books()
        bursts = options.random("bursts").randint(1, 3)
        for burst in range(bursts):
            self._burst(burst, bursts)
            if burst < bursts - 1 and self.rates["leaps"]:
                self._leap(options.random(f"leap {burst}"))
        self._heal()
        if not self._go(self._at_rest, REST_US):
            self._say_restless()
        audit.at_rest(self)
        self._probe()
        self._close()
        audit.after_the_end(self)

    def _go(self, done: Any, length_us: int) -> bool:
        """Let time pass; who died is buried and raised on the way."""
        until_us = self.scheduler.now_us + length_us
        while True:
            if self.scheduler.run(lambda: bool(self.fallen or self.problems) or done(), until_us=until_us) and not self.fallen:
                if self.problems:
                    raise Enough
                return True
            if self.fallen:
                self.raise_the_fallen()
                continue
            return False

    def _burst(self, burst: int, bursts: int) -> None:
        for number in self.options.calls:
            wanted = order(self, number, bursts, BURST_US)
            if wanted.burst == burst:
                _, key, secret = self.secrets[wanted.key % len(self.secrets)]
                caller = Caller(self, wanted, key, secret)
                self.callers.append(caller)
                self.people.after(wanted.at_us, self._begin, caller)
        for at_us, what in mischief(self, burst, BURST_US):
            self.chaos.after(at_us, what)
        self._go(lambda: False, BURST_US + int(self.options.random(f"pause {burst}").random() * 4_000_000))

    def _probe(self) -> None:
        """A while later every model answers again."""
        self._leap_by(RECOVERED_US)
        _, key, secret = self.secrets[0]
        probes = [Caller(self, probe(PROBES + at, model), key, secret) for at, model in enumerate(market.MODELS)]
        probes = self.options.random("probes").sample(probes, PROBED)
        refused = [Caller(self, probe(PROBES, "sim/one"), key, secret) for _, key, secret in self.secrets if key in self.revoked]
        probes += refused
        self.callers += probes
        for at, caller in enumerate(probes):
            self.people.after(at * 100_000, self._begin, caller)
        if not self._go(lambda: all(caller.ended_us for caller in probes), REST_US):
            self.problem("a call in a healed world has no end")
        for caller in probes:
            fate = caller.fate
            if caller in refused:
                if fate.status != 401:
                    self.problem(f"a revoked key is answered {fate.status}")
            elif not fate.complete:
                self.problem(f"{fate.model} does not work again: {fate.status} {fate.error} {fate.body[:300]!r}")
        if not self._go(self._at_rest, REST_US):
            self._say_restless()

    def _begin(self, caller: Caller) -> None:
        self.people.create_task(caller.run())

    def _leap(self, chance: Any) -> None:
        length_us = chance.choice((60_000_000, 3_600_000_000, 7 * 3_600_000_000, DAY_US, 31 * DAY_US))
        self._leap_by(length_us)

    def _leap_by(self, length_us: int) -> None:
        self.log(f"nothing runs for {length_us // 1_000_000} s")
        self.scheduler.leap(length_us)

    def _heal(self) -> None:
        """No more faults; what is broken is mended."""
        self.log("everything is healed")
        self.healed = True
        self.network.split_bytes = 0
        for process in self.lives:
            process.faults.heal()
        for path in self.network.hosts.values():
            path.fault = ""
        for upstream in self.upstreams:
            outages.end(self, upstream)

    def _at_rest(self) -> bool:
        """Every caller has an end, every provider has finished, nothing is in flight, everything is posted."""
        if self.scheduler.now_us < self._looked_us + LOOK_US:
            return False
        self._looked_us = self.scheduler.now_us
        if len(self.workers) < self.options.workers or self.books is None:
            return False
        for process in self.workers.values():
            if process.worker is None or process.busy:
                return False
        if any(not caller.ended_us and not caller.fate.error for caller in self.callers):
            return False
        if any(upstream.loop.tasks for upstream in self.upstreams):
            return False
        return audit.everything_posted(self)

    def _say_restless(self) -> None:
        for caller in self.callers:
            if not caller.ended_us and not caller.fate.error:
                self.problem(f"call {caller.order.number} has no end")
        for process in self.workers.values():
            worker = process.worker
            if worker is None:
                self.problem(f"{process.name} does not come up")
            elif process.busy:
                books = worker.books
                self.problem(
                    f"{process.name} has {process.handling} requests, {len(worker.gateway.flights)} flights, "
                    f"{books.holds.open_count} holds, {len(books.unwritten)} unwritten records and does not come to rest"
                )
        for upstream in self.upstreams:
            for task in upstream.loop.tasks:
                self.problem(f"{upstream.vendor.name} is still busy: {task.get_coro()}")
        if not self.problems:
            self.problem("the journals are not posted")

    def _close(self) -> None:
        """SIGTERM to the workers, then the bookkeeper posts what is left and ends."""
        self.closing = True
        for process in list(self.workers.values()):
            process.ending = True
            if process.worker is not None:
                process.loop.signal(signal.SIGTERM)
        if not self._go(lambda: not self.workers, REST_US):
            self.problem("the workers do not end")
        if not self._go(lambda: audit.everything_posted(self), REST_US):
            self.problem("what was left is not posted")
        if self.books is not None:
            self.books.ending = True
            task = self.books.task
            assert task is not None
            if not self._go(task.done, REST_US):
                self.problem("the bookkeeper does not end")

    def _tear_down(self) -> None:
        """Nothing of a world may reach into the next one."""
        loops = [process.loop for process in self.lives]
        loops += [upstream.loop for upstream in self.upstreams] + [self.people, self.chaos]
        for process in self.lives:
            if process.journal is not None:
                process.journal.abandon()
        for loop in loops:
            if not loop.dead and loop.errors:
                self.problems += loop.errors
            loop.kill()
        for loop in loops:
            loop.bury()
        for upstream in self.upstreams:
            upstream.close()
