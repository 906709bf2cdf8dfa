"""The rounds: every target in turn, the same three loads each, again and again, so that a noisy minute hits all alike."""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path

import msgspec

from bench import cpu, peers, targets
from bench.load import Load, LoadFailed, Result, Spec
from bench.targets import Mock, Target, TargetFailed

BODY_BYTES = 1400
ANSWER_TOKENS_MAX = 256
SOAK_PARTS = 20
MIB = 2**20


class Options(msgspec.Struct, frozen=True, kw_only=True):
    rounds: int = 5
    seconds: float = 5.0
    warm_s: float = 0.5
    concurrency: int = 64
    chunks: int = 200
    delay_ms: int = 5
    peers: bool = False
    only: tuple[str, ...] = ()
    """Names of targets; empty: all."""
    interpreted: bool = False
    """Farebox from its source, in place of the compiled package."""
    offers: int = 8
    """Of each of Farebox's models."""


class Sample(msgspec.Struct, frozen=True):
    """One load on one target in one round."""

    load: Result
    cpu_ns: dict[str, int]
    """By process."""
    rss_bytes: int

    @property
    def spent_ns(self) -> int:
        return sum(self.cpu_ns.values())


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A target's medians over the rounds. Latencies are added ones, in µs: less those of `direct` in the same round."""

    name: str
    note: str = ""
    cpu_us_per_call: float = 0.0
    cpu_us_per_call_single: float = 0.0
    """At concurrency 1."""
    cpu_us_per_chunk: float = 0.0
    call_us_by_process: dict[str, float] = {}
    chunk_us_by_process: dict[str, float] = {}
    calls_per_s: float = 0.0
    chunks_per_s: float = 0.0
    single_p50_us: float = 0.0
    single_p99_us: float = 0.0
    many_p50_us: float = 0.0
    many_p99_us: float = 0.0
    first_chunk_p50_us: float = 0.0
    first_chunk_p99_us: float = 0.0
    chunks_per_read: float = 0.0
    rss_bytes: int = 0


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    options: Options
    rows: list[Row]
    skipped: dict[str, str]
    """Name → why it is not among the rows, or has no numbers for one of the loads."""
    samples: dict[str, dict[str, list[Sample]]]
    """Name → load → one per round."""


