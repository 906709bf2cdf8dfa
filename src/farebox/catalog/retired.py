"""Model ids that their vendors have switched off, with the day and the model to move to.

Code written against them is still around, so a call with such an id deserves a better answer than "unknown". The days are
the vendors' own; the successor is the one that the vendor names, or, where that has been retired since, the next of its line:

- https://platform.claude.com/docs/en/about-claude/model-deprecations
- https://developers.openai.com/api/docs/deprecations
- https://ai.google.dev/gemini-api/docs/deprecations
- https://docs.mistral.ai/models/overview#legacy-models (Pixtral Large and Mistral Large 2.1: the day they were seen refused)
- https://api-docs.deepseek.com/quick_start/pricing
- https://docs.x.ai/developers/migration/may-15-retirement
- https://console.groq.com/docs/deprecations

An id that some provider of the catalog still serves resolves as usual; this table is asked last.
"""

from collections.abc import Mapping
from pathlib import Path

import msgspec

_FILE = Path(__file__).with_name("retired.jsonl")


class Retired(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One id that no longer answers."""

    id: str
    vendor: str
    retired: str
    """The day it was switched off, `YYYY-MM-DD`."""
    successor: str
    """Slug of the model to use instead."""


def load() -> Mapping[str, Retired]:
    """By id, and by `vendor/id`, in lower case."""
    found: dict[str, Retired] = {}
    for entry in msgspec.json.Decoder(Retired).decode_lines(_FILE.read_bytes()):
        found[entry.id.lower()] = entry
        found[f"{entry.vendor}/{entry.id}".lower()] = entry
    return found
