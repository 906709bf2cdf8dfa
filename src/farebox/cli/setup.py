"""Making a data folder: configuration, pepper, database, a first account with starting credit and a first key."""

import os
import secrets
from pathlib import Path

import msgspec

from farebox.billing.books import customers, ledger
from farebox.billing.sealing import receipt_keys
from farebox.billing.sealing.receipt_keys import KeyFileError
from farebox.cli.output import CliError, load_config
from farebox.config import ConfigError, Loaded
from farebox.gate import keys
from farebox.money import parse_amount
from farebox.pepper import read_pepper
from farebox.ports import SystemClock, TimeOrderedIds
from farebox.storage import migrate, queries
from farebox.storage.database import Database

CONFIG_NAME = "farebox.toml"
ENV_NAME = ".env"
FIRST_ACCOUNT = "default"
STARTING_CREDIT = "10.00"

TEMPLATE = """\
# Farebox. Every setting is described in docs/configuration.md; a typo is an error, never a silent default.

[server]
host = "127.0.0.1"
port = 8080
workers = 1

[database]
url = "sqlite:///farebox.db"        # or postgresql://user:password@host/farebox

[billing]
markup_percent = "0"                # added to list prices: "5.5"

# Providers whose keys are in the environment (OPENAI_API_KEY, ANTHROPIC_API_KEY, GEMINI_API_KEY, MISTRAL_API_KEY, ...)
# are on by themselves. Any compatible server can be added:
#
# [providers.lab]
# wire = "openai_chat"              # or "anthropic_messages"
# base_url = "http://127.0.0.1:9400/v1"
# api_key = "${LAB_KEY}"            # literal, or from the environment
#
# [[models]]
# slug = "lab/echo"
# context_window = 128000
# max_output_tokens = 4096
# offers = [{ provider = "lab", id = "echo", input = "2.50", cached_input = "1.25", output = "10.00" }]  # USD per million tokens
"""


class MadeKey(msgspec.Struct, frozen=True):
    """A new key: the only moment at which its secret is known."""

    id: str
    secret: str
    hint: str


def make_key(
    database: Database,
    pepper: bytes,
    *,
    account_id: str,
    name: str,
    project: str = "",
    policy: str = "",
    budget_nano: int | None = None,
    window: customers.Window = "none",
    expires_us: int | None = None,
    permissions: str = customers.DEFAULT_PERMISSIONS,
    restrictions: str = "",
) -> MadeKey:
    """Create a key and return its secret once."""
    clock = SystemClock()
    secret = keys.make(os.urandom(keys.SECRET_BYTES))
    made = MadeKey(TimeOrderedIds(clock).new("key"), secret, keys.hint(secret))
    new = customers.NewKey(
        id=made.id,
        account_id=account_id,
        name=name,
        project=project,
        policy=policy,
        digest=keys.digest(secret, pepper),
        hint=made.hint,
        expires_us=expires_us,
        budget_nano=budget_nano,
        budget_window=window,
        permissions=permissions,
        restrictions=restrictions,
    )
    customers.create_key(database, new, now_us=clock.now_us())
    return made


def _write_private(path: Path, text: str) -> None:
    """A file that only its owner can read, complete or absent."""
    fresh = path.with_name(path.name + ".new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(text)
    os.replace(fresh, path)


def first_key(folder: Path) -> str | None:
    """The key that `initialise` put into `.env`, if it is still there."""
    try:
        for line in (folder / ENV_NAME).read_text().splitlines():
            name, _, value = line.partition("=")
            if name.strip() == "FAREBOX_API_KEY":
                return value.strip()
    except FileNotFoundError:
        return None
    return None


def initialise(folder: Path) -> tuple[Loaded, MadeKey]:
    """Make the folder. Refuses one that already has a configuration."""
    path = folder / CONFIG_NAME
    if path.exists():
        raise CliError(f"{path} exists already; `farebox serve --config {path}` starts it")
    folder.mkdir(parents=True, exist_ok=True)
    staged = folder / (CONFIG_NAME + ".new")
    staged.write_text(TEMPLATE)
    loaded = load_config(staged)
    if "FAREBOX_PEPPER" not in loaded.environment and not loaded.pepper_file.exists():
        _write_private(loaded.pepper_file, secrets.token_hex(32) + "\n")
    try:
        pepper = read_pepper(loaded)
    except ConfigError as error:
        raise CliError(f"{error}; mend or remove it, and run `farebox init` again") from None
    migrate.upgrade(loaded.database_url)
    clock = SystemClock()
    try:
        receipt_keys.read_or_make(loaded.receipt_keys_file, clock.now_us())
    except KeyFileError as error:
        raise CliError(str(error)) from None
    ids = TimeOrderedIds(clock)
    with Database.open(loaded.database_url) as database:
        # There already when an earlier attempt was cut short: the command's id gives its credit only once.
        account = database.read(lambda connection: queries.account(connection, FIRST_ACCOUNT))
        account_id = ids.new("acc") if account is None else account.id
        if account is None:
            customers.create_account(database, id=account_id, name=FIRST_ACCOUNT, kind="prepaid", now_us=clock.now_us())
        ledger.grant(
            database,
            ids,
            command_id=f"init-{account_id}",
            account_id=account_id,
            amount_nano=parse_amount(STARTING_CREDIT),
            now_us=clock.now_us(),
        )
        made = make_key(database, pepper, account_id=account_id, name="first key")
    _write_private(folder / ENV_NAME, f"FAREBOX_API_KEY={made.secret}\n")
    # The configuration comes last: its presence says that everything before it is there.
    os.replace(staged, path)
    return load_config(path), made
