"""Tools that a provider runs on its side: what nobody counts, or what has no price, is never sent (docs/money.md)."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.routing.conftest import Clinic, model, names, offer, planned, provider, rates, router

from farebox import continuation
from farebox.catalog.price import Rates
from farebox.config.providers import ProviderSection
from farebox.errors import FareboxError, Kind
from farebox.providers.registry import PROVIDERS, custom
from farebox.routing import hedging
from farebox.routing.own_keys import OwnKey
from farebox.routing.router import Router
from farebox.wires.anthropic_messages import call as messages_call
from farebox.wires.call import Call
from farebox.wires.openai_chat import call as chat_call

CHAT, MESSAGES = "openai_chat", "anthropic_messages"
FUNCTION = {"type": "function", "function": {"name": "f"}}
OWN = {"name": "f", "input_schema": {"type": "object"}}
FEE = 10_000_000_000
"""One cent, in pico-dollars."""


def asked(wire: str, fields: dict[str, Any]) -> Call:
    body = {"model": "v/m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}], **fields}
    return (chat_call if wire == CHAT else messages_call).read_call(msgspec.json.encode(body))


def at(name: str, *, id: str = "m", price: Rates | None = None, wire: str = CHAT, **rows: Any) -> Router:
    """A market of one offer at a known provider, which can whatever it is asked, as an operator's own model can."""
    return router(model("v/m", offer(name, id=id, price=price, wire=wire)), providers={**PROVIDERS, **rows})


def refused(made: Router, wire: str, fields: dict[str, Any]) -> FareboxError:
    with pytest.raises(FareboxError) as caught:
        planned(made, asked(wire, fields))
    assert caught.value.kind is Kind.NO_OFFER
    return caught.value


def tool(**fields: Any) -> dict[str, Any]:
    return {"tools": [FUNCTION, fields]}


def anthropics(*types: str) -> dict[str, Any]:
    return {"tools": [OWN, *({"type": type, "name": type.rpartition("_")[0]} for type in types)]}


