"""What the machine and the operator do in the middle of things: kill, restart, fill the disk, cut the network, revoke, pay."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from farebox.billing.books import customers as commands
from farebox.market import make_market
from tests.simulation import outages
from tests.simulation.loop import Crash
from tests.simulation.market import PROBED
from tests.simulation.upstreams import VENDORS

if TYPE_CHECKING:
    from tests.simulation.world import World

OUTAGE_US_MAX = 4_000_000


def mischief(world: "World", burst: int, burst_us: int) -> Iterator[tuple[int, Callable[[], None]]]:
    """The events of one burst, each with its moment after the burst's beginning."""
    chance = world.options.random(f"mischief {burst}")
    rates, workers = world.rates, world.options.workers

    def times(name: str) -> Iterator[int]:
        """When things of a class happen: from one to three times."""
        for _ in range(1 + int(rates[name] * 6) if rates[name] else 0):
            yield int(chance.random() * burst_us)

    for at_us in times("restarts"):
        yield at_us, partial(restart, world, chance.randrange(workers))
    for at_us in times("worker_crash"):
        yield at_us, partial(kill, world, chance.randrange(workers))
    for at_us in times("machine"):
        yield at_us, partial(kill_everything, world)
    for at_us in times("prices"):
        yield at_us, partial(reprice, world)
    for at_us in times("dial"):
        vendor, fault = chance.choice(VENDORS).name, chance.choice(("dns", "refuse", "silent"))
        yield at_us, partial(disturb, world, vendor, fault, int(chance.random() * OUTAGE_US_MAX))
    for at_us in times("disk_full"):
        slot = chance.randrange(workers)
        yield at_us, partial(fill_disk, world, slot, full=True)
        yield at_us + int(chance.random() * OUTAGE_US_MAX), partial(fill_disk, world, slot, full=False)
    for at_us in times("probes"):
        vendor, how = chance.choice(PROBED), chance.choice(("refuses", "errs"))
        upstream = next(one for one in world.upstreams if one.vendor.name == vendor)
        yield at_us, partial(outages.begin, world, upstream, how, int((0.3 + 0.7 * chance.random()) * outages.LENGTH_US_MAX))
    for at_us in times("changes"):
        yield at_us, partial(chance.choice((revoke, pay, move_limit, suspend)), world, chance.random())


def disturb(world: "World", vendor: str, fault: str, length_us: int) -> None:
    world.log(f"the way to {vendor}: {fault} for {length_us} µs")
    world.network.disturb(f"{vendor}.test", fault, world.scheduler.now_us + length_us)


def restart(world: "World", slot: int) -> None:
    """SIGTERM; the next life begins with another version of the configuration, as does every one after it."""
    process = world.workers.get(slot)
    if process is None or process.worker is None or process.ending or world.healed:
        return
    process.ending = True
    world.configure()
    world.log(f"{process.name} is told to end")
    process.loop.signal(signal.SIGTERM)


def kill(world: "World", slot: int) -> None:
    """Between two callbacks: in none of the places that have a name."""
    process = world.workers.get(slot)
    if process is not None and not world.healed and not process.loop.dead:
        with contextlib.suppress(Crash):
            process.faults.die("any moment")


def kill_everything(world: "World") -> None:
    for process in (*world.workers.values(), world.books):
        if process is not None and not world.healed and not process.loop.dead:
            with contextlib.suppress(Crash):
                process.faults.die("the machine's end")


def reprice(world: "World") -> None:
    """Every worker gets the market of another version of the configuration, in the middle of its calls."""
    if world.healed:
        return
    version = world.configure()
    for process in world.workers.values():
        if process.worker is not None and not process.loop.dead:
            world.log(f"{process.name} sells at the prices of version {version.number}")
            process.worker.gateway.market, _ = make_market(world.loaded(), local_url=None)
            process.versions.append((world.scheduler.awake_us, version))


def fill_disk(world: "World", slot: int, *, full: bool) -> None:
    process = world.workers.get(slot)
    if process is not None:
        world.log(f"the disk of {process.name} is {'full' if full else 'free again'}")
        process.faults.disk_full = full and not world.healed


def _someone(world: "World", draw: float) -> tuple[str, str, str]:
    """Any key but the first, which is for those who look whether everything works again."""
    return world.secrets[1 + int(draw * (len(world.secrets) - 1))]


def revoke(world: "World", draw: float) -> None:
    _, key, _ = _someone(world, draw)
    if key not in world.revoked:
        world.log(f"{key} is revoked")
        world.revoked[key] = world.scheduler.now_us
        commands.revoke_key(world.database(), key, now_us=world.now_us())


def pay(world: "World", draw: float) -> None:
    account, _, _ = _someone(world, draw)
    with contextlib.suppress(commands.CommandRefused):
        world.top_up(account, 10**7 + int(draw * 10**8))
        world.log(f"{account} gets credit")


def move_limit(world: "World", draw: float) -> None:
    _, key, _ = _someone(world, draw)
    with contextlib.suppress(commands.CommandRefused):
        commands.set_key_budget(world.database(), key, int(draw * 10**9), "day")
        world.log(f"{key} gets another budget")


def suspend(world: "World", draw: float) -> None:
    account, _, _ = _someone(world, draw)
    if account == world.secrets[0][0]:
        return
    status = "suspended" if draw * 1000 % 1 < 0.5 else "active"
    commands.set_account_status(world.database(), account, status, now_us=world.now_us())
    world.log(f"{account} is {status}")
