"""Two organisations with projects and every kind of key against every route: nobody reads or changes what is not theirs.

Every route has a row here, or the first test fails. Statuses are written out, not derived from the routes; what belongs to others
is looked for in every answer by marks that are in their names, and their rows in the database must not move.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from sqlalchemy import select
from tests.scenarios.test_invoices import INVOICES, last_month
from tests.support.running import Farebox, Reply, model, offer, provider, wait_until

from farebox.billing.accounts import provider_keys
from farebox.billing.accounts.provider_keys import NewProviderKey
from farebox.billing.books import customers
from farebox.billing.books.periods import month_before, month_of
from farebox.cli.setup import MadeKey, make_key
from farebox.config import load
from farebox.edge.app import CALLS
from farebox.edge.routes import ROUTES
from farebox.pepper import read_pepper
from farebox.ports import SystemClock, TimeOrderedIds
from farebox.simulator.testing import SimulatorProcess
from farebox.storage import tables
from farebox.storage.database import Database
from farebox.vault.vault import Vault

Kind = Literal["usual", "calls", "reads", "manages", "disabled", "expired", "revoked"]
KINDS: tuple[Kind, ...] = ("usual", "calls", "reads", "manages", "disabled", "expired", "revoked")
PLACES = ("", "one", "two")
"""Projects of each organisation; empty is none."""
SCOPES: dict[Kind, str] = {"calls": "inference", "reads": "read_usage", "manages": "manage"}
MESSAGES = [{"role": "user", "content": "hi"}]
CHAT = {"model": "t/one", "messages": MESSAGES, "max_tokens": 20}

Statuses = dict[str, int]
OUT: Statuses = {"none": 401, "unknown": 401, "disabled": 403, "expired": 401, "revoked": 401}
"""Those that never get in."""
OPEN: Statuses = {**OUT, "none": 200, "usual": 200, "calls": 200, "reads": 200, "manages": 200}
"""Public, but a key that is sent is checked."""
ANYBODY: Statuses = {name: 200 for name in (*OPEN, "unknown")}
"""Keys are not looked at."""
HOLDERS: Statuses = {**OUT, "usual": 200, "calls": 200, "reads": 200, "manages": 200}
READERS: Statuses = {**OUT, "usual": 200, "calls": 403, "reads": 200, "manages": 200}
MANAGERS: Statuses = {**OUT, "usual": 403, "calls": 403, "reads": 403, "manages": 200}
CALLERS: Statuses = {**OUT, "usual": 200, "calls": 200, "reads": 403, "manages": 403}


@dataclass
class Tenant:
    """One organisation: ids by place and kind."""

    name: str
    account: str
    projects: dict[str, str]
    keys: dict[tuple[str, Kind], MadeKey]
    calls: dict[str, str] = field(default_factory=dict[str, str])
    """A generation by place."""
    fodder: dict[str, MadeKey] = field(default_factory=dict[str, MadeKey])
    """A key by place that is there to be managed."""
    own_keys: dict[str, str] = field(default_factory=dict[str, str])
    """A key of its own at a provider, disabled, by place."""
    invoice: str = ""
    day: str = ""
    """On which its calls were sealed."""

    def marks(self, *places: str) -> set[str]:
        """What must be in no answer to somebody else: names, ids, hints of these places."""
        found = {mark(self.name, place) for place in places}
        found |= {made.id for (place, _), made in self.keys.items() if place in places}
        found |= {made.id for place, made in self.fodder.items() if place in places}
        found |= {id for place, id in self.own_keys.items() if place in places}
        found |= {self.calls[place] for place in places} | {self.projects[place] for place in places if place}
        if "" in places:
            found |= {self.account, self.name, self.invoice}
        return found


def mark(tenant: str, place: str) -> str:
    return f"mark-{tenant}-{place or 'none'}"


@dataclass(frozen=True)
class Row:
    """How a route is called and who gets in; `about` makes the request for the ids of something."""

    statuses: Statuses
    path: Callable[[Tenant, str], str]
    """Of what belongs to a tenant in a place."""
    body: Callable[[Tenant, str], Any] = lambda tenant, place: None
    named: bool = False
    """Path or body name something by id: what is another's is a 404."""
    whole: bool = False
    """It is the whole account's: a key in a project is refused."""
    created: int = 200


def at(path: str) -> Callable[[Tenant, str], str]:
    return lambda tenant, place: path


def about_key(path: str) -> Callable[[Tenant, str], str]:
    return lambda tenant, place: path.format(key=tenant.fodder[place].id)


