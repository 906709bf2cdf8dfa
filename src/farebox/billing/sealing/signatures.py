"""Signatures: Ed25519 (RFC 8032) over canonical JSON, and public keys as a JSON Web Key Set (RFC 8037). Pure.

    signed("receipt", content, key) → {"kid": …, "receipt": content, "signature": …}

The signature is of the content's canonical form and nothing else; `format` in it says what kind of content it is, so that one
kind never passes for another. A key's id is its thumbprint (RFC 7638), so it cannot name another key.
"""

import base64
import binascii
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Literal, cast

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from farebox.billing.sealing.receipts import HEAD, RECEIPT, Content, NotCanonical, canonical, parse

KEY_BYTES = 32
SIGNATURE_BYTES = 64
KEYS_MAX = 1_000
FORMATS: Mapping[str, str] = {"receipt": RECEIPT, "head": HEAD}
Kind = Literal["receipt", "head"]
PublicKeys = Mapping[str, Ed25519PublicKey]
"""By their ids."""


def encode(value: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def decode(text: str, length: int) -> bytes:
    """The bytes of a base64url text of exactly this length, in its only spelling. Raises `ValueError`."""
    try:
        value = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("not base64url") from None
    if len(value) != length or encode(value) != text:
        raise ValueError(f"not {length} bytes as base64url")
    return value


def thumbprint(public: bytes) -> str:
    """A public key's id: the SHA-256 of its JSON Web Key (RFC 7638), as base64url."""
    return encode(hashlib.sha256(b'{"crv":"Ed25519","kty":"OKP","x":"%s"}' % encode(public).encode()).digest())


class Signer:
    """A private key, and its id."""

    def __init__(self, private: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(private)
        self.public = self._key.public_key().public_bytes_raw()
        self.kid = thumbprint(self.public)

    def signed(self, kind: Kind, content: Content) -> dict[str, Any]:
        """The content with its signature. The same content always gives the same (RFC 8032 uses no chance)."""
        assert content["format"] == FORMATS[kind], "a signature says what it is about"
        return {"kid": self.kid, kind: content, "signature": encode(self._key.sign(canonical(content)))}


def key_set(public: Iterable[bytes]) -> dict[str, Any]:
    """Public keys as the document that customers fetch, the newest first."""
    fixed = {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA"}
    return {"keys": [{**fixed, "kid": thumbprint(one), "x": encode(one)} for one in public]}


def read_key_set(text: bytes) -> dict[str, Ed25519PublicKey]:
    """The keys of a key set, or a single key. Others than Ed25519 are passed over. Raises `ValueError` with a sentence."""
    try:
        document = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ValueError("it is not JSON") from None
    listed: object = document.get("keys", [document]) if isinstance(document, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if not isinstance(listed, list) or len(cast("list[object]", listed)) > KEYS_MAX:
        raise ValueError("it is not a JSON Web Key Set: an object with `keys`")
    found: dict[str, Ed25519PublicKey] = {}
    for entry in cast("list[object]", listed):
        if not isinstance(entry, dict):
            raise ValueError("a key in it is not an object")
        values = cast("dict[str, object]", entry)
        if values.get("kty") != "OKP" or values.get("crv") != "Ed25519":
            continue
        try:
            public = decode(str(values.get("x")), KEY_BYTES)
        except ValueError:
            raise ValueError("`x` of a key in it is not 32 bytes as base64url") from None
        found[thumbprint(public)] = Ed25519PublicKey.from_public_bytes(public)
    if not found:
        raise ValueError("it has no Ed25519 key (`kty` OKP, `crv` Ed25519)")
    return found


class Opened(msgspec.Struct, frozen=True):
    """A signed document that was read."""

    kind: Kind
    content: Content
    problem: str = ""
    """Why its signature is not good; empty when it is. The content is then only what somebody says."""


def opened(text: bytes, keys: PublicKeys) -> Opened:
    """Read a signed document and check it against public keys. Raises `NotCanonical` for bytes that are none."""
    kind, content, kid, signature = _parts(parse(text))
    key = keys.get(kid)
    if key is None:
        return Opened(kind, content, f"it is signed by the key `{kid[:64]}`, which is not among the public keys")
    try:
        if content.get("format") == FORMATS[kind]:
            key.verify(decode(signature, SIGNATURE_BYTES), canonical(content))
            return Opened(kind, content)
    except (InvalidSignature, ValueError):
        pass
    return Opened(kind, content, "its signature does not fit: what it says was changed, or the signature was")


def _parts(document: Content) -> tuple[Kind, Content, str, str]:
    for kind in FORMATS:
        content, kid, signature = document.get(kind), document.get("kid"), document.get("signature")
        if set(document) != {kind, "kid", "signature"}:
            continue
        if isinstance(content, dict) and isinstance(kid, str) and isinstance(signature, str):
            return cast("Kind", kind), cast("Content", content), kid, signature
    raise NotCanonical("not a signed receipt: an object with `receipt`, `kid` and `signature`")
