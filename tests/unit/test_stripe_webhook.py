"""Webhooks' signatures: what the SDK takes is taken, anything that was changed is not; settings that would believe everybody."""

import sys

import pytest
import stripe
from hypothesis import given
from hypothesis import strategies as st
from tests.support.stripe_site import SECRET_KEY, WEBHOOK_SECRET, StripeSite

from farebox.config import ConfigError
from farebox.config import file as config
from farebox.edge.stripe_webhook import check_signature

NOW = 1_795_392_000
BODY = '{"id": "evt_1", "object": "event", "name": "Zoë"}'.encode()
SECRET = WEBHOOK_SECRET.encode()


def check(header, body=BODY, secret=SECRET, now=NOW):
    return check_signature(header, body, secret, tolerance_s=300, now_s=now)


@given(st.text(max_size=200), st.integers(min_value=1, max_value=10**11))
def test_what_the_sdk_signs_is_believed(text, stamp):
    header = stripe.WebhookSignature.generate_signature_header(text, WEBHOOK_SECRET, stamp)
    body = text.encode()
    assert check(header, body, now=stamp) == ""
    assert check(header, body + b" ", now=stamp) and check(header, body, b"whsec_other", now=stamp)


def test_several_signatures_while_a_secret_is_rolled():
    header = StripeSite.signature(BODY, at=NOW)
    good = header.split(",")[1]
    assert check(f"t={NOW},v1={'0' * 64},{good}") == "" and check(f"t={NOW}, {good}") == ""
    assert check(f"t={NOW},v0={good[3:]}"), "another scheme's signature is none"


@pytest.mark.parametrize("seconds", [-301, 301, 10_000])
def test_old_and_future_ones_are_not(seconds):
    assert check(StripeSite.signature(BODY, at=NOW + seconds)).startswith("it is not from the last")


@pytest.mark.parametrize(
    "header",
    ["", "t=,v1=", "v1=" + "0" * 64, f"t={NOW}", f"t={NOW},t={NOW},v1=0", "t=-1,v1=0", "t=1e3,v1=0", "t=" + "9" * 3_000,
     f"t={NOW}" + ",v1=0" * 17, f"t={NOW},v1=é", "t=١٧٩٥٣٩٢٠٠٠,v1=0"],
)  # fmt: skip
def test_what_is_no_signature(header):
    assert check(header)


GOOD = f'[stripe]\nsecret_key = "{SECRET_KEY}"\nwebhook_secret = "{WEBHOOK_SECRET}"\n'


def load(tmp_path, text):
    path = tmp_path / "farebox.toml"
    path.write_text(text)
    return config.load(path, {})


def test_a_good_section_loads_and_none_is_none(tmp_path):
    assert load(tmp_path, GOOD).config.stripe.max_amount == "1000.00"
    assert load(tmp_path, "").config.stripe is None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (SECRET_KEY, "", "`stripe.secret_key`"),
        (SECRET_KEY, "pk_test_x", "not a secret"),
        (WEBHOOK_SECRET, "", "`stripe.webhook_secret`"),
        (WEBHOOK_SECRET, "whsec_short", "at least 24"),
        (WEBHOOK_SECRET, "${NOT_SET}", "NOT_SET"),
        ("\n", '\ncurrency = "eur"\n', "US dollars"),
        ("\n", '\nmin_amount = "0.49"\n', "0.50"),
        ("\n", '\nmin_amount = "5.001"\n', "whole cents"),
        ("\n", '\nmax_amount = "4.00"\n', "more than `max_amount`"),
        ("\n", "\nmin_amount = 5.0\n", "quotes"),
        ("\n", '\nsuccess_url = "javascript:x"\n', "success_url"),
        ("\n", "\ntolerance_s = 0\n", "tolerance_s"),
        ("\n", '\napi_base = "http://stripe.example"\n', "in the clear"),
        ("\n", '\nsecret = "x"\n', "did you mean"),
    ],
)
def test_sections_that_cannot_be_used(tmp_path, old, new, said):
    with pytest.raises(ConfigError, match="stripe") as refusal:
        load(tmp_path, GOOD.replace(old, new, 1))
    assert said in str(refusal.value)


def test_without_the_package_the_section_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "stripe", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'farebox\[stripe\]'"):
        load(tmp_path, GOOD)
