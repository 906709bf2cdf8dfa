"""Sign-ups: credit once an address, so many a day by network, by domain and all together, whoever comes at once."""

import hashlib
import hmac
import threading
from pathlib import Path

import pytest
from sqlalchemy import Connection, select, text, update
from tests.billing.conftest import World

from farebox.billing.accounts.signups import (
    US_PER_DAY,
    Rules,
    SignedUp,
    mark_of,
    network_of,
    normal_address,
    rekey,
    sign_up,
    unkeyed,
)
from farebox.billing.books.customers import CommandRefused
from farebox.config import load
from farebox.outside import real_outside
from farebox.processes.bookkeeper import Bookkeeper
from farebox.storage import queries
from farebox.storage.tables import signups

PEPPER = b"p" * 32
RULES = Rules(
    5 * 10**9, 30, per_day=20, per_network_per_day=2, per_domain_per_day=3, pepper=PEPPER, open_domains=frozenset({"gmail.com"})
)


def come(world: World, mail: str, address: str = "") -> SignedUp:
    return sign_up(world.database, world.ids, RULES, mail=mail, network=network_of(address), now_us=world.clock.us)


def refused(world: World, mail: str, address: str = "") -> str:
    with pytest.raises(CommandRefused) as caught:
        come(world, mail, address)
    return str(caught.value)


def test_a_new_account_has_its_credit_and_the_books_balance(world: World) -> None:
    made = come(world, " Ann+trial@Shop.example ", "192.0.2.7")
    assert made.amount_nano == 5 * 10**9 and made.expires_us == world.clock.us + 30 * US_PER_DAY
    account = world.database.read(lambda connection: queries.account(connection, "ann@shop.example"))
    assert account is not None and account.id == made.account_id and account.kind == "prepaid"
    balance = world.database.read(lambda connection: queries.balance(connection, made.account_id))
    assert balance is not None and balance.available_nano == 5 * 10**9
    world.check()


def test_an_address_signs_up_once_however_it_is_written(world: World) -> None:
    come(world, "ann@shop.example")
    for again in ("ANN@shop.example", "ann+2@shop.example", " ann@SHOP.example"):
        assert "has signed up before" in refused(world, again)


def test_a_network_and_a_domain_get_so_many_a_day(world: World) -> None:
    come(world, "a@one.example", "198.51.100.1")
    come(world, "b@two.example", "198.51.100.200")
    assert "no more than 2 sign-ups a day from the network 198.51.100.0/24" in refused(world, "c@three.example", "198.51.100.3")
    come(world, "c@three.example", "198.51.101.3")
    for name in "def":
        come(world, f"{name}@four.example")
    assert "with addresses at four.example" in refused(world, "g@four.example")
    for name in "abcdef":
        come(world, f"{name}@gmail.com")
    world.clock.us += US_PER_DAY + 1
    come(world, "g@four.example", "198.51.100.9")


def test_what_is_refused_leaves_nothing(world: World) -> None:
    come(world, "a@one.example", "2001:db8:1:2::1")
    come(world, "b@two.example", "2001:db8:1:ffff::1")
    before = len(world.database.read(queries.list_accounts))
    assert "2001:db8:1::/48" in refused(world, "c@three.example", "2001:db8:1::9")
    assert len(world.database.read(queries.list_accounts)) == before
    come(world, "c@three.example", "2001:db8:2::9")
    world.check()


def test_however_many_come_at_once_no_more_than_the_limit_get_in(world: World) -> None:
    outcomes: list[str] = []

    def one(n: int) -> None:
        try:
            come(world, f"user{n}@gmail.com", f"203.0.{n}.1")
            outcomes.append("made")
        except CommandRefused:
            outcomes.append("refused")

    threads = [threading.Thread(target=one, args=(n,)) for n in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("made") == RULES.per_day and len(outcomes) == 30
    world.check()


@pytest.mark.parametrize("text", ["", "ann", "@shop.example", "ann@localhost", "a b@shop.example", "x" * 250 + "@shop.example"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(CommandRefused, match="is not a mail address"):
        normal_address(text)


def test_what_is_no_ip_is_refused() -> None:
    assert network_of("") == "" and network_of("192.0.2.77") == "192.0.2.0/24"
    with pytest.raises(CommandRefused, match="is not an IP address"):
        network_of("somewhere")


def stored(world: World) -> dict[bytes, bool]:
    rows = world.database.read(lambda connection: connection.execute(select(signups.c.mark, signups.c.keyed)).all())
    return {row.mark: row.keyed for row in rows}


def test_a_mark_tells_nobody_without_the_pepper_who_has_signed_up(world: World) -> None:
    come(world, "ann@shop.example")
    plain = hashlib.sha256(b"ann@shop.example").digest()
    mark = hmac.new(PEPPER, b"farebox signup " + plain, hashlib.sha256).digest()
    assert stored(world) == {mark: True}


def test_marks_from_before_count_and_are_made_keyed_without_their_addresses(world: World) -> None:
    """They were the plain SHA-256, which whoever has a list of addresses can look up."""
    names = [f"{name}@gmail.com" for name in "abcde"]
    plain = {hashlib.sha256(name.encode()).digest(): name for name in names}
    for name in names:
        come(world, name)

    def as_before(connection: Connection) -> None:
        for old in plain:
            connection.execute(update(signups).where(signups.c.mark == mark_of(old, PEPPER)).values(mark=old, keyed=False))
        connection.execute(text("UPDATE accounts SET name = id"))  # So that nothing but the marks knows them.

    world.database.write(as_before)
    assert stored(world) == dict.fromkeys(plain, False)
    assert "has signed up before" in refused(world, names[0])
    assert rekey(world.database, PEPPER, rows_max=3) == 3
    assert sorted(stored(world).values()) == [False, False, True, True, True]
    for name in names:
        assert "has signed up before" in refused(world, name)
    assert rekey(world.database, PEPPER) == 2 and rekey(world.database, PEPPER) == 0
    assert stored(world) == {mark_of(old, PEPPER): True for old in plain}
    assert not world.database.read(unkeyed)
    for name in names:
        assert "has signed up before" in refused(world, name)


def test_the_bookkeeper_makes_them_keyed_and_says_what_it_needs(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    come(world, "ann@shop.example")
    plain = hashlib.sha256(b"ann@shop.example").digest()
    world.database.write(lambda connection: connection.execute(update(signups).values(mark=plain, keyed=False)))
    config = tmp_path / "farebox.toml"
    config.write_text(f'[database]\nurl = "{world.url}"\n[journal]\ndir = "{world.journals}"\n')
    for pepper in (None, PEPPER):
        if pepper is not None:
            config.with_name("pepper").write_text(pepper.hex())
        bookkeeper = Bookkeeper(load(config), real_outside({}))
        try:
            bookkeeper.round()
        finally:
            bookkeeper.close()
        said = capsys.readouterr().err
        assert ("marks of sign-ups wait for the pepper" in said) == (pepper is None)
        assert stored(world) == ({plain: False} if pepper is None else {mark_of(plain, PEPPER): True})
