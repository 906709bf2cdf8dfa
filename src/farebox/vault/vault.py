"""The vault of one process: seals and opens with the keys of the master file, which is read again when it has changed."""

import sys
from pathlib import Path

from farebox.vault import envelope, master_file
from farebox.vault.envelope import CannotOpen, Master, Place
from farebox.vault.master_file import MasterFileError

TOLD_MAX = 1_000
"""Envelopes that did not open and that the log was told of, once each."""


State = tuple[int, int, int]


def _log(line: str) -> None:
    sys.stderr.write(line + "\n")


class Vault:
    """May be used by several threads: what it remembers is replaced as a whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: tuple[State, tuple[Master, ...]] | None = None
        self._told: set[tuple[str, str]] = set()
        self.log = _log

    def state(self) -> State | None:
        """Which file this is, in which condition: another one after every change, also of its permissions alone; None where
        there is none. Raises `OSError`."""
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return None
        return (stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns)

    def masters(self) -> tuple[Master, ...]:
        """The keys, the newest first; none where there is no file yet. Raises `MasterFileError`."""
        try:
            state = self.state()
        except OSError as error:
            raise MasterFileError(f"{self.path}: {error.strerror}") from None
        if state is None:
            return ()
        known = self._known
        if known is None or known[0] != state:
            known = self._known = (state, master_file.read(self.path))
        return known[1]

    def newest_or_made(self, now_us: int) -> Master:
        """The key to begin with; made where there is none. Raises `MasterFileError`."""
        return master_file.read_or_make(self.path, now_us)[0]

    def master(self, id: str) -> Master | None:
        """A key by its name. Raises `MasterFileError`."""
        return next((one for one in self.masters() if one.id == id), None)

    def open(self, sealed: bytes, place: Place, master_id: str) -> str:
        """The secret in an envelope. Raises `CannotOpen`."""
        try:
            master = self.master(master_id)
        except MasterFileError as error:
            raise CannotOpen(str(error)) from None
        if master is None:
            raise CannotOpen(f"its master key {master_id} is not in {self.path}")
        return envelope.open_sealed(sealed, place, master)

    def opened(self, sealed: bytes, place: Place, master_id: str) -> str:
        """The secret in an envelope, or nothing where it does not open: calls go on without it, and the log says so, once."""
        try:
            return self.open(sealed, place, master_id)
        except CannotOpen as error:
            said = (place.id, str(error))
            if said not in self._told:
                if len(self._told) >= TOLD_MAX:
                    self._told.clear()
                self._told.add(said)
                self.log(f"farebox: the provider key {place.id} of account {place.account} cannot be opened: {error}")
            return ""
