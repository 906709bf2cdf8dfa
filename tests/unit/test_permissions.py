"""What a key may do, and from where: as written, as stored, and against a request."""

from collections.abc import Sequence
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.errors import FareboxError
from farebox.gate import permissions
from farebox.gate.addresses import client_address, within
from farebox.gate.permissions import Permit, Restrictions, checked_scopes, permit, restored, stored

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        ("203.0.113.9", b"1.2.3.4", "203.0.113.9"),  # not a proxy of ours: its header is its own invention
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", b"1.2.3.4", "1.2.3.4"),
        ("10.0.0.1", b"6.6.6.6, 1.2.3.4", "1.2.3.4"),  # whatever the client sent stands before what the proxy wrote
        ("10.0.0.1", b"6.6.6.6, 1.2.3.4, 10.9.9.9", "1.2.3.4"),
        ("10.0.0.1", b"10.2.2.2, 10.3.3.3", "10.2.2.2"),
        ("fd00::1", b"2001:db8::7", "2001:db8::7"),
        ("10.0.0.1", b"[2001:db8::7]:443", "2001:db8::7"),
        ("10.0.0.1", b"1.2.3.4:5678", "1.2.3.4"),
        ("::ffff:10.0.0.1", b"::ffff:1.2.3.4", "1.2.3.4"),
        ("10.0.0.1", b"1.2.3.4, unknown", ""),
        ("", b"1.2.3.4", ""),
    ],
)
def test_the_address_is_what_trusted_proxies_say(peer: str, forwarded: bytes | None, found: str) -> None:
    assert client_address(peer, forwarded, TRUSTED) == found


def test_without_trusted_proxies_the_header_is_nothing() -> None:
    assert client_address("10.0.0.1", b"1.2.3.4", ()) == "10.0.0.1"


@given(st.lists(st.ip_addresses(), max_size=5), st.ip_addresses())
def test_no_invented_header_moves_a_stranger(hops: Sequence[Any], peer: Any) -> None:
    """Whoever is no trusted proxy is where its connection comes from, whatever it sends."""
    header = ", ".join(map(str, hops)).encode()
    if not within(str(peer), TRUSTED):
        assert client_address(str(peer), header, TRUSTED) == str(peer)


def test_an_unknown_address_is_in_no_network() -> None:
    everything = (ip_network("0.0.0.0/0"), ip_network("::/0"))
    assert within("1.2.3.4", everything) and not within("", everything) and not within("somewhere", everything)
    assert within("::ffff:10.1.2.3", TRUSTED) and not within("11.0.0.1", TRUSTED)


def test_keys_from_before_scopes_had_names_may_do_what_they_could() -> None:
    assert permit("inference usage", "") == Permit()
    assert permit("inference read_usage", "") == Permit()
    assert permit("", "").scopes == frozenset(), "no words, no rights"


def test_what_cannot_be_read_is_not_unrestricted() -> None:
    for text in ('{"models": "x"}', "nonsense", '{"ips": ["10.0.0.0/99"]}'):
        with pytest.raises(Exception):  # noqa: B017, PT011 - any: the point is that no permit comes out
            permit("inference", text)


@given(
    st.lists(st.from_regex(r"[a-z0-9./*-]{1,20}", fullmatch=True), max_size=4),
    st.lists(st.ip_addresses(), max_size=3),
    st.dictionaries(st.sampled_from(["prompt", "completion", "request"]), st.decimals(0, 10**6, places=6), max_size=3),
)
def test_restrictions_survive_being_stored(names: list[str], ips: list[Any], caps: dict[str, Any]) -> None:
    made = Restrictions(
        models=permissions.patterns(names, "m"),
        max_price=permissions.prices({name: str(value) for name, value in caps.items()}, "p"),
        ips=permissions.networks(map(str, ips), "i"),
    )
    assert restored(stored(made)) == made
    found = permit("inference", stored(made))
    assert all(within(str(ip), found.networks) for ip in ips)
    if caps:
        assert found.allowance is not None and found.allowance.price_max is not None


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda: checked_scopes(["inference", "manage"], "scopes"), "make two keys"),
        (lambda: checked_scopes(["admin"], "scopes"), "known: inference, read_usage, manage"),
        (lambda: checked_scopes([], "scopes"), "is empty"),
        (lambda: permissions.patterns(["gpt?4"], "allowed_models"), r"`allowed_models\[0\]`"),
        (lambda: permissions.patterns([7], "allowed_models"), r"`allowed_models\[0\]`"),
        (lambda: permissions.networks(["10.0.0.1/8"], "allowed_ips"), "has host bits set"),
        (lambda: permissions.networks(["x"], "allowed_ips"), r"10\.0\.0\.0/8"),
        (lambda: permissions.networks([f"10.0.{i // 256}.{i % 256}" for i in range(201)], "allowed_ips"), "at most 200"),
        (lambda: permissions.prices(-1, "max_price"), "`max_price.prompt`"),
        (lambda: permissions.prices({"prompts": 1}, "max_price"), "did you mean `prompt`"),
    ],
)
def test_bad_restrictions_are_refused_with_their_place(write: Any, said: str) -> None:
    with pytest.raises(FareboxError, match=said) as refused:
        write()
    assert refused.value.status == 400 and refused.value.param
