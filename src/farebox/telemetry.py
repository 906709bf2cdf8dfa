"""Telemetry: one record per call → counters and, if wanted, a line in the access log. No prompt, no key, ever.

Each process keeps plain integers and writes them to a small file now and then; the page at `/metrics` adds up the files of all
processes, so that any worker can answer for the machine.
"""

import os
import sys
import traceback
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from farebox.snapshot import BUCKETS_US, Snapshot

if TYPE_CHECKING:
    from farebox.billing.settlement import Settlement

TEXT_TYPE: Final = b"content-type: text/plain; version=0.0.4; charset=utf-8\r\n"
SERIES_MAX: Final = 5_000
"""Label combinations kept; further ones are counted under `other`."""
TRACE_CHARACTERS_MAX: Final = 4_000


class Metrics:
    """This process's counts. Lives on the event loop; nothing here waits or fails a call."""

    def __init__(self, *, access_log: bool = False) -> None:
        self.counts = Snapshot()
        self._access_log = access_log

    def call(
        self, *, surface: str, provider: str, model: str, outcome: str, status: int, duration_us: int, settlement: "Settlement"
    ) -> None:
        """One call with an answer."""
        counts = self.counts
        key = f"{surface}|{provider}|{model}|{outcome}"
        calls = counts.calls
        seen = calls.get(key)
        if seen is None:
            if len(calls) >= SERIES_MAX:
                key = f"{surface}|other|other|{outcome}"
            seen = calls.get(key, 0)
        calls[key] = seen + 1
        counts.seconds_sum_us += duration_us
        counts.seconds_buckets[bisect_left(BUCKETS_US, duration_us)] += 1
        self.ended(settlement)
        if self._access_log:
            line = {
                "id": settlement.id,
                "surface": surface,
                "provider": provider,
                "model": model,
                "outcome": outcome,
                "status": status,
                "ms": duration_us // 1000,
                "charge_nano": settlement.charge_nano,
                "attempts": len(settlement.attempts),
            }
            sys.stderr.write(msgspec.json.encode(line).decode() + "\n")

    def ended(self, settlement: "Settlement") -> None:
        """A hold has its end: its charge and its attempts."""
        counts = self.counts
        counts.charge_nano += settlement.charge_nano
        for attempt in settlement.attempts:
            key = f"{attempt.provider}|{attempt.outcome}"
            counts.attempts[key] = counts.attempts.get(key, 0) + 1
            counts.settled[attempt.basis] = counts.settled.get(attempt.basis, 0) + 1
            usage = attempt.usage
            if usage is not None:
                counts.input_tokens += usage.prompt_tokens
                counts.output_tokens += usage.completion_tokens

    def hedge(self, event: str) -> None:
        """Something that happened to a hedge: `started`, `won`, `wasted`, `failed`, or why there was none."""
        self._add(self.counts.hedges, event)

    def malformed(self, provider: str) -> None:
        """A stream with events that could not be read."""
        self._add(self.counts.malformed, provider)

    def refused(self, surface: str, code: str) -> None:
        """One call that ended in an error body."""
        self._add(self.counts.refused, f"{surface}|{code}")

    def rate_limited(self, limit: str) -> None:
        self._add(self.counts.rate_limited, limit)

    def crashed(self, request_id: str, error: BaseException) -> None:
        """A bug: counted, and its trace goes to the operator's log, never to the caller."""
        self.counts.crashes += 1
        trace = "".join(traceback.format_exception(error))[-TRACE_CHARACTERS_MAX:]
        sys.stderr.write(f"farebox: internal error in {request_id}\n{trace}\n")

    @staticmethod
    def _add(counts: dict[str, int], key: str) -> None:
        if key in counts or len(counts) < SERIES_MAX:
            counts[key] = counts.get(key, 0) + 1


def save(snapshot: Snapshot, path: Path) -> None:
    """Write a snapshot so that a reader never sees half of it."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode(snapshot))
    os.replace(fresh, path)


class _Total:
    """Prometheus' view of several snapshots."""

    def __init__(self, snapshots: Iterable[Snapshot]) -> None:
        self._snapshots = list(snapshots)

    def _sum(self, field: str) -> dict[str, int]:
        total: dict[str, int] = {}
        for snapshot in self._snapshots:
            counts: dict[str, int] = getattr(snapshot, field)
            for key, value in counts.items():
                total[key] = total.get(key, 0) + value
        return total

    def collect(self) -> Iterator[Metric]:
        families: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
            ("calls", "farebox_requests", ("surface", "provider", "model", "outcome"), "Calls answered"),
            ("refused", "farebox_refused", ("surface", "code"), "Calls that ended in an error body"),
            ("attempts", "farebox_upstream_attempts", ("provider", "outcome"), "Attempts at providers"),
            ("settled", "farebox_settle", ("basis",), "Settled attempts by where their counts came from"),
            ("malformed", "farebox_malformed_streams", ("provider",), "Streams with events that could not be read"),
            ("rate_limited", "farebox_ratelimit_denied", ("limit",), "Calls refused by a rate limit"),
            ("hedges", "farebox_hedges", ("event",), "Second attempts beside slow first ones, and why there were none"),
        )
        for field, name, labels, text in families:
            family = CounterMetricFamily(name, text, labels=labels)
            for key, value in sorted(self._sum(field).items()):
                family.add_metric(key.split("|"), value)
            yield family
        buckets = [sum(s.seconds_buckets[i] for s in self._snapshots) for i in range(len(BUCKETS_US) + 1)]
        cumulative: list[tuple[str, float]] = []
        total = 0
        for index, count in enumerate(buckets):
            total += count
            cumulative.append((str(BUCKETS_US[index] / 1e6) if index < len(BUCKETS_US) else "+Inf", total))
        seconds = HistogramMetricFamily("farebox_request_seconds", "Duration of answered calls")
        seconds.add_metric([], buckets=cumulative, sum_value=sum(s.seconds_sum_us for s in self._snapshots) / 1e6)
        yield seconds
        for field, name, text in (
            ("charge_nano", "farebox_charge_nano", "Nano-dollars charged"),
            ("input_tokens", "farebox_input_tokens", "Tokens metered on the input side"),
            ("output_tokens", "farebox_output_tokens", "Tokens metered on the output side"),
            ("hedge_waste_nano", "farebox_hedge_waste_nano", "Nano-dollars for answers that nobody got"),
            ("losses", "farebox_hold_exceeded", "Attempts whose price was above their hold"),
            ("crashes", "farebox_internal_errors", "Internal errors"),
        ):
            yield CounterMetricFamily(name, text, value=sum(getattr(s, field) for s in self._snapshots))
        for field, name, text in (
            ("holds_open", "farebox_hold_open", "Holds open now"),
            ("hold_nano", "farebox_hold_nano", "Nano-dollars held now"),
            ("unwritten", "farebox_settlements_unwritten", "Settlements waiting for the journal"),
        ):
            yield GaugeMetricFamily(name, text, value=sum(getattr(s, field) for s in self._snapshots))


def exposition(folder: Path) -> bytes:
    """The text of `/metrics`: the sum over all processes' files. A file in the middle of nowhere is skipped."""
    snapshots: list[Snapshot] = []
    for path in sorted(folder.glob("*.metrics")):
        try:
            snapshots.append(msgspec.json.decode(path.read_bytes(), type=Snapshot))
        except (OSError, msgspec.DecodeError):
            continue
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Total(snapshots))  # pyright: ignore[reportArgumentType]
    return generate_latest(registry)
