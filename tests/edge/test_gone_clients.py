"""Clients that hang up: whoever listens is told, whenever they begin to listen."""

from typing import Any, cast

from farebox.edge.answer import HttpAnswer
from farebox.edge.request import Request


def test_who_listens_after_the_client_has_left_is_told_at_once() -> None:
    """A client may leave before its provider has said a word. Nobody heard of it then: the stream was read to its end, without a
    bound, for nobody, and kept a place among the calls in flight."""
    told: list[str] = []
    early, late = (HttpAnswer(cast("Any", None), Request()) for _ in range(2))
    early.on_gone = lambda: told.append("early")
    assert not told
    early.leave()
    late.leave()
    assert told == ["early"]
    late.on_gone = lambda: told.append("late")
    assert told == ["early", "late"]
    late.on_gone = None
    assert late.on_gone is None and told == ["early", "late"]
