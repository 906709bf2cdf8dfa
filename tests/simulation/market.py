"""What is for sale in this world, at which prices, and to whom. Prices change with each version of the configuration."""

import random

import msgspec

from tests.simulation.upstreams import VENDORS
from tests.support.running import model, offer, provider

MODELS: dict[str, tuple[str, ...]] = {
    # model → the providers that offer it
    "sim/one": ("amber",),
    "sim/stubborn": ("birch",),
    "sim/claude": ("delta",),
    "sim/claude-stubborn": ("ember",),
    "sim/pair": ("amber", "cedar"),
    "sim/mixed": ("cedar", "delta"),
    "sim/many": ("amber", "birch", "cedar", "fjord"),
    "sim/across": ("ember", "fjord", "delta"),
}
WEAK: dict[str, tuple[str, ...]] = {
    # only policies call them
    "sim/weak": ("amber", "fjord"),
    "sim/weak-claude": ("delta",),
}
POLICIES: dict[str, str] = {
    "policy/checked": 'models = ["sim/weak"]\n'
    'escalation = { to = ["sim/pair"], streams = "withhold", must_not_match = "^[a-m]" }',
    "policy/rated": 'models = ["sim/weak-claude"]\n'
    'escalation = { to = ["sim/across"], streams = "withhold", self_rating_percent = 60 }',
    "policy/unseen": 'models = ["sim/weak"]\n'
    'escalation = { to = ["sim/mixed"], must_not_match = "^[a-m]", self_rating_percent = 60 }',
}
"""Where a stronger model answers when the first one's answer will not do; its streams are withheld, or never looked at."""
OWN_PLAN = "own"
"""Of customers with keys of their own at providers: the usual percentage, and a fee for calls by those."""
OWN_FREE = 3
OWN_BP = 700
OWN_AT = ("amber", "cedar", "delta")
"""Where they have some."""
PROBED = ("amber", "delta")
"""Who is asked how it is, where anybody is; so many that a seed costs about the same."""
PROBE_S = 1
DAY_US = 86_400_000_000
EPOCH_US = 1_772_322_000 * 1_000_000  # 2026-02-28T23:40:00Z: a day, a week and a month are about to end
NANO = 10**9
TOTAL_S = 10.0
"""A call's deadline, over all its attempts."""
RETRIES_PERCENT = 40


def upstream_id(slug: str) -> str:
    """Every provider's own name of a model."""
    return slug.replace("/", "-")


class Price(msgspec.Struct, frozen=True):
    """Pico-dollars per token."""

    input: int
    output: int

    def texts(self) -> tuple[str, str]:
        return tuple(f"{pico // 10**6}.{pico % 10**6:06d}" for pico in (self.input, self.output))  # type: ignore[return-value]