UNCOUNTED = {
    "groq's browser search": ("groq", CHAT, tool(type="browser_search"), "tools[1].type", "browser_search"),
    "groq's code interpreter": ("groq", CHAT, tool(type="code_interpreter"), "tools[1].type", "code_interpreter"),
    "qwen's search": ("alibaba", CHAT, {"enable_search": True}, "enable_search", "true"),
    "qwen's search with options": (
        "alibaba", CHAT, {"enable_search": True, "search_options": {"forced_search": True}}, "enable_search", "true",
    ),
    "qwen's code interpreter": ("alibaba", CHAT, {"enable_code_interpreter": True}, "enable_code_interpreter", "true"),
    "z.ai's search": (
        "zai", CHAT, tool(type="web_search", web_search={"enable": True, "search_engine": "search-prime"}), "tools[1].type",
        "web_search",
    ),
    "z.ai's retrieval": ("zai", CHAT, tool(type="retrieval", retrieval={"knowledge_id": "1"}), "tools[1].type", "retrieval"),
    "moonshot's search": (
        "moonshot", CHAT, tool(type="builtin_function", function={"name": "$web_search"}), "tools[1].function.name",
        "$web_search",
    ),
    "xai's live search": ("xai", CHAT, {"search_parameters": {"mode": "auto"}}, "search_parameters", "mode"),
    "xai's live search as a tool": ("xai", CHAT, tool(type="live_search", sources=[]), "tools[1].type", "live_search"),
    "google's search as a tool": ("google", CHAT, tool(google_search={}), "tools[1].google_search", "google_search"),
    "google's search as they spell it, too": ("google", CHAT, tool(googleSearch={}), "tools[1].googleSearch", "googleSearch"),
    "google's search beside a function": (
        "google", CHAT, {"tools": [{**FUNCTION, "google_search": {}}]}, "tools[0].google_search", "google_search",
    ),
    "google's search in the extra body": (
        "google", CHAT, {"extra_body": {"google": {"tools": [{"google_search": {}}]}}},
        "extra_body.google.tools[0].google_search", "google_search",
    ),
    "google's maps in its own field": (
        "google", CHAT, {"google": {"tools": [{"google_maps": {}}]}}, "google.tools[0].google_maps", "google_maps",
    ),
    "mistral's connectors": ("mistral", CHAT, tool(type="image_generation"), "tools[1].type", "image_generation"),
    "openai's search in chat": ("openai", CHAT, {"web_search_options": {}}, "web_search_options", "{}"),
    "a tool that is newer than we are": ("together", CHAT, tool(type="teleport"), "tools[1].type", "teleport"),
    "anthropic's code execution": (
        "anthropic", MESSAGES, anthropics("code_execution_20250825"), "tools[1].type", "code_execution_20250825",
    ),
    "anthropic's code execution beside a search of before": (
        "anthropic", MESSAGES, anthropics("code_execution_20250825", "web_fetch_20250910"), "tools[1].type",
        "code_execution_20250825",
    ),
    "anthropic's advisor, which is another model": (
        "anthropic", MESSAGES, anthropics("advisor_20260301"), "tools[1].type", "advisor_20260301",
    ),
    "anthropic's summary of the conversation, which is in no total": (
        "anthropic", MESSAGES,
        {"context_management": {"edits": [{"type": "clear_thinking_20251015"}, {"type": "compact_20260112"}]}},
        "context_management.edits[1].type", "compact_20260112",
    ),
    "anthropic's search where it has no price": (
        "anthropic", MESSAGES, anthropics("web_search_20250305"), "tools[1].type", "web_search_20250305",
    ),
    "deepseek's search": ("deepseek", MESSAGES, anthropics("web_search_20250305"), "tools[1].type", "web_search_20250305"),
    "deepseek's fetch, which costs there": (
        "deepseek", MESSAGES, anthropics("web_fetch_20250910"), "tools[1].type", "web_fetch_20250910",
    ),
    "MCP servers at who says nothing of them": (
        "minimax", MESSAGES, {"mcp_servers": [{"type": "url", "url": "https://x", "name": "x"}]}, "mcp_servers", "",
    ),
    "openrouter's advisor, which nothing bounds": (
        "openrouter", CHAT, tool(type="openrouter:advisor", parameters={"model": "dear/one"}), "tools[1].type",
        "openrouter:advisor",
    ),
    "openrouter's fusion, which nothing bounds": ("openrouter", CHAT, {"plugins": [{"id": "fusion"}]}, "plugins[0].id", "fusion"),
    "openrouter's shell": ("openrouter", MESSAGES, anthropics("openrouter:bash"), "tools[1].type", "openrouter:bash"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNCOUNTED)
def test_what_is_neither_counted_nor_priced_is_never_sent(case: str) -> None:
    name, wire, fields, place, value = UNCOUNTED[case]
    error = refused(at(name, wire=wire), wire, fields)
    assert error.param == place, "the field that is wrong"
    (excluded,) = error.details["excluded"]
    assert (excluded["provider"], excluded["rule"]) == (name, place)
    assert value in error.message and PROVIDERS[name].title in error.message
    assert "remove it" in error.message and f"`providers.{name}.uncounted_tools`" in error.message, "and what to do"


HARMLESS = {
    "search options that nothing switches on": ("alibaba", CHAT, {"search_options": {"search_strategy": "max"}}),
    "functions": ("groq", CHAT, {"tools": [FUNCTION]}),
    "functions in the old spelling": ("openai", CHAT, {"functions": [{"name": "f"}]}),
    "a function without a type": ("mistral", CHAT, {"tools": [{"function": {"name": "f"}}]}),
    "a custom tool": ("openai", CHAT, {"tools": [{"type": "custom", "custom": {"name": "f"}}]}),
    "a function that is only called so": ("zai", CHAT, {"tools": [{"type": "function", "function": {"name": "web_search"}}]}),
    "a property that is only called so": (
        "groq", CHAT,
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"type": "browser_search"}}}}]},
    ),
    "no tools": ("groq", CHAT, {"tools": []}),
    "null": ("groq", CHAT, {"tools": None, "enable_search": None, "search_parameters": None, "plugins": None, "google": None}),
    "search switched off": ("alibaba", CHAT, {"enable_search": False, "search_options": {"forced_search": True}}),
    "live search switched off": ("xai", CHAT, {"search_parameters": {"mode": "off"}}),
    "google's thinking": ("google", CHAT, {"extra_body": {"google": {"thinking_config": {"include_thoughts": True}}}}),
    "plugins of a gateway, which nobody else is sent": ("groq", CHAT, {"plugins": [{"id": "web"}, {"id": "fusion"}]}),
    "what is malformed, for the provider to name": ("groq", CHAT, {"tools": [5, None, {}, {"type": 7}], "plugins": "x"}),
    "tools that are no list": ("groq", CHAT, {"tools": "browser_search", "extra_body": [1], "google": "x"}),
    "anthropic's own": ("anthropic", MESSAGES, {"tools": [OWN, {**OWN, "type": "custom"}]}),
    "tools that the client runs": (
        "anthropic", MESSAGES,
        anthropics("bash_20250124", "text_editor_20250728", "computer_20251124", "memory_20250818"),
    ),
    "the same at a vendor that copies it": ("minimax", MESSAGES, anthropics("bash_20250124", "text_editor_20250728")),
    "free beside its tokens": (
        "anthropic", MESSAGES, anthropics("web_fetch_20250910", "tool_search_tool_bm25_20251119", "tool_search_tool_regex"),
    ),
    "edits that write nothing": (
        "anthropic", MESSAGES,
        {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}, {"type": "clear_thinking_20251015"}]}},
    ),
    "MCP": (
        "anthropic", MESSAGES,
        {"mcp_servers": [{"type": "url", "url": "https://x", "name": "x"}],
         "tools": [{"type": "mcp_toolset", "mcp_server_name": "x"}]},
    ),
    "no MCP servers": ("minimax", MESSAGES, {"mcp_servers": []}),
    "code execution, free beside the newer web tools": (
        "anthropic", MESSAGES, anthropics("code_execution_20250825", "web_fetch_20260209"),
    ),
    "counted in the gateway's own bill": (
        "openrouter", CHAT,
        {"plugins": [{"id": "web"}, {"id": "file-parser", "pdf": {"engine": "mistral-ocr"}}, {"id": "response-healing"}],
         "web_search_options": {}, **tool(type="openrouter:web_search"), },
    ),
    "one's own machine": ("ollama", CHAT, {"enable_search": True, **tool(type="browser_search"), "web_search_options": {}}),
}  # fmt: skip


