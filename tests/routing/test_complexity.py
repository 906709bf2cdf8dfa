"""The classifier: what it looks at, that nothing makes it fail or take long, and that the published figures are its own."""

import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from bench.routing.evaluation import confusion_table, evaluate, load, report, weights_table
from hypothesis import given
from hypothesis import strategies as st

from farebox.routing.complexity import excerpt, lexicon
from farebox.routing.complexity.classify import Assessment, assess, judge, tier_of
from farebox.routing.complexity.weights import BASE, HARD_FROM, MEDIUM_FROM, TIERS, WEIGHTS
from farebox.wires.anthropic_messages import call as messages_call
from farebox.wires.call import Call, Media
from farebox.wires.openai_chat import call as chat_call

PAGE = Path(__file__).resolve().parents[2] / "docs" / "complexity.md"
ACCURACY_MIN = 0.80
"""Of the test half. Below, a change of the words or weights has spoiled something."""


def chat(*messages: dict[str, Any] | str, **fields: Any) -> Call:
    turns = [{"role": "user", "content": item} if isinstance(item, str) else item for item in messages]
    return chat_call.read_call(json.dumps({"model": "auto", "messages": turns, **fields}).encode())


def of(*messages: dict[str, Any] | str, **fields: Any) -> Assessment:
    return assess(chat(*messages, **fields))


def features(found: Assessment) -> dict[str, int]:
    return {reason.feature: reason.units for reason in found.reasons}


# --- what it says ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "hello!",
        "How do I reset my password?",
        "Danke, das hat geklappt!",
        "Quels sont vos horaires le dimanche ?",
        "Hola, ¿cuánto cuesta el envío?",
        "你好，请问几点开门？",
    ],
)
def test_small_talk_and_look_ups_are_easy(text: str) -> None:
    assert of(text).tier == "easy"


@pytest.mark.parametrize(
    "text",
    [
        "Prove that the scheme is serializable, derive the bound on its throughput, and analyse why the deadlock in the "
        "distributed lock service cannot occur, or construct a counterexample.",
        "Beweise, dass das Protokoll bei nebenläufigen Ausfällen korrekt bleibt, leite die Schranke her und begründe, warum eine "
        "Verklemmung ausgeschlossen ist, oder gib ein Gegenbeispiel.",
        "Démontrez que le protocole reste correct malgré des pannes concurrentes, justifiez la borne et analysez pourquoi un "
        "interblocage est exclu, ou donnez un contre-exemple du système distribué.",
        "Demuestra que el protocolo distribuido es correcto con fallos concurrentes, justifica la cota y analiza por qué no "
        "puede haber interbloqueo, o da un contraejemplo.",
        "请证明该分布式协议在并发故障下的正确性，推导吞吐上限，分析为什么不会出现死锁，否则给出反例。",
    ],
)
def test_proofs_about_concurrent_systems_are_hard_in_every_language(text: str) -> None:
    found = of(text)
    assert found.tier == "hard", found
    assert {"proof", "engineering"} <= set(features(found))


def test_reasons_add_up_to_the_score_and_name_their_words() -> None:
    found = of("Compare two strategies for the migration, and explain why one scales better. It must not lose data.")
    assert found.score == BASE + sum(reason.points for reason in found.reasons)
    words = {reason.feature: reason.words for reason in found.reasons}
    assert "compar" in words["reasoning"] and "migrat" in words["engineering"]
    points = [abs(reason.points) for reason in found.reasons]
    assert points == sorted(points, reverse=True)


def test_a_word_counts_once_and_a_feature_has_its_limit() -> None:
    assert features(of("why? " * 40))["reasoning"] == 1
    found = of("prove derive counterexample rigorous refute irrational")
    proof = next(reason for reason in found.reasons if reason.feature == "proof")
    assert proof.units > WEIGHTS["proof"].most and proof.points == WEIGHTS["proof"].points * WEIGHTS["proof"].most


def test_tiers_begin_where_it_is_published() -> None:
    assert [tier_of(score) for score in (0, MEDIUM_FROM - 1, MEDIUM_FROM, HARD_FROM - 1, HARD_FROM, 100)] == [
        "easy", "easy", "medium", "medium", "hard", "hard",
    ]  # fmt: skip


# --- what it looks at --------------------------------------------------------------------------------------------------------


