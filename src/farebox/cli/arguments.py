"""What the arguments of commands mean: amounts, moments, accounts, projects, policies; what means nothing is a `CliError`."""

from farebox.billing.books.periods import parse_moment
from farebox.cli.output import CliError
from farebox.config import Loaded
from farebox.money import MoneyError, parse_amount
from farebox.ports import SystemClock
from farebox.storage import queries
from farebox.storage.database import Database


def amount(text: str, what: str) -> int:
    """A positive decimal amount, or a sentence about it."""
    try:
        nano = parse_amount(text)
    except MoneyError as error:
        raise CliError(f"{what}: {error}") from None
    if nano <= 0:
        raise CliError(f"{what} must be more than 0, not {text}")
    return nano


def moment(text: str, option: str) -> int:
    """`7d`, `12h`, `30m`, `2w` before now, a date (UTC) or a time, as microseconds; a sentence when it is none of these."""
    try:
        return parse_moment(text, SystemClock().now_us())
    except (ValueError, OverflowError) as error:
        raise CliError(f"{option}: {error}") from None


def find_account(database: Database, name: str) -> queries.Account:
    found = database.read(lambda connection: queries.account(connection, name))
    if found is None:
        raise CliError(
            f"there is no account `{name}`; `farebox accounts list` shows them, `farebox accounts create {name}` makes it"
        )
    return found


def find_project(database: Database, account_id: str, name: str) -> queries.Project:
    """An account's project by name or id. Raises `CliError`."""
    for project in database.read(lambda connection: queries.list_projects(connection, account_id)):
        if name in (project.id, project.name):
            return project
    raise CliError(f"there is no project `{name}` in this account; `farebox projects list --account NAME` shows them")


def find_key(database: Database, account_id: str, name: str) -> queries.Key:
    """An account's API key that is in force, by id or name; there must be one. Raises `CliError`."""
    alive = [one for one in database.read(lambda c: queries.list_keys(c, account_id)) if one.revoked_us is None]
    fitting = [one for one in alive if one.id == name] or [one for one in alive if one.name == name]
    if len(fitting) != 1:
        problem = "there is no API key" if not fitting else f"there are {len(fitting)} API keys"
        raise CliError(f"{problem} `{name}` in this account; `farebox keys list` shows their ids")
    return fitting[0]


def check_policy(loaded: Loaded, name: str) -> None:
    """Refuse a routing policy that the configuration does not have."""
    if name and name not in loaded.config.policies:
        known = ", ".join(sorted(loaded.config.policies)) or "none yet"
        raise CliError(f"the configuration has no `[policies.{name}]`; policies: {known}")
