"""What is measured: the mock itself, nginx, Farebox. Each is a context manager that gives a running `Target`.

Everything lives in a temporary folder and on free loopback ports, and ends with this process. The peers are in `peers.py`.
"""

import ctypes
import json
import os
import shutil
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

import msgspec

from bench import compiled, cpu
from farebox.billing import journal
from farebox.billing.books import ledger
from farebox.billing.position import Position
from farebox.billing.posting import poster
from farebox.cli.setup import FIRST_ACCOUNT, initialise, make_key
from farebox.money import parse_amount
from farebox.pepper import read_pepper
from farebox.ports import SystemClock, TimeOrderedIds
from farebox.storage import queries
from farebox.storage.database import Database

START_S_MAX = 90.0
STOP_S_MAX = 20.0
POSTED_S_MAX = 120.0
POLL_S = 0.05
UPSTREAM_KEY = {"authorization": "Bearer upstream-key"}
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class TargetFailed(Exception):
    """A target did not start, or gave up; the message has the end of its log."""


class Mock(msgspec.Struct, frozen=True):
    """The upstream: its port, and the model names that order its answers."""

    port: int
    plain: str
    streaming: str


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Something that answers chat completions on a loopback port."""

    name: str
    port: int
    pids: Callable[[], list[int]]
    """Every process whose CPU and memory are its own; none for the mock."""
    path: str = "/v1/chat/completions"
    headers: Mapping[str, str] = {}
    plain: str
    """The model's name for plain answers, as this target's callers write it."""
    streaming: str
    settle: Callable[[], None] = lambda: None
    """Waits until work that the calls have left behind is done."""
    note: str = ""
    """What differs from the others."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def clean_environment() -> dict[str, str]:
    """Without the provider keys of whoever runs this: nothing here may call a real provider."""
    return {name: value for name, value in os.environ.items() if not name.endswith(("_API_KEY", "_TOKEN"))}


@contextmanager
def running(
    name: str, command: list[str], log: Path, *, environment: Mapping[str, str] | None = None, folder: Path | None = None
) -> Generator[subprocess.Popen[bytes], None, None]:
    """A child in a session of its own, with its output in a file; it and its children are gone afterwards."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**clean_environment(), **(environment or {})},
            cwd=folder,
            preexec_fn=_end_with_parent,  # safe: this process has one thread
        )
    try:
        yield process
    except Exception as error:
        tail = log.read_text(errors="replace")[-1500:].strip()
        error.add_note(f"log of {name}: {tail or 'empty'}")
        raise
    finally:
        process.terminate()
        try:
            process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()


def wait_answering(process: subprocess.Popen[bytes], target: Target) -> None:
    """One plain call, until it is answered."""
    body = json.dumps({"model": target.plain, "messages": [{"role": "user", "content": "hello"}]}).encode()
    url = f"http://127.0.0.1:{target.port}{target.path}"
    headers = {"content-type": "application/json", **target.headers}
    deadline_s = time.monotonic() + START_S_MAX
    problem = ""
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            raise TargetFailed(f"{target.name} ended with status {process.returncode} at its start")
        try:
            request = urllib.request.Request(url, body, headers)
            with urllib.request.urlopen(request, timeout=10) as answer:
                answer.read()
                return
        except urllib.error.HTTPError as error:
            problem = f"status {error.code}: {error.read()[:300].decode(errors='replace')}"
        except OSError as error:
            problem = str(error)
        time.sleep(0.1)
    raise TargetFailed(f"{target.name} did not answer within {START_S_MAX} s: {problem}")


# --- the mock, and straight to it -------------------------------------------------------------------------------------------


@contextmanager
def mock(folder: Path, *, chunks: int, delay_ms: int) -> Generator[Mock, None, None]:
    """Farebox's simulator, without a bill."""
    found = Mock(free_port(), "bench", f"bench+tokens={chunks}+delay-chunk={delay_ms}ms")
    command = [sys.executable, "-m", "farebox.simulator", "--port", str(found.port), "--end-with-parent", str(os.getpid())]
    with running("the mock", command, folder / "mock.log") as process:
        wait_answering(process, direct(found))
        yield found


def direct(upstream: Mock) -> Target:
    return Target(
        name="direct", port=upstream.port, pids=list, headers=UPSTREAM_KEY, plain=upstream.plain, streaming=upstream.streaming
    )


# --- nginx ------------------------------------------------------------------------------------------------------------------

