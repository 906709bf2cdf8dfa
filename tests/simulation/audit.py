"""What must hold when a world is at rest: the books against the providers' true bills, to the nano-dollar.

Plain SQL and integers (`tests.support.reconcile`); nothing here shares arithmetic with the gateway. What a row says that it does
not know is corrected by the true bill first; after that nothing may differ.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from farebox.billing.accounts import adjustments
from farebox.billing.invariants import checks
from farebox.billing.records import Hold, Record
from farebox.catalog.price import Rates
from farebox.wires.usage import Usage
from tests.simulation import outages
from tests.simulation.callers import Caller, text_of
from tests.simulation.market import OWN_BP, RETRIES_PERCENT, TOTAL_S, Price, Version
from tests.simulation.shelf import shelf
from tests.support.reconcile import NOT_EXACT, Books, Row, Truth, half_even, is_posted, pico, read_bill, read_books

if TYPE_CHECKING:
    from tests.simulation.world import Process, World



def everything_posted(world: "World") -> bool:
    return is_posted(shelf().url, world.folder / "journal")


HEDGE = "-hedge"
"""The end of a second hold's id."""
INPUT = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "audio_input", "image_input")
RESERVE_US = 20_000_000
"""So long a call may wait for its hold with the prices that it found."""
LATE_US = 1_500_000
"""Time-outs are looked for now and then, not to the microsecond."""
REVOKED_US = 2_000_000
"""A revoked key has stopped working after this time, unless the database is away."""


def at_any_moment(world: "World", process: "Process", records: tuple[Record, ...]) -> None:
    """Behind every record of a journal."""
    for record in records:
        if isinstance(record, Hold):
            found = [one for one in process.versions_since(world.scheduler.awake_us - RESERVE_US) if _has_prices_of(record, one)]
            if found:
                process.frozen[record.id] = found[-1]
            else:
                world.problem(f"{record.id}: its hold has other rates than were in force: {record.rates}")
    if process.worker is None:
        return
    for scope, purse in process.worker.books.holds._purses.items():
        if purse.free < 0:
            world.problem(f"{process.name}: the purse of {scope} has {purse.free} left")


def _has_prices_of(hold: Hold, version: Version) -> bool:
    price = version.prices[hold.model, hold.provider]
    own = hold.fees is not None and hold.fees.own_key
    points = (0, OWN_BP) if own else (version.markup_bp,)
    return (hold.rates.input, hold.rates.output) == (price.input, price.output) and hold.markup_bp in points


def _own(row: Row) -> bool:
    """Whether an attempt was made with a key of the customer's own."""
    return bool(row.words.get("fees", {}).get("own_key"))


# --- at rest, alive -----------------------------------------------------------------------------------------------------


def at_rest(world: "World") -> None:
    """Nothing is left in the memory of the living."""
    for process in world.workers.values():
        worker = process.worker
        if worker is None:
            continue
        gateway = worker.gateway
        for mark, in_flight in gateway.limiter.in_flight().items():
            world.problem(f"{process.name}: {in_flight} concurrency slots of a holder ({mark}) are not given back")
        if worker.books.holds.open_nano:
            world.problem(f"{process.name}: {worker.books.holds.open_nano} nano-dollars are held without a hold")
        for scope, purse in worker.books.holds._purses.items():
            if purse.held:
                world.problem(f"{process.name}: the purse of {scope} holds {purse.held}")
        if world.versions[0].probed:
            outages.at_rest(world, process)
        questions = len(list(worker.prober._under_way()))
        for pool in gateway.client._pools.values():
            if not 0 <= pool._slots - len(pool._idle) <= questions or pool._waiters:
                world.problem(f"{process.name}: {pool._slots} connection slots, {len(pool._idle)} idle connections")
        for name in process.loop.doing():
            if name not in ("World.start_worker.<locals>.live", "keep_house", "HttpServer._sweep", "Prober._ask"):
                world.problem(f"{process.name}: a task is left: {name}")


# --- after the end ------------------------------------------------------------------------------------------------------


def after_the_end(world: "World") -> None:
    database = world.database()
    for violation in checks.check(database, world.folder / "journal"):
        world.problem(f"{violation}")
    books = read_books(shelf().url)
    bill: dict[str, Truth] = {}
    for upstream in world.upstreams:
        bill |= read_bill(upstream.bill_path)
    Audit(world, books, bill).run()


def is_pieced(words: Sequence[str], parts: Sequence[Sequence[str]]) -> bool:
    """Whether words, or characters, are the beginnings of all parts but the last, in order, and then the last one whole."""
    first, *others = parts
    if not others:
        return words == first
    size = 0
    while True:
        if is_pieced(words[size:], others):
            return True
        if size >= min(len(words), len(first)) or words[size] != first[size]:
            return False
        size += 1


