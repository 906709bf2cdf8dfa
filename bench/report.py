"""The results as people read them: tables of at most 100 columns, and what was expected."""

import os
import platform
import subprocess
import time
from pathlib import Path

from bench.run import MIB, Options, Outcome, Row, Soak
from bench.targets import nginx_path

CALL_RATIO_MAX = 5.0
"""Farebox's CPU per plain call, in nginx's."""
CHUNK_RATIO_MAX = 2.2
"""Farebox's CPU per streamed chunk, in nginx's."""
SLOPE_MIB_MAX = 0.5
"""Memory is called flat below this growth per 100,000 calls."""
QUIET_LOAD_MAX = 0.5
WIDTH = 100


def machine() -> str:
    """Where and on what."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    nginx = nginx_path()
    version = ""
    if nginx is not None:
        said = subprocess.run([nginx, "-v"], capture_output=True, text=True, check=False).stderr
        version = f", nginx {said.strip().rpartition('/')[2]}"
    return (
        f"{time.strftime('%Y-%m-%d %H:%M')}, {os.cpu_count()} cores of {model}, Linux {platform.release().split('-')[0]},\n"
        f"Python {platform.python_version()}{version}"
    )


def program(options: Options) -> str:
    """Which Farebox."""
    return f"Farebox is {'interpreted' if options.interpreted else 'compiled'}; offers of a model: {options.offers}"


def quiet() -> str:
    """A warning when others are using the machine."""
    load = os.getloadavg()[0]
    if load <= QUIET_LOAD_MAX:
        return ""
    return f"The machine is busy (load {load:.1f} before the start): latencies and rates mean little."


def _ratio(value: float, floor: float | None) -> str:
    return "" if not floor or not value else f"{value / floor:.2f}"


def _us(value: float) -> str:
    """Added µs in a form whose length is bounded."""
    return f"{value:.0f} µs" if abs(value) < 9_950 else f"{value / 1000:.1f} ms"


def _table(heads: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(line[i]) for line in [heads, *rows]) for i in range(len(heads))]
    lines: list[str] = []
    for first, *others in [heads, *rows]:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    assert all(len(line) <= WIDTH for line in lines), "the table is too wide"
    return "\n".join(lines)


def tables(outcome: Outcome) -> str:
    options = outcome.options
    by_name = {row.name: row for row in outcome.rows}
    nginx = by_name.get("nginx")
    n = options.concurrency

    def call(row: Row) -> list[str]:
        if not row.calls_per_s:
            return [row.name, "failed", *[""] * 7]
        if row.name == "direct":
            return [row.name, "", "", f"{row.calls_per_s:.0f}", "", "", "", "", ""]
        ratio = _ratio(row.cpu_us_per_call, nginx and nginx.cpu_us_per_call)
        added = [_us(v) for v in (row.single_p50_us, row.single_p99_us, row.many_p50_us, row.many_p99_us)]
        return [
            row.name,
            f"{row.cpu_us_per_call:.0f} µs",
            ratio,
            f"{row.calls_per_s:.0f}",
            *added,
            f"{row.rss_bytes / MIB:.0f} MiB",
        ]

    def chunk(row: Row) -> list[str]:
        if not row.chunks_per_s:
            return [row.name, "failed", *[""] * 5]
        rate, size = f"{row.chunks_per_s:.0f}", f"{row.chunks_per_read:.2f}"
        if row.name == "direct":
            return [row.name, "", "", rate, "", "", size]
        ratio = _ratio(row.cpu_us_per_chunk, nginx and nginx.cpu_us_per_chunk)
        return [
            row.name,
            f"{row.cpu_us_per_chunk:.1f} µs",
            ratio,
            rate,
            _us(row.first_chunk_p50_us),
            _us(row.first_chunk_p99_us),
            size,
        ]

    skipped = [name for name in outcome.skipped if name not in by_name]
    calls = _table(
        ["", "CPU/call", "× nginx", "calls/s", "+p50 at 1", "+p99 at 1", f"+p50 at {n}", f"+p99 at {n}", "RSS"],
        [call(row) for row in outcome.rows] + [[name, "skipped", *[""] * 7] for name in skipped],
    )
    chunks = _table(
        ["", "CPU/chunk", "× nginx", "chunks/s", "+first p50", "+first p99", "chunks/read"],
        [chunk(row) for row in outcome.rows] + [[name, "skipped", *[""] * 5] for name in skipped],
    )
    parts = [
        f"Plain calls, {n} at a time; medians of {options.rounds} rounds of {options.seconds:g} s. "
        f"`+`: added to direct, at {n} or 1 at a time.",
        calls,
        "",
        f"Streams of {options.chunks} chunks, one every {options.delay_ms} ms, {n} at a time. "
        f"CPU of whole streams / {options.chunks}.",
        chunks,
    ]
    notes = [_split(row) for row in outcome.rows if len(row.call_us_by_process) > 1 and row.name == "farebox"]
    notes += [f"{row.name}: {row.note}" for row in outcome.rows if row.note]
    notes += [f"{name}: {why if name in by_name else f'skipped, {why}'}"[:600] for name, why in outcome.skipped.items()]
    if notes:
        parts += ["", *notes]
    return "\n".join(parts)


def _split(row: Row) -> str:
    """Farebox's CPU by process."""
    parts = [
        f"{process} {us:.0f} µs a call, {row.chunk_us_by_process.get(process, 0.0):.1f} µs a chunk"
        for process, us in row.call_us_by_process.items()
        if process != "main"
    ]
    return f"{row.name}: {'; '.join(parts)}"


def expectations(outcome: Outcome) -> str:
    by_name = {row.name: row for row in outcome.rows}
    nginx, farebox = by_name.get("nginx"), by_name.get("farebox")
    if nginx is None or farebox is None:
        return "Expected ratios: not compared without both nginx and farebox."

    def line(what: str, value: float, most: float) -> str:
        return f"{'PASS' if value <= most else 'over'}  {what}: {value:.2f} × nginx, expected ≤ {most:g}"

    return "\n".join(
        [
            line("CPU per plain call", farebox.cpu_us_per_call / nginx.cpu_us_per_call, CALL_RATIO_MAX),
            line("CPU per streamed chunk", farebox.cpu_us_per_chunk / nginx.cpu_us_per_chunk, CHUNK_RATIO_MAX),
        ]
    )


def soak_table(found: Soak) -> str:
    names = list(found.rss_bytes[0])
    rows = [
        [
            str(count),
            *(f"{size.get(name, 0) / MIB:.1f}" for name in names),
            f"{sum(size.values()) / MIB:.1f}",
            f"{private / MIB:.1f}",
        ]
        for count, size, private in zip(found.calls, found.rss_bytes, found.private_bytes, strict=True)
    ]
    slope = found.slope_bytes / MIB
    return "\n".join(
        [
            "Resident MiB after so many plain calls, all of them posted",
            _table(["calls", *names, "all", "private"], rows),
            "",
            f"{'PASS' if slope <= SLOPE_MIB_MAX else 'over'}  private growth over the second half: {slope:+.2f} MiB "
            f"per 100,000 calls, expected ≤ {SLOPE_MIB_MAX:g}",
            f"CPU {found.cpu_us_per_call:.0f} µs per call, {found.seconds:.0f} s in all",
        ]
    )
