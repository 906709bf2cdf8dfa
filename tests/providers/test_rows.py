"""House rules for provider rows, and the facts about each that decide what a call does."""

import inspect
import re
from urllib.parse import urlsplit

import msgspec
import pytest

from farebox.providers import (
    anthropic,
    compatible,
    deepseek,
    google,
    local,
    minimax,
    mistral,
    moonshot,
    openai,
    openrouter,
    registry,
    xai,
)  # fmt: skip
from farebox.providers.base import Provider
from farebox.providers.registry import PROVIDERS
from farebox.wires import anthropic_messages, openai_chat

WIRES = {"openai_chat", "anthropic_messages"}
NAMED = {
    "openai", "anthropic", "google", "mistral", "deepseek", "xai", "groq", "together", "fireworks", "alibaba", "moonshot", "zai",
    "minimax", "cerebras", "openrouter", "huggingface", "nebius", "deepinfra", "novita", "ollama", "vllm", "llamacpp", "local",
}  # fmt: skip
rows = pytest.mark.parametrize("row", PROVIDERS.values(), ids=lambda row: row.name)


def test_every_vendor_is_there_once() -> None:
    assert set(PROVIDERS) == NAMED
    assert all(name == row.name for name, row in PROVIDERS.items())
    claimed = [vendor for row in PROVIDERS.values() for vendor in row.makes]
    assert len(claimed) == len(set(claimed)), "a vendor's models have one maker"


@rows
def test_a_row_is_tidy(row: Provider) -> None:
    assert re.fullmatch(r"[a-z0-9]+", row.name)
    assert row.title and row.docs_url.startswith("https://"), "every row links to the vendor's own words"
    assert row.speaks and set(row.speaks) <= WIRES
    url = urlsplit(row.base_url)
    assert url.scheme == ("https" if row.kind == "cloud" else "http")
    assert not row.base_url.endswith("/")
    for spoken in row.speaks.values():
        assert spoken.path.startswith("/") and not spoken.path.endswith("/")
        assert all(name == name.lower() for name in spoken.forward_headers)
        private = {"authorization", "x-api-key", "cookie", "openai-organization", "openai-project"}
        assert not private & set(spoken.forward_headers), "a client's own credentials stay here"


@rows
def test_keys_come_from_the_environment_of_cloud_vendors_only(row: Provider) -> None:
    if row.kind == "cloud":
        assert row.credential.env and all(re.fullmatch(r"[A-Z][A-Z0-9]*_(API_KEY|TOKEN)", name) for name in row.credential.env)
    else:
        assert row.credential.env == ()


@pytest.mark.parametrize(
    ("name", "variables"),
    [
        ("openai", ("OPENAI_API_KEY",)), ("anthropic", ("ANTHROPIC_API_KEY",)), ("google", ("GEMINI_API_KEY", "GOOGLE_API_KEY")),
        ("mistral", ("MISTRAL_API_KEY",)), ("deepseek", ("DEEPSEEK_API_KEY",)), ("xai", ("XAI_API_KEY",)),
        ("groq", ("GROQ_API_KEY",)), ("together", ("TOGETHER_API_KEY",)), ("fireworks", ("FIREWORKS_API_KEY",)),
        ("alibaba", ("DASHSCOPE_API_KEY",)), ("moonshot", ("MOONSHOT_API_KEY",)), ("zai", ("ZAI_API_KEY", "ZHIPU_API_KEY")),
        ("minimax", ("MINIMAX_API_KEY",)), ("cerebras", ("CEREBRAS_API_KEY",)), ("openrouter", ("OPENROUTER_API_KEY",)),
        ("huggingface", ("HF_TOKEN",)), ("nebius", ("NEBIUS_API_KEY",)), ("deepinfra", ("DEEPINFRA_API_KEY",)),
        ("novita", ("NOVITA_API_KEY",)),
    ],
)  # fmt: skip
def test_the_variables_that_switch_a_vendor_on(name: str, variables: tuple[str, ...]) -> None:
    assert PROVIDERS[name].credential.env == variables


def test_hanging_up_stops_the_meter_only_where_a_source_says_so() -> None:
    # https://openrouter.ai/docs/api_reference/streaming; a server of one's own stops with the connection.
    stops = {"openai", "anthropic", "deepseek", "xai", "together", "fireworks", "deepinfra", "novita"}
    own = {"ollama", "vllm", "llamacpp", "local"}
    assert {name for name, row in PROVIDERS.items() if row.abort_stops_billing} == stops | own