class Version(msgspec.Struct, frozen=True):
    """One version of the configuration."""

    number: int
    prices: dict[tuple[str, str], Price]
    """By model and provider."""
    markup_bp: int
    bill_partial: bool
    drain_s: float
    attempts_max: int = 3
    per_offer_max: int = 3
    retries_per_s: int = 10
    hedges: bool = False
    probed: bool = False
    failures_in_a_row: int = 1
    """After which a provider that is asked how it is is out."""

    def text(self, folder: str, sync: str) -> str:
        lines = [
            f"[server]\ndrain_s = {self.drain_s}\nkeepalive_comment_s = 1.5",
            f'[journal]\nsync = "{sync}"',
            f'[billing]\nmarkup_percent = "{self.markup_bp // 100}.{self.markup_bp % 100:02d}"\ndrain_s = 6.0\ndrains_max = 4',
            f"bill_partial = {str(self.bill_partial).lower()}",
            f"[attempts]\nheaders_s = 6.0\nfirst_token_s = 5.0\nchunk_s = 4.0\ntotal_s = {TOTAL_S}",
            f"attempts_max = {self.attempts_max}\nper_offer_max = {self.per_offer_max}",
            f"retries_per_s = {self.retries_per_s}\nretries_percent = {RETRIES_PERCENT}",
            f'[markup.{OWN_PLAN}]\npercent = "{self.markup_bp // 100}.{self.markup_bp % 100:02d}"',
            f'[markup.{OWN_PLAN}.byok]\nfree_calls = {OWN_FREE}\npercent = "{OWN_BP // 100}"',
            "[limits]\nconcurrent_calls = 60",
            "[local_model]\nenabled = false",
        ]
        if self.hedges:
            lines.append('[routing]\npolicy = "usual"\n[hedging]\nwaste_per_day = "100"')
            lines.append("[policies.usual.hedge]\nsamples_min = 1\ndelay_min_ms = 1")
        if self.probed:
            lines.append(f"[health]\nprobe_s = {PROBE_S}\nfailures_in_a_row = {self.failures_in_a_row}")
        lines += [
            provider(
                vendor.name,
                vendor.base_url,
                wire=vendor.wire,
                extra=f"abort_stops_billing = {str(vendor.abort_stops_billing).lower()}\n{vendor.settings}"
                + ('\nprobe = "/models"' if self.probed and vendor.name in PROBED else ""),
            )
            for vendor in VENDORS
        ]
        for slug, names in (MODELS | WEAK).items():
            offers = []
            for name in names:
                input, output = self.prices[slug, name].texts()
                offers.append(offer(name, upstream_id(slug), input=input, output=output))
            lines.append(model(slug, *offers, context=8192, output=1024))
        lines += [f"[policies.{name.removeprefix('policy/')}]\n{text}" for name, text in POLICIES.items()]
        return "\n".join(lines)


def version(seed: int, number: int, *, hedges: bool, probed: bool) -> Version:
    """Prices with digits down to the smallest, so that every rounding shows."""
    chance = random.Random(f"{seed}/prices {number}")
    prices = {
        (slug, name): Price(chance.randint(100_000, 4_000_000), chance.randint(400_000, 12_000_000))
        for slug, names in (MODELS | WEAK).items()
        for name in names
    }
    return Version(
        number=number,
        prices=prices,
        markup_bp=chance.choice((0, 0, 550, 1_237)),
        bill_partial=random.Random(f"{seed}/partial").random() < 0.3,
        drain_s=chance.choice((0.2, 1.0, 10.0)),
        # The same in every version: a life's calls are judged by it.
        attempts_max=random.Random(f"{seed}/attempts").choice((3, 3, 6)),
        per_offer_max=random.Random(f"{seed}/per offer").choice((1, 2, 3)),
        retries_per_s=random.Random(f"{seed}/retries").choice((0, 10, 10)),
        hedges=hedges,
        probed=probed,
        failures_in_a_row=random.Random(f"{seed}/failures in a row").choice((1, 1, 2)),
    )


class Customer(msgspec.Struct, frozen=True):
    """An account with its keys; a key has a budget and a window, or neither."""

    name: str
    credit_nano: int
    """Prepaid credit, or the credit line of a postpaid account."""
    prepaid: bool
    keys: tuple[tuple[int | None, str], ...]


def customers(seed: int, *, scarce: bool) -> tuple[Customer, ...]:
    chance = random.Random(f"{seed}/customers")

    def amount(low: int, high: int) -> int:
        """Between so many thousandths of a dollar."""
        return chance.randint(low * NANO // 1000, high * NANO // 1000)

    rich = Customer("rich", 500 * NANO, True, ((None, "none"), (200 * NANO, "month")))
    if not scarce:
        return (rich, Customer("later", 300 * NANO, False, ((None, "none"),)))
    return (
        rich,
        Customer("poor", amount(10, 90), True, ((None, "none"), (amount(4, 40), "day"))),
        Customer("later", amount(20, 150), False, ((None, "none"), (amount(5, 40), "hour"))),
    )
