"""Doctor: what could keep calls from being answered or billed, each finding with its fix."""

import os
import shutil
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal

import msgspec

from farebox import compiled
from farebox.billing import journal
from farebox.billing.accounts import provider_keys
from farebox.billing.journal import JournalError
from farebox.billing.payments import card_payments
from farebox.billing.position import Position
from farebox.billing.posting import poster
from farebox.billing.sealing import receipt_keys, seals
from farebox.billing.sealing.receipt_keys import KeyFileError
from farebox.catalog import loader
from farebox.cli.output import book_of, local_url
from farebox.config import ConfigError, Loaded, load
from farebox.configured_routing import make_router
from farebox.control import deliveries
from farebox.market import make_market
from farebox.pepper import read_pepper
from farebox.ports import SystemClock
from farebox.processes import local_model
from farebox.processes.channels import all_channels
from farebox.routing.measured import NothingMeasured
from farebox.storage import migrate, queries
from farebox.storage import provider_key_queries as stored
from farebox.storage.database import Database, StoreError
from farebox.terms import make_ladder
from farebox.vault.envelope import CannotOpen
from farebox.vault.master_file import MasterFileError
from farebox.vault.vault import Vault

PRICE_AGE_DAYS = 45
DISK_FREE_BYTES_MIN = 256 * 2**20
CLOCK_EARLIEST = "2026-01-01"
SEALING_BATCHES_MAX = 1_000
"""About two minutes of postings."""


class Finding(msgspec.Struct, frozen=True):
    level: Literal["ok", "note", "problem"]
    subject: str
    text: str
    fix: str = ""


def examine(path: Path) -> list[Finding]:
    """Everything worth looking at, in the order in which it is needed."""
    try:
        loaded = load(path)
    except ConfigError as error:
        return [Finding("problem", "configuration", str(error), f"edit {path}, or `farebox init --data {path.parent}`")]
    found = [Finding("ok", "configuration", str(loaded.path)), _program(), _clock(), _disk(loaded), _pepper(loaded)]
    found += _byok_file(loaded)
    found += _providers(loaded)
    found += _database(loaded)
    found.append(_prices())
    return found


def _program() -> Finding:
    if compiled.is_compiled():
        return Finding("ok", "program", "compiled")
    return Finding("ok", "program", "interpreted: an installed wheel takes less CPU per call, `make wheel` builds it")


