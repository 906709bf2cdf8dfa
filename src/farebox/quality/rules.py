"""Rules: what is looked at in the cheap model's answer, from `[policies.NAME.escalation]`, checked. Pure.

Patterns are run by the `regex` package, since only that can stop: a pattern that takes longer than `PATTERN_S` on an answer is
given up, and the answer counts as good enough.
"""

from typing import Any, Literal, Protocol

import msgspec

PATTERN_CHARS_MAX = 1_000
PATTERN_S = 0.02
"""Per pattern and answer."""
MATCHED_CHARS_MAX = 64 * 2**10
"""Of an answer, the characters that a pattern is looked for in: its end, if it is longer."""
INSTALL = "pip install 'farebox[rules]'"


class Section(Protocol):
    """What the section says (`farebox.config.routing.EscalationSection`)."""

    @property
    def to(self) -> tuple[str, ...]: ...
    @property
    def streams(self) -> Literal["never", "withhold"]: ...
    @property
    def refused(self) -> bool: ...
    @property
    def truncated(self) -> bool: ...
    @property
    def schema(self) -> bool: ...
    @property
    def confidence_percent(self) -> int | None: ...
    @property
    def self_rating_percent(self) -> int | None: ...
    @property
    def must_match(self) -> str | None: ...
    @property
    def must_not_match(self) -> str | None: ...


class RuleError(ValueError):
    """A rule that cannot be; `setting` is its name."""

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(problem)
        self.setting = setting
        self.problem = problem


class Rules(msgspec.Struct, frozen=True, eq=False):
    """What sends a call on to the strong models."""

    to: tuple[str, ...]
    """Names of the strong models."""
    refused: bool = True
    truncated: bool = True
    schema: bool = True
    confidence_percent: int | None = None
    must_match: Any = None
    must_not_match: Any = None
    """Compiled patterns."""
    self_rating_percent: int | None = None
    withholds: bool = False
    """Streams are withheld to be looked at; else they never are."""


def compiled(section: Section) -> Rules:
    """Raises `RuleError`."""
    if not section.to:
        raise RuleError("to", "name the models that answer when the first one's answer will not do")
    for setting in ("confidence_percent", "self_rating_percent"):
        percent: int | None = getattr(section, setting)
        if percent is not None and not 1 <= percent <= 100:
            raise RuleError(setting, f"{percent} is not from 1 to 100")
    return Rules(
        section.to,
        section.refused,
        section.truncated,
        section.schema,
        section.confidence_percent,
        _pattern("must_match", section.must_match),
        _pattern("must_not_match", section.must_not_match),
        section.self_rating_percent,
        section.streams == "withhold",
    )


def _pattern(setting: str, text: str | None) -> Any:
    if text is None:
        return None
    if not text or len(text) > PATTERN_CHARS_MAX:
        raise RuleError(setting, f"a pattern has 1 to {PATTERN_CHARS_MAX} characters, this one has {len(text)}")
    try:
        import regex
    except ImportError:
        raise RuleError(setting, f"patterns need the package `regex`: {INSTALL}") from None
    try:
        return regex.compile(text)
    except regex.error as error:
        raise RuleError(setting, f"is not a regular expression: {error}") from None


def found(pattern: Any, text: str) -> bool | None:
    """Whether a compiled pattern is found in a text; None when that takes too long to say."""
    try:
        return pattern.search(text[-MATCHED_CHARS_MAX:], timeout=PATTERN_S) is not None
    except TimeoutError:
        return None