NGINX = """\
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 100000000;
    upstream mock {{
        server 127.0.0.1:{upstream};
        keepalive 512;
        keepalive_requests 100000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=2048;
        location / {{
            proxy_pass http://mock;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""


def nginx_path() -> str | None:
    return shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


@contextmanager
def nginx(folder: Path, upstream: Mock) -> Generator[Target, None, None]:
    """One worker, kept-alive connections on both sides, chunks passed on as they come."""
    program = nginx_path()
    assert program is not None
    folder = folder / "nginx"
    folder.mkdir()
    port = free_port()
    config = folder / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""  # so that its worker may use the temporary folder
    config.write_text(NGINX.format(folder=folder, port=port, upstream=upstream.port, user=user))
    command = [program, "-p", str(folder), "-e", str(folder / "nginx-error.log"), "-c", str(config)]
    with running("nginx", command, folder / "nginx-error.log") as process:
        target = Target(
            name="nginx",
            port=port,
            pids=lambda: cpu.family(process.pid),
            headers=UPSTREAM_KEY,
            plain=upstream.plain,
            streaming=upstream.streaming,
        )
        wait_answering(process, target)
        yield target


# --- Farebox ----------------------------------------------------------------------------------------------------------------

FAREBOX = """
[local_model]
enabled = false

[limits]
requests_per_minute = 6000000       # on, and out of the way
concurrent_calls = 4000
"""
PROVIDER = """
[providers.{name}]
wire = "openai_chat"
base_url = "http://127.0.0.1:{port}/v1"
api_key = "upstream-key"
"""
MODEL = """
[[models]]
slug = "{slug}"
context_window = 128000
max_output_tokens = 4096
offers = [{offers}]
"""
OFFER = '{{ provider = "{name}", id = "{id}", input = "2.50", cached_input = "1.25", output = "10.00" }}'
OFFERS_MAX = 64


def configuration(upstream: Mock, offers: int) -> str:
    """Of Farebox: two models, each offered by so many providers, all of which are the mock."""
    assert 1 <= offers <= OFFERS_MAX
    names = ["mock", *(f"mock{number}" for number in range(2, offers + 1))]
    providers = "".join(PROVIDER.format(name=name, port=upstream.port) for name in names)

    def model(slug: str, id: str) -> str:
        return MODEL.format(slug=slug, offers=", ".join(OFFER.format(name=name, id=id) for name in names))

    return FAREBOX + providers + model("mock/plain", upstream.plain) + model("mock/streaming", upstream.streaming)


CREDIT_USD = "1000000.00"
BUDGET_USD = "900000.00"


@contextmanager
def farebox(folder: Path, upstream: Mock, *, interpreted: bool, offers: int) -> Generator[Target, None, None]:
    """One worker, with a bookkeeper and a supervisor: a prepaid account, a key with a monthly budget, limits, holds,
    the journal and the ledger; each model with so many offers. From the compiled package, or from the source as it is."""
    folder = folder / "farebox"
    loaded, _ = initialise(folder)
    config = loaded.path
    config.write_text(config.read_text() + configuration(upstream, offers))
    clock = SystemClock()
    with Database.open(loaded.database_url) as books:
        account = books.read(lambda connection: queries.account(connection, FIRST_ACCOUNT))
        assert account is not None
        ledger.top_up(
            books,
            TimeOrderedIds(clock),
            command_id="bench",
            account_id=account.id,
            amount_nano=parse_amount(CREDIT_USD),
            now_us=clock.now_us(),
        )
        pepper = read_pepper(loaded)
        made = make_key(books, pepper, account_id=account.id, name="bench", budget_nano=parse_amount(BUDGET_USD), window="month")
    port = free_port()
    command = [sys.executable, "-m", "farebox", "serve", "--config", str(config), "--port", str(port), "--workers", "1"]
    environment = {} if interpreted else compiled.environment(compiled.FOLDER)
    slot = folder / "journal" / "w0"
    with (
        running("farebox", command, folder / "serve.log", environment=environment) as process,
        Database.open(loaded.database_url) as database,
    ):

        def settle() -> None:
            """Everything is in the ledger."""
            deadline_s = time.monotonic() + POSTED_S_MAX
            while time.monotonic() < deadline_s:
                position = poster.positions(database).get("w0", Position())
                if not journal.read(slot, position, records_max=1)[0]:
                    return
                time.sleep(POLL_S)
            raise TargetFailed(f"the calls were not posted within {POSTED_S_MAX} s")

        target = Target(
            name="farebox",
            port=port,
            pids=lambda: cpu.family(process.pid),
            headers={"authorization": f"Bearer {made.secret}"},
            plain="mock/plain",
            streaming="mock/streaming",
            settle=settle,
        )
        wait_answering(process, target)
        if compiled.runs_compiled(process.pid) is interpreted:
            raise TargetFailed(f"farebox runs {'compiled' if interpreted else 'interpreted'}, which was not asked for")
        yield target
