"""Signatures on thinking blocks: made with the answer, verified when the block comes back. Pure."""

import hmac
from base64 import b64encode
from hashlib import sha256


def sign(seed: int, thinking: str) -> str:
    """The same thought signs the same under one seed; not a secret, only a check that a block came back untouched."""
    key = b"farebox-simulator" + str(seed).encode()
    return b64encode(hmac.digest(key, thinking.encode(), sha256) * 2).decode()


def is_signed(seed: int, thinking: str, signature: str) -> bool:
    return hmac.compare_digest(sign(seed, thinking).encode(), signature.encode())