class Audit:
    """One comparison."""

    def __init__(self, world: "World", books: Books, bill: dict[str, Truth]) -> None:
        self.world = world
        self.books = books
        self.bill = bill
        self.say = world.problem

    def run(self) -> None:
        world, books = self.world, self.books
        if books.allotted:
            self.say(f"allotted after a clean end: {books.scopes}")
        for kind, payload in books.outbox:
            if kind.startswith("settle_"):
                self.say(f"the poster says {kind}: {payload[:300]}")
        self._ends()
        self._tries()
        self._hedges()
        self._callers()
        unknown = self._rows(books, corrected=False)
        self._correct(unknown)
        after = read_books(shelf().url)
        left = self._rows(after, corrected=True)
        for row in left:
            self.say(f"{row.name} is neither corrected nor right")
        self._sums(after)
        for violation in checks.check(world.database(), world.folder / "journal"):
            self.say(f"after corrections: {violation}")

    def price(self, row: Row) -> tuple[dict[str, int], int]:
        """Rates and markup that were in force in the process that took the hold."""
        version = self.world.lives[int(row.hold.partition("-")[2][:6]) - 1].frozen[row.hold]
        found: Price = version.prices[str(row.words["upstream_id"]).replace("-", "/", 1), row.provider]
        return {"input": found.input, "output": found.output}, version.markup_bp

    def _ends(self) -> None:
        """One end per hold, one row per attempt, and no attempt that the books do not know."""
        finals: Counter[str] = Counter()
        states: dict[str, set[str]] = defaultdict(set)
        names: Counter[str] = Counter()
        for row in self.books.rows:
            finals[row.hold] += row.final
            states[row.hold].add(row.state)
            names[row.name] += 1
        for hold, seen in states.items():
            if finals[hold] != 1 or len(seen) != 1:
                self.say(f"{hold}: {finals[hold]} ends, states {seen}")
        for name, count in names.items():
            if count > 1:
                self.say(f"{name} stands {count} times in the books")
        for name, truth in self.bill.items():
            if name not in names:
                self.say(f"{name}: the provider has it ({truth.reason}, {truth.usage}), the books do not")
            if truth.reason == "unfinished":
                self.say(f"{name}: the provider itself has not finished it")

    def _tries(self) -> None:
        """How often providers were asked, and for how long: the rules of docs/reliability.md, "Attempts"."""
        version = self.world.versions[0]
        calls: dict[str, dict[int, Row]] = defaultdict(dict)
        for row in self.books.rows:
            if row.attempt:
                calls[row.hold].setdefault(row.attempt, row)  # corrections come later
        lives: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for hold, by_number in calls.items():
            rows = [by_number[number] for number in sorted(by_number)]
            # Of two that were under way together, one is the question about the other.
            together = sum("recovered" in row.flags for row in rows) > 1
            rows = [row for row in rows if "rating" not in row.flags][: -1 if together else None]
            # With each key of a customer's own it is an offer by itself.
            offers = [(row.provider, row.words["upstream_id"], _own(row) and row.words["provider_key"]) for row in rows]
            hedge = hold.endswith(HEDGE)
            lives[hold.partition("-")[2][:6]][0] += not hedge
            # A second opinion is no retry; a second attempt beside a late one is.
            lives[hold.partition("-")[2][:6]][1] += sum("escalated" not in row.flags for row in rows) - (not hedge)
            # One more for a fallback model, which is tried in any case.
            if len(rows) > version.attempts_max + 1 or max(Counter(offers).values()) > version.per_offer_max:
                self.say(f"{hold}: {version.attempts_max} attempts, {version.per_offer_max} at one offer at most, not {offers}")
            for number, row in enumerate(rows):
                was_sent = row.cost is None or row.charge or row.usage
                if row.outcome == "timeout" and was_sent and offers[number] in offers[number + 1 :]:
                    self.say(f"{hold}: {row.provider} was silent until the time-out, and is asked again")
            if any("recovered" in row.flags for row in rows) or self.world.rates["leaps"]:
                continue  # nobody, or nothing at all, ran in between
            lasted_us = rows[-1].words["ended_us"] - rows[0].words["started_us"]
            if lasted_us > TOTAL_S * 1e6 + LATE_US:
                self.say(f"{hold}: took {lasted_us} µs, over its deadline of {TOTAL_S} s: {[row.outcome for row in rows]}")
        for life, (called, retried) in lives.items():
            # Retries are bounded by the calls of the ten seconds before: over two such spans, once.
            if not version.retries_per_s and retried * 100 > 2 * called * RETRIES_PERCENT:
                self.say(f"life {life}: {retried} retries for {called} calls")

    def _hedges(self) -> None:
        """Of two attempts that race the customer pays for one at most, and only one has the client."""
        charged: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for row in self.books.rows:
            charged[row.hold.removesuffix(HEDGE)][row.hold] += row.charge
        for call, by_hold in charged.items():
            paid = {hold: charge for hold, charge in by_hold.items() if charge}
            if len(paid) > 1:
                self.say(f"{call}: charged for two answers, {paid}")

    def _rows(self, books: Books, *, corrected: bool) -> list[Row]:
        """Compare row by row; the last rows of attempts that say that they do not know."""
        unknown: list[Row] = []
        revisions: dict[str, list[Row]] = defaultdict(list)
        for row in books.rows:
            revisions[row.name].append(row)
        partial = self.world.versions[0].bill_partial
        for name, rows in revisions.items():
            row = rows[-1]
            if row.attempt == 0:
                if row.charge or row.cost:
                    self.say(f"{name}: nothing was sent, and it has amounts")
                continue
            truth = self.bill.get(name)
            usage = truth.usage if truth is not None else {}
            rates, markup = self.price(row)
            cost = half_even(pico(usage, rates), 1_000)
            own = _own(row)
            # A continuation is charged its output only.
            paid = {name: count for name, count in usage.items() if "continued" not in row.flags or name not in INPUT}
            price = half_even(pico(paid, rates) * (10_000 + markup), 10_000_000)
            if own:
                # The provider bills the customer: of that, here is the fee, or nothing while calls are free.
                cost, price = 0, half_even(pico(paid, rates) * row.words.get("markup_bp", 0), 10_000_000)
                if row.words.get("markup_bp", 0) not in (0, OWN_BP) or row.words["provider_key"][:5] != "byok:":
                    self.say(f"{name}: by an own key at {row.words}")
            charge, loss = sum(one.charge for one in rows), sum(one.loss for one in rows)
            costs = [one.cost for one in rows if one.cost is not None]
            flags = set(row.flags)
            was_corrected = "corrected" in flags
            if not was_corrected:
                self._plausible(row, truth)
            unseen = own and row.usage is None
            if not was_corrected and (not costs or unseen or row.basis in ("estimated", "observed") or NOT_EXACT & flags):
                if corrected and sum(costs) == cost and charge + loss in (0, price):
                    continue  # the estimate was right
                unknown.append(row)
                continue
            if not costs or sum(costs) != cost:
                self.say(f"{name}: it cost {cost}, the books say {costs} ({row.outcome} {row.flags} {row.usage}/{usage})")
            known = {key: count for key, count in (row.usage or {}).items() if count}
            if known != {key: count for key, count in usage.items() if count}:
                self.say(f"{name}: used {usage}, the books say {row.usage} ({row.outcome} {row.flags})")
            if was_corrected:
                if charge + loss not in (0, price):
                    self.say(f"{name}: corrected; charge {charge} with loss {loss} is not the price {price}")
            elif "unbilled" in flags:
                if charge or loss or not {"escalated", "rating"} & flags:
                    self.say(f"{name}: charge {charge} and loss {loss} for what nobody got ({row.flags})")
            elif row.outcome in ("ok", "client_gone") or (partial and row.outcome in ("truncated", "error_event", "timeout")):
                if charge + loss != price:
                    self.say(f"{name}: charge {charge} and loss {loss}, the price is {price}")
            elif charge or loss:
                self.say(f"{name}: nobody pays for `{row.outcome}`, and {charge} is charged")
        return unknown

    def _plausible(self, row: Row, truth: Truth | None) -> None:
        """What a row says of its attempt is what its provider did."""
        if "hold_exceeded" in row.flags and not self._lied(row):
            self.say(f"{row.name}: the price exceeds the hold ({row.usage}, {row.flags})")
        if row.outcome == "ok" and truth is not None and truth.reason != "complete":
            self.say(f"{row.name} is `ok`, and its provider says {truth.reason}")
        if row.outcome == "ok" and truth is None:
            self.say(f"{row.name} is `ok`, and no provider knows it")

    def _lied(self, row: Row) -> bool:
        return "usage_anomaly" in row.flags or "estimated" in row.flags

    def _callers(self) -> None:
        calls: dict[str, list[Row]] = defaultdict(list)
        for row in self.books.rows:
            calls[row.hold].append(row)
        for caller in self.world.callers:
            self._caller(caller, calls)

    def _caller(self, caller: Caller, calls: dict[str, list[Row]]) -> None:
        fate, number = caller.fate, caller.order.number
        where = f"call {number} ({fate.model}, {fate.surface}, {'stream' if fate.stream else 'whole'})"
        revoked_us = self.world.revoked.get(caller.key)
        away = {"store_away", "store_slow"} & set(self.world.options.classes)
        if fate.status == 200 and revoked_us is not None and not away and caller.began_us > revoked_us + REVOKED_US:
            self.say(f"{where} was answered although {caller.key} was revoked {caller.began_us - revoked_us} µs before")
        if fate.status == 500:
            self.say(f"{where} got an internal error: {fate.body[:300]!r}")
        if fate.generation is None:
            return
        if fate.generation.endswith(HEDGE):
            self.say(f"{where}: its caller has the id {fate.generation}, which is one attempt's")
        if any(row.outcome == "ok" for row in calls.get(fate.generation + HEDGE, ())):
            # The second attempt has answered; the caller has the call's id.
            fate.generation += HEDGE
        rows = calls.get(fate.generation)
        if not rows:
            if fate.status == 200:
                self.say(f"{where}: its caller has the id {fate.generation}, the books have nothing")
            return
        if fate.status is not None and fate.status >= 400 and any(row.charge for row in rows):
            self.say(f"{where}: was told {fate.status} and is charged {[row.charge for row in rows]}")
        if not fate.complete:
            return
        if fate.generation in self.world.never_written:
            return
        if rows[-1].state != "settled" or any("recovered" in row.flags for row in rows):
            self.say(f"{where}: its caller got all of it, and the books say {rows[-1].state}")
            return
        answers = [row for row in rows if "rating" not in row.flags and (row.outcome == "ok" or row.charge)]
        last = answers[-1] if answers else rows[-1]
        if any("unbilled" in row.flags for row in rows):
            self.say(f"{where}: its caller got all of it, and not all is billed: {[row.flags for row in rows]}")
        truth = self.bill.get(last.name)
        if last.outcome != "ok" or truth is None or truth.reason != "complete":
            self.say(f"{where}: passed off as a success: {last.outcome}, provider {truth}")
            return
        told = fate.cost_usd
        charged = sum(row.charge for row in rows)
        if told is None:
            self.say(f"{where}: no cost in the answer {fate.body[-200:]!r}")
        else:
            whole, _, fraction = told.partition(".")
            if int(whole) * 10**9 + int(fraction.ljust(9, "0")) != charged:
                self.say(f"{where}: told {told}, charged {charged}")
        parts = [row.name for row in rows if "seam" in row.flags]
        parts.append(last.name)
        if any("malformed-event" in self.world.ordered[name] for name in parts):
            return  # one that is not JSON is left out, as the SDKs would
        said = [self._said(name) for name in parts]
        got = text_of(fate)
        # Who goes on with an answer goes on as the first would have; the output cap left to it is an estimate.
        if len(said) > 1 and any("repeat-prefill" in self.world.ordered[name] for name in parts[1:]):
            # Not recognised: one of a few characters, or one that the output cap cut short.
            said[0] = got if got is not None and is_pieced(got, said) else said[0]
        capped = len(said) > 1 and got is not None and said[0].startswith(got)
        if got != said[0] and not (capped and is_pieced(got.split(), [text.split() for text in said])):
            self.say(f"{where}: the provider said {said!r}, the caller got {got!r}")

    def _said(self, attempt: str) -> str:
        """The text that a provider meant to send."""
        planned = self.world.planned[attempt]
        return "".join(segment.text for choice in planned.choices for segment in choice.segments if segment.kind == "text")

    def _correct(self, unknown: list[Row]) -> None:
        database, ids = self.world.database(), self.world.ids
        for row in unknown:
            truth = self.bill.get(row.name)
            prices, _ = self.price(row)
            rates = Rates(
                input=prices["input"], cache_read=prices["input"], output=prices["output"], reasoning=prices["output"]
            )
            exact = Usage(**truth.usage) if truth is not None else Usage()
            adjustments.adjust(
                database, ids, hold_id=row.hold, attempt=row.attempt, exact=exact, rates=rates, now_us=self.world.now_us()
            )

    def _sums(self, books: Books) -> None:
        """The equation: what customers and providers were moved is what the rows say, and the true invoice."""
        invoice = 0
        seen: set[str] = set()
        for row in books.rows:
            truth = self.bill.get(row.name)
            if truth is None or row.name in seen:
                continue
            seen.add(row.name)
            invoice += 0 if _own(row) else half_even(pico(truth.usage, self.price(row)[0]), 1_000)
        if books.costs != invoice or books.moved("provider_cost") != invoice:
            self.say(f"providers invoice {invoice}, rows {books.costs}, transfers {books.moved('provider_cost')}")
        charged = sum(
            amount * ((credit == "revenue") - (debit == "revenue"))
            for debit, credit, amount, cause in books.transfers
            if cause in ("usage", "correction")
        )
        if charged != books.charged:
            self.say(f"customers' transfers come to {charged}, rows to {books.charged}")
