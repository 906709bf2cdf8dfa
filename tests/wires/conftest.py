"""Recorded provider traffic for the wire tests.

The recordings are not part of the repository. They are looked for in the directory named by FAREBOX_RECORDINGS, else in
`shared/recordings` beside the checkout; without them, the tests that need them are skipped and say so.
"""

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from farebox.wires.dialect import Dialect, UsageRules

RECORDINGS = Path(os.environ.get("FAREBOX_RECORDINGS") or Path(__file__).parents[3] / "shared" / "recordings")
MISSING = "no recordings: set FAREBOX_RECORDINGS to their directory"

TOGETHER = UsageRules(cache_read_paths=(("prompt_tokens_details", "cached_tokens"), ("cached_tokens",)))
DIALECTS: dict[str, Dialect] = {
    "azure": Dialect(),
    "deepseek": Dialect(
        output_limit_field="max_tokens",
        developer_role=False,
        json_schema=False,
        pdf=False,
        reasoning_request="thinking_type",
        reasoning_echo_required=True,
        usage=UsageRules(cache_read_paths=(("prompt_cache_hit_tokens",), ("prompt_tokens_details", "cached_tokens"))),
    ),
    "google": Dialect(usage=UsageRules(reasoning="hidden")),
    "groq": Dialect(n_choices=False, reasoning_reply="reasoning"),
    "huggingface": Dialect(usage=TOGETHER),
    "mistral": Dialect(
        tool_call_id_pattern="[a-zA-Z0-9]{9}",
        seed_field="random_seed",
        tool_choice_required="any",
        reasoning_reply="content_list",
        usage=UsageRules(
            audio_inside_input=False, cache_read_paths=(("prompt_tokens_details", "cached_tokens"), ("num_cached_tokens",))
        ),
    ),
    "moonshot": Dialect(usage=msgspec.structs.replace(TOGETHER, usage_in_choice=True)),
    "openrouter": Dialect(
        cache_control=True,
        error_in_200="error_object",
        extensions=True,
        reasoning_request="openrouter",
        reasoning_reply="reasoning_details",
        usage=UsageRules(cost_field="cost"),
    ),
    "perplexity": Dialect(usage=UsageRules(cost_field="cost")),
    "together": Dialect(usage=TOGETHER),
    "xai": Dialect(usage=UsageRules(reasoning="outside", cost_field="cost_in_usd_ticks", cost_divisor=10**10)),
}
"""What providers.md says about the vendors that were recorded; the real rows are in `farebox.providers`."""


class Recording(msgspec.Struct, frozen=True):
    """One exchange. `body` is the answer's bytes; `request` the JSON body, None when it was not recorded."""

    name: str
    provider: str
    family: str
    status: int
    stream: bool
    tags: frozenset[str]
    request: Any
    headers: dict[str, str]
    body: bytes
    dialect: Dialect

    @property
    def fields(self) -> dict[str, msgspec.Raw]:
        """The request as a wire reads it: its top-level members, raw."""
        return msgspec.json.decode(msgspec.json.encode(self.request), type=dict[str, msgspec.Raw])

    @property
    def chat(self) -> bool:
        return self.family == "chat_completions"


@cache
def recordings() -> tuple[Recording, ...]:
    found: list[Recording] = []
    for path in sorted(RECORDINGS.glob("*/*.json")):
        if not path.name.startswith(("chat_completions--", "messages--", "count_tokens--")):
            continue
        record = json.loads(path.read_text())
        answer = record["response"]
        found.append(
            Recording(
                name=f"{record['provider']}/{path.stem}",
                provider=record["provider"],
                family=record["family"],
                status=answer["status"],
                stream=record["stream"],
                tags=frozenset(record["tags"]),
                request=record["request"]["body"],
                headers=answer["headers"],
                body=answer["body"].encode(),
                dialect=DIALECTS.get(record["provider"], Dialect()),
            )
        )
    return tuple(found)


def _kind(recording: Recording) -> set[str]:
    """The parameters that take this recording."""
    wire = "chat" if recording.chat else recording.family
    kinds: set[str] = set()
    if isinstance(recording.request, dict) and "messages" in recording.request:
        kinds.add("recorded_request")
    if recording.status >= 400:
        kinds.add("recorded_error")
    elif wire in ("chat", "messages"):
        kinds.add("recorded_stream" if recording.stream else "recorded_answer")
        kinds.add(f"{wire}_stream" if recording.stream else f"{wire}_answer")
    return kinds


KINDS = (
    "recorded_request", "recorded_error", "recorded_stream", "recorded_answer",
    "chat_stream", "chat_answer", "messages_stream", "messages_answer",
)  # fmt: skip


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for kind in KINDS:
        if kind in metafunc.fixturenames:
            found = [pytest.param(item, id=item.name) for item in recordings() if kind in _kind(item)]
            metafunc.parametrize(kind, found or [pytest.param(None, marks=pytest.mark.skip(reason=MISSING))])


@pytest.fixture(scope="session")
def named() -> Any:
    """`named("azure/…grok…")`: the recording whose name contains all the words."""

    def find(*words: str) -> Recording:
        if not recordings():
            pytest.skip(MISSING)
        found = [item for item in recordings() if all(word in item.name for word in words)]
        assert found, words
        return found[0]

    return find


@pytest.fixture(scope="session")
def recorded() -> tuple[Recording, ...]:
    """All recordings."""
    return recordings() or pytest.skip(MISSING)
