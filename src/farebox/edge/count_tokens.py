"""`POST /v1/messages/count_tokens`: forwarded where the provider counts (free of charge there), else estimated and said so."""

import msgspec

from farebox import bridge, metering, pipeline
from farebox.attempt import ERROR_BYTES_MAX
from farebox.billing.bounds import estimated_input
from farebox.errors import FareboxError, Kind
from farebox.exchange import Exchange
from farebox.gateway import Gateway
from farebox.routing.lessons import KEY_KINDS
from farebox.routing.own_keys import is_own
from farebox.transport import TransportError
from farebox.verdict import told
from farebox.wires import call as calls
from farebox.wires.anthropic_messages import call as messages_call

_JSON = b"content-type: application/json\r\n"


async def count_tokens(gateway: Gateway, exchange: Exchange) -> None:
    """Answer `{"input_tokens": n}`; `x-farebox-estimated: true` marks a count of our own."""
    fields, layout = calls.read_fields(exchange.body)
    # The same request as a message, less its cap; the reader wants one, and it is not forwarded.
    capped = {**fields, "max_tokens": msgspec.Raw(b"1")}
    call = messages_call.read_call(msgspec.json.encode(capped))
    call = call.of_body(exchange.body, fields, layout)
    now_us = gateway.clock.now_us()
    principal = await pipeline.admit(gateway, exchange, now_us)
    slot = metering.enter_without_tokens(gateway, exchange, principal)
    try:
        plan = pipeline.route(gateway, exchange, principal, call, now_us)
        same = [one for one in plan.candidates if one.target.wire == call.wire]
        able = [one for one in same if one.target.speaks.count_tokens_path is not None]
        if not able:
            body = msgspec.json.encode({"input_tokens": estimated_input(call)})
            exchange.answer.whole(200, _JSON + b"x-farebox-estimated: true\r\n" + exchange.base, body)
            return
        for number, candidate in enumerate(able, 1):
            target = candidate.target
            body = messages_call.forward_body(call, model=candidate.entry.upstream_id_json, output_cap=None)
            try:
                response = await gateway.client.send(gateway.count_tokens_head(target), body, timeouts=gateway.timeouts)
                answer = await response.read(ERROR_BYTES_MAX)
            except TransportError as error:
                raise FareboxError(Kind.UPSTREAM_BAD, f"{target.provider.title} could not be reached: {error}") from None
            if response.status == 200:
                exchange.answer.whole(200, _JSON + target.head + exchange.base, answer)
                return
            found = bridge.failure(candidate, answer, response.header, status=response.status)
            # What is wrong with a key of the customer's own is not wrong with the next one.
            if number == len(able) or not is_own(target) or found.kind not in KEY_KINDS:
                raise told(found, candidate)
    finally:
        metering.leave(gateway, slot)
