"""A provider that speaks both wires on a real socket, misbehaves on command and keeps a true bill.

    serve(SimulatorConfig(port=9000))            blocks: the command `farebox simulate`
    running = await start(SimulatorConfig())     in the running loop; `running.port`, `await running.close()`
    with SimulatorProcess() as provider: …       in a child process (`farebox.simulator.testing`)

What a model says, costs and does wrong is written in its name: `sim+tokens=50+delay-chunk=5ms`; `directives.table()` lists
everything it understands. `exchange.py` is the life of a request.
"""

from farebox.simulator.config import SimulatorConfig
from farebox.simulator.directives import DirectiveError, Directives, parse, table
from farebox.simulator.server import RunningSimulator, serve, start

__all__ = ["DirectiveError", "Directives", "RunningSimulator", "SimulatorConfig", "parse", "serve", "start", "table"]
