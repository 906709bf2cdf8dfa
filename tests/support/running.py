"""A whole Farebox in child processes, for tests: its own data folder, its own port, real sockets, real signals."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bench import compiled
from farebox.billing import journal
from farebox.billing.books import customers, ledger
from farebox.billing.books.customers import Window
from farebox.billing.invariants import checks
from farebox.billing.position import Position
from farebox.billing.posting import poster
from farebox.cli.setup import MadeKey, initialise, make_key
from farebox.config import Loaded, load
from farebox.pepper import read_pepper
from farebox.ports import SystemClock, TimeOrderedIds
from farebox.storage.database import Database
from tests.support.shell import Shell

START_S_MAX = 45.0
STOP_S_MAX = 90.0
COMPILED = Path(os.environ["FAREBOX_COMPILED_PATH"]) if os.environ.get("FAREBOX_COMPILED_PATH") else None
"""The compiled package, which `make test` tells: servers under test run from it. Without it they are interpreted."""


def program_environment() -> dict[str, str]:
    """What the processes of Farebox under test have in their environment, to be the program that is under test."""
    return compiled.environment(COMPILED) if COMPILED is not None else {}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], Any], what: str, *, timeout_s: float = 20.0) -> Any:
    """The first true value of a condition; fails the test when it does not come in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"did not happen within {timeout_s} s: {what}")
        time.sleep(0.02)


class Farebox:
    """`farebox serve` over a folder. `with Farebox(folder, config="…") as box: box.post(…)`."""

    def __init__(
        self,
        folder: Path,
        *,
        config: str = "",
        workers: int = 1,
        local_model: bool = False,
        environment: Mapping[str, str] | None = None,
        database_url: str | None = None,
        server: str = "",
        billing: str = "",
    ) -> None:
        """`server` and `billing` are lines for those sections of the configuration, `config` is whatever comes after it."""
        self.folder = folder
        self.workers = workers
        self.port = free_port()
        # Provider keys of whoever runs the tests must not switch on providers that tests would then call.
        inherited = {name: value for name, value in os.environ.items() if not name.endswith(("_API_KEY", "_TOKEN"))}
        self.environment = {**inherited, **program_environment(), **(environment or {})}
        self.process: subprocess.Popen[bytes] | None = None
        self.errors = folder / "stderr.txt"
        loaded, made = initialise(folder)
        self.key = made.secret
        self.key_id = made.id
        text = loaded.path.read_text()
        if database_url is not None:
            text = text.replace('url = "sqlite:///farebox.db"', f'url = "{database_url}"')
        text = text.replace("[server]\n", f"[server]\n{server}\n")
        if "markup_percent" in billing:
            text = text.replace('markup_percent = "0"', "#")
        text = text.replace("[billing]\n", f"[billing]\n{billing}\n")
        if not local_model:
            text += "\n[local_model]\nenabled = false\n"
        self.config_path = loaded.path
        loaded.path.write_text(text + "\n" + config)

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "Farebox":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self, *, environment: Mapping[str, str] | None = None, wait: bool = True) -> "Farebox":
        assert self.process is None, "it is running already"
        with self.errors.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "farebox", "serve", "--config", str(self.config_path), "--port", str(self.port),
                 "--workers", str(self.workers)],
                stdout=subprocess.PIPE,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**self.environment, **(environment or {})},
                start_new_session=True,
            )  # fmt: skip
        if wait:
            try:
                self.wait_ready()
            except BaseException:
                self.kill()  # whoever asked for it gets nothing to end
                raise
        return self

    def wait_ready(self, timeout_s: float = START_S_MAX) -> None:
        def ready() -> bool:
            process = self.process
            assert process is not None and process.poll() is None, f"it ended: {self.log()}"
            try:
                return self.get("/readyz", key=None).status == 200
            except OSError:
                return False

        wait_until(ready, f"the server is ready; its log:\n{self.log()}", timeout_s=timeout_s)
        assert self.process is not None
        assert compiled.runs_compiled(self.process.pid) is (COMPILED is not None), f"compiled: {COMPILED}, but it runs otherwise"

    def log(self) -> str:
        return self.errors.read_text()[-4000:] if self.errors.exists() else ""

    def log_text(self) -> str:
        """All that was written to standard error so far."""
        return self.errors.read_text() if self.errors.exists() else ""

    def kill(self) -> None:
        """SIGKILL to everything at once."""
        self._end(signal.SIGKILL, 10.0)

    def stop(self) -> int:
        """SIGTERM: drain, post, end. The exit status."""
        return self._end(signal.SIGTERM, STOP_S_MAX)

    def _end(self, number: int, timeout_s: float) -> int:
        process, self.process = self.process, None
        if process is None:
            return 0
        if number == signal.SIGKILL:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        else:
            process.send_signal(number)
        status = process.wait(timeout_s)
        if process.stdout is not None:
            process.stdout.close()
        return status

    def children(self) -> dict[str, int]:
        """Process ids by module name: `worker`, `bookkeeper`."""
        assert self.process is not None
        found: dict[str, int] = {}
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in listed:
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended between the list and the look
            for word in words:
                if word.startswith(b"farebox.processes."):
                    found[word.rpartition(b".")[2].decode()] = int(pid)
        return found

    def worker_pids(self) -> list[int]:
        """Process ids of all gateway workers."""
        assert self.process is not None
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in listed if b"farebox.processes.worker" in _command_line(pid)]

    # --- calls ----------------------------------------------------------------------------------------------------------

    def request(
        self, method: str, path: str, body: bytes | None, *, key: str | None = "", headers: Mapping[str, str] | None = None
    ) -> "Reply":
        sent = {"content-type": "application/json", **(headers or {})}
        if key is not None:
            sent.setdefault("authorization", f"Bearer {key or self.key}")
        request = urllib.request.Request(self.base + path, data=body, method=method, headers=sent)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return Reply(response.status, dict(response.headers), response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, dict(error.headers), error.read())

    def post(self, path: str, body: Any, **options: Any) -> "Reply":
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.request("POST", path, data, **options)

    def get(self, path: str, **options: Any) -> "Reply":
        return self.request("GET", path, None, **options)

    def chat(self, model: str, text: str = "hello", **fields: Any) -> "Reply":
        return self.post("/v1/chat/completions", {"model": model, "messages": [{"role": "user", "content": text}], **fields})

    # --- command line ---------------------------------------------------------------------------------------------------

    def cli(self, *arguments: str, check: bool = True) -> Any:
        """Run a command with `--json` over this folder; its parsed output."""
        done = subprocess.run(
            [sys.executable, "-m", "farebox", *arguments, "--json", "--config", str(self.config_path)],
            capture_output=True,
            env=self.environment,
            timeout=60,
        )
        if check:
            assert done.returncode == 0, f"{arguments}: {done.stderr.decode()}{done.stdout.decode()[-2000:]}"
        return json.loads(done.stdout) if done.stdout.strip() else {"error": done.stderr.decode()}

    def do(self, *arguments: str) -> Any:
        """The same in this process, and it must succeed: for what a test needs done or wants to know but is not about."""
        with patch.dict(os.environ, self.environment, clear=True):
            return Shell(self.folder).json(*arguments)

    def customer(
        self, name: str, *, credit_nano: int = 0, budget_nano: int | None = None, window: Window = "none"
    ) -> MadeKey:
        """A new account with a key; quicker than three commands."""
        clock = SystemClock()
        ids = TimeOrderedIds(clock)
        account = ids.new("acc")
        with self.database() as (loaded, database):
            customers.create_account(database, id=account, name=name, kind="prepaid", now_us=clock.now_us())
            if credit_nano:
                ledger.top_up(
                    database, ids, command_id=ids.new("cmd"), account_id=account, amount_nano=credit_nano, now_us=clock.now_us()
                )
            return make_key(
                database, read_pepper(loaded), account_id=account, name=name, budget_nano=budget_nano, window=window
            )

    @contextmanager
    def database(self) -> Generator[tuple[Loaded, Database]]:
        """Its configuration and its database, from this process."""
        loaded = load(self.config_path, self.environment)
        with Database.open(loaded.database_url) as database:
            yield loaded, database

    def check_books(self) -> None:
        """What `farebox ledger check` does finds nothing."""
        with self.database() as (loaded, database):
            found = checks.check(database, loaded.journal_dir)
        assert not found, found

    def posted(self) -> bool:
        """Whether every record of the journals is in the ledger, as `farebox doctor` sees it."""
        with self.database() as (loaded, database):
            positions = poster.positions(database)
            slots = loaded.journal_dir.glob("w*")
            return not any(journal.read(slot, positions.get(slot.name, Position()), records_max=1)[0] for slot in slots)

    def wait_posted(self) -> None:
        wait_until(self.posted, "everything is posted")


