"""Who the month is about: an invented company, its three projects and twelve keys, and the twenty models that they call.

Models and list prices are the shipped catalog's; the answers come from the simulator.
"""

from typing import Literal

import msgspec

ACCOUNT = "Tramline Ltd"
TIER = "tier-5"
PLAN = "team"
CREDIT_LIMIT = "2000.00"
WELCOME_CREDIT = "5.00"
PROVIDERS = {
    "openai": "openai/v1",
    "anthropic": "anthropic",
    "google": "google",
    "mistral": "mistral/v1",
    "xai": "xai/v1",
    "groq": "groq/v1",
    "deepseek": "deepseek",
    "openrouter": "openrouter/v1",
}
"""Names of the catalog, and where on the simulator each lives."""

PRICED_UP = "openai/gpt-6.1-terra"
"""The model whose price changes."""
RAISED_PERCENT = 20

Surface = Literal["chat", "messages"]


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """One key, and what is done with it."""

    name: str
    project: str
    share: int
    """Of the month's calls, in proportion to the others'."""
    models: tuple[str, ...]
    """The first is called most."""
    surface: Surface = "chat"
    stream_percent: int = 0
    tools_percent: int = 0
    question: tuple[int, int]
    """Words, from and to."""
    answer_max: int
    """The output cap that its calls ask for."""
    briefing: int = 0
    """Words of instructions that all its calls begin with: what prompt caches are for."""
    end_users: int = 0
    tag: str = ""
    at_night: bool = False
    """A job that runs before the office opens."""


KEYS: tuple[Key, ...] = (
    Key(
        name="web app", project="assistant", share=26, models=(PRICED_UP, "openai/gpt-6-luna", "google/gemini-3.8-flash"),
        stream_percent=60, question=(20, 400), answer_max=700, briefing=1_800, end_users=40, tag="web",
    ),
    Key(
        name="mobile app", project="assistant", share=14, models=("google/gemini-3.5-flash-lite", PRICED_UP),
        stream_percent=70, question=(10, 200), answer_max=400, briefing=1_500, end_users=25, tag="mobile",
    ),
    Key(
        name="support desk", project="assistant", share=10, models=("anthropic/claude-sonnet-5.5", "anthropic/claude-haiku-5.5"),
        surface="messages", stream_percent=30, tools_percent=25, question=(60, 900), answer_max=900, briefing=2_400,
        end_users=6, tag="support",
    ),
    Key(
        name="staging", project="assistant", share=3, models=("openai/gpt-5-mini", PRICED_UP), question=(10, 120),
        answer_max=200, tag="staging",
    ),
    Key(
        name="editor plugin", project="engineering", share=12,
        models=("anthropic/claude-opus-5.5", "anthropic/claude-sonnet-5"), surface="messages",
        stream_percent=50, tools_percent=40, question=(300, 3_000), answer_max=1_200, briefing=3_000, end_users=8,
    ),
    Key(
        name="review bot", project="engineering", share=8, models=("openai/gpt-6.1-sol", "openai/gpt-5.2"),
        tools_percent=20, question=(800, 5_000), answer_max=1_000, briefing=1_600,
    ),
    Key(
        name="ci", project="engineering", share=6, models=("mistral/devstral-2", "xai/grok-build-0.1"),
        question=(200, 1_500), answer_max=400, at_night=True,
    ),
    Key(
        name="playground", project="engineering", share=4, models=("xai/grok-4.6", "openai/gpt-6.1-sol"),
        stream_percent=30, question=(100, 600), answer_max=500,
    ),
    Key(
        name="documents", project="research", share=7, models=("google/gemini-2.5-pro", "google/gemini-4-argon"),
        question=(2_000, 6_000), answer_max=900,
    ),
    Key(
        name="notebooks", project="research", share=5, models=("deepseek/deepseek-v4-pro", "mistral/mistral-large-4"),
        stream_percent=20, question=(100, 1_200), answer_max=900, end_users=4,
    ),
    Key(
        name="weekly report", project="research", share=3, models=("meta/llama-3.3-70b-instruct", "openai/gpt-oss-120b"),
        question=(1_000, 4_000), answer_max=1_200, at_night=True,
    ),
    Key(
        name="evaluation", project="research", share=2, models=("anthropic/claude-opus-5.5", "openai/gpt-5.2"),
        question=(6_000, 12_000), answer_max=1_200,
    ),
)  # fmt: skip
PROJECTS = tuple(dict.fromkeys(key.project for key in KEYS))
MODELS = tuple(dict.fromkeys(model for key in KEYS for model in key.models))
LIMITED = next(index for index, key in enumerate(KEYS) if key.name == "playground")
"""The key whose budget is too small for its month."""
RUNAWAY = next(index for index, key in enumerate(KEYS) if key.name == "evaluation")
"""The key that calls in a loop one afternoon."""
