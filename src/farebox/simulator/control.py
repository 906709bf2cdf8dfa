"""The control endpoint: set faults, read what was seen and what is on the bill. For tests; it has no password.

    POST /control/faults     a `ScopedFault`; answers with the faults that hold
    GET  /control/requests   `?since=N`: requests seen, oldest first
    GET  /control/bill       the attempts on the bill
    POST /control/reset      forget faults, counters, requests and cached prompts; the bill stays
"""

from typing import Any
from urllib.parse import parse_qs

import msgspec

from farebox.simulator.bill import BillWriter
from farebox.simulator.connection import Inbound
from farebox.simulator.faults import Faults, ScopedFault
from farebox.simulator.journal import RequestJournal
from farebox.simulator.prefixes import PrefixCache

_encode = msgspec.json.Encoder().encode
_decode_fault = msgspec.json.Decoder(ScopedFault).decode


class Control:
    """Answers `/control/…` with a status and a JSON body."""

    def __init__(self, faults: Faults, journal: RequestJournal, cache: PrefixCache, bill: BillWriter | None) -> None:
        self._faults = faults
        self._journal = journal
        self._cache = cache
        self._bill = bill

    def answer(self, inbound: Inbound) -> tuple[int, bytes]:
        try:
            status, value = self._dispatch(inbound)
        except ValueError as error:
            status, value = 400, {"error": str(error)}
        return status, _encode(value)

    def _dispatch(self, inbound: Inbound) -> tuple[int, Any]:
        match inbound.method, inbound.path.rpartition("/control/")[2]:
            case "POST", "faults":
                self._faults.add(_decode_fault(inbound.body))
                return 200, {"faults": self._faults.active()}
            case "GET", "faults":
                return 200, {"faults": self._faults.active()}
            case "GET", "requests":
                since = parse_qs(inbound.query).get("since", ["0"])[0]
                return 200, {"requests": self._journal.since(int(since))}
            case "GET", "bill":
                return 200, {"attempts": [] if self._bill is None else self._bill.read()}
            case "POST", "reset":
                self._faults.reset()
                self._journal.reset()
                self._cache.reset()
                return 200, {"reset": True}
            case _:
                return 404, {"error": f"no such control: {inbound.method} {inbound.path[:200]}"}