def about_own_key(tenant: Tenant, place: str) -> str:
    return f"/v1/byok/{tenant.own_keys[place]}"


def key_body(**more: Any) -> Callable[[Tenant, str], Any]:
    return lambda tenant, place: {"key": tenant.fodder[place].id, **more}


ROWS: dict[tuple[str, str], Row] = {
    ("GET", "/healthz"): Row(ANYBODY, at("/healthz")),
    ("GET", "/readyz"): Row(ANYBODY, at("/readyz")),
    ("GET", "/healthz/providers"): Row({**ANYBODY, **HOLDERS}, at("/healthz/providers")),
    ("GET", "/metrics"): Row({**ANYBODY, **HOLDERS}, at("/metrics")),
    ("GET", "/models"): Row(OPEN, at("/v1/models")),
    ("GET", "/models/*"): Row(OPEN, at("/v1/models/t/one")),
    ("GET", "/providers"): Row(HOLDERS, at("/v1/providers")),
    ("GET", "/generation"): Row(HOLDERS, lambda t, p: f"/v1/generation?id={t.calls[p]}", named=True),
    ("GET", "/key"): Row(HOLDERS, at("/v1/key")),
    ("GET", "/credits"): Row(READERS, at("/v1/credits"), whole=True),
    ("GET", "/activity"): Row(READERS, at("/v1/activity?date=1m")),
    ("GET", "/usage"): Row(READERS, at("/v1/usage?group_by=key,project,user,tag,model&since=90d")),
    ("GET", "/compare"): Row(READERS, at("/v1/compare")),
    ("GET", "/invoices"): Row(READERS, at("/v1/invoices"), whole=True),
    ("GET", "/invoices/*"): Row(READERS, lambda t, p: f"/v1/invoices/{t.invoice}", named=True, whole=True),
    ("POST", "/invoices/*"): Row(MANAGERS, lambda t, p: f"/v1/invoices/{t.invoice}/pay", whole=True, created=404),
    ("GET", "/receipts"): Row(READERS, lambda t, p: f"/v1/receipts?id={t.calls[p]}", named=True),
    ("GET", "/receipts/*"): Row(READERS, lambda t, p: f"/v1/receipts/{t.day}", whole=True),
    ("GET", "/.well-known/farebox-keys.json"): Row(ANYBODY, at("/.well-known/farebox-keys.json")),
    ("GET", "/keys"): Row(MANAGERS, at("/v1/keys?include_disabled=true")),
    ("POST", "/keys"): Row(MANAGERS, at("/v1/keys"), lambda t, p: {"name": "made"}, created=201),
    ("GET", "/keys/*"): Row(MANAGERS, about_key("/v1/keys/{key}"), named=True),
    ("PATCH", "/keys/*"): Row(MANAGERS, about_key("/v1/keys/{key}"), lambda t, p: {"limit": 3}, named=True),
    ("DELETE", "/keys/*"): Row(MANAGERS, about_key("/v1/keys/{key}"), named=True),
    ("GET", "/byok"): Row(MANAGERS, at("/v1/byok")),
    ("POST", "/byok"): Row(MANAGERS, at("/v1/byok"), lambda t, p: {"provider": "lab", "key": "sk-customer"}, created=201),
    ("GET", "/byok/*"): Row(MANAGERS, about_own_key, named=True),
    ("PATCH", "/byok/*"): Row(MANAGERS, about_own_key, lambda t, p: {"key": "sk-customer-2", "always_use": True}, named=True),
    ("DELETE", "/byok/*"): Row(MANAGERS, about_own_key, named=True),
    ("POST", "/key/generate"): Row(MANAGERS, at("/key/generate"), lambda t, p: {"key_alias": "made"}),
    ("GET", "/key/info"): Row(MANAGERS, about_key("/key/info?key={key}"), named=True),
    ("GET", "/key/list"): Row(MANAGERS, at("/key/list?return_full_object=true&size=100")),
    ("POST", "/key/update"): Row(MANAGERS, at("/key/update"), key_body(max_budget=4), named=True),
    ("POST", "/key/delete"): Row(MANAGERS, at("/key/delete"), lambda t, p: {"keys": [t.fodder[p].id]}, named=True),
    ("POST", "/key/block"): Row(MANAGERS, at("/key/block"), key_body(), named=True),
    ("POST", "/key/unblock"): Row(MANAGERS, at("/key/unblock"), key_body(), named=True),
    ("POST", "/key/regenerate"): Row(MANAGERS, at("/key/regenerate"), key_body(), named=True),
    ("POST", "/key/*"): Row(MANAGERS, about_key("/key/{key}/regenerate"), named=True),
    ("GET", "/dashboard/billing/subscription"): Row(HOLDERS, at("/v1/dashboard/billing/subscription")),
    ("GET", "/dashboard/billing/usage"): Row(HOLDERS, at("/v1/dashboard/billing/usage")),
    ("GET", "/usage/token"): Row(HOLDERS, at("/api/usage/token")),
    # Nothing is paid by card here: what is there is said first to whom. `test_card_payments` has it switched on.
    ("POST", "/signup"): Row(ANYBODY, at("/v1/signup"), lambda t, p: {"email": "ann@shop.example"}, created=404),
    ("POST", "/topups"): Row(MANAGERS, at("/v1/topups"), lambda t, p: {"amount_usd": "25.00"}, whole=True, created=404),
    ("GET", "/topups/*"): Row(MANAGERS, at("/v1/topups/pay-1"), whole=True, created=404),
    ("GET", "/topups/auto"): Row(MANAGERS, at("/v1/topups/auto"), whole=True, created=404),
    ("POST", "/topups/auto"): Row(MANAGERS, at("/v1/topups/auto"), lambda t, p: {"enabled": False}, whole=True, created=404),
    ("POST", "/stripe/webhook"): Row(ANYBODY, at("/stripe/webhook"), lambda t, p: {}, created=404),
    ("POST", "/chat/completions"): Row(CALLERS, at("/v1/chat/completions"), lambda t, p: CHAT),
    ("POST", "/messages"): Row(CALLERS, at("/v1/messages"), lambda t, p: CHAT),
    ("POST", "/messages/count_tokens"): Row(
        CALLERS, at("/v1/messages/count_tokens"), lambda t, p: {"model": "t/one", "messages": MESSAGES}
    ),
    ("POST", "/route/explain"): Row(CALLERS, at("/v1/route/explain"), lambda t, p: CHAT),
}
DESTROYS = {("DELETE", "/keys/*"), ("POST", "/key/delete"), ("DELETE", "/byok/*")}


