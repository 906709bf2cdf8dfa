"""The secret under which API keys are stored."""

from farebox.config import ConfigError, Loaded
from farebox.gate.keys import PEPPER_BYTES_MIN


def read_pepper(loaded: Loaded) -> bytes:
    """The secret under which API keys are stored: `FAREBOX_PEPPER` (hex) or the file beside the configuration."""
    given = loaded.environment.get("FAREBOX_PEPPER")
    try:
        pepper = bytes.fromhex(given if given is not None else loaded.pepper_file.read_text().strip())
    except FileNotFoundError:
        raise ConfigError(
            f"{loaded.pepper_file}: missing; without it no API key can be checked; `farebox init` makes one, "
            "or set FAREBOX_PEPPER to the hex text of the one your keys were made with"
        ) from None
    except ValueError:
        raise ConfigError("the pepper must be hexadecimal text") from None
    if len(pepper) < PEPPER_BYTES_MIN:
        raise ConfigError(f"the pepper must have at least {PEPPER_BYTES_MIN} bytes")
    return pepper
