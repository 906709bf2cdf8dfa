"""Six providers: the simulated provider of the product itself, each behind a name of its own, misbehaving by the seed.

What goes wrong with an attempt is drawn from the seed, the call and the number of the attempt, and told to the simulated provider
in its own words (`farebox.simulator.directives`), so that it keeps its true bill of it.
"""

import random
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from farebox.simulator.bill import FARE_HEADER
from farebox.simulator.config import SimulatorConfig
from farebox.simulator.connection import Connection, Inbound
from farebox.simulator.directives import Directives
from farebox.simulator.exchange import Exchange
from farebox.simulator.plan import Plan
from farebox.simulator.request import Request
from farebox.simulator.server import Simulator
from tests.simulation.loop import ProcessLoop
from tests.simulation.network import ListeningSocket

if TYPE_CHECKING:
    from tests.simulation.outages import Outage
    from tests.simulation.world import World

CALL = re.compile(rb"call (\d+)\b")
BASE_MODEL = re.compile(rb'"model": ?"sim-[a-z-]+')
Wire = Literal["openai_chat", "anthropic_messages"]


class Vendor(msgspec.Struct, frozen=True):
    """A provider as the configuration and the audit know it."""

    name: str
    wire: Wire
    abort_stops_billing: bool
    dialect: str = "openai"
    """How it reports usage."""
    settings: str = ""
    """What the configuration has to say of that."""

    @property
    def base_url(self) -> str:
        return f"http://{self.name}.test/v1"


VENDORS: tuple[Vendor, ...] = (
    Vendor("amber", "openai_chat", True),
    Vendor("birch", "openai_chat", False, "groq", 'prefill = "continue_final_message"'),
    Vendor("cedar", "openai_chat", True, "mistral", 'prefill = "prefix"'),
    Vendor("delta", "anthropic_messages", True),
    Vendor("ember", "anthropic_messages", False),
    Vendor("fjord", "openai_chat", True, "xai", 'reasoning_tokens = "outside"'),
)


def misbehaviour(chance: random.Random, rates: dict[str, float], *, stream: bool) -> list[str]:
    """What goes wrong with one attempt, in the simulated provider's words."""
    draw, pick = chance.random, chance.choice
    orders: list[str] = []
    if draw() < rates["slow"]:
        orders.append(f"delay-{'first' if draw() < 0.6 else 'headers'}={chance.randint(1, 4000)}ms")
        if draw() < 0.7:
            orders.append(f"delay-chunk={pick((30, 200, 600, 1500))}ms")
    if draw() < rates["bytes"]:
        orders.append(pick((
            "split=7", "gzip", "trailers", "close", "silent-close", "big-header=900", "sse=crlf", "sse=cr", "sse=comments",
            "sse=bom", "sse=no-space", "sse=multi-line", "sse=no-final-newline",
        )))  # fmt: skip
    if draw() < rates["prefills"]:
        orders.append(pick(("reject-prefill", "repeat-prefill")))
    if draw() < rates["usage"]:
        orders.append("usage=" + pick(("missing", "duplicate", "huge", "null", "negative", "string", "fractional")))
    bad: list[str] = []
    byte = chance.randint(0, 4000)
    if draw() < rates["refusals"]:
        bad.append(pick(("status=429", "status=429+retry-after=2", "status=429+retry-after=90", "status=500", "status=503",
                         "status=529", "status=401", "status=400", "status=503+should-retry=false")))  # fmt: skip
    if draw() < rates["resets"]:
        bad.append(pick(("reset-before-headers", f"reset-after={chance.randint(0, 12)}", f"reset-at-byte={byte}")))
    if draw() < rates["cuts"]:
        bad.append(pick((f"cut-at-byte={byte}", "truncated-chunked", f"lying-length={chance.randint(1, 90)}")))
    if draw() < rates["silence"]:
        bad.append("delay-headers=60s")
    if draw() < rates["stalls"]:
        bad.append(f"stall-after={chance.randint(0, 12)}")
    if draw() < rates["errors"]:
        bad.append(pick(("error-before-content", f"error-in-stream={chance.randint(1, 10)}", "error-in-200")))
    if draw() < rates["garbage"]:
        bad.append(pick((f"malformed-event={chance.randint(1, 9)}", "html", "no-done", "html+status=502")))
    if bad:
        orders.append(pick(bad))
    return orders


