"""What all worlds of one test process share: a folder in memory, the migrated database they begin with, one engine."""

import atexit
import shutil
import tempfile
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

from sqlalchemy import Engine

from farebox import market
from farebox.catalog import loader
from farebox.storage import migrate
from farebox.storage.database import Database


class Shelf:
    """Made once; each world begins with an empty folder and a fresh copy of the database."""

    def __init__(self) -> None:
        memory = Path("/dev/shm")
        self.root = Path(tempfile.mkdtemp(prefix="farebox-simulation-", dir=memory if memory.is_dir() else None))
        atexit.register(shutil.rmtree, self.root, ignore_errors=True)
        self.folder = self.root / "world"

    @cached_property
    def _migrated(self) -> Path:
        path = self.root / "migrated.db"
        migrate.upgrade(f"sqlite:///{path}")
        return path

    @cached_property
    def engine(self) -> Engine:
        """Its compiled statements outlive a world; its connections do not."""
        return Database.open(self.url).engine

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder / 'farebox.db'}"

    def clear(self) -> Path:
        """An empty world's folder."""
        self.engine.dispose()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        shutil.copyfile(self._migrated, self.folder / "farebox.db")
        (self.folder / "pepper").write_text("5a" * 32)
        # The shipped catalog has no part in this: a world has models of its own, and would be slow with it.
        assert hasattr(market, "loader"), "it is the market that reads the catalog"
        market.loader = SimpleNamespace(**{**vars(loader), "load": _no_models})  # type: ignore[assignment]
        return self.folder


def _no_models() -> tuple[()]:
    return ()


_shelf: list[Shelf] = []


def shelf() -> Shelf:
    if not _shelf:
        _shelf.append(Shelf())
    return _shelf[0]
