"""Sign-ups: a new account with credit to try the gateway, within limits that keep it from being taken again and again.

An address gets credit once, however it is written: `A.Name+tag@x.org` is `a.name@x.org`. Per day, one network and one mail domain
get so many, and all together so many: what is refused is refused whole, no account is made. The counts are taken and written
under one lock, so that no number of sign-ups at once passes them.

That an address has had its credit is known by its mark: HMAC-SHA256 under the server's pepper of the SHA-256 of the address, so a
stolen database does not tell who has signed up, though addresses are easily guessed. The inner digest is what marks were before;
`rekey` makes such ones keyed, without knowing the addresses, and until then they count as they are.
"""

import hashlib
import hmac
import ipaddress

import msgspec
from sqlalchemy import Connection, func, insert, select, update

from farebox.billing.books import audit
from farebox.billing.books.audit import Actor
from farebox.billing.books.customers import CommandRefused, NewKey, lock_account
from farebox.billing.books.ledger import give_credit
from farebox.billing.books.scopes import bump_version
from farebox.ports import Ids
from farebox.storage.database import Database
from farebox.storage.tables import accounts, keys, signups
from farebox.storage.tables import scopes as scopes_table

US_PER_DAY = 86_400_000_000
REKEYED_MAX = 1_000
"""Marks of one transaction."""
ADDRESS_CHARS_MAX = 254
NETWORK_BITS = {4: 24, 6: 48}
"""Who has one address of such a network usually has all of them."""


SELF = Actor("signup")
"""Whoever signs up over the network."""


class SignupRefused(CommandRefused):
    """Not a mistake in the question: this address, or a limit."""


class Rules(msgspec.Struct, frozen=True):
    """What a sign-up gets, and how often."""

    amount_nano: int
    credit_days: int
    per_day: int
    per_network_per_day: int
    per_domain_per_day: int
    pepper: bytes
    """What marks are made with."""
    open_domains: frozenset[str] = frozenset()
    """Domains where anybody gets an address: the limit by domain does not count there."""


class SignedUp(msgspec.Struct, frozen=True):
    account_id: str
    grant_id: str | None
    """None: no credit is given."""
    amount_nano: int
    expires_us: int | None


def normal_address(text: str) -> tuple[str, str]:
    """A mail address as it is compared, and its domain. Raises `CommandRefused`."""
    name, at, domain = text.strip().lower().rpartition("@")
    name = name.partition("+")[0]
    if not at or not name or "." not in domain or len(text) > ADDRESS_CHARS_MAX or any(c.isspace() for c in text.strip()):
        raise CommandRefused(f"`{text[:64]}` is not a mail address")
    return f"{name}@{domain}", domain


def network_of(address: str) -> str:
    """The network that an IP address counts for; empty for none."""
    if not address:
        return ""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        raise CommandRefused(f"`{address[:64]}` is not an IP address") from None
    return str(ipaddress.ip_network((found, NETWORK_BITS[found.version]), strict=False))


def mark_of(plain: bytes, pepper: bytes) -> bytes:
    """The mark of an address from its SHA-256."""
    return hmac.new(pepper, b"farebox signup " + plain, hashlib.sha256).digest()


def unkeyed(connection: Connection) -> bool:
    """Whether there are marks from before."""
    return connection.execute(_UNKEYED.limit(1)).one_or_none() is not None


def rekey(database: Database, pepper: bytes, *, rows_max: int = REKEYED_MAX) -> int:
    """Make marks from before keyed, some at a time; how many were. May be killed, and run again, at any moment."""

    def work(connection: Connection) -> int:
        old = connection.execute(_UNKEYED.limit(rows_max).with_for_update()).scalars().all()
        for plain in old:
            keyed = {"mark": mark_of(plain, pepper), "keyed": True}
            connection.execute(update(signups).where(signups.c.mark == plain, ~signups.c.keyed).values(**keyed))
        return len(old)

    return database.write(work)


_UNKEYED = select(signups.c.mark).where(~signups.c.keyed).order_by(signups.c.mark)


def sign_up(
    database: Database, ids: Ids, rules: Rules, *, mail: str, network: str = "", now_us: int, first_key: NewKey | None = None
) -> SignedUp:
    """Make a prepaid account named by the mail address, with its credit and, if wanted, a first key. Raises `SignupRefused` and
    changes nothing when a limit is reached or the address has signed up before. `network` is of `network_of`."""
    normal, domain = normal_address(mail)
    plain = hashlib.sha256(normal.encode()).digest()
    mark = mark_of(plain, rules.pepper)
    account_id = ids.new("acc")

    def work(connection: Connection) -> SignedUp:
        version = bump_version(connection)  # held until the commit: sign-ups count one after the other
        known = connection.execute(select(signups.c.account_id).where(signups.c.mark.in_((mark, plain)))).one_or_none()
        taken = connection.execute(select(accounts.c.id).where(accounts.c.name == normal)).one_or_none()
        if known is not None or taken is not None:
            raise SignupRefused(f"`{normal}` has signed up before")
        _check(connection, rules, domain, network, now_us)
        row = {"id": account_id, "name": normal, "kind": "prepaid", "credit_limit_nano": 0}
        connection.execute(insert(accounts).values(**row, created_us=now_us, version=version))
        connection.execute(
            insert(scopes_table).values(id=f"account:{account_id}", kind="account", account_id=account_id, limit_nano=0)
        )
        connection.execute(
            insert(signups).values(
                mark=mark, account_id=account_id, domain=domain, network=network, at_us=now_us, keyed=True
            )
        )
        if first_key is not None:
            row = msgspec.structs.asdict(first_key) | {"account_id": account_id}
            connection.execute(insert(keys).values(**row, created_us=now_us, version=version))
            audit.note(connection, SELF, "key.create", account_id=account_id, subject=first_key.id, after=row, now_us=now_us)
        if not rules.amount_nano:
            return SignedUp(account_id, None, 0, None)
        expires_us = now_us + rules.credit_days * US_PER_DAY if rules.credit_days else None
        made = give_credit(
            database,
            connection,
            ids,
            account=lock_account(connection, account_id),
            command_id=f"signup:{account_id}",
            kind="promo",
            amount_nano=rules.amount_nano,
            expires_us=expires_us,
            now_us=now_us,
        )
        return SignedUp(account_id, made.id, made.amount_nano, expires_us)

    return database.write(work)


def _check(connection: Connection, rules: Rules, domain: str, network: str, now_us: int) -> None:
    since = signups.c.at_us > now_us - US_PER_DAY
    counted = select(func.count()).select_from(signups).where(since)
    limits = [("all together", counted, rules.per_day)]
    if network:
        limits.append((f"from the network {network}", counted.where(signups.c.network == network), rules.per_network_per_day))
    if domain not in rules.open_domains:
        limits.append((f"with addresses at {domain}", counted.where(signups.c.domain == domain), rules.per_domain_per_day))
    for whose, query, limit in limits:
        if connection.execute(query).scalar_one() >= limit:
            raise SignupRefused(f"no more than {limit} sign-ups a day {whose}; try again tomorrow")
