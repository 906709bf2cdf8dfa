"""Which orders hold for a request: those in its model name, then those set from outside for its scope. Counts `times` down."""

from collections import OrderedDict
from hashlib import sha256

import msgspec

from farebox.simulator.directives import Directives, merge, parse, without_faults

MODELS_MAX = 65_536
"""Model names whose requests are counted; the least recently used are forgotten first."""
FAULTS_MAX = 1_000


def credential_hash(credential: str) -> str:
    """How credentials are told apart without being kept: the first 16 hex digits of their SHA-256."""
    return sha256(credential.encode()).hexdigest()[:16]


class ScopedFault(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Orders for the requests of a scope; an absent part of the scope matches everything."""

    directives: str
    """As in a model name, without the name: `status=503+retry-after=1`."""
    path: str | None = None
    """The end of the request's path, e.g. `/chat/completions`."""
    model: str | None = None
    """A whole model name, or a base name."""
    credential: str | None = None
    """A key, or its hash as `/control/requests` shows it."""
    times: int | None = None
    """How many more requests; None until reset."""


class Faults:
    """State of one server."""

    def __init__(self) -> None:
        self._scoped: list[ScopedFault] = []
        self._served: OrderedDict[str, int] = OrderedDict()

    @property
    def any_scoped(self) -> bool:
        return bool(self._scoped)

    def add(self, fault: ScopedFault) -> None:
        """Raises `DirectiveError` (a `ValueError`)."""
        parse(fault.directives)
        if len(self._scoped) >= FAULTS_MAX:
            raise ValueError(f"more than {FAULTS_MAX} faults; reset first")
        self._scoped.append(fault)

    def active(self) -> list[ScopedFault]:
        return [msgspec.structs.replace(fault, credential=None) for fault in self._scoped]

    def reset(self) -> None:
        self._scoped.clear()
        self._served.clear()

    def orders(self, path: str, model: str, base: str, text: str, credential: str) -> Directives:
        """What holds for this request; counts it. Raises `DirectiveError`."""
        orders = parse(text)
        if orders.times is not None:
            served = self._served.get(model, 0) + 1
            self._served[model] = served
            self._served.move_to_end(model)
            if len(self._served) > MODELS_MAX:
                self._served.popitem(last=False)
            if served > orders.times:
                orders = without_faults(orders)
        for fault in self._scoped:
            if self._matches(fault, path, model, base, credential):
                orders = merge(orders, parse(fault.directives))
                if fault.times is not None:
                    fault.times -= 1
                    if fault.times <= 0:
                        self._scoped.remove(fault)
                break
        return orders

    @staticmethod
    def _matches(fault: ScopedFault, path: str, model: str, base: str, credential: str) -> bool:
        return (
            (fault.path is None or path.endswith(fault.path))
            and (fault.model is None or fault.model in (model, base))
            and (fault.credential is None or fault.credential in (credential, credential_hash(credential)))
        )
