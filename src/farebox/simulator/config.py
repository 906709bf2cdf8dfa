"""What one simulated provider is told at its start."""

from pathlib import Path

import msgspec

FSYNC_TOKENS = 16
CACHE_TOKENS_MIN = 1024
ANSWER_TOKENS_MIN = 8
ANSWER_TOKENS_MAX = 40
BODY_BYTES_MAX = 64 * 1024 * 1024
"""The largest request body; a larger one is refused with 413."""
CONTEXT_TOKENS = 1_000_000
"""Prompt plus answer of every simulated model; a longer prompt is refused as too long."""


class SimulatorConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Defaults make a provider on any free port of the loopback, without a bill."""

    host: str = "127.0.0.1"
    port: int = 0
    """0 takes any free port; `RunningSimulator.port` says which."""
    seed: int = 0
    """Decides the words, lengths and signatures of every answer, together with the request."""
    bill: Path | None = None
    """The file that the true bill is appended to; None keeps no bill."""
    bill_sync: bool = True
    """False leaves syncing to the kernel: the bill then survives a killed process, but not a power cut."""
    fsync_tokens: int = FSYNC_TOKENS
    """A progress line is written, and synced, each time so many more tokens have been generated."""
    abort_stops_billing: bool = True
    """False: an answer is generated and invoiced to its end though the caller hung up (as `ignore-hangup` on every call)."""
    dialect: str = "openai"
    """How usage is reported on the chat wire; `farebox.simulator.dialects.DIALECTS` lists the names."""
    models: tuple[str, ...] = ()
    """Base names served besides `sim`, `sim-…` and `bench`."""
    any_model: bool = False
    """Serve every base name instead of answering 404 to an unknown one."""
    cache_tokens_min: int = CACHE_TOKENS_MIN
    """Shorter prefixes are not cached."""
    answer_tokens_max: int = ANSWER_TOKENS_MAX
    """An answer has 8 to so many words unless told otherwise; at least 8."""
    control: bool = True
    """Serve `/control/…`. It has no password; bind to the loopback."""