@pytest.mark.parametrize(
    ("name", "wire", "url"),
    [
        ("openai", "openai_chat", "https://api.openai.com/v1/chat/completions"),
        ("anthropic", "anthropic_messages", "https://api.anthropic.com/v1/messages"),
        ("google", "openai_chat", "https://generativelanguage.googleapis.com/v1beta/openai/chat/completions"),
        ("mistral", "openai_chat", "https://api.mistral.ai/v1/chat/completions"),
        ("deepseek", "openai_chat", "https://api.deepseek.com/chat/completions"),
        ("deepseek", "anthropic_messages", "https://api.deepseek.com/anthropic/v1/messages"),
        ("xai", "openai_chat", "https://api.x.ai/v1/chat/completions"),
        ("groq", "openai_chat", "https://api.groq.com/openai/v1/chat/completions"),
        ("together", "openai_chat", "https://api.together.ai/v1/chat/completions"),
        ("fireworks", "openai_chat", "https://api.fireworks.ai/inference/v1/chat/completions"),
        ("fireworks", "anthropic_messages", "https://api.fireworks.ai/inference/v1/messages"),
        ("alibaba", "openai_chat", "https://dashscope-intl.aliyuncs.com/compatible-mode/v1/chat/completions"),
        ("moonshot", "openai_chat", "https://api.moonshot.ai/v1/chat/completions"),
        ("zai", "openai_chat", "https://api.z.ai/api/paas/v4/chat/completions"),
        ("minimax", "openai_chat", "https://api.minimax.io/v1/chat/completions"),
        ("minimax", "anthropic_messages", "https://api.minimax.io/anthropic/v1/messages"),
        ("cerebras", "openai_chat", "https://api.cerebras.ai/v1/chat/completions"),
        ("openrouter", "openai_chat", "https://openrouter.ai/api/v1/chat/completions"),
        ("openrouter", "anthropic_messages", "https://openrouter.ai/api/v1/messages"),
        ("huggingface", "openai_chat", "https://router.huggingface.co/v1/chat/completions"),
        ("ollama", "openai_chat", "http://127.0.0.1:11434/v1/chat/completions"),
        ("vllm", "openai_chat", "http://127.0.0.1:8000/v1/chat/completions"),
        ("llamacpp", "openai_chat", "http://127.0.0.1:8080/v1/chat/completions"),
    ],
)
def test_where_calls_go(name: str, wire: str, url: str) -> None:
    row = PROVIDERS[name]
    assert row.base_url + row.speaks[wire].path == url


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("deepseek", {"output_limit_field": "max_tokens", "reasoning_echo_required": True, "json_schema": False, "pdf": False}),
        ("mistral", {"tool_choice_required": "any", "seed_field": "random_seed", "tool_call_id_pattern": r"[a-zA-Z0-9]{9}",
                     "stream_usage_option": False, "reasoning_reply": "content_list"}),
        ("xai", {"stop": False, "penalties": False, "message_name": False, "tool_strict": False}),
        ("groq", {"n_choices": False, "logprobs": False, "logit_bias": False, "pdf": False}),
        ("moonshot", {"tool_choice_required": "unsupported", "reasoning_echo_required": True, "tool_strict": False}),
        ("zai", {"json_schema": False, "temperature_max": 1, "cache_control": True}),
        ("alibaba", {"reasoning_request": "enable_thinking", "cache_control": True}),
        ("minimax", {"error_in_200": "base_resp", "reasoning_reply": "reasoning_details"}),
        ("openrouter", {"error_in_200": "error_object", "extensions": True, "reasoning_request": "openrouter"}),
        ("cerebras", {"penalties": False, "reasoning_reply": "reasoning", "output_limit_field": "max_completion_tokens"}),
    ],
)  # fmt: skip
def test_quirks_of_chat_completions(name: str, flags: dict[str, object]) -> None:
    dialect = PROVIDERS[name].speaks["openai_chat"].dialect
    assert {flag: getattr(dialect, flag) for flag in flags} == flags


def test_a_call_of_another_surface_goes_to_newer_geminis_with_the_placeholder_for_its_signature() -> None:
    said = {
        "max_tokens": 9,
        "tools": [{"name": "look", "input_schema": {"type": "object"}}],
        "messages": [
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "seen"}]},
        ],
    }
    asked = anthropic_messages.request.to_neutral({name: msgspec.Raw(msgspec.json.encode(value)) for name, value in said.items()})
    dialect = google.PROVIDER.speaks["openai_chat"].dialect
    signed: set[str] = set()
    for model in ("gemini-2.5-pro", "gemini-3-flash-preview", "gemini-4-argon", "gemini-flash-latest", "gemma-3-27b-it"):
        body = msgspec.json.decode(
            openai_chat.request.from_neutral(
                asked, model=model, stream=False, output_cap=9, dialect=dialect, unsupported=[]
            )
        )
        (call,) = body["messages"][1]["tool_calls"]
        if "extra_content" in call:
            signed.add(model)
            assert call["extra_content"] == {"google": {"thought_signature": "skip_thought_signature_validator"}}
    assert signed == {"gemini-3-flash-preview", "gemini-4-argon", "gemini-flash-latest"}


def test_only_openai_and_gateways_in_front_of_it_get_the_developer_role() -> None:
    knows = {n for n, r in PROVIDERS.items() if "openai_chat" in r.speaks and r.speaks["openai_chat"].dialect.developer_role}
    assert knows == {"openai", "openrouter"}


def test_the_messages_wire_always_carries_its_version() -> None:
    for row in PROVIDERS.values():
        spoken = row.speaks.get("anthropic_messages")
        if spoken is not None:
            assert dict(spoken.headers)["anthropic-version"] == anthropic.VERSION, row.name
    assert PROVIDERS["anthropic"].speaks["anthropic_messages"].forward_headers == ("anthropic-beta",)
    assert PROVIDERS["anthropic"].credential.header == "x-api-key"


def test_every_provider_file_explains_itself() -> None:
    own = (openai, anthropic, google, mistral, deepseek, xai, moonshot, minimax, openrouter)
    for module in (*own, compatible, local, registry):
        assert module.__doc__ and len(inspect.getsource(module).splitlines()) < 400
    for module in own:
        assert "https://" in (module.__doc__ or "") or "https://" in inspect.getsource(module)
