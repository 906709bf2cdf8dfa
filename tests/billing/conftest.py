"""A small world for billing tests: an account or two, workers with real journals, a clock that the test moves.

`Worker` keeps its money as a gateway does (granted, held, spent per scope) but asks the database only when told, so that a test
says exactly what happens when.
"""

import shutil
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from farebox.billing.accounts import budget_commands
from farebox.billing.accounts.budget_commands import Change
from farebox.billing.books import allotments, customers, ledger
from farebox.billing.books.allotments import ScopeRequest
from farebox.billing.books.customers import NewKey
from farebox.billing.budgets import Budget, Scope
from farebox.billing.covering import Covering
from farebox.billing.invariants.checks import Violation, check
from farebox.billing.journal import Journal, read_all
from farebox.billing.markup import Fees
from farebox.billing.posting import poster, recovery
from farebox.billing.pricing import charge_nano, cost_pico
from farebox.billing.records import Attempt, Closed, Hold, Opened, Settle
from farebox.catalog.price import Rates
from farebox.ports import TimeOrderedIds
from farebox.storage import queries
from farebox.storage.database import Database
from farebox.wires.usage import Usage

START_US = 1_795_392_000_000_000  # 2026-11-23T00:00:00Z
DOLLAR = 1_000_000_000
SEGMENT_BYTES = 64 * 1024
"""Small: a segment is reserved and read as a whole, and tests have many."""
OWN_FEES = Fees(per_call_nano=2_500, own_key=True)
RATES = Rates(input=2_500_000, cache_read=1_250_000, output=10_000_000, reasoning=10_000_000, request=1_500)


class ManualClock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.us = START_US

    def now_us(self) -> int:
        return self.us

    def monotonic_us(self) -> int:
        return self.us


def exact(usage: Usage, rates: Rates, markup_bp: int = 0) -> int:
    """The price in nano-dollars by fractions: `round` of a Fraction is half-even."""
    counts = {name: getattr(usage, name) for name in usage.__struct_fields__}
    pico = sum(Fraction(count) * getattr(rates, name) for name, count in counts.items()) + rates.request
    return round(pico * (10_000 + markup_bp) / 10_000 / 1_000)


class Purse:
    def __init__(self) -> None:
        self.granted = 0
        self.held = 0
        self.spent = 0

    @property
    def free(self) -> int:
        return self.granted - self.held - self.spent


