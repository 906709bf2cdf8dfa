"""Every scope at once: account, organisation, project, keys, end users, a tag; 500 concurrent calls; a top-up racing.

Of each call it is known beforehand in which scopes it counts, and of each scope how many calls fit. Then, whatever the order:
no scope is ever over, and whoever was refused names a scope that was really full.
"""

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.scenarios.test_overshoot import books_url, nano
from tests.support.callers import Fate, body_for, call
from tests.support.postgres import own_database
from tests.support.reconcile import read_books
from tests.support.running import Farebox, model, offer, provider, wait_until

from farebox.billing.books import ledger
from farebox.billing.holds import REFUSED_MEMORY_US
from farebox.config import load
from farebox.money import format_amount
from farebox.ports import SystemClock, TimeOrderedIds
from farebox.simulator.testing import SimulatorProcess
from farebox.storage.database import Database

OUTPUT = 50
"""Tokens, at $1000 per million, so that input costs next to nothing: a call that has ended frees next to nothing."""
MODEL = "t/dear"
PLENTY = 2_000
CREDIT, RACING = 40, 20
SIZES = {
    "account": CREDIT + RACING, "organisation": 70, "project": 40, "key": 5, "key's budget": 7, "ann": 5, "bob": 4, "carol": 4,
    "night": 6,
}  # fmt: skip
"""How many calls fit into each scope."""


@dataclass(frozen=True)
class Group:
    """Calls that count in the same scopes."""

    count: int
    key: str
    scopes: tuple[str, ...]
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


GROUPS = (
    Group(200, "free", ()),
    Group(60, "free", ("ann",), {"x-farebox-end-user": "ann"}),
    Group(40, "free", ("bob",), {"x-litellm-end-user-id": "bob"}),
    Group(30, "free", ("carol",), {"x-openwebui-user-id": "carol"}),
    Group(40, "free", ("night",), {"x-farebox-tags": "batch,night"}),
    Group(10, "free", ("carol", "night"), {"x-openwebui-user-id": "carol", "x-litellm-tags": "night"}),
    Group(40, "own", ("project", "key")),
    Group(40, "limited", ("project", "key's budget")),
    Group(40, "web", ("project",)),
)
assert sum(group.count for group in GROUPS) == 500


