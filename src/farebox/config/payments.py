"""The configuration's section about payments by card. Read by `farebox.config`."""

import importlib.util
import re
from collections.abc import Callable

import msgspec

from farebox.money import MoneyError, parse_amount

NANO_PER_CENT = 10_000_000
CENTS_MIN, CENTS_MAX = 50, 99_999_999
"""What Stripe takes in US dollars, at the least and at the most."""
SECRET_CHARACTERS_MIN = 24
"""A webhook's secret is shorter only when somebody made it up, and who guesses it makes money."""
TOLERANCE_S_MAX = 3_600


class StripeSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Top-ups by card through Stripe. Needs `pip install 'farebox[stripe]'`; without the section nothing of it exists."""

    secret_key: str
    """`"${STRIPE_SECRET_KEY}"`: a secret (`sk_…`) or restricted (`rk_…`) key."""
    webhook_secret: str
    """`"${STRIPE_WEBHOOK_SECRET}"`: the signing secret (`whsec_…`) of the endpoint `/stripe/webhook`."""
    currency: str = "usd"
    """What is charged. The books are in US dollars, so nothing else yet."""
    min_amount: str = "5.00"
    """USD: the smallest top-up."""
    max_amount: str = "1000.00"
    """USD: the largest one."""
    success_url: str = "https://example.com/paid"
    """Where Stripe sends who has paid: a page of yours."""
    cancel_url: str = "https://example.com/"
    """Where it sends who has not."""
    tolerance_s: int = 300
    """How old a webhook's signature may be."""
    api_base: str = "https://api.stripe.com"
    """Another address only for a stand-in: `https`, or `http` on this machine."""


def check_stripe(section: StripeSection | None, refuse: Callable[[str, str], None]) -> None:
    """What types alone cannot say."""
    if section is None:
        return
    if importlib.util.find_spec("stripe") is None:
        refuse("stripe", "needs the package `stripe`: pip install 'farebox[stripe]', or take the section out")
    if re.fullmatch(r"[sr]k_\S+", section.secret_key) is None:
        refuse("stripe.secret_key", "is not a secret or restricted key of Stripe (`sk_…`, `rk_…`); write `${STRIPE_SECRET_KEY}`")
    if re.fullmatch(r"whsec_\S+", section.webhook_secret) is None or len(section.webhook_secret) < SECRET_CHARACTERS_MIN:
        refuse(
            "stripe.webhook_secret",
            f"is not a signing secret (`whsec_…`, at least {SECRET_CHARACTERS_MIN} characters); copy it from the endpoint's page "
            "at Stripe, since whoever knows an empty or short one can sign payments that never were",
        )
    if section.currency != "usd":
        refuse("stripe.currency", f'{section.currency!r} cannot be credited, the books are in US dollars; write "usd"')
    cents: list[int] = []
    for name in ("min_amount", "max_amount"):
        text = getattr(section, name)
        try:
            found, part = divmod(parse_amount(text), NANO_PER_CENT)
        except MoneyError as error:
            refuse(f"stripe.{name}", str(error))
            raise AssertionError("a refusal raises") from None
        if part or not CENTS_MIN <= found <= CENTS_MAX:
            refuse(f"stripe.{name}", f"{text} is not an amount in whole cents from 0.50 to 999999.99")
        cents.append(found)
    if cents[0] > cents[1]:
        refuse("stripe.min_amount", f"{section.min_amount} is more than `max_amount`, {section.max_amount}")
    for name in ("success_url", "cancel_url"):
        if re.fullmatch(r"https?://[^\s/]+\S*", getattr(section, name)) is None:
            refuse(f"stripe.{name}", f"{getattr(section, name)!r} is not an http or https URL")
    if not 1 <= section.tolerance_s <= TOLERANCE_S_MAX:
        refuse("stripe.tolerance_s", f"{section.tolerance_s} is not from 1 to {TOLERANCE_S_MAX}")
    if re.fullmatch(r"https://[^\s/]+|http://(127\.0\.0\.1|localhost|\[::1\])(:[0-9]+)?", section.api_base) is None:
        refuse("stripe.api_base", f"{section.api_base!r} is not an https origin; the secret key would travel in the clear")
