"""Redemption codes: credit that whoever has the code may take, made in batches.

A code is 16 characters of Crockford's base 32 in groups of four, 80 random bits. Stored is only its HMAC-SHA256 under the
server's pepper, so a stolen database redeems nothing. Each account takes a code once, and a code gives as often as its batch
says; both are guarded by the database. The same account with the same code again changes nothing and gives the same answer.
"""

import hashlib
import hmac
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, func, insert, select, text, update

from farebox.billing.books.customers import NAME_MAX, CommandRefused, lock_account
from farebox.billing.books.ledger import COMMAND_AMOUNT_NANO_MAX, Grant, give_credit
from farebox.billing.books.problem import Problem
from farebox.billing.books.scopes import bump_version
from farebox.ports import Ids
from farebox.storage.database import Database
from farebox.storage.tables import code_batches, codes, grants, redemptions

SECRET_BYTES = 10
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's: without I, L, O and U, which are read as 1, 1, 0 and refused."""
LENGTH = 16
GROUP = 4
CODES_MAX = 10_000
USES_MAX = 1_000_000
CREDIT_DAYS_MAX = 3_650
US_PER_DAY = 86_400_000_000
LISTED_MAX = 1_000
_READ = str.maketrans("ILO", "110")


class NewBatch(msgspec.Struct, frozen=True):
    """What every code of a batch gives."""

    amount_nano: int
    kind: Literal["paid", "promo"] = "promo"
    """`paid` for codes that were sold."""
    uses_max: int = 1
    """Accounts that each code serves."""
    credit_days: int | None = None
    """How long the credit lasts once it is taken; None: without an end."""
    expires_us: int | None = None
    """Until when the codes can be redeemed; None: without an end."""
    name: str = ""


class Batch(msgspec.Struct, frozen=True):
    """A batch as `codes list` shows it."""

    id: str
    name: str
    amount_nano: int
    kind: str
    uses_max: int
    expires_us: int | None
    revoked_us: int | None
    created_us: int
    codes: int
    used: int


def code_text(secret: bytes) -> str:
    """Ten random bytes → `7K3M-0Q9X-…`."""
    assert len(secret) == SECRET_BYTES, "a code is made of ten bytes"
    number = int.from_bytes(secret, "big")
    letters = "".join(ALPHABET[number >> 5 * place & 31] for place in reversed(range(LENGTH)))
    return "-".join(letters[start : start + GROUP] for start in range(0, LENGTH, GROUP))


def digest(code: str, pepper: bytes) -> bytes:
    """What is stored of a code, however it was typed: case, blanks and dashes do not count. Raises `CommandRefused`."""
    plain = "".join(code.upper().split()).replace("-", "").translate(_READ)
    if len(plain) != LENGTH or any(letter not in ALPHABET for letter in plain):
        raise CommandRefused(f"a code has {LENGTH} letters and digits such as `{code_text(bytes(range(SECRET_BYTES)))}`")
    return hmac.new(pepper, f"farebox code {plain}".encode(), hashlib.sha256).digest()


def create_batch(database: Database, ids: Ids, batch: NewBatch, digests: Sequence[bytes], *, now_us: int) -> str:
    """Store a batch of new codes; its id."""
    if not 0 < batch.amount_nano <= COMMAND_AMOUNT_NANO_MAX:
        raise CommandRefused(f"an amount is between 1 and {COMMAND_AMOUNT_NANO_MAX} nano-dollars")
    if not 1 <= len(digests) <= CODES_MAX:
        raise CommandRefused(f"a batch has from 1 to {CODES_MAX} codes")
    if not 1 <= batch.uses_max <= USES_MAX:
        raise CommandRefused(f"a code can be used from 1 to {USES_MAX} times")
    if batch.credit_days is not None and not 1 <= batch.credit_days <= CREDIT_DAYS_MAX:
        raise CommandRefused(f"credit lasts from 1 to {CREDIT_DAYS_MAX} days")
    if batch.expires_us is not None and batch.expires_us <= now_us:
        raise CommandRefused("codes that have expired already cannot be redeemed")
    if len(batch.name) > NAME_MAX:
        raise CommandRefused(f"a name has at most {NAME_MAX} characters")
    made = ids.new("codes")

    def work(connection: Connection) -> None:
        connection.execute(insert(code_batches).values(id=made, created_us=now_us, **msgspec.structs.asdict(batch)))
        database.insert_rows(connection, codes, ("digest", "batch_id"), [(one, made) for one in digests])

    database.write(work)
    return made


