"""Other gateways, only with PEERS=1: each installed from its registry into `.bench/` and run from there."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from bench import cpu
from bench.targets import START_S_MAX, Mock, Target, TargetFailed, clean_environment, free_port, running, wait_answering

HOME = Path(__file__).parents[1] / ".bench"
INSTALL_S_MAX = 900.0
# 1.107.0 was a compromised release; the `proxy` extra of those after it asks for a package that PyPI does not have.
LITELLM = "litellm[proxy]==1.106.12"
TENSORZERO = "tensorzero==2026.6.0"
PORTKEY = "@portkey-ai/gateway@1.15.2"


class PeerMissing(Exception):
    """A peer could not be installed."""


def _install(name: str, requirement: str, *commands: list[str]) -> Path:
    """The peer's folder, complete and of this very version."""
    HOME.mkdir(exist_ok=True)
    (HOME / ".gitignore").write_text("*\n")
    folder = HOME / name
    stamp = folder / "installed"
    if stamp.is_file() and stamp.read_text() == requirement:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for command in commands:
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S_MAX, env=clean_environment(), check=False
            )
        except (FileNotFoundError, subprocess.TimeoutExpired) as error:
            raise PeerMissing(f"{requirement} could not be installed: {error}") from None
        if done.returncode:
            raise PeerMissing(f"{requirement} could not be installed: {(done.stderr or done.stdout).strip()[-300:]}")
    stamp.write_text(requirement)
    return folder


def _venv(name: str, requirement: str) -> Path:
    pip = ["bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", requirement]
    return _install(name, requirement, [sys.executable, "-m", "venv", "."], pip)


@contextmanager
def litellm(folder: Path, upstream: Mock) -> Generator[Target, None, None]:
    """Its proxy with a master key and without a database: it keeps no books in this setting."""
    home = _venv("litellm", LITELLM)
    port = free_port()
    config = folder / "litellm.yaml"
    model = (
        '  - model_name: "{name}"\n    litellm_params:\n      model: "openai/{id}"\n'
        '      api_base: "http://127.0.0.1:{port}/v1"\n      api_key: "upstream-key"\n'
    )
    config.write_text(
        "model_list:\n"
        + model.format(name="plain", id=upstream.plain, port=upstream.port)
        + model.format(name="streaming", id=upstream.streaming, port=upstream.port)
        + 'general_settings:\n  master_key: "sk-bench"\nlitellm_settings:\n  telemetry: false\n'
    )
    command = [
        str(home / "bin/litellm"),
        "--config",
        str(config),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--num_workers",
        "1",
    ]
    environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "PYTHONUNBUFFERED": "1"}
    with running("litellm", command, folder / "litellm.log", environment=environment, folder=folder) as process:
        target = Target(
            name="litellm",
            port=port,
            pids=lambda: cpu.family(process.pid),
            headers={"authorization": "Bearer sk-bench"},
            plain="plain",
            streaming="streaming",
            note="its proxy, one worker, a master key; no database, so no books",
        )
        wait_answering(process, target)
        yield target


TENSORZERO_START = """\
import sys, time
from tensorzero import tensorzero
gateway = tensorzero._start_http_gateway(
    config_file=sys.argv[1], clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False
)
open(sys.argv[2], "w").write(gateway.base_url)
while True:
    time.sleep(3600)
"""


@contextmanager
def tensorzero(folder: Path, upstream: Mock) -> Generator[Target, None, None]:
    """The gateway that its Python client starts within its own process, listening on a port of its choice."""
    home = _venv("tensorzero", TENSORZERO)
    config, address, program = folder / "tensorzero.toml", folder / "tensorzero.url", folder / "tensorzero_start.py"
    model = (
        '[models.{name}]\nrouting = ["mock"]\n[models.{name}.providers.mock]\ntype = "openai"\nmodel_name = "{id}"\n'
        'api_base = "http://127.0.0.1:{port}/v1/"\napi_key_location = "none"\n'
    )
    config.write_text(
        model.format(name="plain", id=upstream.plain, port=upstream.port)
        + model.format(name="streaming", id=upstream.streaming, port=upstream.port)
        + "[gateway]\nobservability.enabled = false\n"
    )
    program.write_text(TENSORZERO_START)
    command = [str(home / "bin/python"), str(program), str(config), str(address)]
    with running("tensorzero", command, folder / "tensorzero.log", folder=folder) as process:
        port = _wait_address(process, address)
        target = Target(
            name="tensorzero",
            port=port,
            pids=lambda: cpu.family(process.pid),
            path="/openai/v1/chat/completions",
            plain="tensorzero::model_name::plain",
            streaming="tensorzero::model_name::streaming",
            note="its embedded gateway; no keys, no database, so no books",
        )
        wait_answering(process, target)
        yield target


def _wait_address(process: "subprocess.Popen[bytes]", address: Path) -> int:
    deadline_s = time.monotonic() + START_S_MAX
    while time.monotonic() < deadline_s and process.poll() is None:
        if address.exists() and (text := address.read_text()):
            return int(text.rstrip("/").split("/")[2].rpartition(":")[2])
        time.sleep(0.1)
    raise TargetFailed("tensorzero did not start")


@contextmanager
def portkey(folder: Path, upstream: Mock) -> Generator[Target, None, None]:
    """Its Node gateway; the provider is named in headers, so it keeps nothing at all."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        raise PeerMissing("Node is not installed")
    install = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", ".", PORTKEY]
    home = _install("portkey", PORTKEY, install)
    port = free_port()
    program = home / "node_modules/@portkey-ai/gateway/build/start-server.js"
    environment = {"NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost", "PORT": str(port)}
    command = [node, str(program), f"--port={port}", "--headless"]
    with running("portkey", command, folder / "portkey.log", environment=environment, folder=folder) as process:
        target = Target(
            name="portkey",
            port=port,
            pids=lambda: cpu.family(process.pid),
            headers={
                "authorization": "Bearer upstream-key",
                "x-portkey-provider": "openai",
                "x-portkey-custom-host": f"http://127.0.0.1:{upstream.port}/v1",
            },
            plain=upstream.plain,
            streaming=upstream.streaming,
            note="its Node gateway; no keys, no database, so no books",
        )
        wait_answering(process, target)
        yield target


PEERS: dict[str, Callable[[Path, Mock], AbstractContextManager[Target]]] = {
    "litellm": litellm,
    "tensorzero": tensorzero,
    "portkey": portkey,
}
