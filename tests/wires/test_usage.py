# ruff: noqa: E501  (tables read best with one case per line)
"""Counting: one named case per line of providers.md §1.2, and what is done about counts that cannot be true."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farebox.wires.anthropic_messages import usage as messages
from farebox.wires.dialect import UsageRules
from farebox.wires.openai_chat import usage as chat
from farebox.wires.usage import COUNT_MAX, Usage, UsageReport

OPENAI = UsageRules()


def raw(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def openai(prompt: Any = 100, completion: Any = 20, total: Any = 120, **more: Any) -> bytes:
    return raw(prompt_tokens=prompt, completion_tokens=completion, total_tokens=total, **more)


CASES: list[tuple[str, UsageRules, bytes, Usage]] = [
    ("openai: cached tokens are inside the prompt", OPENAI,
     openai(prompt_tokens_details={"cached_tokens": 60}), Usage(input=40, cache_read=60, output=20)),
    ("openai: cache writes are inside the prompt (4012 of 4020)", OPENAI,
     openai(4020, 5, 4025, prompt_tokens_details={"cached_tokens": 0, "cache_write_tokens": 4012}),
     Usage(input=8, cache_write_5m=4012, output=5)),
    ("openai: reasoning is inside the completion", OPENAI,
     openai(completion_tokens_details={"reasoning_tokens": 12}), Usage(input=100, output=8, reasoning=12)),
    ("openai: audio is a part of both totals", OPENAI,
     openai(prompt_tokens_details={"audio_tokens": 30}, completion_tokens_details={"audio_tokens": 15}),
     Usage(input=70, audio_input=30, output=5, audio_output=15)),
    ("xai chat: reasoning is beside the completion", UsageRules(reasoning="outside"),
     openai(436, 68, 652, completion_tokens_details={"reasoning_tokens": 148}), Usage(input=436, output=68, reasoning=148)),
    ("gemini compat: reasoning hides in the total", UsageRules(reasoning="hidden"),
     openai(35, 12, 109), Usage(input=35, output=12, reasoning=62)),
    ("mistral: audio is beside the prompt", UsageRules(audio_inside_input=False),
     openai(11, 15, 401, prompt_tokens_details={"audio_tokens": 375}), Usage(input=11, audio_input=375, output=15)),
    ("mistral, older: num_cached_tokens", UsageRules(cache_read_paths=(("num_cached_tokens",),)),
     openai(num_cached_tokens=64), Usage(input=36, cache_read=64, output=20)),
    ("deepseek: prompt is hit and miss", UsageRules(cache_read_paths=(("prompt_cache_hit_tokens",),)),
     openai(prompt_cache_hit_tokens=64, prompt_cache_miss_tokens=36), Usage(input=36, cache_read=64, output=20)),
    ("together: cached_tokens at the top", UsageRules(cache_read_paths=(("cached_tokens",),)),
     openai(cached_tokens=10), Usage(input=90, cache_read=10, output=20)),
    ("alibaba: explicit cache writes", UsageRules(cache_write_paths=(("prompt_tokens_details", "cache_creation_input_tokens"),)),
     openai(prompt_tokens_details={"cached_tokens": 5, "cache_creation_input_tokens": 50}),
     Usage(input=45, cache_read=5, cache_write_5m=50, output=20)),
    ("a path that no vendor had yet", UsageRules(cache_read_paths=(("deep", "er", "cached"),)),
     openai(deep={"er": {"cached": 7}}), Usage(input=93, cache_read=7, output=20)),
    ("perplexity: reasoning_tokens at the top", OPENAI, openai(reasoning_tokens=5), Usage(input=100, output=15, reasoning=5)),
    ("a vendor without totals", OPENAI, raw(prompt_tokens=3, completion_tokens=4), Usage(input=3, output=4)),
    ("a whole number written as a float", OPENAI, openai(3.0, 4.0, 7.0), Usage(input=3, output=4)),
    ("details that are null", OPENAI, openai(prompt_tokens_details=None, completion_tokens_details=None), Usage(input=100, output=20)),
    ("zero is a count", OPENAI, openai(0, 0, 0), Usage()),
    ("openrouter and we ourselves: searches by the piece", OPENAI, openai(server_tool_use={"web_search_requests": 2}),
     Usage(input=100, output=20, web_searches=2)),
    ("the same, beside what has to be looked at closely", OPENAI, openai(3.0, 4.0, 7.0, server_tool_use={"web_search_requests": 2}),
     Usage(input=3, output=4, web_searches=2)),
    ("no searches", OPENAI, openai(server_tool_use={"web_search_requests": None}), Usage(input=100, output=20)),
]  # fmt: skip


@pytest.mark.parametrize(("rules", "body", "expected"), [pytest.param(*case[1:], id=case[0]) for case in CASES])
def test_a_vendors_count(rules: UsageRules, body: bytes, expected: Usage) -> None:
    report = chat.read(body, rules)
    assert (report.usage, report.anomalies) == (expected, ())
    assert report.raw == body


UNUSABLE: list[tuple[bytes, tuple[str, ...]]] = [
    (openai(-1, 20, 19), ("negative:prompt_tokens",)),
    (openai(1.5, 20, 21.5), ("fractional:prompt_tokens", "fractional:total_tokens")),
    (openai("100"), ("not_a_number:prompt_tokens",)),
    (openai(True), ("not_a_number:prompt_tokens",)),
    (openai(COUNT_MAX + 1, 0, COUNT_MAX + 1), ("too_large:prompt_tokens", "too_large:total_tokens")),
    (openai(10**30, 0, 1), ("too_large:prompt_tokens",)),
    (openai(prompt_tokens_details={"cached_tokens": -5}), ("negative:prompt_tokens_details.cached_tokens",)),
    (b'{"prompt_tokens":NaN,"completion_tokens":1}', ("not_an_object",)),
    (raw(prompt_tokens=7, completion_tokens=2, prompt_tokens_details={"cached_tokens": 161}), ("cached>prompt",)),
    (openai(completion_tokens_details={"reasoning_tokens": 21}), ("reasoning>completion",)),
    (raw(completion_tokens=5), ("missing:prompt_tokens",)),
    (raw(prompt_tokens=5, completion_tokens=None), ("missing:completion_tokens",)),
    (b"[]", ("not_an_object",)),
    (b'"usage"', ("not_an_object",)),
    (b"{", ("not_an_object",)),
]


@pytest.mark.parametrize(("body", "anomalies"), UNUSABLE)
def test_counts_that_cannot_be_true_are_no_usage(body: bytes, anomalies: tuple[str, ...]) -> None:
    report = chat.read(body, OPENAI)
    assert report.usage is None
    assert report.anomalies == anomalies


@pytest.mark.parametrize("body", [b"", b"null", b"{}", raw(prompt_tokens=None, completion_tokens=None, total_tokens=None)])
def test_missing_is_not_zero_and_no_anomaly(body: bytes) -> None:
    assert chat.read(body, OPENAI) == UsageReport(None, raw=body)
    assert messages.read(body, OPENAI).usage is None


def test_grok_on_azure_reports_more_cached_than_prompt(named: Any) -> None:
    recording = named("azure/", "chat-function-calling-azure-grok-4-1-fast", "-1-b894f8c8")
    raw_usage = json.loads([line for line in recording.body.decode().splitlines() if '"usage"' in line][-1][6:])["usage"]
    assert (raw_usage["prompt_tokens"], raw_usage["prompt_tokens_details"]["cached_tokens"]) == (235, 373)
    report = chat.read(json.dumps(raw_usage).encode(), OPENAI)
    assert report.anomalies == ("cached>prompt",)
    assert report.usage == Usage(input=0, cache_read=235, output=90)


def test_a_total_decides_between_two_rules() -> None:
    outside = openai(436, 68, 652, completion_tokens_details={"reasoning_tokens": 148})
    assert chat.read(outside, OPENAI).usage == Usage(input=436, output=68, reasoning=148)
    assert chat.read(outside, OPENAI).anomalies == ("reasoning_outside",)
    inside = openai(100, 20, 120, completion_tokens_details={"reasoning_tokens": 5})
    assert chat.read(inside, UsageRules(reasoning="outside")).usage == Usage(input=100, output=15, reasoning=5)
    assert chat.read(inside, UsageRules(reasoning="outside")).anomalies == ("reasoning_inside",)


def test_a_total_that_fits_no_rule_is_flagged_and_the_counts_stand() -> None:
    report = chat.read(openai(total=999), OPENAI)
    assert (report.usage, report.anomalies) == (Usage(input=100, output=20), ("total_mismatch",))


def test_the_vendors_own_charge_is_kept_digit_by_digit() -> None:
    openrouter = UsageRules(cost_field="cost")
    assert chat.read(openai()[:-1] + b',"cost":0.00011250}', openrouter).provider_cost_usd == "0.0001125"
    assert chat.read(openai()[:-1] + b',"cost":1.7e-05}', openrouter).provider_cost_usd == "0.000017"
    assert chat.read(openai(cost=0), openrouter).provider_cost_usd == "0"
    assert chat.read(openai(cost=None), openrouter).provider_cost_usd is None
    assert chat.read(openai(), openrouter).provider_cost_usd is None
    assert chat.read(openai(cost={"total_cost": 0.00501}), openrouter).provider_cost_usd == "0.00501"
    assert chat.read(openai(cost=-1), openrouter).anomalies == ("negative:cost",)
    ticks = UsageRules(cost_field="cost_in_usd_ticks", cost_divisor=10**10)
    assert chat.read(openai(cost_in_usd_ticks=158_500), ticks).provider_cost_usd == "0.00001585"


def test_the_served_tier_is_reported() -> None:
    assert chat.read(openai(service_tier="flex"), OPENAI).service_tier == "flex"
    assert messages.read(raw(input_tokens=1, output_tokens=1, service_tier="priority"), OPENAI).service_tier == "priority"


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["cached_tokens", "reasoning_tokens", "x"]), inner)
    ),
    max_leaves=8,
)
FIELDS = [
    "prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details", "input_tokens",
    "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "cache_creation", "server_tool_use", "cost",
]  # fmt: skip


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no finding
@given(st.dictionaries(st.sampled_from(FIELDS), junk | st.integers(0, 100)), st.binary(max_size=8))
def test_reading_never_raises_and_never_gives_a_count_out_of_range(fields: dict[str, Any], tail: bytes) -> None:
    for body in (json.dumps(fields).encode(), json.dumps(fields).encode() + tail, tail):
        for module in (chat, messages):
            report = module.read(body, UsageRules(cost_field="cost"))
            if report.usage is not None:
                counts = [getattr(report.usage, name) for name in Usage.TOKEN_CLASSES]
                assert all(type(count) is int and 0 <= count <= COUNT_MAX for count in counts)


counts = st.integers(0, 1000)


@given(counts, counts, counts, counts, counts)
def test_what_is_written_is_read_again(fresh: int, cached: int, written: int, output: int, reasoning: int) -> None:
    usage = Usage(input=fresh, cache_read=cached, cache_write_5m=written, output=output, reasoning=reasoning)
    assert chat.read(json.dumps(chat.write(usage, {})).encode(), OPENAI).usage == usage
    assert messages.read(json.dumps(messages.write(usage, {})).encode(), OPENAI).usage == usage


# Streams of chat completions


def test_usage_in_every_chunk_is_never_summed_and_never_erased() -> None:
    seen = chat.Accumulator(OPENAI)
    assert seen.merge(openai(10, 1, 11))
    assert seen.merge(openai(10, 2, 12))
    assert not seen.merge(raw(prompt_tokens=None, completion_tokens=None, total_tokens=None))
    assert not seen.merge(b"null")
    assert not seen.merge(b"{}")
    assert not seen.merge(raw(prompt_tokens=10))
    assert not seen.merge(openai(10, 2, 12))
    assert seen.report().usage == Usage(input=10, output=2)


# Anthropic


def test_anthropic_counts_cached_tokens_beside_the_input() -> None:
    report = messages.read(
        raw(input_tokens=8, cache_read_input_tokens=100, cache_creation_input_tokens=50, output_tokens=20,
            cache_creation={"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 40},
            output_tokens_details={"thinking_tokens": 5}, server_tool_use={"web_search_requests": 2}),
        OPENAI,
    )  # fmt: skip
    assert report.anomalies == ()
    assert report.usage == Usage(
        input=8, cache_read=100, cache_write_5m=10, cache_write_1h=40, output=15, reasoning=5, web_searches=2
    )
    assert report.usage.prompt_tokens == 158


def test_anthropic_stream_counts_are_merged_field_by_field() -> None:
    """The recorded server-tool turn: input grows while the tools run (providers.md §2.3)."""
    seen = messages.Accumulator(OPENAI)
    seen.merge(raw(input_tokens=2060, cache_read_input_tokens=0, cache_creation_input_tokens=0, output_tokens=1,
                   cache_creation={"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0}))  # fmt: skip
    assert seen.report().usage == Usage(input=2060, output=1)
    seen.merge(raw(input_tokens=2088, cache_creation_input_tokens=14789, cache_read_input_tokens=46134, output_tokens=900))
    seen.merge(raw(output_tokens=None, input_tokens=None))
    report = seen.report()
    assert report.usage == Usage(input=2088, cache_read=46134, cache_write_5m=14789, output=900)
    assert report.anomalies == ("cache_write_unsplit",)


def test_anthropic_delta_with_output_alone_keeps_the_input() -> None:
    seen = messages.Accumulator(OPENAI)
    seen.merge(raw(input_tokens=11, cache_read_input_tokens=3, output_tokens=1))
    seen.merge(raw(output_tokens=42))
    assert seen.report().usage == Usage(input=11, cache_read=3, output=42)


@pytest.mark.parametrize(
    ("body", "anomaly"),
    [
        (raw(output_tokens=1), "missing:input_tokens"),
        (raw(input_tokens=1), "missing:output_tokens"),
        (raw(input_tokens=-1, output_tokens=1), "negative:input_tokens"),
        (raw(input_tokens=1, output_tokens=1, output_tokens_details={"thinking_tokens": 2}), "reasoning>completion"),
        (raw(input_tokens=1, output_tokens=1, cache_creation_input_tokens=1, cache_creation={"ephemeral_1h_input_tokens": 2}),
         "cache_write_split>total"),
    ],
)  # fmt: skip
def test_anthropic_counts_that_cannot_be_true_are_no_usage(body: bytes, anomaly: str) -> None:
    report = messages.read(body, OPENAI)
    assert (report.usage, report.anomalies) == (None, (anomaly,))


def test_recorded_usage_agrees_with_the_recorded_totals(recorded_answer: Any) -> None:
    body = json.loads(recorded_answer.body)
    told = body.get("usage")
    if not told:
        pytest.skip("no usage in this answer")
    module = chat if recorded_answer.chat else messages
    report = module.read(json.dumps(told).encode(), recorded_answer.dialect.usage)
    assert report.usage is not None, report.anomalies
    total = report.usage.prompt_tokens + report.usage.completion_tokens
    if recorded_answer.chat:
        assert total == told.get("total_tokens", total)
        assert set(report.anomalies) <= {"parts>completion"}
    else:
        names = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
        assert total == sum(told.get(name) or 0 for name in names)
