"""Signatures of outgoing webhooks after the Standard Webhooks specification, version 1 (https://www.standardwebhooks.com).

    webhook-id: msg-…                     the same at every try, so that a receiver can drop repeats
    webhook-timestamp: 1795392000         of this try, in seconds
    webhook-signature: v1,… v1,…          base64 of HMAC-SHA256 over `id.timestamp.body`, one for each secret in force
"""

import base64
import hashlib
import hmac
from collections.abc import Sequence

PREFIX = "whsec_"
SECRET_BYTES_MIN = 24
SECRET_BYTES_MAX = 64
"""Both from the specification."""


def derived_secret(pepper: bytes, channel_id: str, generation: int) -> bytes:
    """The secret of a channel that is kept in the database: it follows from the pepper, so no table has it."""
    return hmac.new(pepper, f"farebox webhook {channel_id} {generation}".encode(), hashlib.sha256).digest()


def secret_text(secret: bytes) -> str:
    """As a receiver enters it: `whsec_…`."""
    return PREFIX + base64.b64encode(secret).decode()


def secret_bytes(text: str) -> bytes:
    """The bytes of `whsec_…`. Raises ValueError, never quoting it."""
    try:
        secret = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except ValueError:
        secret = b""
    if not text.startswith(PREFIX) or not SECRET_BYTES_MIN <= len(secret) <= SECRET_BYTES_MAX:
        raise ValueError(f"a webhook's secret is `{PREFIX}` and base64 of {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} random bytes")
    return secret


def signed_headers(message_id: str, body: bytes, secrets: Sequence[bytes], now_s: int) -> list[tuple[str, str]]:
    """The three headers of one try."""
    signed = b"%b.%d.%b" % (message_id.encode(), now_s, body)
    signatures = [base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode() for secret in secrets]
    return [
        ("webhook-id", message_id),
        ("webhook-timestamp", str(now_s)),
        ("webhook-signature", " ".join(f"v1,{signature}" for signature in signatures)),
    ]
