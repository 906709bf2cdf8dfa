"""The `bench` model: answers prebuilt once per model name, so that a mock upstream costs as little as Python can.

It takes `tokens`, `delay-first` and `delay-chunk` in its name (`bench+tokens=64+delay-chunk=5ms`); with any other directive,
with faults set from outside or with a synced bill, the request is answered the long way, by the same words and counts.
Prebuilt answers look at the model, `stream`, the usage option and the limit only: they check no credential, offer no choice
or tool call, and are not listed among the requests seen.
"""

import msgspec

from farebox.simulator.answer import Answer, request_id
from farebox.simulator.connection import BenchStream
from farebox.simulator.dialects import DIALECTS
from farebox.simulator.directives import NONE, Directives, parse
from farebox.simulator.plan import Plan, plan
from farebox.simulator.prefixes import NOTHING
from farebox.simulator.refusals import Wire
from farebox.simulator.request import Block, Request
from farebox.simulator.write_chat import ChatAnswer
from farebox.simulator.write_messages import MessagesAnswer

BENCH = "bench"
BENCH_TOKENS = 16
BENCH_PROMPT_TOKENS = 8
"""Reported for every prompt; less than the bytes of any request."""
BENCH_BLOCKS = (Block(b"bench", BENCH_PROMPT_TOKENS),)
"""Stands for every prompt, so that the answer is always the same."""
_MICRO = 1_000_000


class Prebuilt(msgspec.Struct, frozen=True):
    """An answer around its request id: the plain parts are joined by the id, in the frames it replaces `placeholder`."""

    placeholder: bytes
    plain: tuple[bytes, ...]
    frames: tuple[bytes, ...]
    delay_first_s: float
    delay_chunk_s: float
    plan: Plan

    def id(self, number: int) -> bytes:
        """The request id of the n-th attempt; as long as the placeholder, which ends in the digits of 0."""
        return b"%b%012d" % (self.placeholder[:-12], number)

    def reply(self, id: bytes) -> bytes:
        return id.join(self.plain)

    def stream(self, id: bytes) -> BenchStream:
        frames = tuple([frame.replace(self.placeholder, id) for frame in self.frames])
        return BenchStream(frames, self.delay_first_s, self.delay_chunk_s)


def bench_orders(orders: Directives) -> Directives:
    """The counts of a bench answer, also when it is answered the long way."""
    return msgspec.structs.replace(
        orders,
        tokens=BENCH_TOKENS if orders.tokens is None else orders.tokens,
        prompt=BENCH_PROMPT_TOKENS if orders.prompt is None else orders.prompt,
    )


def prebuilt(wire: Wire, model: str, include_usage: bool, seed: int) -> Prebuilt | None:
    """None when the name holds directives that cannot be prebuilt. Raises `DirectiveError`."""
    orders = parse(model.partition("+")[2])
    honest = msgspec.structs.replace(orders, tokens=None, prompt=None, delay_first_us=0, delay_chunk_us=0)
    if honest != NONE:
        return None
    request = Request(
        wire=wire, model=model, include_usage=include_usage, blocks=BENCH_BLOCKS, body_bytes=1024
    )
    id = request_id(wire, seed, 0)
    placeholder = id.encode()
    planned = plan(request, bench_orders(orders), seed, NOTHING)
    answer: Answer = (
        ChatAnswer(planned, request, orders, DIALECTS["openai"], id, 0)
        if wire == "chat"
        else MessagesAnswer(planned, request, orders, seed, id, 0)
    )
    name = b"x-request-id" if wire == "chat" else b"request-id"
    body = answer.whole()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n%b: %b\r\ncontent-length: %d\r\n\r\n"
    plain = (head % (name, placeholder, len(body)) + body).split(placeholder)
    opening = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n%b: %b\r\ntransfer-encoding: chunked\r\n\r\n" % (
        name, placeholder,
    )  # fmt: skip
    events = [*answer.opening(), *(event.data for event in answer.content()), *answer.closing()]
    frames = [b"%x\r\n%b\r\n" % (len(event), event) for event in events]
    frames[0] = opening + frames[0]
    frames[-1] += b"0\r\n\r\n"
    return Prebuilt(
        placeholder, tuple(plain), tuple(frames), orders.delay_first_us / _MICRO, orders.delay_chunk_us / _MICRO, planned
    )