class World:
    """Both tenants, and a way to ask as anybody."""

    def __init__(self, box: Farebox) -> None:
        self.box = box
        self.loaded = load(box.config_path, box.environment)
        self.database = Database.open(self.loaded.database_url)
        self.clock = SystemClock()
        self.ids = TimeOrderedIds(self.clock)
        self.tenants = [self._tenant(name) for name in ("alpha", "omega")]

    def _tenant(self, name: str) -> Tenant:
        now_us = self.clock.now_us()
        account = self.ids.new("acc")
        customers.create_account(
            self.database, id=account, name=name, kind="postpaid", credit_limit_nano=100 * 10**9, now_us=now_us
        )
        projects = {"": ""}
        for place in PLACES[1:]:
            projects[place] = self.ids.new("prj")
            customers.create_project(
                self.database, id=projects[place], account_id=account, name=mark(name, place), now_us=now_us
            )
        tenant = Tenant(name, account, projects, {})
        for place in PLACES:
            for kind in KINDS:
                tenant.keys[place, kind] = self.key(tenant, place, kind)
            tenant.fodder[place] = self.key(tenant, place, "usual")
            tenant.own_keys[place] = self.own_key(tenant, place)
        return tenant

    def own_key(self, tenant: Tenant, place: str) -> str:
        new = NewProviderKey(
            id=self.ids.new("byok"),
            account_id=tenant.account,
            provider="lab",
            secret=mark(tenant.name, place),
            hint=mark(tenant.name, place),
            name=mark(tenant.name, place),
            project=tenant.projects[place],
            disabled=True,
        )
        provider_keys.create(self.database, Vault(self.loaded.byok_master_file), new, now_us=self.clock.now_us())
        return new.id

    def key(self, tenant: Tenant, place: str, kind: Kind) -> MadeKey:
        made = make_key(
            self.database,
            read_pepper(self.loaded),
            account_id=tenant.account,
            name=mark(tenant.name, place),
            project=tenant.projects[place],
            permissions=SCOPES.get(kind, customers.DEFAULT_PERMISSIONS),
            expires_us=self.clock.now_us() - 1 if kind == "expired" else None,
        )
        now_us = self.clock.now_us()
        if kind == "disabled":
            customers.change_key(self.database, made.id, customers.KeyChange(disabled=True), now_us=now_us)
        if kind == "revoked":
            customers.revoke_key(self.database, made.id, now_us=now_us)
        return made

    def ask(self, secret: str | None, method: str, row: Row, tenant: Tenant, place: str, prefix: str | None = None) -> Reply:
        path = row.path(tenant, place)
        if prefix is not None:
            path = prefix + path.removeprefix("/api").removeprefix("/v1")
        body = row.body(tenant, place)
        data = None if body is None else json.dumps(body).encode()
        return self.box.request(method, path, data, key=secret)

    def state(self, tenant: Tenant, *places: str) -> list[tuple[Any, ...]]:
        """All that is stored of a tenant's places; when keys were used is not theirs to hide."""
        within = [tenant.projects[place] for place in places]
        keys = tables.keys

        def ask(connection: Any) -> list[tuple[Any, ...]]:
            columns = [column for column in keys.c if column.name != "last_used_us"]
            query = select(*columns).where(keys.c.account_id == tenant.account, keys.c.project.in_(within)).order_by(keys.c.id)
            own = tables.provider_keys
            owned = select(own).where(own.c.account_id == tenant.account, own.c.project.in_(within)).order_by(own.c.id)
            projects = select(tables.projects).where(tables.projects.c.account_id == tenant.account)
            accounts = select(tables.accounts).where(tables.accounts.c.id == tenant.account)
            return [tuple(row) for one in (query, owned, projects, accounts) for row in connection.execute(one)]

        return self.database.read(ask)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with SimulatorProcess(bill_path=tmp_path_factory.mktemp("tenants") / "bill.jsonl") as simulator:
        text = provider("lab", f"{simulator.origin}/v1") + model("t/one", offer("lab", "sim+tokens=5"))
        text += "[limits]\nrequests_per_minute = 1000000\n" + INVOICES
        box = Farebox(tmp_path_factory.mktemp("tenants") / "box", config=text, server="metrics_public = false")
        box.cli("doctor", check=False)
        made = World(box)
        month = month_before(month_of(made.clock.now_us()))
        for tenant in made.tenants:
            last_month(box, tenant.keys["", "usual"].id, tenant.account, month)
        with box:
            for tenant in made.tenants:
                for place in PLACES:
                    headers = {"x-farebox-end-user": mark(tenant.name, place), "x-farebox-tags": mark(tenant.name, place)}
                    reply = box.post("/v1/chat/completions", CHAT, key=tenant.keys[place, "usual"].secret, headers=headers)
                    assert reply.status == 200, reply.body
                    tenant.calls[place] = reply.headers["x-generation-id"]
            box.wait_posted()
            for tenant in made.tenants:
                key = tenant.keys["", "usual"].secret
                (first,) = wait_until(lambda key=key: box.get("/v1/invoices", key=key).json()["data"], "closed", timeout_s=30)
                tenant.invoice = first["number"]
                for call in tenant.calls.values():
                    path = f"/v1/receipts?id={call}"
                    (one,) = wait_until(lambda key=key, path=path: box.get(path, key=key).json().get("data"), "sealed")
                    tenant.day = one["receipt"]["chain"]["day"]
            yield made
        made.database.close()


