"""Tool call ids, thinking in tags, efforts: the small pure parts of the wires."""

import re

from hypothesis import given
from hypothesis import strategies as st

from farebox.wires import efforts, think_tags
from farebox.wires.neutral import ReasoningRequest
from farebox.wires.tool_ids import ToolIds

MISTRAL = r"[a-zA-Z0-9]{9}"
ANTHROPIC = r"[a-zA-Z0-9_-]+"


@given(st.lists(st.text(max_size=12), max_size=30), st.sampled_from([MISTRAL, ANTHROPIC, r".{1,40}", None]))
def test_mapped_ids_fit_are_distinct_and_come_back(ids: list[str], pattern: str | None) -> None:
    known = ToolIds(pattern)
    mapped = [known.mapped(id) for id in ids]
    assert mapped == [known.mapped(id) for id in ids]
    assert len(set(mapped)) == len(set(ids))
    assert [known.original(id) for id in mapped] == ids
    if pattern is not None:
        assert all(re.fullmatch(pattern, id) for id in mapped)


def test_an_id_that_fits_stays() -> None:
    assert ToolIds(MISTRAL).mapped("abcDEF123") == "abcDEF123"
    assert ToolIds(ANTHROPIC).mapped("toolu_01-x") == "toolu_01-x"
    assert ToolIds(ANTHROPIC).mapped("functions.add:0") != "functions.add:0"
    assert ToolIds(ANTHROPIC).original("never seen") == "never seen"


@given(
    st.lists(st.sampled_from(["<think>", "</think>", "<thi", "nk>", "</th", "ink>", "\n", " ", "word", "<"]), max_size=12),
    st.data(),
)
def test_thinking_in_tags_is_found_for_every_split(pieces: list[str], data: st.DataObject) -> None:
    text = "".join(pieces)
    splitter = think_tags.Splitter()
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=8)))
    found = [p for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True) for p in splitter.feed(text[a:b])] + splitter.end()
    thinking = "".join(t for is_thinking, t in found if is_thinking)
    answer = "".join(t for is_thinking, t in found if not is_thinking)
    assert (thinking, answer) == think_tags.split(text)
    if not text.lstrip().startswith("<think>"):
        assert (thinking, answer) == ("", text)


def test_thinking_in_tags() -> None:
    assert think_tags.split("<think>\nhm\n</think>\n\nYes.") == ("hm\n", "Yes.")
    assert think_tags.split("Use <think> tags.") == ("", "Use <think> tags.")
    assert think_tags.split("<think>cut off") == ("cut off", "")
    assert think_tags.split("<think></think>ok") == ("", "ok")


def test_a_line_end_behind_the_tag_is_no_thought_in_whatever_piece_it_comes() -> None:
    splitter = think_tags.Splitter()
    assert splitter.feed("<think>") + splitter.feed("\n") + splitter.feed("\nhm") + splitter.end() == [(True, "hm")]
    splitter = think_tags.Splitter()
    assert splitter.feed("<think>") + splitter.feed("\n") + splitter.end() == []


def test_efforts_and_budgets() -> None:
    def asked(**fields: object) -> ReasoningRequest:
        return ReasoningRequest("reasoning", enabled=True, **fields)  # type: ignore[arg-type]

    assert efforts.budget_of(asked(effort="high"), 10_000) == 8000
    assert efforts.budget_of(asked(effort="low"), 1000) == efforts.BUDGET_TOKENS_MIN
    assert efforts.budget_of(asked(budget_tokens=77), 1000) == 77
    assert efforts.budget_of(asked(effort="bogus"), 1000) is None
    assert [efforts.effort_of(asked(budget_tokens=n), 10_000) for n in (2000, 5000, 8000)] == ["low", "medium", "high"]
    assert [efforts.effort_of(asked(budget_tokens=n), None) for n in (2000, 5000, 9000)] == ["low", "medium", "high"]
    assert efforts.effort_of(ReasoningRequest("thinking", enabled=False), 10) == "none"
    assert efforts.accepted("max", ("high", "xhigh")) == "xhigh"
    assert efforts.accepted("low", ("high",)) is None
    assert efforts.accepted("anything", ()) == "anything"
