"""Providers that are down for seconds, and what the workers that ask them how they are must know of it, and when.

A probed provider that is down is out before a call need have met it, and in again by the first probe that succeeds; probes count
as nobody's calls. What is looked at is each worker's own health, at the moment by which it must know.
"""

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from farebox.probes import TIMEOUTS
from farebox.processes.worker import TICK_S
from farebox.routing.circuit import Circuit
from farebox.routing.health import Health, Outcome
from farebox.routing.target import Place
from tests.simulation.market import PROBE_S

if TYPE_CHECKING:
    from tests.simulation.upstreams import Upstream
    from tests.simulation.world import Process, World

How = Literal["refuses", "errs"]
LENGTH_US_MAX = 9_000_000
ROUND_US = int((PROBE_S + TICK_S) * 1_000_000) + 100_000
"""From one question to the answer of the next."""
CONNECTS_US = int(TIMEOUTS.connect_s * 1_000_000)
"""How long a question may wait for its connection."""


class Outage(msgspec.Struct, eq=False):
    """One provider's."""

    how: How
    began_us: int
    leapt_us: int


class HealthWatch:
    """What one worker's health was told of calls."""

    def __init__(self) -> None:
        self.succeeded_us: dict[Place, int] = {}
        """When a call last did."""
        self.counted: Counter[Place] = Counter()
        """Calls that succeeded or failed."""

    def over(self, health: Health) -> None:
        honest = health.finished

        def finished(place: Place, outcome: Outcome, started_us: int, now_us: int, **more: Any) -> None:
            if outcome == "ok":
                self.succeeded_us[place] = now_us
            self.counted[place] += outcome in ("ok", "failed", "rate_limited")
            honest(place, outcome, started_us, now_us, **more)

        health.finished = finished  # type: ignore[method-assign]


def begin(world: "World", upstream: "Upstream", how: How, length_us: int) -> None:
    """A provider goes down: whoever comes is refused, or told of an error; answers that have begun go on."""
    if world.healed or upstream.outage is not None:
        return
    world.log(f"{upstream.vendor.name} is down for {length_us} µs: it {how}")
    outage = upstream.outage = Outage(how, world.scheduler.now_us, world.scheduler.leapt_us)
    upstream.outages += 1
    world.network.host(f"{upstream.vendor.name}.test").down = how == "refuses"
    world.chaos.after(world.versions[0].failures_in_a_row * ROUND_US, partial(_is_out, world, upstream, outage))
    world.chaos.after(length_us, partial(_over, world, upstream, outage))


def end(world: "World", upstream: "Upstream") -> None:
    """It is well again."""
    outage, upstream.outage = upstream.outage, None
    if outage is None:
        return
    world.log(f"{upstream.vendor.name} is up again")
    world.network.host(f"{upstream.vendor.name}.test").down = False
    world.chaos.after(2 * ROUND_US, partial(_is_in, world, upstream, outage, world.scheduler.now_us, upstream.outages))


def _over(world: "World", upstream: "Upstream", outage: Outage) -> None:
    if upstream.outage is outage:
        end(world, upstream)


def _is_out(world: "World", upstream: "Upstream", outage: Outage) -> None:
    """By now every worker that has asked all the while must have it put last."""
    if upstream.outage is not outage or not _timely(world, upstream, outage):
        return
    for process, place, circuit in _circuits(world, upstream, outage):
        now_us = process.outside.clock.monotonic_us()
        if process.watch.succeeded_us.get(place, 0) > now_us - (world.scheduler.now_us - outage.began_us):
            continue  # an answer that had begun before has ended well: failures in a row begin anew
        if circuit is None or circuit.passes(now_us):
            world.problem(f"{process.name}: {place} is down since {outage.began_us} µs, and a call would still meet it first")


def _is_in(world: "World", upstream: "Upstream", outage: Outage, back_us: int, number: int) -> None:
    """By now every worker that has seen it down has seen it well, and the next call may try it, if it has stayed well."""
    if upstream.outages != number or not _timely(world, upstream, outage) or back_us - outage.began_us < 2 * ROUND_US:
        return
    for process, place, circuit in _circuits(world, upstream, outage):
        clock = process.outside.clock
        back_at_us = clock.monotonic_us() - (world.scheduler.now_us - back_us)
        # What calls have made of it since is their affair: one that tries it keeps others away.
        tried = circuit is not None and (circuit._claimed or circuit.probe_us >= back_at_us)
        if circuit is not None and circuit.open_until_us > clock.monotonic_us() and circuit.opened_us < back_at_us and not tried:
            world.problem(f"{process.name}: {place} is well since {back_us} µs, and is still left alone")


def _timely(world: "World", upstream: "Upstream", outage: Outage) -> bool:
    """Whether who asks was late for no other reason: time in which nothing runs, a slow database that its clockwork waits for,
    or a way there that is disturbed as well, or was when a question left that still waits for its connection."""
    still = world.scheduler.leapt_us == outage.leapt_us and not world.rates["store_slow"]
    return still and world.network.host(f"{upstream.vendor.name}.test").until_us + CONNECTS_US <= outage.began_us


def _circuits(world: "World", upstream: "Upstream", outage: Outage) -> "list[tuple[Process, Place, Circuit | None]]":
    """Of the workers that have lived through all of it, each with the house's places at the provider."""
    found: list[tuple[Process, Place, Circuit | None]] = []
    for process in world.workers.values():
        worker = process.worker
        if worker is None or process.loop.dead or process.ending or process.ready_us > outage.began_us:
            continue
        for targets in worker.gateway.market.targets.values():
            for place in (place for target in targets for place in target.places if place.provider == upstream.vendor.name):
                record = worker.gateway.health._places.get(place)
                found.append((process, place, None if record is None else record.circuit))
    return found


def at_rest(world: "World", process: "Process") -> None:
    """Probes have counted as nobody's calls."""
    assert process.worker is not None
    health, now_us = process.worker.gateway.health, process.outside.clock.monotonic_us()
    for place, record in health._places.items():
        counted = sum(record.counts.since(now_us - LENGTH_US_MAX))
        if counted > process.watch.counted[place] or record.in_flight:
            world.problem(f"{process.name}: {place} has {counted} calls and {record.in_flight} in flight, of which no call knows")