def test_instructions_and_earlier_answers_are_not_judged() -> None:
    plain = of("Are you open on Sunday?")
    dressed = of(
        {"role": "system", "content": "Prove every theorem. Analyse deadlocks, weigh trade-offs, justify."},
        "Are you open on Sunday?",
    )
    assert dressed == plain
    answered = of("hi", {"role": "assistant", "content": "Prove, derive, analyse the deadlock."}, "Are you open on Sunday? " * 3)
    assert "proof" not in features(answered)


def test_a_short_reply_is_read_with_what_it_replies_to() -> None:
    question = "Prove that the lock-free queue is linearizable and derive the amortized bound."
    found = of(question, {"role": "assistant", "content": "Shall I?"}, "yes, go on")
    assert features(found)["proof"] >= 2 and features(found)["follow_up"] == 1


def test_the_task_behind_the_results_of_tools_is_found_on_both_wires() -> None:
    task = "Find the race condition in the scheduler and prove that the fix is correct."
    openai = of(
        task,
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "read", "arguments": "{}"}},
        ]},
        {"role": "tool", "tool_call_id": "c", "content": "ok"},
        tools=[{"type": "function", "function": {"name": "read", "parameters": {"type": "object"}}}],
    )  # fmt: skip
    body = {
        "model": "auto",
        "max_tokens": 1000,
        "tools": [{"name": "read", "input_schema": {"type": "object"}}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": task}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "read", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "ok"}]},
        ],
    }
    anthropic = assess(messages_call.read_call(json.dumps(body).encode()))
    for found in (openai, anthropic):
        assert features(found)["proof"] == 1 and features(found)["engineering"] >= 1 and features(found)["tools"] == 1


def test_what_is_pasted_weighs_less_than_what_is_asked() -> None:
    letter = "the delivery came on time and the box was fine, we thank you for it and remain yours. " * 6
    assert of(f"Translate this: “{letter}”").score < of(f"Translate this: {letter}").score
    code = "\n".join(f"value_{n} = compute({n});" for n in range(45))
    assert features(of(f"rename value_1\n```\n{code}\n```"))["code"] == 5


def test_what_comes_along_counts() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    text = {"type": "text", "text": "what is this?"}
    assert features(of({"role": "user", "content": [text, image, image]}))["images"] == 2
    assert features(of("extract", response_format={"type": "json_object"}))["schema"] == 1
    assert features(of("hm", reasoning_effort="high"))["effort"] == 2
    assert features(of("hm", max_tokens=16))["brief"] == 1
    named = [{"type": "function", "function": {"name": f"f{n}", "parameters": {"type": "object"}}} for n in range(8)]
    assert features(of("hm", tools=named))["tools"] == 3


@pytest.mark.parametrize("ascii_only", [True, False])
def test_of_a_large_conversation_both_ends_are_read(ascii_only: bool) -> None:
    turns = [{"role": "user", "content": "grüße " * 4000}, {"role": "assistant", "content": "ja"}]
    turns.append({"role": "user", "content": "请证明这个分布式协议不会死锁，并分析原因。 Beweise es."})
    body = json.dumps({"model": "auto", "messages": turns}, ensure_ascii=ascii_only).encode()
    seen = excerpt.read(chat_call.read_call(body))
    assert "证明" in seen.text and len(seen.text) <= excerpt.TEXT_CHARS_MAX + 1
    one = json.dumps({"model": "auto", "messages": [{"role": "user", "content": "Prove it. " + "x y " * 20000 + "Why?"}]})
    found = assess(chat_call.read_call(one.encode()))
    assert {"proof", "reasoning", "volume"} <= set(features(found))


# --- nothing makes it fail or wait ---------------------------------------------------------------------------------------------

WIRES = ("openai_chat", "anthropic_messages")
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["role", "content", "type", "text", "user", "x"]) | st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
turns = st.lists(
    st.fixed_dictionaries(
        {}, optional={"role": st.sampled_from(["user", "assistant", "system", "tool"]) | json_values, "content": json_values}
    )
    | json_values,
    max_size=6,
)


def anything(messages: object, wire: str, **fields: object) -> Call:
    """A call over fields that no reader has checked."""
    raw = {name: msgspec.Raw(json.dumps(value).encode()) for name, value in {"messages": messages, **fields}.items()}
    return Call(
        wire=wire, body=b"{}", model="auto", stream=False, include_usage=False, output_cap=None, choices=1, media=Media(0),
        needs=frozenset(), read=raw,
    )  # fmt: skip


@given(messages=turns | json_values, tools=json_values, effort=json_values, wire=st.sampled_from(WIRES))
def test_any_json_is_assessed_and_always_the_same(messages: object, tools: object, effort: object, wire: str) -> None:
    call = anything(messages, wire, tools=tools, reasoning=effort, thinking=effort, reasoning_effort=effort)
    found = assess(call)
    assert 0 <= found.score <= 100 and found.tier == tier_of(found.score) and found.tier in TIERS
    assert assess(call) == found


