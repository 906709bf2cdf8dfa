# ruff: noqa: E501  (tables read best with one case per line)
"""Finish reasons: the table of providers.md §1.3, both ways."""

import pytest

from farebox.wires import finish


@pytest.mark.parametrize(
    ("native", "with_tools", "reason"),
    [
        ("stop", False, "stop"), ("eos", False, "stop"), ("length", False, "length"), ("model_length", False, "length"),
        ("tool_calls", True, "tool_calls"), ("function_call", True, "tool_calls"), ("content_filter", False, "content_filter"),
        ("sensitive", False, "content_filter"), ("network_error", False, "error"), ("error", False, "error"),
        ("", False, "stop"), ("", True, "tool_calls"), ("stop", True, "tool_calls"), ("length", True, "length"),
        (None, True, "tool_calls"), ("something new", False, "stop"), ("something new", True, "tool_calls"),
    ],
)  # fmt: skip
def test_from_openai_and_its_clones(native: str | None, with_tools: bool, reason: str) -> None:
    assert finish.from_openai(native, with_tools=with_tools) == reason


@pytest.mark.parametrize(
    ("native", "reason", "openai"),
    [
        ("end_turn", "stop", "stop"), ("stop_sequence", "stop", "stop"), ("max_tokens", "length", "length"),
        ("model_context_window_exceeded", "length", "length"), ("compaction", "length", "length"),
        ("tool_use", "tool_calls", "tool_calls"), ("refusal", "content_filter", "content_filter"), ("pause_turn", "pause", "stop"),
        ("something new", "stop", "stop"),
    ],
)  # fmt: skip
def test_from_anthropic_to_openai_and_back(native: str, reason: str, openai: str) -> None:
    found = finish.from_anthropic(native, with_tools=False)
    assert (found, finish.TO_OPENAI[found]) == (reason, openai)
    if native != "something new":
        assert finish.to_anthropic(found, native, None) == native


def test_from_openai_to_anthropic() -> None:
    assert finish.to_anthropic("stop", "stop", None) == "end_turn"
    assert finish.to_anthropic("stop", "stop", "END") == "stop_sequence"
    assert finish.to_anthropic("length", "length", None) == "max_tokens"
    assert finish.to_anthropic("tool_calls", "", None) == "tool_use"
    assert finish.to_anthropic("content_filter", "sensitive", None) == "refusal"