def body(model: str, *, stream: bool) -> str:
    """A chat completion of `BODY_BYTES` bytes, as SDKs write it."""
    value = {
        "model": model,
        "messages": [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": ""}],
        "max_tokens": ANSWER_TOKENS_MAX,
        "temperature": 0.7,
    }
    if stream:
        value["stream"] = True
    missing = BODY_BYTES - len(json.dumps(value))
    words = "the quick brown fox jumps over the lazy dog and thinks about it " * (missing // 64 + 1)
    value["messages"][1]["content"] = words[:missing]  # type: ignore[index]
    text = json.dumps(value)
    assert len(text) == BODY_BYTES, len(text)
    return text


def specs(target: Target, options: Options) -> dict[str, Spec]:
    """The loads: plain calls one at a time and many at a time, and streams."""

    def spec(model: str, *, concurrency: int, seconds: float, chunks: int = 0) -> Spec:
        return Spec(
            port=target.port,
            path=target.path,
            headers=dict(target.headers),
            body=body(model, stream=chunks > 0),
            concurrency=concurrency,
            warm_s=options.warm_s,
            seconds=seconds,
            chunks_min=chunks,
        )

    return {
        "single": spec(target.plain, concurrency=1, seconds=options.seconds / 2),
        "many": spec(target.plain, concurrency=options.concurrency, seconds=options.seconds),
        "stream": spec(target.streaming, concurrency=options.concurrency, seconds=options.seconds, chunks=options.chunks),
    }


def measure(load: Load, target: Target, spec: Spec) -> Sample:
    """One load: warm up, settle, read, send, settle, read."""
    load.prepare(spec)
    target.settle()
    before = cpu.read(target.pids())
    result = load.go()
    target.settle()
    after = cpu.read(target.pids())
    spent_ns: dict[str, int] = {}
    for pid, run_ns in cpu.spent_ns(before, after).items():
        name = process_name(pid)
        spent_ns[name] = spent_ns.get(name, 0) + run_ns
    return Sample(result, spent_ns, sum(usage.rss_bytes for usage in after.values()))


def process_name(pid: int) -> str:
    """`worker`, `bookkeeper`; Farebox's supervisor and all of the others' are `main`."""
    words = (cpu.PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    for word in words:
        if word.startswith(b"farebox.processes."):
            return word.rpartition(b".")[2].decode()
    return "main"


def start_all(stack: ExitStack, folder: Path, upstream: Mock, options: Options) -> tuple[list[Target], dict[str, str]]:
    """Everything that can run here; for the rest, why not."""
    skipped: dict[str, str] = {}
    found: list[Target] = [targets.direct(upstream)]

    def add(name: str, make: Callable[[Path, Mock], AbstractContextManager[Target]], missing: str | None = None) -> None:
        if options.only and name not in options.only:
            return
        if missing is not None:
            skipped[name] = missing
            return
        say(f"starting {name}")
        try:
            found.append(stack.enter_context(make(folder, upstream)))
        except (TargetFailed, peers.PeerMissing) as error:
            if name == "farebox":
                raise
            skipped[name] = " ".join([str(error), *getattr(error, "__notes__", [])])

    add("nginx", targets.nginx, None if targets.nginx_path() else "not installed (Debian: apt install nginx)")
    add("farebox", partial(targets.farebox, interpreted=options.interpreted, offers=options.offers))
    for name, make in peers.PEERS.items():
        add(name, make, None if options.peers else "only with PEERS=1")
    return found, skipped


def say(text: str) -> None:
    """Progress, apart from the results; on a terminal in a line that it clears again."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


def run(options: Options) -> Outcome:
    samples: dict[str, dict[str, list[Sample]]] = {}
    notes: dict[str, str] = {}
    broken: set[tuple[str, str]] = set()
    with tempfile.TemporaryDirectory(prefix="farebox-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        upstream = stack.enter_context(targets.mock(folder, chunks=options.chunks, delay_ms=options.delay_ms))
        found, skipped = start_all(stack, folder, upstream, options)
        load = stack.enter_context(Load())
        for number in range(options.rounds):
            for kind in ("single", "many", "stream"):
                for target in found:
                    if (target.name, kind) in broken:
                        continue
                    say(f"round {number + 1} of {options.rounds}: {kind}, {target.name}")
                    try:
                        sample = measure(load, target, specs(target, options)[kind])
                    except (LoadFailed, ProcessLookupError, OSError) as error:
                        if target.name not in peers.PEERS:
                            raise
                        # A peer that breaks must not cost us the run: it goes on without this load.
                        broken.add((target.name, kind))
                        samples.get(target.name, {}).pop(kind, None)
                        skipped[target.name] = f"failed under `{kind}`: {error}"
                        load = stack.enter_context(Load())
                        continue
                    samples.setdefault(target.name, {}).setdefault(kind, []).append(sample)
                    notes[target.name] = target.note
        say("")
    rows = [summary(name, notes[name], loads, samples["direct"], options) for name, loads in samples.items()]
    return Outcome(options=options, rows=rows, skipped=skipped, samples=samples)


def summary(name: str, note: str, loads: dict[str, list[Sample]], direct: dict[str, list[Sample]], options: Options) -> Row:
    """Medians over the rounds."""

    def median(kind: str, value: Callable[[Sample], float]) -> float:
        return statistics.median([value(sample) for sample in loads[kind]]) if kind in loads else 0.0

    def added(kind: str, value: Callable[[Sample], float]) -> float:
        pairs = list(zip(loads.get(kind, []), direct[kind], strict=False))
        return statistics.median([value(sample) - value(floor) for sample, floor in pairs]) if pairs else 0.0

    def by_process(kind: str, units: int) -> dict[str, float]:
        return {
            process: median(kind, lambda s, process=process: s.cpu_ns.get(process, 0) / (s.load.requests * units) / 1000)
            for process in (loads[kind][0].cpu_ns if kind in loads else ())
        }

    return Row(
        name=name,
        note=note,
        cpu_us_per_call=median("many", lambda s: s.spent_ns / s.load.requests / 1000),
        cpu_us_per_call_single=median("single", lambda s: s.spent_ns / s.load.requests / 1000),
        cpu_us_per_chunk=median("stream", lambda s: s.spent_ns / (s.load.requests * options.chunks) / 1000),
        call_us_by_process=by_process("many", 1),
        chunk_us_by_process=by_process("stream", options.chunks),
        calls_per_s=median("many", lambda s: s.load.requests / s.load.elapsed_s),
        chunks_per_s=median("stream", lambda s: s.load.requests * options.chunks / s.load.elapsed_s),
        single_p50_us=added("single", lambda s: s.load.whole.p50),
        single_p99_us=added("single", lambda s: s.load.whole.p99),
        many_p50_us=added("many", lambda s: s.load.whole.p50),
        many_p99_us=added("many", lambda s: s.load.whole.p99),
        first_chunk_p50_us=added("stream", lambda s: s.load.first.p50),
        first_chunk_p99_us=added("stream", lambda s: s.load.first.p99),
        chunks_per_read=median("stream", lambda s: s.load.events / max(s.load.reads, 1)),
        rss_bytes=max(sample.rss_bytes for kind in loads.values() for sample in kind),
    )


# --- memory over many calls -------------------------------------------------------------------------------------------------


class Soak(msgspec.Struct, frozen=True, kw_only=True):
    calls: list[int]
    rss_bytes: list[dict[str, int]]
    """By process, after so many calls."""
    private_bytes: list[int]
    """Of all processes together, without pages of files."""
    slope_bytes: float
    """Growth of `private_bytes` per 100,000 calls, by least squares over the second half."""
    cpu_us_per_call: float
    seconds: float


def soak(calls: int, options: Options) -> Soak:
    """Farebox alone under plain calls; memory after every twentieth part, with everything posted."""
    counts: list[int] = []
    sizes: list[dict[str, int]] = []
    private: list[int] = []
    start_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="farebox-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        upstream = stack.enter_context(targets.mock(folder, chunks=options.chunks, delay_ms=options.delay_ms))
        target = stack.enter_context(targets.farebox(folder, upstream, interpreted=options.interpreted, offers=options.offers))
        load = stack.enter_context(Load())
        spec = specs(target, options)["many"]
        spec.requests = -(-calls // SOAK_PARTS)
        spent_ns = done = 0
        for _ in range(SOAK_PARTS):
            sample = measure(load, target, spec)
            spent_ns += sample.spent_ns
            done += sample.load.requests
            counts.append(done)
            private.append(sum(cpu.private_bytes(pid) for pid in target.pids()))
            sizes.append({process_name(pid): cpu.rss_bytes(pid) for pid in target.pids()})
            say(f"{done} of {calls} calls: {', '.join(f'{n} {s / MIB:.1f} MiB' for n, s in sizes[-1].items())}")
        say("")
    half = len(counts) // 2
    slope = statistics.linear_regression(counts[half:], private[half:]).slope
    return Soak(
        calls=counts,
        rss_bytes=sizes,
        private_bytes=private,
        slope_bytes=slope * 100_000,
        cpu_us_per_call=spent_ns / done / 1000,
        seconds=time.monotonic() - start_s,
    )
