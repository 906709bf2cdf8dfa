"""Stickiness: what a conversation is known by, and the draws that lead it to its offer."""

import json
from collections import Counter
from typing import Any
from zlib import crc32

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.routing.conftest import call

from farebox.routing import sticky
from farebox.wires.openai_chat.call import read_call

WORDS = st.text('ab{}[]":,\\ \n\té', max_size=20) | st.sampled_from(['{"role": "user"', '"},{"', "system"])
CONVERSATIONS = st.lists(
    st.builds(lambda role, content: {"role": role, "content": content},
              st.sampled_from(["system", "developer", "user", "assistant"]), WORDS),
    min_size=1, max_size=6,
)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(messages=CONVERSATIONS, compact=st.booleans(), more=CONVERSATIONS)
def test_a_conversation_is_the_same_one_however_it_is_read(
    messages: list[dict[str, str]], compact: bool, more: list[dict[str, str]]
) -> None:
    """Quickly, or parsed since the call has tools; and in its next turn."""
    layout = (",", ":") if compact else (", ", ": ")
    if messages[-1]["role"] in ("system", "developer"):
        messages = [*messages, {"role": "user", "content": "hi"}]

    def opened(turns: list[dict[str, str]], **more: Any) -> tuple[int, bool]:
        body = {"model": "m", "messages": turns, **more}
        read = read_call(json.dumps(body, separators=layout, ensure_ascii=False).encode())
        assert read.plain != bool(more)
        return sticky.opening(read)

    tools = [{"type": "function", "function": {"name": "f"}}]
    first = next(place for place, one in enumerate(messages) if one["role"] not in ("system", "developer"))
    assert opened(messages) == opened(messages, tools=tools) == (opened(messages)[0], first + 1 < len(messages))
    assert opened([*messages, *more])[0] == opened(messages)[0]
    assert opened([{"role": "user", "content": "another"}, *messages])[0] != opened(messages)[0]


def test_a_conversation_whose_roles_come_last_is_the_same_one_as_it_goes_on() -> None:
    opening = [{"content": "Be brief.", "role": "system"}, {"content": "q", "role": "user"}]
    later = [*opening, {"content": "yes", "role": "assistant"}]
    assert sticky.opening(call(messages=opening))[0] == sticky.opening(call(messages=later))[0]
    other = [opening[0], {"content": "p", "role": "user"}]
    assert sticky.opening(call(messages=opening))[0] != sticky.opening(call(messages=other))[0]


def test_draws_are_even_and_know_nothing_of_each_other() -> None:
    salts = [sticky.salt(f"provider-{n}/m/") for n in range(8)]
    for sessions in (range(20_000), [crc32(b"%d" % n) for n in range(20_000)]):
        drawn = [[sticky.draw(session, own) for own in salts] for session in sessions]
        assert all(0 < one <= 1 for row in drawn for one in row)
        first = Counter(row.index(max(row)) for row in drawn)
        assert max(abs(first[n] - 2_500) for n in range(8)) < 250, first  # five standard deviations
        for n in range(8):
            tenths = Counter(min(int(row[n] * 10), 9) for row in drawn)
            assert max(abs(tenths[tenth] - 2_000) for tenth in range(10)) < 220, tenths
