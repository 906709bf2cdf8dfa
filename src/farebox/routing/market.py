"""The market: what can be called, as routing sees it. `farebox.market` makes it from the configuration."""

import msgspec

from farebox.billing.markup import MarkupPlan
from farebox.catalog.catalog import Catalog
from farebox.routing.target import Target


class Market(msgspec.Struct, frozen=True, eq=False):
    """A snapshot of what can be called: replaced whole when configuration or prices change."""

    catalog: Catalog
    by_wire: dict[str, dict[str, tuple[Target, ...]]]
    """By the client's wire and the model's slug: every enabled offer, on the client's wire where its provider speaks it."""
    markups: dict[str, MarkupPlan] = {}
    """By name; an account without a plan of its own pays by the `markup` of the targets."""

    @property
    def targets(self) -> dict[str, tuple[Target, ...]]:
        """By model slug, for those who only ask what there is."""
        return next(iter(self.by_wire.values()))