class Shop:
    """One account with everything that can limit a call."""

    def __init__(self, box: Farebox, one_nano: int) -> None:
        self.box, self.one_nano, self.sizes = box, one_nano, dict(SIZES)
        self.rushed_s = 0.0
        self.account = box.do("accounts", "create", "shop")["id"]
        box.do("projects", "create", "web", "--account", "shop")
        keys = {
            "free": (), "own": ("--project", "web", "--budget", self.usd("key"), "--budget-window", "month"),
            "limited": ("--project", "web"), "web": ("--project", "web"),
        }  # fmt: skip
        made = {name: box.do("keys", "create", "--account", "shop", "--name", name, *more) for name, more in keys.items()}
        self.keys = {name: key["key"] for name, key in made.items()}
        self.budgets: dict[str, str] = {}
        self._budget("organisation", "--window", "day")
        self._budget("project", "--project", "web", "--window", "week")
        self._budget("key's budget", "--key", made["limited"]["id"], "--window", "month", "--zone", "Asia/Kolkata")
        self._budget("ann", "--end-user", "ann", "--window", "none")
        self._budget("bob", "--end-user", "*", "--window", "day")
        self._budget("night", "--tag", "night", "--window", "hour", "--model", "t/*", "--provider", "lab")
        # What limits other models and providers, or only alerts, is in nobody's way.
        nothing = ("0.000000001", "--account", "shop")
        for more in (("--model", "other/*"), ("--provider", "nobody"), ("--tag", "day"), ("--end-user", "eve"), ("--soft",)):
            box.do("budgets", "create", *nothing, *more)
        self.names = {f"budget:{id}": name for name, id in self.budgets.items()}
        self.names |= {f"account:{self.account}": "account", f"key:{made['own']['id']}": "key"}
        self.admitted: Counter[str] = Counter()
        self.charged: Counter[str] = Counter()
        self.named: set[str] = set()

    def limit_nano(self, calls: int) -> int:
        return calls * self.one_nano + self.one_nano // 2

    def usd(self, scope: str) -> str:
        return format_amount(self.limit_nano(self.sizes[scope]))

    def _budget(self, name: str, *more: str) -> None:
        self.budgets[name] = self.box.do("budgets", "create", self.usd(name), "--account", "shop", *more)["id"]

    def top_up(self, amount_nano: int) -> None:
        clock = SystemClock()
        ids = TimeOrderedIds(clock)
        with Database.open(load(self.box.config_path, self.box.environment).database_url) as database:
            ledger.top_up(
                database, ids, command_id=ids.new("cmd"), account_id=self.account, amount_nano=amount_nano, now_us=clock.now_us()
            )

    def rush(
        self, seed: int, *, groups: Sequence[Group] = GROUPS, part: int = 1, racing_nano: int = 0
    ) -> list[tuple[Group, Fate]]:
        """All calls at once in some order, or one in so many of them; the top-up comes as soon as somebody was answered."""
        # Until then a worker may refuse by what the database said before it was changed.
        wait_until(lambda: time.monotonic() > self.rushed_s + REFUSED_MEMORY_US / 1_000_000, "refusals are forgotten")
        chance = random.Random(seed)
        calls: list[tuple[Group, Fate, dict[str, Any]]] = []
        for group in groups:
            for _ in range(group.count // part):
                fate = Fate(chance.choice(("chat", "messages")), MODEL, chance.random() < 0.5)
                calls.append((group, fate, body_for(fate.surface, MODEL, stream=fate.stream, max_tokens=OUTPUT)))
        chance.shuffle(calls)
        over = threading.Event()

        def race() -> None:
            wait_until(lambda: over.is_set() or any(fate.status == 200 for _, fate, _ in calls), "an answer", timeout_s=30)
            self.top_up(racing_nano)

        async def run() -> None:
            await asyncio.gather(
                *(call(self.box.port, self.keys[group.key], fate, body, group.headers) for group, fate, body in calls)
            )

        racer = threading.Thread(target=race)
        if racing_nano:
            racer.start()
        try:
            asyncio.run(run())
        finally:
            over.set()
            self.rushed_s = time.monotonic()
        if racing_nano:
            racer.join(30)
            assert not racer.is_alive()
        return [(group, fate) for group, fate, _ in calls]

    def reckon(self, fates: list[tuple[Group, Fate]]) -> list[tuple[Group, str, dict[str, Any]]]:
        """Count who was admitted where; the refusals: whose, naming which scope, in what words."""
        refusals: list[tuple[Group, str, dict[str, Any]]] = []
        for group, fate in fates:
            if fate.status == 200:
                assert fate.complete, (fate.surface, fate.stream, fate.body[-300:])
                for name in ("account", "organisation", *group.scopes):
                    self.admitted[name] += 1
                    self.charged[name] += nano(fate.cost_usd or "")
                continue
            assert fate.status == 402, (fate.status, fate.error, fate.body[:300])
            details = fate.json()["error"]["farebox"]
            scope = ":".join(details["scope"].split(":")[:2])
            name = self.names[scope]
            if name == "bob":  # one budget of each end user
                (name,) = {"bob", "carol"}.intersection(group.scopes)
            assert name in ("account", "organisation", *group.scopes), f"{group} is not limited by {name}"
            assert nano(details["spent_usd"]) + nano(details["held_usd"]) <= nano(details["limit_usd"])
            assert nano(details["available_usd"]) < nano(details["needed_usd"])
            refusals.append((group, name, details))
            self.named.add(name)
        return refusals

    def settled(self) -> None:
        """Wait until everything is posted; then every scope has exactly what its calls were charged."""

        def posted(prefix: str) -> int:
            return sum(row[1] for id, row in read_books(books_url(self.box)).scopes.items() if id.startswith(prefix))

        account = f"account:{self.account}"
        wait_until(lambda: posted(account) == self.charged["account"], "everything is posted")
        self.charged["bob and carol"] = self.charged["bob"] + self.charged["carol"]
        for prefix, name in self.names.items():
            assert posted(prefix) == self.charged["bob and carol" if name == "bob" else name], name
        for id, (bound, spent, allotted) in read_books(books_url(self.box)).scopes.items():
            assert spent + allotted <= bound, f"{id}: {spent} + {allotted} of {bound}"


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.full)])
def box(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farebox]:
    with ExitStack() as stack:
        simulator = stack.enter_context(SimulatorProcess())
        url = None
        if request.param == "postgresql":
            url = stack.enter_context(own_database(request.getfixturevalue("postgres_server"), "everywhere"))
        config = provider("lab", f"{simulator.origin}/v1") + "[limits]\nrequests_per_minute = 1000000\n"
        config += "[health]\nfailures_in_a_row = 1000000\nsamples_min = 1000000\n"
        dear = offer("lab", f"sim+tokens={OUTPUT}+delay-first=300ms", input="0.01", output="1000.00")
        config += model(MODEL, dear, output=OUTPUT)
        folder = tmp_path_factory.mktemp("everywhere") / "box"
        yield stack.enter_context(Farebox(folder, config=config, workers=2, database_url=url))


