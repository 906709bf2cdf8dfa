"""Active probes: a provider that says how it is, is asked every few seconds, so that no caller has to find out.

What is asked is free of charge (`GET /models`, a server's own health page): nothing is held and nothing is booked. Off unless a
provider's section names a `probe`. Each worker asks for itself, since each knows its own circuits; every key of a provider is
asked, one question at a time.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from farebox.ports import Clock, Random
from farebox.providers.base import Provider
from farebox.routing.health import Health, ProbeOutcome
from farebox.routing.target import Place, Target
from farebox.transport import Client, Origin, Prepared, Timeouts, Tls, TransportError, prepare

ANSWER_BYTES_MAX = 2**20
TIMEOUTS = Timeouts(connect_s=3.0, headers_s=5.0, chunk_s=5.0, total_s=10.0)
QUESTIONS_MAX = 64
"""Under way at a time; what is due beyond waits for the next look."""


class Asked(msgspec.Struct, eq=False):
    """One key of one provider."""

    request: Prepared
    places: tuple[Place, ...]
    """What is behind the key: all that a failure concerns."""
    due_us: int
    task: asyncio.Task[None] | None = None


class Prober:
    """One worker's. `look` is called a few times a second and never waits."""

    def __init__(self, client: Client, health: Health, clock: Clock, random: Random, *, interval_us: int) -> None:
        self._client = client
        self._health = health
        self._clock = clock
        self._random = random
        self._interval_us = interval_us
        self._asked: dict[tuple[str, str], Asked] = {}

    def watch(self, targets: Mapping[str, Iterable[Target]]) -> None:
        """Ask those of these providers that can be asked. Called again when what can be called has changed."""
        found: dict[tuple[str, str], tuple[Target, int, list[Place]]] = {}
        for target in (one for offers in targets.values() for one in offers):
            if target.provider.probe is None:
                continue
            for index, place in enumerate(target.places):
                found.setdefault((place.provider, place.key), (target, index, []))[2].append(place)
        now_us = self._clock.monotonic_us()
        before, self._asked = self._asked, {}
        for key, (target, index, places) in found.items():
            known = before.get(key)
            # The first questions are spread over the interval.
            due_us = now_us + int(self._random.uniform() * self._interval_us) if known is None else known.due_us
            task = None if known is None else known.task
            self._asked[key] = Asked(_question(target.provider, target, index), tuple(places), due_us, task)

    def look(self) -> None:
        """Ask whom it is time to ask."""
        now_us = self._clock.monotonic_us()
        room = QUESTIONS_MAX - sum(1 for _ in self._under_way())
        for asked in self._asked.values():
            if now_us < asked.due_us or room <= 0 or (asked.task is not None and not asked.task.done()):
                continue
            room -= 1
            asked.due_us = now_us + self._interval_us
            asked.task = asyncio.get_running_loop().create_task(self._ask(asked))

    async def close(self) -> None:
        """End the questions under way."""
        tasks = list(self._under_way())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _under_way(self) -> Iterator[asyncio.Task[None]]:
        return (asked.task for asked in self._asked.values() if asked.task is not None and not asked.task.done())

    async def _ask(self, asked: Asked) -> None:
        try:
            response = await self._client.send(asked.request, timeouts=TIMEOUTS)
            await response.read(ANSWER_BYTES_MAX)
            outcome = judged(response.status)
        except TransportError:
            outcome = "down"
        self._health.probed(asked.places, outcome, self._clock.monotonic_us())


def judged(status: int) -> ProbeOutcome:
    """What a status says. One that is about the question itself, or about haste, says nothing about calls."""
    if 200 <= status < 300:
        return "up"
    if status in (401, 402, 403):
        return "key_refused"
    return "down" if status >= 500 else "unknown"


def _question(provider: Provider, target: Target, key_index: int) -> Prepared:
    files = provider.certificates
    tls = Tls(ca_file=files.ca_file, client_cert_file=files.client_cert_file, client_key_file=files.client_key_file)
    origin, base = Origin.parse(target.base_url, tls)
    headers = [*target.speaks.headers]
    if target.keys:
        headers.append((provider.credential.header, f"{provider.credential.scheme}{target.keys[key_index]}"))
    return prepare(origin, "GET", f"{base.rstrip('/')}{provider.probe}", headers)
