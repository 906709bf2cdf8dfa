"""The command line in this process: what it printed, and how it ended."""

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from farebox import cli


class Ran:
    """What a command did."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status = status
        self.out = out
        self.err = err

    def json(self) -> Any:
        assert self.status == 0, self.err
        return json.loads(self.out)

    def refused(self, status: int = 1) -> str:
        """The one sentence of a refusal: on standard error, with nothing on standard output."""
        assert self.status == status, (self.status, self.out, self.err)
        assert self.out == "", self.out
        assert self.err.startswith("farebox: ") and self.err.count("\n") == 1, self.err
        return self.err.removeprefix("farebox: ").strip()


class Shell:
    """`farebox …` over one data folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "farebox.toml"

    def plain(self, *words: str) -> Ran:
        """The command as it is written."""
        out, err = io.StringIO(), io.StringIO()
        status = 0
        typed, sys.argv = sys.argv, ["farebox", *words]
        try:
            with redirect_stdout(out), redirect_stderr(err):
                cli.main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        finally:
            sys.argv = typed
        return Ran(status, out.getvalue(), err.getvalue())

    def __call__(self, *words: str) -> Ran:
        """The command over this folder."""
        return self.plain(*words, "--config", str(self.config))

    def json(self, *words: str) -> Any:
        return self(*words, "--json").json()
