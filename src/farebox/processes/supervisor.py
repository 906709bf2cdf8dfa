"""The supervisor: starts the workers, the bookkeeper and the local model, restarts what dies, and ends them in order.

SIGTERM drains: workers first (no new calls, streams finish), then the bookkeeper posts what is left, then the model. If the
supervisor itself is killed, the kernel kills its children, and the next start finishes their journals.
"""

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import msgspec

from farebox.config import ConfigError, Loaded
from farebox.gate import limit_file
from farebox.processes import local_model
from farebox.processes.channels import configured_channels
from farebox.processes.slots import finish_orphans

POLL_S = 0.1
RESTART_PAUSE_S = 0.2
RESTART_PAUSE_MAX_S = 5.0
HEALTHY_S = 10.0
"""A child that lived this long is restarted at once."""
BACKLOG = 2048
MODEL_STOP_S = 5.0
MODEL_START_S = 20.0
"""How long the banner waits for the model to load, so that the call it shows works at once."""
BIND_WAIT_S = 5.0


class Child(msgspec.Struct):
    """One supervised process."""

    name: str
    command: list[str]
    pass_fds: tuple[int, ...] = ()
    quiet: bool = False
    """Its standard output is of no interest."""
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    pause_s: float = RESTART_PAUSE_S
    not_before_s: float = 0.0
    died: Callable[[], None] | None = None
    """What is done when it was found dead, before it is started again."""

    def start(self) -> None:
        self.started_s = time.monotonic()
        self.process = subprocess.Popen(
            self.command,
            pass_fds=self.pass_fds,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if self.quiet else None,
        )

    def keep_alive(self) -> None:
        """Start it again if it has died, with growing pauses if it keeps dying young."""
        now_s = time.monotonic()
        if self.process is not None and self.process.poll() is not None:
            code = self.process.returncode
            sys.stderr.write(f"farebox: {self.name} ended with status {code}; starting it again\n")
            lived_s = now_s - self.started_s
            self.pause_s = RESTART_PAUSE_S if lived_s > HEALTHY_S else min(self.pause_s * 2, RESTART_PAUSE_MAX_S)
            self.not_before_s = now_s + (0.0 if lived_s > HEALTHY_S else self.pause_s)
            self.process = None
            if self.died is not None:
                self.died()
        if self.process is None and now_s >= self.not_before_s:
            self.start()

    def stop(self, timeout_s: float) -> None:
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listen(host: str, port: int) -> socket.socket:
    """The socket that all workers accept from. Raises `ConfigError` when the address is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    deadline_s = time.monotonic() + BIND_WAIT_S
    while True:
        try:
            listening.bind((host, port))
            break
        except OSError as error:
            # A predecessor that was killed a moment ago may still hold it.
            if time.monotonic() > deadline_s or error.errno != errno.EADDRINUSE:
                taken = error.errno == errno.EADDRINUSE
                fix = "stop what uses it or set `server.port`" if taken else "set `server.host` to an address of this machine"
                raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}; {fix}") from None
            time.sleep(POLL_S)
    listening.listen(BACKLOG)
    listening.set_inheritable(True)
    return listening


def is_healthy(port: int, path: str, host: str = "127.0.0.1") -> bool:
    """Whether a server on this machine answers 200 on a path; llama.cpp's `/health` is a 503 until its model is loaded."""
    try:
        with socket.create_connection((host, port), timeout=1.0) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
            return connection.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def supervise(loaded: Loaded, *, workers: int, host: str, port: int, ready: Callable[[str, bool], None]) -> None:
    """Run until SIGTERM or SIGINT. `ready(base URL, local model on)` is called once the socket listens."""
    configured_channels(loaded, None)
    finish_orphans(loaded, workers)
    listening = listen(host, port)
    bound_port = int(listening.getsockname()[1])
    parent = str(os.getpid())
    python = sys.executable
    config = str(loaded.path)
    children: list[Child] = []
    model: Child | None = None
    local_url: str | None = None
    model_port = 0
    settings = loaded.config.local_model
    if settings.enabled and not local_model.installed():
        raise ConfigError(
            f"{loaded.path}: `local_model.enabled` is true, but its packages are not installed; `make run` installs them, "
            "or set it to false"
        )
    if settings.enabled if settings.enabled is not None else local_model.installed():
        model_port = settings.port or free_port()
        local_url = f"http://127.0.0.1:{model_port}"
        model = Child(
            "local model",
            [python, "-m", "farebox.processes.local_model", "--port", str(model_port), "--threads", str(settings.threads),
             "--context-window", str(settings.context_window), "--parallel", str(settings.parallel), "--parent", parent],
            quiet=True,
        )  # fmt: skip
    bookkeeper = Child("bookkeeper", [python, "-m", "farebox.processes.bookkeeper", "--config", config, "--parent", parent])
    run_dir = loaded.folder / "run"
    run_dir.mkdir(exist_ok=True)
    try:
        limits = limit_file.make(run_dir, workers=workers)
    except OSError as error:
        raise ConfigError(f"{run_dir}: the rate limits' file cannot be made: {error.strerror}; make room on the disk") from None
    for number in range(workers):
        command = [
            python, "-m", "farebox.processes.worker", "--config", config, "--slot", str(number),
            "--fd", str(listening.fileno()), "--parent", parent, "--limits", str(limits), "--workers", str(workers),
        ]  # fmt: skip
        if local_url is not None:
            command += ["--local-url", local_url]
        died = partial(limit_file.forget, limits, workers=workers, worker=number)
        children.append(Child(f"worker {number}", command, (listening.fileno(),), died=died))
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    reached_at = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - the wildcard is looked up, not bound
    family_host = f"[{host}]" if ":" in host else host
    try:
        for child in [*children, bookkeeper, *([model] if model is not None else [])]:
            child.start()
        deadline_s = time.monotonic() + MODEL_START_S
        # The banner tells the truth: a worker answers, and the model has loaded. What takes longer is shown as it is.
        while not stopping and time.monotonic() < deadline_s:
            if is_healthy(bound_port, "/healthz", reached_at) and (model is None or is_healthy(model_port, "/health")):
                break
            for child in [*children, bookkeeper]:
                child.keep_alive()
            time.sleep(POLL_S)
        ready(f"http://{family_host}:{bound_port}", model is not None)
        while not stopping:
            for child in [*children, bookkeeper, *([model] if model is not None else [])]:
                child.keep_alive()
            time.sleep(POLL_S)
    finally:
        listening.close()
        drain_s = loaded.config.server.drain_s + 10.0
        for child in children:
            if child.process is not None:
                child.process.terminate()
        for child in children:
            child.stop(drain_s)
        bookkeeper.stop(30.0)
        if model is not None:
            model.stop(MODEL_STOP_S)