class Worker:
    """One life of a worker slot."""

    def __init__(self, world: "World", slot: str) -> None:
        """Finish what an earlier life left open, then open this one, as a gateway does."""
        self.world = world
        self.slot = slot
        path = world.journals / slot
        self.journal = Journal(path, sync="os", segment_bytes_max=SEGMENT_BYTES)
        owed = recovery.finish(read_all(path), world.clock)
        if owed:
            self.journal.write(*owed)
        self.recovered = owed
        self.life = world.ids.new("life")
        self.journal.write(Opened(self.life, world.clock.us))
        self.purses: dict[str, Purse] = {}
        self.open: dict[str, Hold] = {}

    def take(self, scopes: list[Scope], amount_nano: int, wish_nano: int | None = None) -> bool:
        """Bring every purse up to the amount, all or nothing."""
        missing = [
            ScopeRequest(scope, need, max(need, wish_nano or need))
            for scope in scopes
            if (need := amount_nano - self.purse(scope.id).free) > 0
        ]
        if missing:
            taken = allotments.take(self.world.database, missing, life=self.life, now_us=self.world.clock.us)
            for request, got in zip(missing, taken, strict=True):
                self.purse(request.scope.id).granted += got.granted_nano
            return all(got.granted_nano for got in taken)
        return True

    def purse(self, scope_id: str) -> Purse:
        return self.purses.setdefault(scope_id, Purse())

    def hold(
        self,
        key_id: str,
        amount_nano: int,
        *,
        wish_nano: int | None = None,
        rates: Rates = RATES,
        markup_bp: int = 0,
        budgets: list[Budget] | None = None,
        **more: Any,
    ) -> Hold | None:
        """Reserve and journal, or None when some scope has not enough. `budgets` are those that the worker knows of."""
        account_id, scopes = self.world.scopes(key_id, budgets, **more)
        if not self.take(scopes, amount_nano, wish_nano):
            return None
        hold = Hold(
            id=self.world.ids.new("gen"), at_us=self.world.clock.us, account=account_id, key=key_id,
            scopes=tuple(scope.id for scope in scopes), amount_nano=amount_nano, surface="openai_chat",
            model=more.get("model", "openai/gpt-4o"), provider="openai", upstream_id="gpt-4o",
            price_version="openai/gpt-4o@2026-11-23", rates=rates, markup_bp=markup_bp, end_user=more.get("end_user", ""),
        )  # fmt: skip
        for scope in scopes:
            self.purse(scope.id).held += amount_nano
        self.journal.write(hold)
        self.open[hold.id] = hold
        return hold

    def attempt(self, hold: Hold, usage: Usage | None, n: int = 1, room_nano: int | None = None, **more: object) -> Attempt:
        """An attempt at the hold's own rates; the customer pays up to the room."""
        cost = charge = loss = None
        if usage is not None:
            price = exact(usage, hold.rates, hold.markup_bp)
            charge = min(price, hold.amount_nano if room_nano is None else room_nano)
            cost, loss = exact(usage, hold.rates), price - charge
        values: dict[str, object] = {
            "n": n, "provider": "openai", "upstream_id": "gpt-4o", "started_us": hold.at_us, "ended_us": self.world.clock.us,
            "outcome": "ok" if usage is not None else "truncated", "usage": usage,
            "basis": "reported" if usage is not None else "none",
            "rates": hold.rates if usage is not None else None, "markup_bp": hold.markup_bp, "cost_nano": cost,
            "charge_nano": charge or 0, "loss_nano": loss or 0,
        }  # fmt: skip
        return Attempt(**(values | more))  # pyright: ignore[reportArgumentType]

    def own(self, hold: Hold, used: Usage, *, bp: int = 500, fees: Fees = OWN_FEES, **more: object) -> Attempt:
        """An attempt by a customer's own key, charged the fee alone, whatever the hold says; up to the hold."""
        price = charge_nano(cost_pico(used, hold.rates), bp, fees)
        values: dict[str, object] = {
            "fees": fees, "markup_bp": bp, "plan": "BYOK", "provider_key": "byok:one", "cost_nano": 0,
            "charge_nano": min(price, hold.amount_nano), "loss_nano": max(price - hold.amount_nano, 0),
        }  # fmt: skip
        return self.attempt(hold, used, **(values | more))

    def settle(self, hold: Hold, *attempts: Attempt, state: str = "settled", **more: object) -> Settle:
        """End a hold: the terminal record, and the purse."""
        charge = sum(one.charge_nano for one in attempts)
        values: dict[str, object] = dict(
            id=hold.id, state=state, at_us=self.world.clock.us, account=hold.account, key=hold.key, scopes=hold.scopes,
            hold_nano=hold.amount_nano, charge_nano=charge, surface=hold.surface, model=hold.model, attempts=attempts,
            created_us=hold.at_us, life=self.life, project=hold.project, end_user=hold.end_user, streamed=True,
        )  # fmt: skip
        settle = Settle(**(values | more))  # pyright: ignore[reportArgumentType]
        self.journal.write(settle)
        del self.open[hold.id]
        for scope in hold.scopes:
            purse = self.purse(scope)
            purse.held -= hold.amount_nano
            purse.spent += charge
        return settle

    def call(self, key_id: str, usage: Usage, *, hold_nano: int | None = None, **more: object) -> Settle | None:
        """A whole call; None when it was refused."""
        hold = self.hold(key_id, hold_nano or exact(usage, RATES), **more)  # pyright: ignore[reportArgumentType]
        return None if hold is None else self.settle(hold, self.attempt(hold, usage))

    def void(self, hold: Hold) -> Settle:
        return self.settle(hold, state="voided")

    def give_back(self, scope_id: str) -> None:
        """Return what is free."""
        purse = self.purse(scope_id)
        purse.granted -= purse.free
        allotments.give_back(self.world.database, scope_id, life=self.life, granted_nano=purse.granted)

    def close(self) -> None:
        """A clean end."""
        assert not self.open
        self.journal.write(Closed(self.life, self.world.clock.us))
        self.journal.close()

    def crash(self) -> None:
        """The memory is gone; the journal stays as it is."""
        self.journal.close()


