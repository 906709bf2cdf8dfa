"""A provider's statement: what it says that we owe it, whatever form it came in. Only values; `comparison` judges them.

A line is about one request, or sums up a day by model and key as far as the form tells them apart. Counts and costs may stand
in the same line or in lines of their own: OpenAI and Anthropic report usage by key and model, and costs by model.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec

from farebox.wires.usage import Usage

LINES_MAX = 1_000_000
"""The most lines of one statement."""
DAYS_MAX = 400
"""The most days."""

Kind = Literal[
    "missing_here", "missing_there", "billed_twice", "unknown_model", "units_differ", "price_drift", "cost_differs", "estimate",
    "rounding",
]  # fmt: skip
KINDS: dict[Kind, str] = {
    "missing_here": "on the statement, not in our records",
    "missing_there": "in our records, not on the statement",
    "billed_twice": "on the statement more than once",
    "unknown_model": "a model of which we know nothing",
    "units_differ": "the counts differ",
    "price_drift": "the counts agree, the price does not",
    "cost_differs": "the costs differ, and the statement has no counts to say why",
    "estimate": "our figures are an estimate, or unknown",
    "rounding": "within the statement's rounding",
}
"""What a finding may be, and in words."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line. What the form does not tell is empty, or None for figures: never zero."""

    day: str
    """In the provider's zone, `2026-11-23`."""
    model: str = ""
    """The provider's own id."""
    key: str = ""
    """The provider's own name of the key."""
    request_id: str = ""
    requests: int | None = None
    units: Mapping[str, int] | None = None
    """By class of `farebox.wires.usage.Usage`; a class that is not named is zero, or inside another (`Statement.inside`)."""
    cost_nano: int | None = None
    place: str = ""
    """Where it stands: `usage.csv, line 7`."""


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """All that a provider says about some whole days."""

    provider: str
    first_day: str
    last_day: str
    """Inclusive."""
    lines: tuple[Line, ...]
    zone: str = "UTC"
    inside: Mapping[str, str] = {}
    """Classes that it counts within another: `{"reasoning": "output"}`; within nothing: it does not tell."""
    step_pico: int = 0
    """The smallest step of its costs, in pico-dollars: each line is rounded to it. 0: its costs are exact."""

    @property
    def by_request(self) -> bool:
        """Whether its lines name requests; readers see to it that all of them do, or none."""
        return bool(self.lines) and bool(self.lines[0].request_id)

    def folded(self, units: Mapping[str, int]) -> dict[str, int]:
        """Counts in the classes that the statement tells apart, without zeros."""
        found: dict[str, int] = {}
        for name, count in units.items():
            if count:
                name = self.inside.get(name, name)
                if name:
                    found[name] = found.get(name, 0) + count
        return found


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One difference. Costs are nano-dollars; None is unknown, never zero."""

    kind: Kind
    subject: str
    """What it is about, so that the same difference has the same name in every run: `request:…`, `attempt:…`, `day:…`."""
    day: str
    model: str
    key: str = ""
    request_id: str = ""
    hold_id: str = ""
    attempt: int = 0
    """Our attempt, where it is about one."""
    ours_nano: int | None
    """What our books say, earlier adjustments included."""
    theirs_nano: int | None
    ours_units: Mapping[str, int] | None = None
    theirs_units: Mapping[str, int] | None = None
    ours_requests: int | None = None
    theirs_requests: int | None = None
    place: str = ""
    exact: Usage | None = None
    """What our attempt used, where it was an estimate and the statement knows."""

    @property
    def difference_nano(self) -> int | None:
        """By how much what we owe has to rise; None where the statement does not say what it costs."""
        return None if self.theirs_nano is None else self.theirs_nano - (self.ours_nano or 0)
