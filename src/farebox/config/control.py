"""Sections of the configuration that the bookkeeper and the commands read: alerts and their channels.

`farebox.config` puts them into its whole and reads the file; what a table means is said here.
"""

from collections.abc import Callable
from typing import Literal

import msgspec

from farebox.money import MoneyError, parse_amount

RETRIES_MAX = 20
RETRY_S_MAX = 7 * 86_400


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class SmtpSection(_Section, frozen=True):
    """The mail server that alerts leave through."""

    host: str
    """Its name or address."""
    sender: str
    """The address that mail comes from."""
    port: int = 587
    """Its port: usually 587 with `starttls`, 465 with `tls`."""
    security: Literal["starttls", "tls", "none"] = "starttls"
    """How the connection is secured. `none` is for a server on the same machine."""
    user: str = ""
    """To log in with; empty: no login."""
    password: str = ""
    """Literal, or `"${NAME}"` from the environment."""
    ca_file: str | None = None
    """PEM file of the authorities that its certificate is checked against."""


class ChannelSection(_Section, frozen=True):
    """Where alerts go. `farebox alerts add` makes further ones without a restart."""

    kind: Literal["webhook", "slack", "email"]
    """A signed webhook (Standard Webhooks), an incoming webhook as Slack and its like take it, or mail."""
    target: str
    """The URL, or the mail address."""
    account: str = ""
    """Only events of this account (id or name); empty: of all, and the operator's own."""
    events: tuple[str, ...] = ()
    """Only these types, such as `budget.threshold`; empty: all."""
    secret: str = ""
    """Signs a webhook: `whsec_` and base64 of 24 to 64 random bytes."""
    previous_secret: str = ""
    """While a secret is being exchanged: the old one, which signs along."""


class Alerts(_Section, frozen=True):
    """What is told of, and how often a delivery is tried. Without any channel nothing but thresholds is looked at."""

    thresholds_percent: tuple[int, ...] = (50, 80, 100)
    """Shares of a budget's posted spend."""
    forecast: bool = True
    """Tell when the pace of a day, week or month would use its budget up before it ends."""
    low_balance: str = "5.00"
    """USD: tell when an active account has less left; `"0"`: never."""
    runway_days: int = 3
    """Tell when, at the last week's pace, what is left lasts for fewer days; 0: never."""
    spike_factor: int = 5
    """Tell when an hour's spend is so many times the usual one of that hour of the day; 0: never."""
    spike_min: str = "1.00"
    """USD: less in an hour is no spike."""
    retries_s: tuple[int, ...] = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
    """Seconds between the tries of a delivery; after the last it is dead until `farebox alerts redeliver`."""
    allow_private: bool = False
    """Whether webhooks may reach private addresses, and without TLS."""
    smtp: SmtpSection | None = None
    """The `[alerts.smtp]` table."""
    channels: dict[str, ChannelSection] = {}
    """The `[alerts.channels.NAME]` tables."""


def check_alerts(alerts: Alerts, refuse: Callable[[str, str], None]) -> None:
    """What types alone cannot say; channels are checked by `farebox.control.channels`."""
    for percent in alerts.thresholds_percent:
        if not 1 <= percent <= 1_000:
            refuse("alerts.thresholds_percent", f"{percent} is not from 1 to 1000")
    for name, value in (("runway_days", alerts.runway_days), ("spike_factor", alerts.spike_factor)):
        if not 0 <= value <= 366:
            refuse(f"alerts.{name}", f"{value} is not from 0 to 366")
    if alerts.spike_factor == 1:
        refuse("alerts.spike_factor", "1 would call every ordinary hour a spike; write at least 2, or 0 for none")
    for name, text in (("low_balance", alerts.low_balance), ("spike_min", alerts.spike_min)):
        try:
            if parse_amount(text) < 0:
                refuse(f"alerts.{name}", f"{text} is negative")
        except MoneyError as error:
            refuse(f"alerts.{name}", str(error))
    if len(alerts.retries_s) > RETRIES_MAX:
        refuse("alerts.retries_s", f"{len(alerts.retries_s)} tries are more than {RETRIES_MAX}")
    for pause_s in alerts.retries_s:
        if not 0 <= pause_s <= RETRY_S_MAX:
            refuse("alerts.retries_s", f"{pause_s} is not from 0 to {RETRY_S_MAX} seconds")
    if alerts.smtp is not None and not 1 <= alerts.smtp.port <= 65_535:
        refuse("alerts.smtp.port", f"{alerts.smtp.port} is not a port")
    if alerts.smtp is None and any(channel.kind == "email" for channel in alerts.channels.values()):
        refuse("alerts.smtp", "is missing, and a channel sends mail; name the mail server")


TOKEN_CHARS_MIN = 16


class SignupSection(_Section, frozen=True):
    """What `farebox signup`, and where it is switched on `POST /v1/signup`, give a new account, and how often. Counts are of 24
    hours."""

    endpoint: bool = False
    """Whether strangers sign up at `POST /v1/signup` and get their first key there."""
    token: str = ""
    """What they must bring in `x-farebox-signup-token`, such as `"${SIGNUP_TOKEN}"`: for pages of yours that confirm the
    address first. Empty: nothing."""
    tries_per_network_per_hour: int = 20
    """How often one network may ask, refused or not, at one worker."""

    credit: str = "0"
    """USD to try the gateway with, promotional: spent before bought credit, and not refunded."""
    credit_days: int = 30
    """So long it lasts; 0: for ever."""
    per_day: int = 100
    """Sign-ups all together."""
    per_network_per_day: int = 3
    """From one network: a /24 of IPv4, a /48 of IPv6."""
    per_domain_per_day: int = 10
    """With addresses of one mail domain."""
    open_domains: tuple[str, ...] = (
        "gmail.com", "googlemail.com", "outlook.com", "hotmail.com", "live.com", "yahoo.com", "icloud.com", "proton.me",
        "protonmail.com", "gmx.de", "gmx.net", "web.de", "qq.com", "163.com", "mail.ru",
    )  # fmt: skip
    """Domains where anybody gets an address: the limit by domain does not count there."""


def check_signup(signup: SignupSection, refuse: Callable[[str, str], None]) -> None:
    """What types alone cannot say."""
    try:
        if parse_amount(signup.credit) < 0:
            refuse("signup.credit", f"{signup.credit} is negative")
    except MoneyError as error:
        refuse("signup.credit", str(error))
    for name in ("credit_days", "per_day", "per_network_per_day", "per_domain_per_day", "tries_per_network_per_hour"):
        if not 0 <= getattr(signup, name) <= 1_000_000:
            refuse(f"signup.{name}", f"{getattr(signup, name)} is not from 0 to 1000000")
    if signup.token and len(signup.token) < TOKEN_CHARS_MIN:
        refuse("signup.token", f"has fewer than {TOKEN_CHARS_MIN} characters; `openssl rand -hex 32` makes a good one")
