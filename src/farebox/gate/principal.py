"""Who calls: the account and the key behind a credential, and everything about them that a call needs."""

from dataclasses import dataclass
from typing import Final

from farebox.billing.budgets import Window
from farebox.billing.covering import Covering
from farebox.gate.ladder import Tier
from farebox.gate.limiter import Holder
from farebox.gate.permissions import Permit
from farebox.routing.own_keys import OwnKey

USUAL: Final = Permit()
"""The permit of a key without restrictions; there is only this one."""


@dataclass(frozen=True)
class Principal:
    """Everything about the caller that a call needs; made from database rows, never changed."""

    account: str
    account_name: str
    prepaid: bool
    active: bool
    key: str
    key_name: str
    key_hint: str
    covering: Covering
    """In which scopes its calls are held: the account, the key's own budget, and every other that concerns it."""
    project: str = ""
    project_name: str = ""
    budget_nano: int | None = None
    window: Window = "none"
    expires_us: int | None = None
    revoked: bool = False
    disabled: str = ""
    """What was disabled, the key or its project, in words; empty = nothing."""
    created_us: int = 0
    holders: tuple[Holder, ...] = ()
    """Whose rate limits its calls count against."""
    metered: bool = False
    """Some of them count tokens, or differ by model."""
    tier: Tier | None = None
    """Of its account."""
    markup: str = ""
    """The account's markup plan; empty for the usual one."""
    month: str = ""
    charged_nano: int = 0
    """What the account was charged in `month`, as far as posted when this was read."""
    policy: str = ""
    """The routing policy of the key or, where it has none, of the account."""
    tags: tuple[str, ...] = ()
    """Put on each of its calls."""
    permit: Permit = USUAL
    """What the key may do."""
    own_keys: tuple[OwnKey, ...] = ()
    """Its account's keys at providers, in the order of use."""
    own_key_calls: int = 0
    """How many calls by them were posted in `month`."""

    def volume_nano(self, month: str) -> int:
        """What the account was charged in a UTC month `2026-11`; what plans with volume steps go by."""
        return self.charged_nano if self.month == month else 0

    def own_key_calls_in(self, month: str) -> int:
        """Its account's calls by its own keys at providers in a UTC month; what the free ones are counted by."""
        return self.own_key_calls if self.month == month else 0
