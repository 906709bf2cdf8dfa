"""What somebody may do at most in a time, and how it stands."""


import msgspec

LIMIT_MAX = 10**10
"""The largest limit of any kind: its level still fits."""


class Limits(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What somebody may do; None is no limit."""

    requests_per_minute: int | None = None
    concurrent_calls: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None


def restored(text: str) -> Limits:
    """From a column of the database. What cannot be read raises: a limit that is not understood must not be none."""
    return msgspec.json.decode(text, type=Limits) if text else NO_LIMITS


def stored(limits: Limits) -> str:
    """The column's text; empty for none."""
    return "" if limits == NO_LIMITS else msgspec.json.encode(limits).decode()


NO_LIMITS = Limits()


def lowest(one: Limits, other: Limits) -> Limits:
    """Of each limit the lower one."""

    def lower(name: str) -> int | None:
        both = [value for value in (getattr(one, name), getattr(other, name)) if value is not None]
        return min(both, default=None)

    return Limits(**{name: lower(name) for name in Limits.__struct_fields__})


class Refusal(msgspec.Struct, frozen=True):
    """Which limit said no, whose it is, and when it frees."""

    limit: str
    whose: str
    maximum: int
    retry_after_us: int


class Standing(msgspec.Struct, frozen=True, gc=False):
    """How the scarcest limits stand: the limit itself, what may come now, and when all of it is back. A limit of 0 is none."""

    request_limit: int = 0
    requests_left: int = 0
    requests_reset_us: int = 0
    token_limit: int = 0
    tokens_left: int = 0
    tokens_reset_us: int = 0
