"""Providers from the configuration: new rows, and changes to known ones."""

import pytest

from farebox.config import ProviderSection
from farebox.providers.registry import PROVIDERS, custom
from farebox.wires.dialect import Dialect


def test_a_new_chat_provider_is_the_wire_as_its_author_defines_it() -> None:
    row = custom("lab", ProviderSection(wire="openai_chat", base_url="http://127.0.0.1:9400/v1"))
    assert (row.name, row.title, row.kind, row.base_url) == ("lab", "lab", "custom", "http://127.0.0.1:9400/v1")
    assert row.speaks["openai_chat"].path == "/chat/completions"
    assert row.speaks["openai_chat"].dialect == Dialect()
    assert (row.credential.env, row.credential.header, row.credential.scheme) == ((), "authorization", "Bearer ")
    assert not row.abort_stops_billing, "unknown: reading on to the usage is the exact way"


@pytest.mark.parametrize(
    ("base_url", "path"), [("http://lab", "/v1/messages"), ("http://lab/v1", "/messages"), ("http://lab/v1/", "/messages")]
)
def test_a_messages_address_may_end_in_its_version_or_not(base_url: str, path: str) -> None:
    row = custom("lab", ProviderSection(wire="anthropic_messages", base_url=base_url))
    spoken = row.speaks["anthropic_messages"]
    assert spoken.path == path
    assert spoken.count_tokens_path == path + "/count_tokens"
    assert not spoken.dialect.usage.cache_inside_input
    assert (row.credential.header, row.credential.scheme) == ("x-api-key", "")


def test_settings_change_a_known_row_and_nothing_else() -> None:
    section = ProviderSection(
        base_url="https://proxy.example/v1", title="OpenAI by proxy", abort_stops_billing=False, headers={"X-Team": "a"},
        output_limit_field="max_tokens", reasoning_tokens="outside", cached_tokens_inside_input=False, developer_role=False,
    )  # fmt: skip
    row = custom("openai", section, base=PROVIDERS["openai"])
    spoken = row.speaks["openai_chat"]
    assert (row.base_url, row.title, row.abort_stops_billing) == ("https://proxy.example/v1", "OpenAI by proxy", False)
    assert spoken.headers == (("X-Team", "a"),)
    assert spoken.dialect.output_limit_field == "max_tokens"
    assert not spoken.dialect.developer_role
    assert spoken.dialect.usage.reasoning == "outside"
    assert not spoken.dialect.usage.cache_inside_input
    assert row.credential == PROVIDERS["openai"].credential
    assert custom("openai", ProviderSection(), base=PROVIDERS["openai"]) == PROVIDERS["openai"]


def test_an_address_that_ends_in_the_version_does_not_get_it_twice() -> None:
    row = custom("anthropic", ProviderSection(base_url="http://127.0.0.1:9400/v1"), base=PROVIDERS["anthropic"])
    spoken = row.speaks["anthropic_messages"]
    assert (spoken.path, spoken.count_tokens_path) == ("/messages", "/messages/count_tokens")
    moved = custom("anthropic", ProviderSection(base_url="http://127.0.0.1:9400"), base=PROVIDERS["anthropic"])
    assert moved.speaks["anthropic_messages"].path == "/v1/messages"


def test_wire_chooses_what_the_operators_models_are_called_on() -> None:
    row = custom("deepseek", ProviderSection(wire="anthropic_messages"), base=PROVIDERS["deepseek"])
    assert list(row.speaks) == ["anthropic_messages", "openai_chat"]
    assert row.speaks["anthropic_messages"] == PROVIDERS["deepseek"].speaks["anthropic_messages"]


def test_a_header_of_the_section_replaces_one_of_the_row() -> None:
    row = custom("anthropic", ProviderSection(headers={"Anthropic-Version": "2099-01-01"}), base=PROVIDERS["anthropic"])
    assert row.speaks["anthropic_messages"].headers == (("Anthropic-Version", "2099-01-01"),)


def test_a_new_provider_without_an_address_is_refused() -> None:
    with pytest.raises(ValueError, match="`lab`.*`wire` and `base_url`"):
        custom("lab", ProviderSection(wire="openai_chat"))
