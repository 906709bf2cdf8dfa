"""A customer's key at a provider as it is given to us: what it may look like, and what a list may show of it. Pure.

No message here repeats any of it.
"""

from farebox.gate import keys

CHARS_MIN = 8
CHARS_MAX = 1024
HINT_CHARS = 4
HINT_FROM_CHARS = 20
"""From this length on four characters tell nothing of the rest; of shorter keys nothing is shown."""


class BadSecret(ValueError):
    """A text that is no provider's key; a sentence with what to send."""


def checked(text: str) -> str:
    """The key, without white space around it. Raises `BadSecret`."""
    secret = text.strip()
    if not secret:
        raise BadSecret("is empty; send the key as the provider shows it")
    if secret[:7].lower() == "bearer ":
        raise BadSecret("begins with `Bearer`; send the key alone")
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        raise BadSecret("has characters that no key has (spaces, line ends, control characters, letters beyond ASCII)")
    if len(secret) < CHARS_MIN:
        raise BadSecret(f"is shorter than {CHARS_MIN} characters; send the whole key")
    if len(secret) > CHARS_MAX:
        raise BadSecret(f"is longer than {CHARS_MAX} characters; send the key alone")
    if keys.looks_valid(secret):
        raise BadSecret("is a Farebox key; send the one that the provider gave you")
    return secret


def hint(secret: str) -> str:
    """What a list may show: `…Ab9Z`."""
    return f"…{secret[-HINT_CHARS:]}" if len(secret) >= HINT_FROM_CHARS else "…"