def _clock() -> Finding:
    today = datetime.fromtimestamp(SystemClock().now_us() // 1_000_000, UTC).strftime("%Y-%m-%d")
    if today < CLOCK_EARLIEST:
        return Finding("problem", "clock", f"the machine thinks it is {today}", "set the clock; prices and budgets go by it")
    return Finding("ok", "clock", f"{today} UTC")


def _disk(loaded: Loaded) -> Finding:
    free = shutil.disk_usage(loaded.folder).free
    if free < DISK_FREE_BYTES_MIN:
        return Finding("problem", "disk", f"{free // 2**20} MiB are free", "make room: without journal space calls are refused")
    return Finding("ok", "disk", f"{free // 2**30} GiB are free")


def _pepper(loaded: Loaded) -> Finding:
    try:
        read_pepper(loaded)
    except ConfigError as error:
        return Finding("problem", "pepper", str(error), "restore the pepper that the keys were made with")
    mode = loaded.pepper_file.stat().st_mode & 0o777 if loaded.pepper_file.exists() else 0
    if mode & 0o077:
        return Finding("problem", "pepper", f"{loaded.pepper_file} can be read by others", f"chmod 600 {loaded.pepper_file}")
    return Finding("ok", "pepper", "present and private")


def _byok_file(loaded: Loaded) -> list[Finding]:
    """Nothing to say where no customer has a key of its own yet."""
    try:
        masters = Vault(loaded.byok_master_file).masters()
    except MasterFileError as error:
        return [Finding("problem", "byok master key", str(error), "until then customers' own keys at providers are not used")]
    return [Finding("ok", "byok master key", f"present and private; keys in it: {len(masters)}")] if masters else []


def _byok(loaded: Loaded, database: Database) -> list[Finding]:
    vault = Vault(loaded.byok_master_file)
    broken: list[str] = []
    count, last = 0, ""
    while page := database.read(lambda connection, since=last: stored.after(connection, since, stored.PAGE_MAX)):
        count, last = count + len(page), page[-1].id
        for key in page:
            try:
                vault.open(key.sealed, provider_keys.place(key), key.master)
            except CannotOpen as error:
                broken.append(f"{key.id}: {error}")
    if broken:
        said = f"cannot be opened: {len(broken)} of {count}; {broken[0]}"
        return [Finding("problem", "byok", said, "restore byok-master.json, or have the owners store those keys again")]
    return [Finding("ok", "byok", f"customers' own keys at providers: {count}")] if count else []


def _providers(loaded: Loaded) -> list[Finding]:
    try:
        market, providers = make_market(loaded, local_url=local_url(loaded), versions=book_of(loaded))
        make_router(loaded, market, NothingMeasured())
    except ConfigError as error:
        return [Finding("problem", "providers", str(error), "edit the configuration")]
    found: list[Finding] = []
    if not providers:
        found.append(Finding("problem", "providers", "none is on", "set OPENAI_API_KEY or the like, or add `[providers.NAME]`"))
    else:
        found.append(Finding("ok", "providers", f"{', '.join(sorted(providers))}; {len(market.targets)} models can be called"))
    if loaded.config.local_model.enabled is not False and not local_model.installed():
        found.append(Finding("note", "local model", "its packages are not installed", "`make run` installs them"))
    today = datetime.fromtimestamp(SystemClock().now_us() // 1_000_000, UTC).strftime("%Y-%m-%d")
    unpriced = [slug for slug, targets in market.targets.items() if all(t.offer.price_on(today) is None for t in targets)]
    if unpriced:
        names = ", ".join(sorted(unpriced)[:5])
        found.append(Finding("problem", "unpriced models", f"{names}: never called without a price", "give their offers a price"))
    return found


def _database(loaded: Loaded) -> list[Finding]:
    try:
        with Database.open(loaded.database_url) as database:
            try:
                migrate.check(database)
            except migrate.SchemaOutdated as error:
                return [Finding("problem", "database", str(error), "`farebox serve` brings it up to date at its start")]
            found = [Finding("ok", "database", f"schema {migrate.current(database)}")]
            found += _journals(loaded, poster.positions(database))
            found += [_alerts(loaded, database), _tiers(loaded, database), *_cards(loaded, database), *_byok(loaded, database)]
            return [*found, _receipts(loaded, database)]
    except StoreError as error:
        return [Finding("problem", "database", str(error), "check `database.url` and that the server is up")]


def _journals(loaded: Loaded, positions: dict[str, Position]) -> list[Finding]:
    waiting = 0
    for slot in sorted(loaded.journal_dir.glob("w*")) if loaded.journal_dir.is_dir() else []:
        if not os.access(slot, os.W_OK):
            return [Finding("problem", "journal", f"{slot} cannot be written", "check owner and permissions")]
        try:
            records, _ = journal.read(slot, positions.get(slot.name, Position()), records_max=100_000)
        except JournalError as error:
            return [Finding("problem", "journal", str(error), "keep the file; it is the only record of these calls")]
        waiting += len(records)
        damaged = sorted(slot.glob("*.damaged"))
        if damaged:
            text = f"{damaged[-1]}: some records were lost with the power; the good ones around them count"
            return [Finding("problem", "journal", text, "compare that day with your providers' bills, then move the file away")]
    text = f"{waiting} records not yet posted"
    if waiting > 10_000:
        return [Finding("problem", "journal", text, "the bookkeeper is behind or not running: `farebox serve` runs it")]
    return [Finding("ok", "journal", text)]


def _receipts(loaded: Loaded, database: Database) -> Finding:
    try:
        keys = receipt_keys.read(loaded.receipt_keys_file)
    except KeyFileError as error:
        return Finding("problem", "receipts", str(error), "until then no receipt can be given")
    waiting = database.read(seals.waiting)
    signed = "no key yet, the first receipt makes one" if keys is None else f"signed with {keys.signer.kid}"
    if waiting > SEALING_BATCHES_MAX:
        said = f"{waiting} batches of rows wait for their place in the chain"
        return Finding("problem", "receipts", said, "the bookkeeper is behind or not running: `farebox serve` runs it")
    return Finding("ok", "receipts", f"{signed}; batches waiting to be sealed: {waiting}")


def _alerts(loaded: Loaded, database: Database) -> Finding:
    try:
        channels = all_channels(loaded, database, SystemClock())
    except ConfigError as error:
        return Finding("problem", "alerts", str(error), "edit the configuration")
    dead = database.read(deliveries.count_dead)
    if dead:
        said = f"deliveries given up: {dead}; `farebox alerts deliveries --state dead` says why"
        return Finding("problem", "alerts", said, "mend the channel, then `farebox alerts redeliver --dead`")
    return Finding("ok", "alerts", f"channels: {len(channels)}")


def _cards(loaded: Loaded, database: Database) -> list[Finding]:
    section = loaded.config.stripe
    if section is None:
        return []
    standing = database.read(card_payments.standing)
    if standing.quarantined:
        said = f"payments that were not credited: {standing.quarantined}; `farebox cards list --state quarantined` says why"
        return [Finding("problem", "stripe", said, "look at them at Stripe; credit with `farebox topup`, or refund there")]
    if standing.waiting:
        said = f"webhooks that Stripe did not answer for: {standing.waiting}"
        return [Finding("problem", "stripe", said, "check `stripe.secret_key`, and that Stripe can be reached")]
    if standing.switched_off:
        said = f"accounts that are not topped up by themselves any more, after declines: {standing.switched_off}"
        return [Finding("note", "stripe", said, "`farebox cards auto ACCOUNT` says why, and switches it on again")]
    mode = "live" if "_live_" in section.secret_key else "test"
    return [Finding("ok", "stripe", f"{mode} mode; webhooks come to `/stripe/webhook`")]


def _tiers(loaded: Loaded, database: Database) -> Finding:
    ladder = make_ladder(loaded)
    known = {tier.name for tier in ladder.tiers}
    gone = sorted({account.tier for account in database.read(queries.list_accounts)} - known - {""})
    if gone:
        names = ", ".join(f"`{name}`" for name in gone)
        text = f"accounts are in {names}, which the configuration does not have: they count as `{ladder.tiers[0].name}`"
        return Finding("problem", "tiers", text, f"add `[tiers.{gone[0]}]`, or `farebox accounts tier ACCOUNT TIER`")
    begin = f"accounts begin in `{ladder.first}`" if ladder.first else "accounts without one have no limits of a tier"
    return Finding("ok", "tiers", f"{len(known)}; {begin}")


def _prices() -> Finding:
    checked = [price.checked for model in loader.load() for offer in model.offers for price in offer.prices if price.checked]
    if not checked:
        return Finding("note", "prices", "no check dates in the catalog")
    oldest = min(checked)
    today = datetime.fromtimestamp(SystemClock().now_us() // 1_000_000, UTC).date()
    age_days = (today - date.fromisoformat(oldest)).days
    if age_days > PRICE_AGE_DAYS:
        return Finding("note", "prices", f"the oldest was checked on {oldest}, {age_days} days ago", "update Farebox's catalog")
    return Finding("ok", "prices", f"checked {oldest} or later")
