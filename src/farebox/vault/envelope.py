"""Envelopes: a secret under a key of its own, and that key under a master key, both AES-256-GCM. Pure.

An envelope is bound to its place: who owns it, what for, under which id. One that was put elsewhere, say into another account's
row, does not open. When the master key changes, only the small key is wrapped anew (`rewrapped`); the secret is not touched.

    version 1 │ nonce 12 │ wrapped key 32 + 16 │ nonce 12 │ secret … + 16
"""

import hashlib
import os

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
SECRET_BYTES_MAX = 4096
VERSION = 1
_WRAPPED_END = 1 + NONCE_BYTES + KEY_BYTES + TAG_BYTES
_HEAD = _WRAPPED_END + NONCE_BYTES


class CannotOpen(Exception):
    """An envelope that does not open; a sentence that tells nothing of what is in it."""


class Place(msgspec.Struct, frozen=True):
    """Where an envelope belongs."""

    id: str
    account: str
    provider: str

    def data(self, purpose: str) -> bytes:
        """What the cipher binds; as JSON, so that no two places are alike."""
        return msgspec.json.encode(["farebox provider key", VERSION, purpose, self.id, self.account, self.provider])


class Master(msgspec.Struct, frozen=True):
    """A master key."""

    key: bytes

    def __repr__(self) -> str:
        return f"Master({self.id})"

    @property
    def id(self) -> str:
        """Its public name: a digest, so that it cannot name another key."""
        return hashlib.sha256(b"farebox master key " + self.key).hexdigest()[:16]


def seal(secret: str, place: Place, master: Master) -> bytes:
    """The envelope of a secret."""
    plain = secret.encode()
    if len(plain) > SECRET_BYTES_MAX:
        raise ValueError(f"a secret has at most {SECRET_BYTES_MAX} bytes")
    key, nonce = os.urandom(KEY_BYTES), os.urandom(NONCE_BYTES)
    return _wrapped(key, place, master) + nonce + AESGCM(key).encrypt(nonce, plain, place.data("secret"))


def open_sealed(envelope: bytes, place: Place, master: Master) -> str:
    """The secret. Raises `CannotOpen`."""
    key = _unwrapped(envelope, place, master)
    try:
        plain = AESGCM(key).decrypt(envelope[_WRAPPED_END:_HEAD], envelope[_HEAD:], place.data("secret"))
        return plain.decode()
    except (InvalidTag, UnicodeDecodeError):
        raise CannotOpen("it was changed, or put into another's place") from None


def rewrapped(envelope: bytes, place: Place, old: Master, new: Master) -> bytes:
    """The same secret under another master key. Raises `CannotOpen`."""
    open_sealed(envelope, place, old)
    return _wrapped(_unwrapped(envelope, place, old), place, new) + envelope[_WRAPPED_END:]


def _wrapped(key: bytes, place: Place, master: Master) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return bytes([VERSION]) + nonce + AESGCM(master.key).encrypt(nonce, key, place.data(f"key {master.id}"))


def _unwrapped(envelope: bytes, place: Place, master: Master) -> bytes:
    if len(envelope) < _HEAD + TAG_BYTES:
        raise CannotOpen("it is cut short")
    if envelope[0] != VERSION:
        raise CannotOpen(f"it has the form {envelope[0]}, and only {VERSION} is known")
    nonce, wrapped = envelope[1 : 1 + NONCE_BYTES], envelope[1 + NONCE_BYTES : _WRAPPED_END]
    try:
        return AESGCM(master.key).decrypt(nonce, wrapped, place.data(f"key {master.id}"))
    except InvalidTag:
        raise CannotOpen("it was changed, or put into another's place") from None
