"""What the configuration says, in the terms of those who act on it, a worker or not. It does not load the gateway."""

from farebox.billing.accounts import signups
from farebox.billing.invoicing.invoices import Terms
from farebox.billing.payments.card_payments import CardTerms
from farebox.config import Loaded
from farebox.config.limits import SHIPPED_TIERS
from farebox.gate.ladder import Ladder, Tier
from farebox.gate.limits import Limits
from farebox.money import parse_amount
from farebox.pepper import read_pepper


def make_ladder(loaded: Loaded) -> Ladder:
    """The configuration's tiers, or the shipped ones."""
    sections = loaded.config.tiers or SHIPPED_TIERS
    tiers = [
        Tier(
            name,
            Limits(
                requests_per_minute=section.requests_per_minute,
                concurrent_calls=section.concurrent_calls,
                tokens_per_minute=section.tokens_per_minute,
                tokens_per_day=section.tokens_per_day,
            ),
            tuple(
                (
                    pattern,
                    Limits(
                        requests_per_minute=one.requests_per_minute,
                        tokens_per_minute=one.tokens_per_minute,
                        tokens_per_day=one.tokens_per_day,
                    ),
                )
                for pattern, one in section.classes.items()
            ),
            None if section.daily_spend is None else parse_amount(section.daily_spend),
            section.models,
            parse_amount(section.paid),
            section.age_days * 86_400_000_000,
        )
        for name, section in sections.items()
    ]
    return Ladder(tiers, loaded.config.limits.tier)


def invoice_terms(loaded: Loaded) -> Terms:
    """How this operator invoices."""
    section = loaded.config.invoices
    return Terms(
        seller=section.seller,
        address=section.address,
        tax_id=section.tax_id,
        tax_label=section.tax_label,
        tax_bp=loaded.tax_bp,
        prefix=section.prefix,
        credit_note_prefix=section.credit_note_prefix,
        grace_us=section.grace_hours * 3_600_000_000,
        due_days=section.due_days,
        reminder_days=section.reminder_days,
        pause_after_days=section.pause_after_days,
        display=loaded.config.display.shown,
    )


def signup_rules(loaded: Loaded) -> signups.Rules:
    """What a sign-up gets, and how often."""
    section = loaded.config.signup
    return signups.Rules(
        parse_amount(section.credit),
        section.credit_days,
        section.per_day,
        section.per_network_per_day,
        section.per_domain_per_day,
        read_pepper(loaded),
        frozenset(section.open_domains),
    )


def card_terms(loaded: Loaded) -> CardTerms | None:
    """What this operator takes by card; None: nothing."""
    section = loaded.config.stripe
    if section is None:
        return None
    return CardTerms(
        min_nano=parse_amount(section.min_amount),
        max_nano=parse_amount(section.max_amount),
        currency=section.currency,
        webhook_secret=section.webhook_secret.encode(),
        tolerance_s=section.tolerance_s,
    )
