"""A simulated provider in a child process, for any test: `with SimulatorProcess() as provider: … provider.base_url …`.

The child ends with the thread that started it (so Linux has it), also when the parent is killed: start it from a thread that
lives as long as the provider is needed.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from farebox.simulator import bill
from farebox.simulator.bill import BilledAttempt

START_S_MAX = 20.0
STOP_S_MAX = 5.0
_POLL_S = 0.01


class SimulatorProcess:
    """Options are those of `python -m farebox.simulator`; `bill_path` may lie on an earlier run's bill and is appended to."""

    def __init__(
        self, *options: str, bill_path: Path | None = None, seed: int = 0, port: int = 0, dialect: str = "openai"
    ) -> None:
        self.bill_path = bill_path
        self._command = [sys.executable, "-m", "farebox.simulator", "--port", str(port), "--seed", str(seed)]
        self._command += ["--dialect", dialect, *options]
        if bill_path is not None:
            self._command += ["--bill", str(bill_path)]
        self._process: subprocess.Popen[bytes] | None = None
        self.port = port

    def __enter__(self) -> "SimulatorProcess":
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def origin(self) -> str:
        """`http://host:port`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes; an Anthropic client takes `origin`."""
        return f"{self.origin}/v1"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the simulator is not running"
        return self._process.pid

    def start(self) -> "SimulatorProcess":
        """Starts the child and reads its port; a restart keeps the port of the first start."""
        assert self._process is None, "the simulator is running already"
        command = list(self._command)
        command[command.index("--port") + 1] = str(self.port)
        command += ["--end-with-parent", str(os.getpid())]
        source = Path(bill.__file__).parents[2]
        paths = [str(source), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], START_S_MAX)
        line = self._process.stdout.readline() if ready else b""
        if not line.strip().isdigit():
            self.kill()
            raise RuntimeError(f"the simulator did not start within {START_S_MAX} s")
        self.port = int(line)
        return self

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        try:
            process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def kill(self) -> None:
        """SIGKILL: what a power cut or the kernel does to a provider."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and the end of the process."""
        self._end(signal.SIGTERM)

    # Control

    def _control(self, method: str, path: str, body: object = None) -> Any:  # a decoded JSON value
        data = None if body is None else msgspec.json.encode(body)
        request = urllib.request.Request(f"{self.origin}/control/{path}", data, method=method)  # noqa: S310 - our own loopback
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return msgspec.json.decode(answer.read())

    def fault(
        self, directives: str, *, path: str | None = None, model: str | None = None, credential: str | None = None,
        times: int | None = None,
    ) -> None:  # fmt: skip
        """Orders for the requests of a scope, for the next `times` of them or until `reset`."""
        scope = {"path": path, "model": model, "credential": credential, "times": times}
        self._control("POST", "faults", {"directives": directives, **scope})

    def requests(self, since: int = 0) -> list[dict[str, Any]]:
        """Requests seen after number `since`, as `farebox.simulator.journal.Seen`."""
        return self._control("GET", f"requests?since={since}")["requests"]

    def reset(self) -> None:
        """Forgets faults, counters, requests and cached prompts."""
        self._control("POST", "reset", {})

    # Bill

    def bill(self) -> list[BilledAttempt]:
        """The true bill as it stands; works on a dead provider too."""
        if self.bill_path is None or not self.bill_path.exists():
            return []
        return bill.read(self.bill_path)

    def settled_bill(self, attempts: int, within_s: float = 10.0) -> list[BilledAttempt]:
        """The bill once it has so many attempts, all of them final: a provider takes a moment to notice a hang-up."""
        end = time.monotonic() + within_s
        while True:
            found = self.bill()
            if len(found) >= attempts and all(attempt.final for attempt in found):
                return found
            if time.monotonic() > end:
                raise AssertionError(f"after {within_s} s the bill has {found!r}, not {attempts} final attempts")
            time.sleep(_POLL_S)