class Reply:
    """One HTTP answer."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = {name.lower(): value for name, value in headers.items()}
        self.body = body

    def json(self) -> Any:
        return json.loads(self.body)

    def events(self) -> list[Any]:
        """The JSON of an event stream, without comments and the end marker."""
        lines = [line[6:] for line in self.body.decode().splitlines() if line.startswith("data: ")]
        return [json.loads(line) for line in lines if line != "[DONE]"]


def provider(name: str, base_url: str, *, wire: str = "openai_chat", extra: str = "") -> str:
    """A `[providers.NAME]` table."""
    return f'[providers.{name}]\nwire = "{wire}"\nbase_url = "{base_url}"\napi_key = "test-key"\n{extra}\n'


def model(slug: str, *offers: str, context: int = 128_000, output: int = 4096) -> str:
    """A `[[models]]` table over offers made by `offer`."""
    sizes = f"context_window = {context}\nmax_output_tokens = {output}"
    return f'[[models]]\nslug = "{slug}"\n{sizes}\noffers = [{", ".join(offers)}]\n'


def offer(name: str, id: str, *, input: str = "2.50", output: str = "10.00", **more: str) -> str:
    rest = "".join(f', {key} = "{value}"' for key, value in more.items())
    return f'{{ provider = "{name}", id = "{id}", input = "{input}", output = "{output}"{rest} }}'


def _command_line(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""  # it ended between the list and the look


def read_line(stream: Any, timeout_s: float) -> bytes:
    """One line of a pipe, or nothing in time."""
    ready, _, _ = select.select([stream], [], [], timeout_s)
    return stream.readline() if ready else b""
