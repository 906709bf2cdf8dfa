"""A stream whose last counts were lost on the way is not billed by its first ones."""

import pytest

from farebox.bridge import WIRES
from farebox.wires.dialect import Dialect
from farebox.wires.translation import TranslatedRelay

START = b'data: {"type":"message_start","message":{"id":"m","usage":{"input_tokens":10,"output_tokens":1}}}\n\n'
BLOCK = b'data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n'
TEXT = b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"one two three four five"}}\n\n'
END = b'data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":5}}\n\n'
STOP = b'data: {"type":"message_stop"}\n\n'


def relay() -> TranslatedRelay:
    writer = WIRES["openai_chat"].stream.Writer(id="gen-1", model="v/m", provider="p", created=1, include_usage=True)
    return TranslatedRelay(WIRES["anthropic_messages"].stream.Reader(Dialect()), writer)


def test_a_lost_message_delta_leaves_no_report_but_an_exact_input() -> None:
    """`message_start` says one output token, whatever follows; the delta that says how many it were is cut in two."""
    found = relay()
    for event in (START, BLOCK, TEXT, END[:40] + b"\n\n", STOP):
        found.feed(event)
    assert found.finished and found.malformed == 1
    assert found.report() is None
    known = found.observed_input()
    assert known is not None and (known.input, known.completion_tokens) == (10, 0)
    assert found.observed_output_tokens() > 1


RAISED = END.replace(b'{"output_tokens":5}', b'{"input_tokens":12,"output_tokens":5}')


@pytest.mark.parametrize("end", [END, RAISED])
def test_the_last_counts_are_the_bill(end: bytes) -> None:
    found = relay()
    for event in (START, BLOCK, TEXT, end, STOP):
        found.feed(event)
    report = found.report()
    assert report is not None and report.usage is not None and report.usage.output == 5
    assert report.usage.input == (12 if end is not END else 10)