class World:
    """A database, journals, a clock, customers."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.clock = ManualClock()
        self.ids = TimeOrderedIds(self.clock)
        self.database = Database.open(url)
        self.journals = folder
        self.workers: list[Worker] = []
        self._keys: dict[str, tuple[str, str | None]] = {}
        self._budgets: dict[str, list[Budget]] = {}

    def close(self) -> None:
        for worker in self.workers:
            worker.journal.close()
        self.database.close()
        shutil.rmtree(self.journals, ignore_errors=True)

    def account(self, credit_nano: int = 0, *, kind: str = "prepaid", line_nano: int = 0) -> str:
        account = self.ids.new("acc")
        customers.create_account(
            self.database, id=account, name=account, kind=kind, credit_limit_nano=line_nano, now_us=self.clock.us  # pyright: ignore[reportArgumentType]
        )  # fmt: skip
        if credit_nano:
            self.top_up(account, credit_nano)
        return account

    def top_up(self, account: str, amount_nano: int, *, expires_us: int | None = None, promo: bool = False) -> ledger.Grant:
        give = ledger.grant if promo else ledger.top_up
        return give(
            self.database, self.ids, command_id=self.ids.new("cmd"), account_id=account, amount_nano=amount_nano,
            expires_us=expires_us, now_us=self.clock.us,
        )  # fmt: skip

    def key(self, account: str, budget_nano: int | None = None, window: str = "none") -> str:
        key = self.ids.new("key")
        new = NewKey(key, account, key, key.encode(), "fb-…", budget_nano=budget_nano, budget_window=window)  # pyright: ignore[reportArgumentType]
        customers.create_key(self.database, new, now_us=self.clock.us)
        self._keys[key] = (account, window if budget_nano is not None else None)
        return key

    def scopes(
        self, key: str, budgets: list[Budget] | None = None, *, model: str = "openai/gpt-4o", end_user: str = ""
    ) -> tuple[str, list[Scope]]:
        account, window = self._keys[key]
        known = self._budgets.get(account, []) if budgets is None else budgets
        covering = Covering(account, key, key_window=window, budgets=known)  # pyright: ignore[reportArgumentType]
        return account, list(covering.scopes(self.clock.us, models=(model,), providers=("openai",), end_user=end_user))

    def budgets(self, account: str) -> list[Budget]:
        """What workers know of them that have heard of every change."""
        return list(self._budgets.get(account, ()))

    def change_budget(self, account: str, budget_id: str, **changes: Any) -> Budget:
        changed = budget_commands.change_budget(self.database, budget_id, Change(**changes), now_us=self.clock.us)
        self._budgets[account] = [changed if one.id == budget_id else one for one in self._budgets[account]]
        return changed

    def budget(self, account: str, amount_nano: int, window: str = "none", **more: Any) -> str:
        """A budget, in force from now on; on the whole account unless said otherwise."""
        values = {"kind": "account", **more}
        made = Budget(self.ids.new("bud"), amount_nano=amount_nano, window=window, **values)  # pyright: ignore[reportArgumentType]
        budget_commands.create_budget(self.database, account, made, now_us=self.clock.us)
        self._budgets.setdefault(account, []).append(made)
        return made.id

    def worker(self, slot: str = "w1") -> Worker:
        worker = Worker(self, slot)
        self.workers.append(worker)
        return worker

    def post(self, **options: Any) -> poster.Posted:
        return poster.post(self.database, self.journals, self.ids, self.clock, **options)

    def check(self) -> list[Violation]:
        return check(self.database, self.journals)

    def balance(self, account: str) -> queries.Balance:
        found = self.database.read(lambda connection: queries.balance(connection, account))
        assert found is not None
        return found

    def scope(self, scope_id: str) -> queries.Balance | None:
        return self.database.read(lambda connection: queries.scope_balance(connection, scope_id))

    def credits(self, account: str) -> queries.Credits:
        return self.database.read(lambda connection: queries.account_credits(connection, account))

    def rows(self, settle: Settle) -> list[queries.UsageRow]:
        return self.database.read(lambda connection: queries.generation(connection, [settle.id], account_id=settle.account))

    def sums(self) -> dict[str, int]:
        """Debits − credits of every ledger account."""
        from sqlalchemy import select

        from farebox.storage.tables import transfers

        found: dict[str, int] = {}
        for row in self.database.read(lambda connection: connection.execute(select(transfers)).all()):
            found[row.debit] = found.get(row.debit, 0) + row.amount_nano
            found[row.credit] = found.get(row.credit, 0) - row.amount_nano
        return found

    def outbox(self, kind: str) -> list[tuple[str, int]]:
        from sqlalchemy import select

        from farebox.storage.tables import outbox

        query = (
            select(outbox.c.subject, outbox.c.threshold).where(outbox.c.kind == kind).order_by(outbox.c.created_us, outbox.c.id)
        )
        return [(row.subject, row.threshold) for row in self.database.read(lambda connection: connection.execute(query).all())]


MakeWorld = Callable[[], World]


@pytest.fixture
def make_world(fresh_database: Callable[[], str], tmp_path: Path) -> Iterator[MakeWorld]:
    """A function that makes a world on a fresh database of the engine under test."""
    made: list[World] = []

    def make() -> World:
        folder = tmp_path / f"journals-{len(made)}"
        folder.mkdir()
        world = World(fresh_database(), folder)
        made.append(world)
        return world

    yield make
    for world in made:
        world.close()


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    return make_world()