@pytest.mark.parametrize("case", HARMLESS)
def test_what_the_client_runs_or_costs_nothing_is_sent_as_ever(case: str) -> None:
    name, wire, fields = HARMLESS[case]
    assert names(planned(at(name, wire=wire), asked(wire, fields))) == [name]


@pytest.mark.parametrize(
    ("name", "wire", "fields", "price"),
    [
        ("anthropic", MESSAGES, anthropics("web_search_20250305"), rates(web_searches=FEE)),
        ("anthropic", MESSAGES, anthropics("web_search_20260209", "code_execution_20260120"), rates(web_searches=FEE)),
        ("openai", CHAT, {"web_search_options": {}}, rates(request=FEE)),
        ("mine", CHAT, {"web_search_options": {}}, rates(web_searches=FEE)),
    ],
)
def test_a_search_with_a_price_is_sent_and_held_for(name: str, wire: str, fields: dict[str, Any], price: Rates) -> None:
    mine = custom("mine", ProviderSection(wire=CHAT, base_url="http://x"))
    found = planned(at(name, wire=wire, price=price, mine=mine), asked(wire, fields))
    assert names(found) == [name] and found.hold_nano >= FEE // 1000


@pytest.mark.parametrize("name", ["openai", "google", "xai", "groq"])
def test_a_fee_per_search_is_no_price_where_no_report_counts_searches(name: str) -> None:
    """None of the known vendors counts them on chat completions; a gateway of one's own may."""
    error = refused(at(name, price=rates(web_searches=FEE)), CHAT, {"web_search_options": {}})
    assert error.param == "web_search_options" and "a fee per `request`" in error.message


@pytest.mark.parametrize("fields", [{"plugins": [{"id": "web"}]}, tool(type="openrouter:web_search")])
def test_searches_of_a_gateway_are_held_for(fields: dict[str, Any]) -> None:
    """They cost a fee and read what they find, up to the whole window."""
    found = planned(at("openrouter", price=rates(web_searches=FEE)), asked(CHAT, fields))
    candidate = found.candidates[0]
    assert candidate.bound.input_tokens == 128_000
    assert found.hold_nano >= (128_000 * 2_000_000 + chat_call.WEB_SEARCHES_MAX * FEE) // 1000


