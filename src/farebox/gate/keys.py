"""API keys: how they look, how they are recognised, how they are stored. Pure; no database.

A key is `fb-` + 43 base-62 characters (256 random bits) + a 6-character checksum, so that a scanner can recognise one
without asking us. Stored is only an HMAC-SHA256 under the server's pepper: a stolen database is of no use, and keys of 256
bits need no slow hash.
"""

import hashlib
import hmac
import zlib

from farebox.ports import BASE62

PREFIX = "fb-"
SECRET_BYTES = 32
_BODY_LENGTH = 43
_CHECK_LENGTH = 6
KEY_LENGTH = len(PREFIX) + _BODY_LENGTH + _CHECK_LENGTH
PEPPER_BYTES_MIN = 32


def _base62(value: int, width: int) -> str:
    digits: list[str] = []
    for _ in range(width):
        value, remainder = divmod(value, 62)
        digits.append(BASE62[remainder])
    return "".join(reversed(digits))


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode("ascii")), _CHECK_LENGTH)


def make(secret: bytes) -> str:
    """32 random bytes → the key as its owner sees it, once."""
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"a key is made of {SECRET_BYTES} random bytes, got {len(secret)}")
    body = _base62(int.from_bytes(secret, "big"), _BODY_LENGTH)
    return f"{PREFIX}{body}{_checksum(body)}"


def looks_valid(key: str) -> bool:
    """Whether prefix, alphabet, length and checksum are those of a key; says nothing about its existence."""
    if len(key) != KEY_LENGTH or not key.startswith(PREFIX) or not key.isascii():
        return False
    body = key[len(PREFIX) : len(PREFIX) + _BODY_LENGTH]
    return body.isalnum() and hmac.compare_digest(key[len(PREFIX) + _BODY_LENGTH :], _checksum(body))


def digest(key: str, pepper: bytes) -> bytes:
    """What the database stores and looks up."""
    if len(pepper) < PEPPER_BYTES_MIN:
        raise ValueError(f"the pepper needs at least {PEPPER_BYTES_MIN} bytes")
    return hmac.new(pepper, key.encode("utf-8"), hashlib.sha256).digest()


def hint(key: str) -> str:
    """What a list may show: `fb-Ab…9xYz`. Four characters of the checksum's end tell nothing about the secret."""
    return f"{key[:5]}…{key[-4:]}"
