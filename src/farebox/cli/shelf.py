"""Which module has which command. A module is loaded when one of its commands is asked for: starting is most of what a command
takes, and what one needs the others do not."""

from collections import UserDict
from collections.abc import Iterator
from importlib import import_module

import click

MODULES: dict[str, tuple[str, ...]] = {
    "accounts": ("account_commands", "tier_commands"),
    "alerts": ("alert_commands",),
    "audit": ("audit_commands",),
    "budgets": ("budget_commands",),
    "byok": ("byok_commands",),
    "cards": ("card_commands",),
    "codes": ("code_commands",),
    "compare": ("usage_commands",),
    "demo": ("demo_commands",),
    "doctor": ("server_commands",),
    "export": ("export_commands",),
    "init": ("server_commands",),
    "invoices": ("invoice_commands",),
    "keys": ("key_commands", "limit_commands"),
    "ledger": ("usage_commands",),
    "payments": ("invoice_commands",),
    "prices": ("price_commands",),
    "projects": ("budget_commands", "limit_commands"),
    "providers": ("provider_commands",),
    "receipt": ("receipt_commands",),
    "reconcile": ("reconcile_commands",),
    "redeem": ("code_commands",),
    "replay": ("replay_commands",),
    "route": ("route_commands",),
    "run": ("server_commands",),
    "serve": ("server_commands",),
    "signup": ("account_commands",),
    "simulate": ("server_commands",),
    "tiers": ("tier_commands",),
    "topup": ("account_commands",),
    "usage": ("usage_commands",),
}
"""By the command's name: the module that makes it, and those that add to its group."""


class Shelf(UserDict[str, click.Command]):
    """The commands by name."""

    def __getitem__(self, name: str) -> click.Command:
        if name not in self.data:
            makes, *adds = MODULES[name]
            made = {command.name: command for command in import_module(f"farebox.cli.{makes}").COMMANDS}
            for other in adds:
                import_module(f"farebox.cli.{other}")
            self.data[name] = made[name]
        return self.data[name]

    def __contains__(self, name: object) -> bool:
        return name in MODULES

    def __iter__(self) -> Iterator[str]:
        return iter(MODULES)

    def __len__(self) -> int:
        return len(MODULES)
