"""Whether the modules that a call passes through run as C extensions or as Python (docs/decisions/0021)."""

from importlib.machinery import EXTENSION_SUFFIXES

from farebox import money


def is_compiled() -> bool:
    """All of them are, or none: `money` stands for the rest."""
    return money.__file__.endswith(tuple(EXTENSION_SUFFIXES))


def word() -> str:
    """For people."""
    return "compiled" if is_compiled() else "interpreted"
