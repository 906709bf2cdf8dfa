"""`python -m bench`; see docs/performance.md. Numbers that are over what is expected are not a failure: only breakage is."""

import argparse
import os
import signal
import sys
from pathlib import Path

import msgspec

from bench import compiled, report
from bench.load import LoadFailed
from bench.run import Options, run, soak
from bench.targets import OFFERS_MAX, TargetFailed


def options_from(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="CPU, latency and memory of Farebox beside nginx and peers."
    )
    parser.add_argument("--quick", action="store_true", help="2 rounds of 1 s: a look, not a measurement")
    parser.add_argument("--rounds", type=int, help="default 5")
    parser.add_argument("--seconds", type=float, help="length of a load; half of it at concurrency 1 (default 5)")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--chunks", type=int, default=200, help="per stream")
    parser.add_argument("--delay-ms", type=int, default=5, help="between two chunks of a stream")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="this target beside `direct`; repeatable")
    parser.add_argument(
        "--peers", action="store_true", default=os.environ.get("PEERS", "") not in {"", "0"}, help="other gateways too (PEERS=1)"
    )
    parser.add_argument("--soak", type=int, metavar="N", help="instead: Farebox's memory over N calls")
    parser.add_argument("--interpreted", action="store_true", help="Farebox from the source as it is, not what was compiled")
    parser.add_argument("--offers", type=int, default=8, help="of each of Farebox's models, at providers that are all the mock")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured to this file")
    return parser.parse_args(arguments)


def _terminated(*_: object) -> None:
    """Leave through the `with` statements, so that nothing stays behind."""
    sys.exit(1)


def main() -> int:
    given = options_from()
    if not 1 <= given.offers <= OFFERS_MAX:
        print(f"bench: --offers is {given.offers}; it has to be from 1 to {OFFERS_MAX}", file=sys.stderr)
        return 2
    options = Options(
        rounds=given.rounds or (2 if given.quick else 5),
        seconds=given.seconds or (1.0 if given.quick else 5.0),
        warm_s=0.2 if given.quick else 0.5,
        concurrency=given.concurrency,
        chunks=given.chunks,
        delay_ms=given.delay_ms,
        peers=given.peers,
        only=tuple(given.only),
        interpreted=given.interpreted,
        offers=given.offers,
    )
    if not options.interpreted:
        try:
            compiled.check(compiled.FOLDER)
        except compiled.NotCompiled as error:
            print(f"bench: {error}, --interpreted measures without", file=sys.stderr)
            return 2
    signal.signal(signal.SIGTERM, _terminated)
    warning = report.quiet()
    print(report.machine())
    print(report.program(options))
    if warning:
        print(warning)
    print(flush=True)
    try:
        if given.soak:
            found = soak(given.soak, options)
            print(report.soak_table(found))
        else:
            found = run(options)
            print(report.tables(found))
            print()
            print(report.expectations(found))
    except (LoadFailed, TargetFailed, ProcessLookupError) as error:
        notes = "".join(f"\n{note}" for note in getattr(error, "__notes__", []))
        print(f"bench: {error}{notes}", file=sys.stderr)
        return 1
    if given.json is not None:
        said = {"machine": report.machine(), "program": report.program(options), "result": found}
        given.json.write_bytes(msgspec.json.format(msgspec.json.encode(said), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
