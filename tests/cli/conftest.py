"""A data folder, and the command line over it."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.shell import Shell

from farebox.cli.setup import initialise

CONFIG = """
[local_model]
enabled = false

[providers.lab]
wire = "openai_chat"
base_url = "http://127.0.0.1:9/v1"
api_key = "lab-secret"

[[models]]
slug = "lab/echo"
context_window = 8192
max_output_tokens = 1024
offers = [{ provider = "lab", id = "echo", input = "2.50", cached_input = "1.25", output = "10.00" }]
"""


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of whoever runs the tests switch nothing on."""
    for name in list(os.environ):
        if name.endswith(("_API_KEY", "_TOKEN")) or name.startswith("FAREBOX_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def _template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder that `init` made, and its first key."""
    folder = tmp_path_factory.mktemp("cli") / "data"
    loaded, made = initialise(folder)
    loaded.path.write_text(loaded.path.read_text() + CONFIG)
    return folder, made.secret


@pytest.fixture
def shell(_template: tuple[Path, str], tmp_path: Path) -> Iterator[Shell]:
    """The command line over a fresh folder with one account, one key and one provider."""
    shutil.copytree(_template[0], tmp_path / "data")
    yield Shell(tmp_path / "data")


@pytest.fixture
def first_secret(_template: tuple[Path, str]) -> str:
    """The secret of the key that `init` made."""
    return _template[1]