def test_every_route_has_its_row() -> None:
    there = {(route.method, route.path) for route in ROUTES} | {("POST", path) for path in CALLS}
    assert there == set(ROWS), "a new route says here who may ask it for what"


@pytest.mark.parametrize(("method", "path"), ROWS, ids=map(" ".join, ROWS))
def test_who_gets_in(world: World, method: str, path: str) -> None:
    """Each kind of key, in a project and in none, and nobody at all, asking for their own."""
    row = ROWS[method, path]
    tenant = world.tenants[0]
    for place in ("", "one"):
        for kind, wanted in row.statuses.items():
            if path == "/generation" and kind == "calls":
                continue  # its own calls only: below
            secret = {"none": None, "unknown": "fb-" + "x" * 49}.get(kind, "")
            if secret == "":
                secret = tenant.keys[place, kind].secret  # type: ignore[index]
            if wanted == 200 and row.whole and place:
                wanted = 403
            wanted = row.created if wanted == 200 else wanted
            reply = world.ask(secret, method, row, tenant, place)
            assert reply.status == wanted, (kind, place, reply.body)
            if (method, path) in DESTROYS and wanted == 200:
                tenant.fodder[place] = world.key(tenant, place, "usual")
                tenant.own_keys[place] = world.own_key(tenant, place)
            if (method, path) == ("POST", "/byok") and wanted == 201:
                made = reply.json()["data"]["id"]
                assert world.box.request("DELETE", f"/v1/byok/{made}", None, key=secret).status == 200
            assert not any(found in reply.body.decode() for found in world.tenants[1].marks(*PLACES))
            if wanted >= 400:
                assert reply.json()["error"]["message"]