class Upstream(Simulator):
    """One provider."""

    def __init__(self, world: "World", vendor: Vendor, folder: Path) -> None:
        self.vendor = vendor
        self.bill_path = folder / f"{vendor.name}.bill"
        config = SimulatorConfig(
            bill=self.bill_path,
            bill_sync=False,
            abort_stops_billing=vendor.abort_stops_billing,
            dialect=vendor.dialect,
            control=False,
            seed=world.options.seed,
        )
        super().__init__(config)
        self._world = world
        self._seen: dict[tuple[int, str], int] = {}
        self.loop = ProcessLoop(world.scheduler, world.network, vendor.name)
        self._connections: set[Connection] = set()
        self.outage: Outage | None = None
        self.outages = 0
        world.network.listen(self.loop, self._connection, ListeningSocket(f"{vendor.name}.test"))

    def _connection(self) -> Connection:
        return Connection(self, self.loop, self._connections)

    async def serve(self, inbound: Inbound, connection: Connection) -> bool:
        assert self._config.bill is not None and self._bill is not None
        world = self._world
        if inbound.method == "GET":
            return await self._say_how_it_is(inbound, connection)
        found = CALL.search(inbound.body)
        call = int(found[1]) if found is not None else -1
        attempt = inbound.header(FARE_HEADER.encode()) or ""
        generation, _, number = attempt.partition("/")
        try_ = self._seen[call, generation] = self._seen.get((call, generation), 0) + 1
        stream = b'"stream":true' in inbound.body or b'"stream": true' in inbound.body
        chance = world.options.random(f"{call} at {self.vendor.name}, {number}, {try_}")
        shape = world.options.random(f"answer to {call}")
        orders = [f"tokens={shape.choice((1, 3, 6, 9, 14, 14, 30, 90))}"]
        if shape.random() < 0.15:
            orders.append(f"thinking={shape.randint(1, 8)}")
        if shape.random() < 0.15:
            orders.append(f"cached={shape.randint(1, 12)}")
        if b'"sim-weak' in inbound.body:
            # How sure it is of its answer, should anybody ask.
            orders.append(f"rating={shape.choice((20, 90))}")
        if not world.healed and call >= 0:
            orders += misbehaviour(chance, world.rates, stream=stream)
            late = world.options.random(f"late {call} at {self.vendor.name}, {number}, {try_}")
            if world.rates["hedging"] and late.random() < 0.5:
                orders.append(f"delay-first={late.choice((50, 300, 900))}ms")
        if self.outage is not None:
            orders = ["status=503" if self.outage.how == "errs" else "reset-before-headers"]
        text = "+".join(orders)
        world.ordered[attempt] = text
        world.log(f"{self.vendor.name} is asked {attempt} for call {call}: {text}")
        body = BASE_MODEL.sub(lambda found: found[0] + b"+" + text.encode(), inbound.body, count=1)
        inbound = msgspec.structs.replace(inbound, body=body)
        wire = "chat" if inbound.path.endswith("/chat/completions") else "messages"
        self._number += 1
        exchange = Recorded(self._config, self._faults, self._cache, self._bill, wire, self._number, inbound, connection)
        exchange.told = lambda planned: world.planned.__setitem__(attempt, planned)
        keep = await exchange.run()
        world.log(f"{self.vendor.name} ends {attempt}: {exchange.reason} {exchange.status}")
        return keep

    async def _say_how_it_is(self, inbound: Inbound, connection: Connection) -> bool:
        """A probe, which nobody bills."""
        how = "well" if self.outage is None else self.outage.how
        self._world.log(f"{self.vendor.name} is asked how it is: {how}")
        if inbound.header(FARE_HEADER.encode()) is not None:
            self._world.problem(f"{self.vendor.name}: a probe is somebody's attempt")
        if how == "errs":
            return await self._plain(connection, 503, b"{}")
        if how == "refuses":
            await connection.reset()
            return False
        return await super().serve(inbound, connection)


class Recorded(Exchange):
    """An exchange whose answer is known to the audit."""

    def told(self, planned: Plan) -> None:
        raise NotImplementedError

    def _answer(self, planned: Plan, request: Request, orders: Directives, dialect: object) -> object:
        self.told(planned)
        return super()._answer(planned, request, orders, dialect)