def test_no_scope_is_over_and_nobody_is_refused_without_need(box: Farebox) -> None:
    body = body_for("messages", MODEL, stream=True, max_tokens=OUTPUT)
    poor = box.post("/v1/messages", body, key=box.customer("penniless").secret)
    shop = Shop(box, nano(poor.json()["error"]["farebox"]["needed_usd"]))

    def full(name: str) -> bool:
        return shop.admitted[name] == shop.sizes[name]

    # The account has credit for 40 calls, then for 60, while 500 want it.
    shop.top_up(shop.limit_nano(CREDIT))
    for _, name, details in shop.reckon(shop.rush(1, racing_nano=RACING * shop.one_nano)):
        before = name == "account" and nano(details["limit_usd"]) == shop.limit_nano(CREDIT)
        assert before or full(name), f"refused by {name} with {shop.admitted[name]} of {shop.sizes[name]}: {details}"
    assert CREDIT <= shop.admitted["account"] <= CREDIT + RACING
    shop.settled()
    # Now the top-up is everybody's: what still fits is used to the last call.
    for _, name, details in shop.reckon(shop.rush(2, part=5)):
        assert full(name), f"refused by {name} with {shop.admitted[name]} of {shop.sizes[name]}: {details}"
    assert full("account")
    shop.settled()
    # With more credit it is the organisation's budget, and with more of that each part's own.
    box.do("topup", "shop", format_amount(PLENTY * shop.one_nano))
    shop.sizes["account"] += PLENTY
    for _, name, details in shop.reckon(shop.rush(3, part=5)):
        assert full(name), f"refused by {name} with {shop.admitted[name]} of {shop.sizes[name]}: {details}"
    assert full("organisation")
    box.cli("budgets", "update", shop.budgets["organisation"], format_amount(shop.limit_nano(PLENTY)))
    shop.sizes["organisation"] = PLENTY
    refused = shop.reckon(shop.rush(4, groups=GROUPS[:-1]))
    refused += shop.reckon(shop.rush(5, groups=GROUPS[-1:]))
    for _, name, details in refused:
        assert full(name), f"refused by {name} with {shop.admitted[name]} of {shop.sizes[name]}: {details}"
    assert not [group for group, _, _ in refused if not group.scopes], "who is in nobody's scope is refused by nobody's"
    shop.settled()
    assert set(shop.sizes) - shop.named == set(), "every scope had to refuse somebody"
    assert box.stop() == 0, box.log()
    box.check_books()
