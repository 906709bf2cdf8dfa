"""Webhooks: signed as the specification says, sent to public addresses only."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.receiver import Request, verify

from farebox.control import signing
from farebox.control.addresses import is_public

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_the_published_example():
    """From the reference libraries' own tests."""
    headers = dict(
        signing.signed_headers(
            "msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}', [signing.secret_bytes(SECRET)], 1_614_265_330
        )
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@given(body=st.binary(max_size=200), index=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_another_body_does_not_verify(body, index, bit):
    headers = dict(signing.signed_headers("msg-1", body, [signing.secret_bytes(SECRET)], 5))
    verify(SECRET, Request("/", headers, body))
    if body:
        changed = bytearray(body)
        changed[index % len(body)] ^= 1 << bit
        with pytest.raises(AssertionError):
            verify(SECRET, Request("/", headers, bytes(changed)))


def test_while_a_secret_is_exchanged_both_verify():
    old, new = bytes(32), bytes(range(32))
    headers = dict(signing.signed_headers("msg-1", b"{}", [new, old], 5))
    for secret in (old, new):
        verify(signing.secret_text(secret), Request("/", headers, b"{}"))


def test_secrets_of_channels_differ_and_stay():
    made = {signing.derived_secret(b"p" * 32, channel, number) for channel in ("ch-1", "ch-2") for number in (1, 2)}
    assert len(made) == 4
    assert signing.derived_secret(b"p" * 32, "ch-1", 1) in made
    assert signing.secret_bytes(signing.secret_text(bytes(32))) == bytes(32)


@pytest.mark.parametrize(
    "text", ["", "whsec_", "whsec_AAAA", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_ä", "whsec_" + "A" * 100]
)
def test_weak_or_broken_secrets_are_refused(text):
    """CVE-2026-41432: an empty secret verifies whatever a stranger signed with nothing."""
    with pytest.raises(ValueError, match="24 to 64 random bytes") as refused:
        signing.secret_bytes(text)
    assert not text or text == "whsec_" or text not in str(refused.value)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1",
        "255.255.255.255", "240.0.0.1", "192.0.2.1", "198.18.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1",
        "ff02::1", "fec0::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::", "2002:c0a8:101::1", "2001:db8::1", "nonsense", "",
    ],
)  # fmt: skip
def test_private_addresses(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"])
def test_public_addresses(address):
    assert is_public(address)
