"""`POST /v1/route/explain`: the plan of a request that is not sent. Nothing is held, nothing leaves the gateway."""

import msgspec

from farebox import metering, pipeline
from farebox.edge.surfaces import CHAT_COMPLETIONS, MESSAGES
from farebox.exchange import Exchange
from farebox.gateway import Gateway

_JSON = b"content-type: application/json\r\n"


async def explain(gateway: Gateway, exchange: Exchange) -> None:
    """The request is one of chat completions, or, with `anthropic-version`, of messages."""
    surface = MESSAGES if b"anthropic-version" in exchange.headers else CHAT_COMPLETIONS
    now_us = gateway.clock.now_us()
    principal = await pipeline.admit(gateway, exchange, now_us)
    slot = metering.enter_without_tokens(gateway, exchange, principal)
    try:
        call = surface.read_call(exchange.body)
        sorter = gateway.sorter
        sorted_as = await sorter.assess(call) if sorter is not None and call.model in sorter.examples else None
        found = pipeline.route(gateway, exchange, principal, call, now_us, everything=True, sorted_as=sorted_as)
        body = msgspec.json.encode(gateway.explained(call, found, exchange.wishes.demand))
        exchange.answer.whole(200, _JSON + exchange.base, body)
    finally:
        metering.leave(gateway, slot)