@pytest.mark.parametrize(("method", "path"), ROWS, ids=map(" ".join, ROWS))
def test_what_is_anothers_does_not_exist(world: World, method: str, path: str) -> None:
    """Asked with ids of the other organisation, or, from a project, of what is beside it: 404, and nothing moves."""
    row = ROWS[method, path]
    mine, theirs = world.tenants
    foreign = [(place, theirs, other) for place in ("", "one") for other in PLACES]
    foreign += [("one", mine, "two"), ("one", mine, "")]
    for place, owner, other in foreign:
        before = world.state(owner, other)
        hidden = owner.marks(other) if owner is theirs or other == "two" else {mark(mine.name, ""), mine.calls[""]}
        for kind in ("usual", "calls", "reads", "manages"):
            reply = world.ask(mine.keys[place, kind].secret, method, row, owner, other)
            allowed = row.statuses[kind] == 200
            if row.named:
                wanted = 404 if allowed and not (row.whole and place) else 403
                assert reply.status == wanted, (kind, place, owner.name, other, reply.body)
            shown = reply.body.decode()
            # What was sent with the question may come back in the sentence that refuses it.
            named = {owner.calls[other], owner.fodder[other].id, owner.own_keys[other], owner.invoice}
            asked = named if row.named else set[str]()
            leaked = [found for found in hidden - asked if found and found in shown]
            assert not leaked, (kind, place, owner.name, other, leaked)
        assert world.state(owner, other) == before, "nothing of it has changed"


def test_a_key_reads_its_own_calls_whatever_it_is_for(world: World) -> None:
    tenant = world.tenants[0]
    key = tenant.keys["one", "calls"].secret
    mine = world.box.post("/v1/chat/completions", CHAT, key=key).headers["x-generation-id"]
    world.box.wait_posted()
    assert world.box.get(f"/v1/generation?id={mine}", key=key).status == 200
    assert world.box.get(f"/v1/generation?id={tenant.calls['one']}", key=key).status == 404, "its neighbour's is not its own"
    assert world.box.get(f"/v1/generation?id={mine}", key=tenant.keys["two", "reads"].secret).status == 404
    assert world.box.get(f"/v1/generation?id={mine}", key=tenant.keys["", "reads"].secret).status == 200


def test_nobody_puts_a_key_where_it_does_not_belong(world: World) -> None:
    mine, theirs = world.tenants
    boss, chief = mine.keys["", "manages"].secret, mine.keys["one", "manages"].secret
    for key, project in ((boss, theirs.projects["one"]), (chief, mine.projects["two"]), (chief, theirs.projects["one"])):
        for path, body in (("/v1/keys", {"name": "x", "workspace_id": project}), ("/key/generate", {"team_id": project})):
            assert world.box.post(path, body, key=key).status == 404
        own = mine.fodder["one"].id
        moved = world.box.post("/key/update", {"key": own, "team_id": project}, key=key)
        assert moved.status == 404 and project not in str(world.state(mine, "one")[0])
    made = world.box.post("/v1/keys", {"name": "y"}, key=chief).json()
    assert made["data"]["workspace_id"] == mine.projects["one"], "from a project, into that project"
    assert world.box.post("/key/update", {"key": made["data"]["hash"], "team_id": None}, key=chief).status == 200
    assert world.box.get(f"/v1/keys/{made['data']['hash']}", key=chief).status == 200, "and not out of it"


@pytest.mark.parametrize("prefix", ["", "/v1", "/api/v1", "/api"])
def test_no_spelling_of_a_path_is_another_door(world: World, prefix: str) -> None:
    """The same refusals below every prefix, with a trailing slash, with letters as escapes."""
    tenant = world.tenants[0]
    for (method, path), row in ROWS.items():
        if path in ("/healthz", "/healthz/providers", "/readyz", "/metrics"):
            continue
        reads, usual = tenant.keys["", "reads"].secret, tenant.keys["", "usual"].secret
        for secret, kind in ((None, "none"), (reads, "reads"), (usual, "usual")):
            wanted = row.statuses[kind]
            if wanted == 200:
                continue
            assert world.ask(secret, method, row, tenant, "", prefix).status in (wanted, 404), (method, path, kind)
            bare, asks, query = row.path(tenant, "").partition("?")
            bare = prefix + bare.removeprefix("/api").removeprefix("/v1")
            data = json.dumps(row.body(tenant, "") or {}).encode() if method != "GET" else None
            for spelled in (bare + "/", bare.replace("k", "%6B"), bare.replace("/", "//", 1)):
                status = world.box.request(method, spelled + asks + query, data, key=secret).status
                assert status in (wanted, 404), (spelled, kind)