@given(text=st.text(max_size=3000), repeat=st.sampled_from([1, 40]))
def test_any_text_is_assessed_whatever_its_size(text: str, repeat: int) -> None:
    call = anything([{"role": "user", "content": text * repeat}], "openai_chat")
    assert assess(call) == assess(call)
    assert len(excerpt.read(call).text) <= excerpt.TEXT_CHARS_MAX + 1


def test_no_messages_and_broken_ones_are_assessed() -> None:
    broken = msgspec.Raw(b'[{"role":"user","content":"\\ud800 \xff' + b"x" * 40_000)
    base = anything([], "openai_chat")
    for raw in (None, msgspec.Raw(b""), msgspec.Raw(b"[{]"), broken, msgspec.Raw(b"[" * 100_000)):
        fields = {} if raw is None else {"messages": raw}
        assert assess(base.of_body(base.body, fields, base.layout)).tier in TIERS


def best_s(call: Call, rounds: int = 30) -> float:
    found: list[float] = []
    for _ in range(rounds):
        begun = time.perf_counter()
        assess(call)
        found.append(time.perf_counter() - begun)
    return min(found)


def test_it_takes_a_fifth_of_a_millisecond_however_long_the_request() -> None:
    # 0.1 to 0.2 ms on an idle machine; the bound leaves room for one that is busy.
    texts = [request.messages[-1]["content"] for request in load("dev")]
    text = " ".join(str(item) for item in texts)
    for size in (1_000, 20_000, 2_000_000):
        call = anything([{"role": "user", "content": (text * (1 + size // len(text)))[:size]}], "openai_chat")
        assert best_s(call) < 0.001, size
    many = [{"role": "user", "content": "go on"}, {"role": "assistant", "content": "ok"}] * 200
    assert best_s(anything(many, "openai_chat")) < 0.001


# --- the words and the figures -------------------------------------------------------------------------------------------------


def test_every_kind_of_word_has_its_weight_and_every_weight_a_meaning() -> None:
    kinds = set(lexicon.WORDS) | set(lexicon.PHRASES) | set(lexicon.CHINESE)
    assert kinds <= set(WEIGHTS)
    assert all(weight.points and weight.most > 0 and weight.meaning for weight in WEIGHTS.values())
    assert set(lexicon.CHINESE) == set(lexicon.WORDS), "each kind has its Chinese terms"


def test_every_feature_is_computed() -> None:
    seen = excerpt.Excerpt(
        text="Prove it: design a detailed plan, why must I? equation deadlock hello function fraud clause $x^2$\nreturn 1\n? ?",
        text_chars=400, turns=3, request_bytes=10**6, tools=3, images=1, documents=1, schema=True, effort="high", output_cap=10,
    )  # fmt: skip
    missing = set(WEIGHTS) - {reason.feature for reason in judge(seen).reasons}
    assert not missing, "a weight that no request can earn is noise"


def test_the_labelled_requests_are_enough_and_apart() -> None:
    dev, test = load("dev"), load("test")
    assert len(dev) + len(test) >= 300
    texts = [msgspec.json.encode(request.messages) for request in (*dev, *test)]
    assert len(set(texts)) == len(texts), "no request twice, so none in both halves"
    for half in (dev, test):
        assert {request.label for request in half} == set(TIERS)
        assert {"en", "de", "fr", "es", "zh"} <= {request.language for request in half}


def test_accuracy_keeps_its_floor() -> None:
    result = evaluate("test")
    assert result.right >= ACCURACY_MIN * len(result.requests), report("test")
    order = [result.cost_nano([tier] * len(result.requests)) for tier in TIERS]
    assert order == sorted(order)


def test_the_published_figures_are_what_the_command_prints() -> None:
    page = PAGE.read_text()
    assert report("test") in page, "`make eval-routing` prints other figures than docs/complexity.md has"
    table = "\n".join(confusion_table(evaluate("test"))[2:])
    assert table in (PAGE.parent / "routing.md").read_text(), "docs/routing.md has another confusion table"
    assert weights_table() in page, "`python -m bench.routing --weights` prints another table than docs/complexity.md has"
    assert report("dev").split(" sorted")[0].split(": ")[1] + " of it" in page
    assert f"begins at {BASE} points. From {MEDIUM_FROM} on a request is `medium`, from {HARD_FROM} on `hard`" in page