@pytest.mark.parametrize("name", ["openrouter", "groq"])
def test_plugins_that_read_nothing_are_held_for_as_without_them(name: str) -> None:
    made = at(name)
    without = planned(made, asked(CHAT, {})).candidates[0].bound.input_tokens
    mending = {"plugins": [{"id": "response-healing"}, {"id": "context-compression"}]}
    assert without < planned(made, asked(CHAT, mending)).candidates[0].bound.input_tokens < 2 * without


@pytest.mark.parametrize(
    ("fields", "wire"), [({"plugins": [{"id": "web"}]}, CHAT), (anthropics("openrouter:web_search"), MESSAGES)]
)
def test_the_same_when_they_are_asked_for_on_messages(fields: dict[str, Any], wire: str) -> None:
    row = msgspec.structs.replace(PROVIDERS["openrouter"], speaks={wire: PROVIDERS["openrouter"].speaks[wire]})
    made = at("openrouter", price=rates(web_searches=FEE), wire=wire, openrouter=row)
    assert planned(made, asked(MESSAGES, fields)).hold_nano >= (128_000 * 2_000_000 + chat_call.WEB_SEARCHES_MAX * FEE) // 1000


def test_plugins_that_a_translation_hands_on_are_looked_at() -> None:
    """To a gateway on chat completions they go from messages, too; on messages, they are never sent."""
    row = PROVIDERS["openrouter"]
    fields = {"plugins": [{"id": "web"}, {"id": "fusion"}]}
    chat = at("openrouter", openrouter=msgspec.structs.replace(row, speaks={CHAT: row.speaks[CHAT]}))
    assert refused(chat, MESSAGES, fields).param == "plugins[1].id"
    assert names(planned(at("openrouter", wire=MESSAGES), asked(MESSAGES, fields))) == ["openrouter"]


def test_another_offer_answers_instead() -> None:
    offers = (offer("groq"), offer("ollama"), offer("zai"))
    made = router(model("v/m", *offers), providers=PROVIDERS, health=Clinic())
    found = planned(made, asked(CHAT, tool(type="browser_search")))
    assert names(found) == ["ollama"]
    assert {(item.provider, item.rule) for item in found.excluded} == {("groq", "tools[1].type"), ("zai", "tools[1].type")}


def test_fields_of_several_kinds_are_each_named_at_their_offer() -> None:
    made = router(model("v/m", offer("groq"), offer("openrouter")), providers=PROVIDERS)
    error = refused(made, CHAT, {"plugins": [{"id": "fusion"}], **tool(type="openrouter:web_search")})
    assert {item["provider"]: item["rule"] for item in error.details["excluded"]} == {
        "groq": "tools[1].type", "openrouter": "plugins[0].id",
    }  # fmt: skip
    assert error.param == "model"


def test_an_operator_may_send_uncounted_tools_knowingly() -> None:
    def accepting(*accepted: str, id: str = "m") -> Router:
        section = ProviderSection(uncounted_tools=accepted)
        return at("groq", id=id, groq=custom("groq", section, base=PROVIDERS["groq"]))

    search, code = tool(type="browser_search"), tool(type="code_interpreter")
    assert names(planned(accepting("browser_search"), asked(CHAT, search))) == ["groq"]
    assert refused(accepting("browser_search"), CHAT, code).param == "tools[1].type"
    for accepted in ("browser_*", "*"):
        assert names(planned(accepting(accepted), asked(CHAT, search))) == ["groq"]
    assert names(planned(accepting("enable_search"), asked(CHAT, {"enable_search": True}))) == ["groq"]
    assert names(planned(accepting("*"), asked(CHAT, {"web_search_options": {}}))) == ["groq"]
    assert names(planned(accepting("groq/compound*", id="groq/compound-mini"), asked(CHAT, {}))) == ["groq"]
    found = planned(accepting("browser_search"), asked(CHAT, search)).candidates[0]
    assert found.bound.input_tokens == 128_000, "what it reads is billed as tokens, so it is held for"


