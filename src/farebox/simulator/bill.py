"""The true bill: an append-only file of what this provider generated and would invoice, and its reader.

The file is the ground truth that a gateway's charges are compared with, so it shares no code with the gateway's pricing and
is written at the moment of truth:

- a **start** line when a request is accepted: its prompt is processed, hence owed;
- a **tokens** line each time a few more tokens (`SimulatorConfig.fsync_tokens`) have been generated, before they are sent;
- a **final** line with everything owed, before the closing bytes of the answer are sent.

A refused request has a single final line and owes nothing. If the provider is killed, an attempt without a final line owes
its prompt and its last tokens line.
"""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import msgspec

from farebox.wires.usage import Usage

FARE_HEADER = "x-farebox-attempt"
"""The request header in which a gateway names its own attempt: `<generation id>/<attempt>`."""
Reason = Literal[
    "complete",
    "refused",
    "client_gone",
    "error_mid_stream",
    "cut",
    "reset",
]


class _Start(msgspec.Struct, tag="start", tag_field="line", frozen=True, omit_defaults=True):
    id: str
    model: str
    usage: Usage
    farebox_attempt: str | None = None


class _Tokens(msgspec.Struct, tag="tokens", tag_field="line", frozen=True):
    id: str
    output: int
    reasoning: int


class _Final(msgspec.Struct, tag="final", tag_field="line", frozen=True, omit_defaults=True):
    id: str
    reason: Reason
    usage: Usage
    model: str | None = None
    """Only on a refused attempt, which has no start line; so is the next field."""
    farebox_attempt: str | None = None


_encode = msgspec.json.Encoder().encode
_decode_line = msgspec.json.Decoder(_Start | _Tokens | _Final).decode


class BilledAttempt(msgspec.Struct, frozen=True):
    """What one attempt owes."""

    id: str
    """The provider's request id: `x-request-id`, and the `id` of the answer."""
    farebox_attempt: str | None
    model: str
    usage: Usage
    final: bool
    """False: the provider ended before it knew the end; `usage` is the last progress line."""
    reason: str
    """A `Reason`, or `unfinished`."""


def read(path: Path) -> list[BilledAttempt]:
    """Every attempt on the bill, in order of acceptance. A torn last line, left by a kill, is ignored."""
    return _fold(path.read_bytes())


def _fold(content: bytes) -> list[BilledAttempt]:
    attempts: dict[str, BilledAttempt] = {}
    for line in content[: content.rfind(b"\n") + 1].splitlines():
        entry = _decode_line(line)
        if isinstance(entry, _Start):
            assert entry.id not in attempts, f"attempt {entry.id} starts twice on the bill"
            attempts[entry.id] = BilledAttempt(entry.id, entry.farebox_attempt, entry.model, entry.usage, False, "unfinished")
            continue
        seen = attempts.get(entry.id)
        if isinstance(entry, _Tokens):
            assert seen is not None and not seen.final, f"tokens of {entry.id} outside its attempt"
            usage = msgspec.structs.replace(seen.usage, output=entry.output, reasoning=entry.reasoning)
            attempts[entry.id] = msgspec.structs.replace(seen, usage=usage)
        elif seen is None:
            attempts[entry.id] = BilledAttempt(
                entry.id, entry.farebox_attempt, entry.model or "", entry.usage, True, entry.reason
            )
        else:
            assert not seen.final, f"attempt {entry.id} ends twice on the bill"
            attempts[entry.id] = msgspec.structs.replace(seen, usage=entry.usage, final=True, reason=entry.reason)
    return list(attempts.values())


class BillWriter:
    """Appends lines; `synced` makes everything written so far durable. One write per line, so a kill tears at most the last."""

    def __init__(self, path: Path, sync: bool) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._path = path
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole != len(content):
            os.ftruncate(self._descriptor, whole)
        self.attempts_before = len(_fold(content))
        """How many attempts earlier runs left on this bill; ids go on from there."""
        self._sync = sync
        self._next: asyncio.Future[None] | None = None
        self._running: asyncio.Task[None] | None = None
        self._pool = ThreadPoolExecutor(1, "bill-sync")

    def start(self, id: str, model: str, prompt: Usage, farebox_attempt: str | None) -> None:
        self._append(_Start(id, model, prompt, farebox_attempt))

    def tokens(self, id: str, output: int, reasoning: int) -> None:
        self._append(_Tokens(id, output, reasoning))

    def final(self, id: str, reason: Reason, usage: Usage) -> None:
        self._append(_Final(id, reason, usage))

    def refused(self, id: str, model: str, farebox_attempt: str | None) -> None:
        self._append(_Final(id, "refused", Usage(), model, farebox_attempt))

    def whole(self, id: str, model: str, usage: Usage, prompt: Usage, farebox_attempt: str | None) -> None:
        """Start and final line of an attempt that is generated at once."""
        self._write(
            _encode(_Start(id, model, prompt, farebox_attempt)) + b"\n" + _encode(_Final(id, "complete", usage)) + b"\n"
        )

    def _append(self, line: _Start | _Tokens | _Final) -> None:
        self._write(_encode(line) + b"\n")

    def _write(self, content: bytes) -> None:
        written = os.write(self._descriptor, content)
        if written != len(content):
            raise OSError(f"the bill {self._path.name} took {written} of {len(content)} bytes")

    async def synced(self) -> None:
        """Returns when every line written before the call is on the disk. Callers share one sync."""
        if not self._sync:
            return
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        waiter = self._next
        if self._running is None:
            self._running = asyncio.create_task(self._sync_all())
        await asyncio.shield(waiter)

    async def _sync_all(self) -> None:
        loop = asyncio.get_running_loop()
        while (waiter := self._next) is not None:
            self._next = None
            try:
                await loop.run_in_executor(self._pool, os.fdatasync, self._descriptor)
                waiter.set_result(None)
            except OSError as error:
                waiter.set_exception(error)
        self._running = None

    def read(self) -> list[BilledAttempt]:
        return read(self._path)

    def close(self) -> None:
        self._pool.shutdown()
        os.close(self._descriptor)
