"""What can be wrong with catalog data: always said with its place and what to write instead."""

import msgspec

FINDINGS_SHOWN_MAX = 10
"""Findings spelled out in one message; the rest is counted."""


class CatalogError(ValueError):
    """The catalog, or a model in the configuration, cannot be used."""


class PriceFinding(msgspec.Struct, frozen=True):
    """One price that cannot be taken as it stands. It is never rounded; its source must be corrected."""

    place: str
    """Where it stands: file, line and path, or the name of a setting."""
    value: str
    problem: str


class PriceError(CatalogError):
    """One or more prices cannot be represented exactly."""

    def __init__(self, findings: tuple[PriceFinding, ...]) -> None:
        assert findings, "a price error has at least one finding"
        shown = [f"{finding.place}: {finding.problem}" for finding in findings[:FINDINGS_SHOWN_MAX]]
        if len(findings) > FINDINGS_SHOWN_MAX:
            shown.append(f"and {len(findings) - FINDINGS_SHOWN_MAX} more")
        super().__init__("; ".join(shown))
        self.findings = findings
