"""What the gateway workers of this machine know of their providers, through small files in the run folder: each worker writes its
own once a second, whoever shows health reads them all."""

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from farebox.routing.health_report import Report
from farebox.routing.shown import Overview, overview, percent

SUFFIX = ".health"
FILE_BYTES_MAX = 32 * 2**20


def save(report: Report, path: Path) -> None:
    """Write a worker's report so that a reader never sees half of it."""
    fresh = path.with_suffix(f"{SUFFIX}.new")
    fresh.write_bytes(msgspec.json.encode(report))
    os.replace(fresh, path)


def read(folder: Path) -> Overview:
    """All workers together. A file that cannot be read is a worker that has just ended."""
    reports: list[Report] = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            if path.stat().st_size <= FILE_BYTES_MAX:
                reports.append(msgspec.json.decode(path.read_bytes(), type=Report))
        except (OSError, msgspec.MsgspecError):
            continue
    return overview(reports)


class _Health:
    """Prometheus' view of an overview."""

    def __init__(self, seen: Overview) -> None:
        self._seen = seen

    def collect(self) -> Iterator[Metric]:
        labels = ("provider", "model")
        usable = GaugeMetricFamily("farebox_offer_usable", "1 healthy, 0.5 probing, 0 ejected", labels=labels)
        success = GaugeMetricFamily("farebox_offer_success_ratio", "Attempts of 30 minutes that succeeded", labels=labels)
        first = GaugeMetricFamily(
            "farebox_offer_first_token_seconds", "Time to the first content", labels=(*labels, "quantile")
        )
        speed = GaugeMetricFamily("farebox_offer_tokens_per_second", "Output tokens a second", labels=(*labels, "quantile"))
        in_flight = GaugeMetricFamily("farebox_offer_in_flight", "Attempts under way", labels=labels)
        for one in self._seen.offers:
            of = (one.provider, one.model)
            usable.add_metric(of, {"healthy": 1.0, "probing": 0.5, "ejected": 0.0}[one.state])
            share = percent(one.half_hour)
            if share is not None:
                success.add_metric(of, share / 100)
            for family, found, scale in ((first, one.first_token_ms, 1000.0), (speed, one.tokens_per_s, 1.0)):
                for quantile, value in () if found is None else (("0.5", found.p50), ("0.9", found.p90), ("0.99", found.p99)):
                    if value is not None:
                        family.add_metric((*of, quantile), value / scale)
            in_flight.add_metric(of, one.in_flight)
        yield from (usable, success, first, speed, in_flight)
        benched = GaugeMetricFamily("farebox_provider_key_benched_seconds", "How long a key is left alone", labels=("key",))
        limit = GaugeMetricFamily("farebox_provider_key_limit", "Calls in flight that a key allows, as learned", labels=("key",))
        for key in self._seen.keys:
            benched.add_metric((key.key or key.provider,), key.benched_s)
            if key.limit is not None:
                limit.add_metric((key.key or key.provider,), key.limit)
        yield from (benched, limit)


def exposition(seen: Overview) -> bytes:
    """The part of `/metrics` about offers and keys."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Health(seen))  # pyright: ignore[reportArgumentType]
    return generate_latest(registry)