def test_an_own_anthropic_behind_another_name_takes_what_anthropic_takes() -> None:
    section = ProviderSection(wire=MESSAGES, base_url="http://proxy.example/v1")
    made = at("proxy", wire=MESSAGES, proxy=custom("proxy", section))
    assert names(planned(made, asked(MESSAGES, anthropics("web_fetch_20250910")))) == ["proxy"]
    assert refused(made, MESSAGES, anthropics("code_execution_20250825")).param == "tools[1].type"


def test_with_a_key_of_its_own_a_customer_asks_for_what_its_provider_bills_it() -> None:
    own = (OwnKey("one", "groq", "secret"),)
    found = planned(at("groq"), asked(CHAT, tool(type="browser_search")), own_keys=own)
    assert [candidate.entry.target.key_refs for candidate in found.candidates] == [("byok:one",)]
    assert [item.rule for item in found.excluded] == ["tools[1].type"], "the house's key is not"


def test_a_system_that_runs_tools_by_itself_is_not_called_without_a_price_for_them() -> None:
    """Groq's compound models search and run code whether they are asked to or not, for a fee each that no usage counts."""
    for id in ("groq/compound", "groq/compound-mini", "compound-beta"):
        error = refused(at("groq", id=id), CHAT, {})
        assert "`request`" in error.message and f"`{id}`" in error.message and "`providers.groq.uncounted_tools`" in error.message
        assert names(planned(at("groq", id=id, price=rates(request=FEE)), asked(CHAT, {}))) == ["groq"]
    assert names(planned(at("groq", id="openai/gpt-oss-120b"), asked(CHAT, {}))) == ["groq"]
    for id in ("gpt-4o-search-preview", "gpt-4o-mini-search-preview-2025-03-11", "gpt-5-search-api"):
        assert "`request`" in refused(at("openai", id=id), CHAT, {}).message
        assert names(planned(at("openai", id=id, price=rates(request=FEE)), asked(CHAT, {}))) == ["openai"]
    assert names(planned(at("openai", id="gpt-5"), asked(CHAT, {}))) == ["openai"]


@pytest.mark.parametrize(
    ("wire", "fields"),
    [
        (CHAT, {"enable_search": True}),
        (CHAT, {"plugins": [{"id": "web"}]}),
        (MESSAGES, anthropics("web_fetch_20250910")),
        (MESSAGES, {"mcp_servers": [{"url": "https://x"}]}),
    ],
)
def test_what_a_provider_runs_is_neither_hedged_nor_continued(wire: str, fields: dict[str, Any]) -> None:
    """Two would be billed, and the second one's finds are not the first one's."""
    call = asked(wire, fields)
    assert hedging.stateful(call) and continuation.forbidden(call) == "hosted_tools"
    assert not hedging.stateful(asked(CHAT, {})) and continuation.forbidden(asked(CHAT, {"tools": [FUNCTION]})) == ""


def test_a_tool_that_is_hidden_by_escapes_is_seen() -> None:
    body = rb'{"model":"v/m","messages":[{"role":"user","content":"x"}],"to\u006fls":[{"typ\u0065":"browser\u005fsearch"}]}'
    with pytest.raises(FareboxError, match="browser_search"):
        planned(at("groq"), chat_call.read_call(body))
    body = rb'{"model":"v/m","messages":[{"role":"user","content":"x"}],"enable\u005fsearch":true}'
    with pytest.raises(FareboxError, match="enable_search"):
        planned(at("alibaba"), chat_call.read_call(body))


@pytest.mark.parametrize(
    ("wire", "fields", "place", "meant"),
    [
        (CHAT, {"Enable_Search": True}, "Enable_Search", "enable_search"),
        (CHAT, {"enable_\u017fearch": True}, "enable_\u017fearch", "enable_search"),
        (CHAT, {"TOOLS": [{"type": "browser_search"}]}, "TOOLS", "tools"),
        (CHAT, {"tools": [{**FUNCTION, "Type": "browser_search"}]}, "tools[0].Type", "type"),
        (CHAT, {"tools": [FUNCTION, {"TYPE": "browser_search", "function": {"name": "f"}}]}, "tools[1].TYPE", "type"),
        (CHAT, {"Plugins": [{"id": "fusion"}]}, "Plugins", "plugins"),
        (CHAT, {"plugins": [{"ID": "fusion"}]}, "plugins[0].ID", "id"),
        (MESSAGES, {"tools": [{**OWN, "Type": "code_execution_20250825"}]}, "tools[0].Type", "type"),
        (MESSAGES, {"Context_Management": {"edits": [{"type": "compact_1"}]}}, "Context_Management", "context_management"),
    ],
)
def test_another_case_hides_nothing(wire: str, fields: dict[str, Any], place: str, meant: str) -> None:
    """Some parsers take `Type` for `type`, and the long s for an s; what they would read is what is looked at."""
    with pytest.raises(FareboxError) as caught:
        asked(wire, fields)
    assert caught.value.kind is Kind.INVALID_REQUEST and caught.value.param == place
    assert f"write `{meant}`" in caught.value.message


