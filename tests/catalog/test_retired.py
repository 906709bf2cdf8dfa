"""Ids that no longer answer get a better reply than "unknown": since when, and what to use instead."""

import datetime
from collections import Counter

import pytest

from farebox.catalog import loader, retired
from farebox.catalog.catalog import Catalog
from farebox.catalog.missing import ModelNotFound
from farebox.providers.registry import PROVIDERS

ENTRIES = {entry.id: entry for entry in retired.load().values()}
CATALOG = Catalog(loader.load(), {}, PROVIDERS)
FACTS_READ = "2026-11-23"


def test_the_well_known_ones_are_there() -> None:
    vendors = Counter(entry.vendor for entry in ENTRIES.values())
    assert len(ENTRIES) >= 25
    assert {"openai", "anthropic", "google", "mistral", "deepseek", "xai"} <= set(vendors)


def test_each_was_retired_before_the_facts_were_read_and_has_a_live_successor() -> None:
    for entry in ENTRIES.values():
        assert datetime.date.fromisoformat(entry.retired).isoformat() == entry.retired
        assert entry.retired <= FACTS_READ, entry.id
        assert CATALOG.get(entry.successor) is not None, entry


@pytest.mark.parametrize(
    ("name", "day", "successor"),
    [
        ("claude-3-5-sonnet-20241022", "2025-10-28", "anthropic/claude-sonnet-4.6"),
        ("anthropic/claude-3-5-sonnet-20241022", "2025-10-28", "anthropic/claude-sonnet-4.6"),
        ("anthropic/claude-3.5-sonnet", "2025-10-28", "anthropic/claude-sonnet-4.6"),
        ("Claude-3-Opus-20240229", "2026-01-05", "anthropic/claude-opus-4.6"),
        ("gemini-1.5-pro", "2025-09-29", "google/gemini-3.1-pro-preview"),
        ("google/gemini-2.0-flash", "2026-06-01", "google/gemini-3.1-flash-lite"),
        ("gpt-4", "2026-10-23", "openai/gpt-5.6-sol"),
        ("gpt-3.5-turbo", "2026-10-23", "openai/gpt-5.6-terra"),
        ("o1", "2026-10-23", "openai/gpt-5.6-sol"),
        ("deepseek-chat", "2026-07-24", "deepseek/deepseek-v4.1-flash"),
        ("deepseek-reasoner", "2026-07-24", "deepseek/deepseek-v4.1-flash"),
        ("open-mixtral-8x7b", "2025-03-30", "mistral/mistral-small-4"),
        ("grok-4-0709", "2026-05-15", "xai/grok-4.3"),
    ],
)
def test_a_retired_id_names_its_successor(name: str, day: str, successor: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        CATALOG.resolve(name)
    error = caught.value
    assert error.status == 404
    assert error.message == f"`{name}` was retired by its vendor on {day}; use `{successor}` instead"
    assert error.details == {"suggestions": [successor], "retired": day, "successor": successor}


def test_an_id_that_somebody_still_serves_resolves() -> None:
    # Withdrawn by its vendor, but its weights are open and others sell it under the same id.
    assert CATALOG.resolve("deepseek/deepseek-chat").model.slug.startswith("deepseek/")
