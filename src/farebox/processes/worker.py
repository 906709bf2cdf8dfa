"""A gateway worker: takes its journal slot, finishes what an earlier life left open, serves, drains, closes.

Started by the supervisor as `python -m farebox.processes.worker`, with the listening socket inherited.
"""

import argparse
import asyncio
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from farebox.app import Worker
from farebox.billing.records import Closed
from farebox.config import Loaded, load
from farebox.edge import health_files
from farebox.edge.server import HttpServer
from farebox.gate import limit_file
from farebox.gate.limiter import Limiter
from farebox.outside import Outside, real_outside
from farebox.processes import hedge_file
from farebox.processes.lifeline import die_with_parent
from farebox.processes.slots import open_slot, slot_path
from farebox.telemetry import save

TICK_S = 0.25
TICKS_PER_HOUSEKEEPING = 4
TICKS_PER_NOTE = 40
"""Between two times at which it is written down when keys were used: 10 s."""


async def serve(
    loaded: Loaded,
    listening: socket.socket,
    number: int,
    local_url: str | None,
    outside: Outside,
    ready: Callable[[Worker], None],
    limiter: Limiter | None = None,
    stop: asyncio.Event | None = None,
    workers: int = 1,
) -> None:
    """One worker's life; `ready` is called when it accepts connections. It ends with `stop`, without one at a signal."""
    run_dir = loaded.folder / "run"
    run_dir.mkdir(exist_ok=True)
    journal, life = open_slot(loaded, slot_path(loaded, number), outside)
    worker = Worker(loaded, outside, journal, life, local_url=local_url, run_dir=run_dir, limiter=limiter, workers=workers)
    waste_path = run_dir / f"w{number}{hedge_file.SUFFIX}"
    hedge_file.restore(worker.gateway.waste, waste_path)
    settings = loaded.config.server
    server = HttpServer(
        worker.app.handle,
        worker.gateway.clock,
        body_bytes_max=settings.body_bytes_max,
        connections_max=settings.connections_max,
        header_s=settings.header_s,
        tell=worker.app.refuse,
        turn=worker.turn,
    )
    if stop is None:
        stop = asyncio.Event()
        for number_ in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number_, stop.set)
    await server.start(listening)
    housekeeping = asyncio.create_task(keep_house(worker, run_dir / f"w{number}.metrics"))
    ready(worker)
    await stop.wait()
    worker.gateway.draining = True
    server.stop_listening()
    await server.drain(settings.drain_s)
    await server.close()
    await worker.gateway.end_outrun()
    housekeeping.cancel()
    hedge_file.save(worker.gateway.waste, waste_path)
    worker.books.retry_unwritten()
    await worker.close()
    journal.write(Closed(life=life, at_us=worker.gateway.clock.now_us()))
    journal.close()
    (run_dir / f"w{number}.metrics").unlink(missing_ok=True)
    (run_dir / f"w{number}{health_files.SUFFIX}").unlink(missing_ok=True)


def calm_collector(_: Worker) -> None:
    """What lives now lives as long as the process: the collector need not look at it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


async def keep_house(worker: Worker, metrics_path: Path) -> None:
    """The worker's clockwork: flights every tick; changes in the database, returns and metrics every few."""
    gateway, holds = worker.gateway, worker.books.holds
    version: object = None
    ticks = 0
    while True:
        await asyncio.sleep(TICK_S)
        ticks += 1
        try:
            gateway.tick()
            worker.prober.look()
            if ticks % 2 == 0:
                seen = await worker.library.version()
                if seen != version:
                    version = seen
                    gateway.keyring.forget()
                    await worker.renew_prices()
            await holds.return_wanted()
            if ticks % TICKS_PER_HOUSEKEEPING == 0:
                await holds.return_idle()
                counts = gateway.metrics.counts
                counts.holds_open, counts.hold_nano = holds.open_count, holds.open_nano
                counts.unwritten = len(worker.books.unwritten)
                save(counts, metrics_path)
                hedge_file.save(gateway.waste, metrics_path.with_suffix(hedge_file.SUFFIX))
                report = gateway.health.report(gateway.clock.monotonic_us())
                health_files.save(report, metrics_path.with_suffix(health_files.SUFFIX))
            if ticks % TICKS_PER_NOTE == 0:
                await worker.note_use()
        except Exception as error:
            # The clockwork must not stop for a database that is away for a moment.
            gateway.metrics.crashed("housekeeping", error)


def main() -> None:
    parser = argparse.ArgumentParser(prog="farebox-worker")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--slot", type=int, required=True)
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--local-url", default=None)
    parser.add_argument("--limits", type=Path, required=True, help="The rate limits' file.")
    parser.add_argument("--workers", type=int, required=True, help="How many share it.")
    parser.add_argument("--parent", type=int, required=True)
    options = parser.parse_args()
    die_with_parent(options.parent, signal.SIGKILL)
    loaded = load(options.config)
    listening = socket.socket(fileno=options.fd)
    import uvloop

    outside = real_outside(os.environ)
    limiter = limit_file.open_limiter(options.limits, workers=options.workers, worker=options.slot)
    try:
        life = serve(
            loaded, listening, options.slot, options.local_url, outside, calm_collector, limiter, workers=options.workers
        )
        uvloop.run(life)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
