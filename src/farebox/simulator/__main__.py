"""`python -m farebox.simulator`: a provider for tests, its port on the first line of stdout."""

import argparse
import ctypes
import os
import signal
import sys
from pathlib import Path

from farebox.simulator.config import ANSWER_TOKENS_MAX, ANSWER_TOKENS_MIN, CACHE_TOKENS_MIN, FSYNC_TOKENS, SimulatorConfig
from farebox.simulator.dialects import DIALECTS
from farebox.simulator.directives import table
from farebox.simulator.server import serve

_PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> None:
    """Has the kernel kill this process when its parent ends, and ends it now when that has happened already."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


class _EndWithParent(argparse.Action):
    """Acts as it is read: nothing of the server exists yet."""

    def __call__(self, parser: object, namespace: object, values: object, option_string: str | None = None) -> None:
        end_with(int(str(values)))


def config_from(arguments: list[str] | None = None) -> SimulatorConfig:
    """The command line → a config."""
    parser = argparse.ArgumentParser(
        prog="python -m farebox.simulator",
        description="A simulated provider of AI models.",
        epilog="directives, written behind a model's name as sim+tokens=50+status=503:\n\n" + table(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes any free port")
    parser.add_argument("--seed", type=int, default=0, help="decides every answer, together with the request")
    parser.add_argument("--bill", type=Path, help="append the true bill to this file")
    parser.add_argument("--no-bill-sync", action="store_true", help="leave syncing the bill to the kernel")
    parser.add_argument("--fsync-tokens", type=int, default=FSYNC_TOKENS, help="tokens between two progress lines")
    parser.add_argument("--bill-to-the-end", action="store_true", help="generate and invoice on though the caller hung up")
    parser.add_argument("--dialect", choices=sorted(DIALECTS), default="openai", help="usage on the chat wire")
    parser.add_argument("--model", action="append", default=[], help="another model name to serve; repeatable")
    parser.add_argument("--any-model", action="store_true", help="serve every model name")
    parser.add_argument("--cache-min", type=int, default=CACHE_TOKENS_MIN, help="tokens of the shortest cached prefix")
    parser.add_argument("--answer-max", type=int, default=ANSWER_TOKENS_MAX, help="words of the longest answer; at least 8")
    parser.add_argument("--no-control", action="store_true", help="do not serve /control")
    parser.add_argument("--end-with-parent", action=_EndWithParent, metavar="PID", help="end when this parent process ends")
    given = parser.parse_args(arguments)
    if given.answer_max < ANSWER_TOKENS_MIN:
        parser.error(f"--answer-max {given.answer_max} is below {ANSWER_TOKENS_MIN}")
    return SimulatorConfig(
        host=given.host,
        port=given.port,
        seed=given.seed,
        bill=given.bill,
        bill_sync=not given.no_bill_sync,
        fsync_tokens=given.fsync_tokens,
        abort_stops_billing=not given.bill_to_the_end,
        dialect=given.dialect,
        models=tuple(given.model),
        any_model=given.any_model,
        cache_tokens_min=given.cache_min,
        answer_tokens_max=given.answer_max,
        control=not given.no_control,
    )


if __name__ == "__main__":
    serve(config_from())
