"""The first day: the folder's configuration, the organisation's account, projects, keys, budgets, and who is told of alerts."""

import os
from pathlib import Path

import msgspec

from farebox.billing.accounts import budget_commands
from farebox.billing.books import customers, ledger
from farebox.billing.budgets import Budget
from farebox.cli.setup import CONFIG_NAME, initialise
from farebox.config import Loaded, load
from farebox.control import channels
from farebox.demo.organisation import (
    ACCOUNT,
    CREDIT_LIMIT,
    KEYS,
    LIMITED,
    PLAN,
    PROJECTS,
    PROVIDERS,
    RUNAWAY,
    TIER,
    WELCOME_CREDIT,
)
from farebox.demo.stage import Stage
from farebox.demo.traffic import Traffic
from farebox.gate import keys
from farebox.money import NANO_PER_USD, parse_amount
from farebox.pepper import read_pepper

PEPPER = "FAREBOX_PEPPER"
_PER_CALL_NANO = NANO_PER_USD // 1_000
"""A tenth of a cent, by which budgets grow with the number of calls."""


class Founded(msgspec.Struct, frozen=True):
    """What the month needs to know of it."""

    account: str
    secrets: tuple[str, ...]
    """Of `KEYS`, in their order."""
    key_ids: tuple[str, ...]
    channel: str


def make_folder(folder: Path, environment: dict[str, str], provider_port: int, calls: int) -> Loaded:
    """A data folder as `farebox init` makes it, whose providers are the simulator.

    Of the environment only the pepper counts: a provider's real key in it must not switch on a provider that costs money.
    """
    initialise(folder)
    path = folder / CONFIG_NAME
    text = path.read_text().replace('markup_percent = "0" ', f'markup = "{PLAN}" ')
    path.write_text(text + _configuration(provider_port, calls))
    return load(path, {name: value for name, value in environment.items() if name == PEPPER})


def _configuration(provider_port: int, calls: int) -> str:
    origin = f"http://127.0.0.1:{provider_port}"
    providers = "\n".join(
        f'[providers.{name}]\nbase_url = "{origin}/{path}"\napi_key = "{credential(name)}"\n' for name, path in PROVIDERS.items()
    )
    return f"""
# --- the demo's own -----------------------------------------------------------------------------------------------------

[markup.{PLAN}]
percent = "6"
volume = [{{ above = "{max(calls // 150, 1)}.00", percent = "4.5" }}]

[invoices]
seller = "Farebox Demo GmbH"
address = ["Depot 1", "10115 Berlin"]
tax_id = "DE000000000"
tax_percent = "19"

[local_model]
enabled = false

# All providers are one simulator: farebox simulate --port {provider_port} --any-model
{providers}"""


def credential(provider: str) -> str:
    """What the simulator tells the providers apart by."""
    return f"demo-{provider}"


def found(stage: Stage, traffic: Traffic, receiver_url: str) -> Founded:
    """Everything that has to be there before the first call."""
    database, ids, now_us = stage.database, stage.ids, stage.now_us
    account = ids.new("acc")
    customers.create_account(
        database, id=account, name=ACCOUNT, kind="postpaid", credit_limit_nano=parse_amount(CREDIT_LIMIT), tier=TIER,
        now_us=now_us,
    )  # fmt: skip
    ledger.grant(
        database, ids, command_id=ids.new("cmd"), account_id=account, amount_nano=parse_amount(WELCOME_CREDIT), now_us=now_us
    )
    projects = {name: ids.new("prj") for name in PROJECTS}
    for name, project in projects.items():
        customers.create_project(database, id=project, account_id=account, name=name, now_us=now_us)
    pepper = read_pepper(stage.loaded)
    made = [keys.make(os.urandom(keys.SECRET_BYTES)) for _ in KEYS]
    key_ids: list[str] = []
    for index, (key, secret) in enumerate(zip(KEYS, made, strict=True)):
        key_ids.append(ids.new("key"))
        limited = index == LIMITED
        new = customers.NewKey(
            id=key_ids[-1],
            account_id=account,
            name=key.name,
            digest=keys.digest(secret, pepper),
            hint=keys.hint(secret),
            project=projects[key.project],
            tags=msgspec.json.encode([key.tag]).decode() if key.tag else "",
            budget_nano=budget_nano(traffic) if limited else None,
            budget_window="month" if limited else "none",
        )
        customers.create_key(database, new, now_us=now_us)
    wanted = Budget(
        id=ids.new("bud"), kind="project", subject=projects[KEYS[RUNAWAY].project], name="research, as planned",
        amount_nano=4 * _PER_CALL_NANO * len(traffic.calls), window="month", hard=False,
    )  # fmt: skip
    budget_commands.create_budget(database, account, wanted, now_us=now_us)
    channel = channels.add_channel(
        database, ids, kind="webhook", target=receiver_url, account_id=None, events=(), allow_private=True, now_us=now_us
    )
    return Founded(account, tuple(made), tuple(key_ids), channel)


def budget_nano(traffic: Traffic) -> int:
    """About half of what the limited key's calls would come to, in whole cents."""
    calls = sum(1 for one in traffic.calls if one.key == LIMITED)
    cents = max(calls // 5, 2)
    return cents * NANO_PER_USD // 100