_USE = text("UPDATE codes SET used = used + 1 WHERE digest = :digest AND used < :uses_max")


def redeem(database: Database, ids: Ids, *, account_id: str, code_digest: bytes, now_us: int) -> Grant:
    """Give an account what a code is worth. Raises `CommandRefused`, in the same words for codes that never were."""

    def work(connection: Connection) -> Grant:
        bump_version(connection)
        account = lock_account(connection, account_id)
        mine = select(redemptions).where(redemptions.c.digest == code_digest, redemptions.c.account_id == account_id)
        known = connection.execute(mine).one_or_none()
        if known is not None:
            row = connection.execute(select(grants).where(grants.c.id == known.grant_id)).one()
            return Grant(row.id, row.account_id, row.kind, row.amount_nano, row.expires_us)
        query = select(code_batches).join(codes, codes.c.batch_id == code_batches.c.id).where(codes.c.digest == code_digest)
        batch = connection.execute(query).one_or_none()
        if batch is None or batch.revoked_us is not None:
            raise CommandRefused("there is no such code, or it was revoked")
        if batch.expires_us is not None and batch.expires_us <= now_us:
            raise CommandRefused("the code has expired")
        if not connection.execute(_USE, {"digest": code_digest, "uses_max": batch.uses_max}).rowcount:
            raise CommandRefused("the code is used up")
        expires_us = None if batch.credit_days is None else now_us + batch.credit_days * US_PER_DAY
        made = give_credit(
            database,
            connection,
            ids,
            account=account,
            command_id=f"code:{code_digest.hex()}:{account_id}",
            kind=batch.kind,
            amount_nano=batch.amount_nano,
            expires_us=expires_us,
            now_us=now_us,
        )
        row = {"digest": code_digest, "account_id": account_id, "grant_id": made.id, "at_us": now_us}
        connection.execute(insert(redemptions).values(**row))
        return made

    return database.write(work)


def revoke_batch(database: Database, batch_id: str, *, now_us: int) -> None:
    """No code of the batch gives anything any more; credit already taken stays. The first revocation's time stays."""

    def work(connection: Connection) -> None:
        if connection.execute(select(code_batches.c.id).where(code_batches.c.id == batch_id)).one_or_none() is None:
            raise CommandRefused(f"there is no batch `{batch_id}`; `farebox codes list` shows them")
        alive = (code_batches.c.id == batch_id) & code_batches.c.revoked_us.is_(None)
        connection.execute(update(code_batches).where(alive).values(revoked_us=now_us))

    database.write(work)


def list_batches(connection: Connection) -> list[Batch]:
    """The newest batches, with how many codes they have and how often those were used."""
    columns = [code_batches.c[name] for name in Batch.__struct_fields__ if name not in ("codes", "used")]
    query = (
        select(*columns, func.count().label("codes"), func.sum(codes.c.used).label("used"))
        .join(codes, codes.c.batch_id == code_batches.c.id)
        .group_by(*columns)
        .order_by(code_batches.c.created_us.desc(), code_batches.c.id)
        .limit(LISTED_MAX)
    )
    # An engine may say sums as decimals.
    found: list[dict[str, Any]] = [{**row, "used": int(row["used"])} for row in connection.execute(query).mappings()]
    return [Batch(**values) for values in found]


def uses_are_redemptions(connection: Connection) -> list[Problem]:
    """I2, the part of codes: each was used as often as accounts took it, and not more often than its batch says."""
    rows = connection.exec_driver_sql(
        "SELECT batch_id, used, uses_max, taken FROM (SELECT c.batch_id, c.used, b.uses_max, "
        "(SELECT COUNT(*) FROM redemptions AS r WHERE r.digest = c.digest) AS taken "
        "FROM codes AS c JOIN code_batches AS b ON b.id = c.batch_id) AS counted WHERE used <> taken OR used > uses_max"
    )
    return [
        Problem("I2", row.batch_id, f"a code was used {row.used} times of {row.uses_max}, {row.taken} accounts took it")
        for row in rows
    ]