def test_names_of_ones_own_may_have_any_case() -> None:
    parameters = {"type": "object", "properties": {"Type": {"type": "string"}, "Tools": {"type": "string"}}}
    function = {"type": "function", "function": {"name": "Type", "parameters": parameters}}
    assert asked(CHAT, {"tools": [function], "metadata": {"Tools": "x", "Enable_Search": "1"}}).hosted == ()
    assert asked(MESSAGES, {"tools": [{"name": "Tools", "input_schema": parameters}]}).hosted == ()


def test_no_number_of_tools_hides_one() -> None:
    """Each different one is looked at, and of too many, the request is refused."""
    many = {"tools": [{"type": f"web_fetch_{n}"} for n in range(8)] + [{"type": "web_fetch_0"}] * 500}
    assert names(planned(at("anthropic", wire=MESSAGES), asked(MESSAGES, many))) == ["anthropic"]
    hidden = {"tools": [*many["tools"], {"type": "code_execution_20250825"}]}
    assert refused(at("anthropic", wire=MESSAGES), MESSAGES, hidden).param == "tools[508].type"
    with pytest.raises(FareboxError, match="more than 32 different") as caught:
        asked(MESSAGES, {"tools": [{"type": f"web_fetch_{n}"} for n in range(33)]})
    assert caught.value.kind is Kind.INVALID_REQUEST and caught.value.param == "tools"


WORDS = st.sampled_from(["type", "function", "name", "google", "tools", "id", "mode", "edits", "x"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["function", "custom", "browser_search", "web", "bash_1", "off"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)
PLACES = st.sampled_from(["tools", "plugins", "extra_body", "google", "search_parameters", "mcp_servers", "context_management"])


@settings(max_examples=200, deadline=None)
@given(fields=st.dictionaries(PLACES, JSON, max_size=3), wire=st.sampled_from([CHAT, MESSAGES]))
def test_whatever_stands_in_these_fields_is_read_and_no_kind_slips_through(fields: dict[str, Any], wire: str) -> None:
    found = asked(wire, fields).hosted
    listed = fields.get("tools")
    kinds = [item.get("type") for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
    here = ("custom", "function") if wire == CHAT else ("custom", "bash_1")
    foreign = {kind for kind in kinds if isinstance(kind, str) and kind not in here}
    assert foreign <= {tool.name for tool in found if tool.path.startswith("tools[")}


def test_deep_nesting_hides_nothing() -> None:
    deep = b"[" * 900 + b"]" * 900
    body = b'{"model":"v/m","messages":[{"role":"user","content":"x"}],"tools":[5,{"type":"browser_search","x":%b}]}' % deep
    try:
        call = chat_call.read_call(body)
    except FareboxError as error:
        assert error.status == 400
    else:
        assert [tool.name for tool in call.hosted] == ["browser_search"]


def test_a_plain_call_is_not_looked_at() -> None:
    assert asked(CHAT, {}).plain and asked(CHAT, {}).hosted == ()
    assert asked(CHAT, {"tools": [FUNCTION]}).hosted == () and not asked(CHAT, {"tools": [FUNCTION]}).needs - {"tools"}


def test_what_reaches_a_provider_in_other_words_is_left_to_the_translation() -> None:
    """It refuses what it cannot say, or leaves it out where the caller wants that; nothing of it arrives there."""
    made = router(model("v/m", offer("x")), providers={"x": provider("x")})
    found = planned(made, asked(MESSAGES, anthropics("code_execution_20250825")))
    assert names(found) == ["x"]
