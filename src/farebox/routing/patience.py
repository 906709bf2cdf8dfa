"""Patience: how long a call waits for providers, as its policy, its body and its headers say. Pure."""

from collections.abc import Mapping

import msgspec

from farebox.errors import FareboxError, invalid

TIMEOUT_S_MAX = 86_400
RETRIES_MAX = 5
TOTAL_HEADERS = (b"x-farebox-timeout", b"x-litellm-timeout")
FIRST_TOKEN_HEADERS = (b"x-farebox-first-token-timeout", b"x-litellm-stream-timeout")
CHUNK_HEADERS = (b"x-farebox-chunk-timeout",)
RETRIES_HEADERS = (b"x-farebox-max-retries", b"x-litellm-num-retries")


class Patience(msgspec.Struct, frozen=True):
    """Time-outs in seconds, in place of the configured ones; None leaves them."""

    headers_s: float | None = None
    """To the head of a provider's answer."""
    first_token_s: float | None = None
    """To the first content of a stream."""
    chunk_s: float | None = None
    """Between two parts of an answer."""
    total_s: float | None = None
    """The call, over all its attempts."""
    connect_s: float | None = None
    """To look up a provider's name and connect."""


class Demand(msgspec.Struct, frozen=True):
    """What a request's headers ask for."""

    patience: Patience | None = None
    attempts_max: int | None = None


NO_DEMAND = Demand()


def demand(headers: Mapping[bytes, bytes]) -> Demand:
    """Read the headers. `FareboxError` (400) names the one that is no number, or out of range."""
    total_s = _seconds(headers, TOTAL_HEADERS)
    first_token_s = _seconds(headers, FIRST_TOKEN_HEADERS)
    chunk_s = _seconds(headers, CHUNK_HEADERS)
    attempts_max = None
    for name in RETRIES_HEADERS:
        value = headers.get(name)
        if value is not None:
            if not value.isdigit() or len(value) > 2 or int(value) > RETRIES_MAX:
                raise _wrong(name, value, f"a whole number from 0 to {RETRIES_MAX}")
            attempts_max = int(value) + 1
            break
    if total_s is None and first_token_s is None and chunk_s is None:
        return NO_DEMAND if attempts_max is None else Demand(None, attempts_max)
    return Demand(Patience(None, first_token_s, chunk_s, total_s), attempts_max)


def _seconds(headers: Mapping[bytes, bytes], names: tuple[bytes, ...]) -> float | None:
    for name in names:
        value = headers.get(name)
        if value is None:
            continue
        wanted = f"seconds, above 0 and up to {TIMEOUT_S_MAX}"
        whole, _, fraction = value.partition(b".")
        if not whole.isdigit() or not (fraction.isdigit() or not fraction) or len(value) > 12:
            raise _wrong(name, value, wanted)
        seconds = float(value)
        if not 0 < seconds <= TIMEOUT_S_MAX:
            raise _wrong(name, value, wanted)
        return seconds
    return None


def _wrong(name: bytes, value: bytes, wanted: str) -> FareboxError:
    shown = value[:40].decode("latin-1")
    return invalid(f"`{name.decode()}` must be {wanted}, not `{shown}`", param=name.decode())


def shorter(first: Patience | None, second: Patience | None) -> Patience | None:
    """The shorter of each two."""
    if first is None or second is None:
        return first or second
    pairs = ((getattr(first, name), getattr(second, name)) for name in Patience.__struct_fields__)
    return Patience(*(min((value for value in pair if value is not None), default=None) for pair in pairs))


def before(first: Patience | None, second: Patience | None) -> Patience | None:
    """What the first says, and where it says nothing, the second."""
    if first is None or second is None:
        return first or second
    pairs = ((getattr(first, name), getattr(second, name)) for name in Patience.__struct_fields__)
    return Patience(*(one if one is not None else other for one, other in pairs))
