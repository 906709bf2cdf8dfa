"""`init`, `doctor`, `simulate --help`, `--version`, and the program as a process of its own."""

import json
import os
import re
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.shell import Shell

from farebox import __version__
from farebox.cli import setup
from farebox.gate import keys
from farebox.simulator import directives


def test_init_makes_a_folder_that_works_and_keeps_its_secrets_private(tmp_path: Path) -> None:
    shell = Shell(tmp_path / "data")
    made = shell.plain("init", "--data", str(shell.folder), "--json").json()
    assert set(made) == {"config", "account", "key_id", "key"}
    assert [key["id"] for key in shell.json("keys", "list")["keys"]] == [made["key_id"]]
    assert shell.json("accounts", "list")["accounts"][0]["remaining"] == "10.00"
    assert shell.json("ledger", "check")["ok"]
    for name in ("pepper", ".env"):
        assert stat.S_IMODE((shell.folder / name).stat().st_mode) == 0o600, f"{name} is for its owner alone"
    assert setup.first_key(shell.folder) == made["key"]


def test_init_never_overwrites(shell: Shell) -> None:
    before = {path.name: path.read_bytes() for path in shell.folder.iterdir() if path.is_file()}
    said = shell.plain("init", "--data", str(shell.folder)).refused()
    assert "exists already" in said and "`farebox serve --config" in said
    assert {path.name: path.read_bytes() for path in shell.folder.iterdir() if path.is_file()} == before


def test_init_goes_on_where_an_earlier_one_was_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shell = Shell(tmp_path / "data")
    words = ("init", "--data", str(shell.folder), "--json")

    def cut(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(setup, "make_key", cut)
        with pytest.raises(KeyboardInterrupt):
            setup.initialise(shell.folder)
    assert not shell.config.exists()
    assert shell.plain(*words).status == 0
    assert shell.json("accounts", "list")["accounts"][0]["remaining"] == "10.00", "the starting credit is given once"


def test_init_heeds_a_pepper_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shell = Shell(tmp_path / "data")
    pepper = bytes(range(32))
    monkeypatch.setenv("FAREBOX_PEPPER", pepper.hex())
    made = shell.plain("init", "--data", str(shell.folder), "--json").json()
    assert not (shell.folder / "pepper").exists(), "the secret stays where its owner keeps it"
    with sqlite3.connect(shell.folder / "farebox.db") as database:
        (stored,) = database.execute("SELECT digest FROM keys WHERE id = ?", (made["key_id"],)).fetchone()
    database.close()
    assert stored == keys.digest(made["key"], pepper), "or the first key would not work"


def test_a_damaged_pepper_is_one_sentence(shell: Shell, tmp_path: Path) -> None:
    folder = tmp_path / "fresh"
    folder.mkdir()
    (folder / "pepper").write_text("not hexadecimal")
    assert "hexadecimal" in shell.plain("init", "--data", str(folder)).refused()
    (shell.folder / "pepper").unlink()
    assert "pepper: missing" in shell("serve").refused(), "before anything is started"


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = Shell(tmp_path).plain("init", "--data", str(tmp_path / "file" / "data")).refused()
    assert "Not a directory" in said and "`farebox doctor`" in said


# --- doctor ------------------------------------------------------------------------------------------------------------------


def findings(shell: Shell) -> dict[str, dict[str, str]]:
    said = shell("doctor", "--json")
    found = json.loads(said.out)
    problems = [finding for finding in found["findings"] if finding["level"] == "problem"]
    assert found["ok"] is not bool(problems) and said.status == (1 if problems else 0)
    assert all(set(finding) == {"level", "subject", "text", "fix"} for finding in found["findings"])
    assert all(finding["fix"] for finding in problems), "every problem comes with its fix"
    return {finding["subject"]: finding for finding in found["findings"]}


def test_a_fresh_folder_is_healthy(shell: Shell) -> None:
    found = findings(shell)
    assert {"configuration", "clock", "disk", "pepper", "providers", "database", "journal", "prices"} <= set(found)
    assert not [finding for finding in found.values() if finding["level"] == "problem"]
    assert "lab" in found["providers"]["text"]
    assert found["program"]["text"].startswith("interpreted")


def test_doctor_finds_a_wrong_configuration(shell: Shell) -> None:
    shell.config.write_text("[server]\nport = 'x'\n")
    assert "server.port" in findings(shell)["configuration"]["text"]
    assert "PROBLEM configuration" in shell("doctor").out


def test_doctor_finds_a_readable_or_a_missing_pepper(shell: Shell) -> None:
    (shell.folder / "pepper").chmod(0o644)
    assert findings(shell)["pepper"]["fix"].startswith("chmod 600 ")
    (shell.folder / "pepper").unlink()
    assert "restore" in findings(shell)["pepper"]["fix"]


def test_doctor_finds_that_nobody_can_be_called(shell: Shell) -> None:
    text = shell.config.read_text()
    shell.config.write_text(text[: text.index("[local_model]")])
    shell.config.write_text(shell.config.read_text() + "[local_model]\nenabled = false\n")
    assert "OPENAI_API_KEY" in findings(shell)["providers"]["fix"]


def test_doctor_finds_a_database_that_is_not_there(shell: Shell) -> None:
    shell.config.write_text(
        shell.config.read_text().replace('"sqlite:///farebox.db"', '"postgresql://nobody@127.0.0.1:9/none"')
    )
    assert "database.url" in findings(shell)["database"]["fix"]


def test_doctor_and_the_others_find_an_old_schema(shell: Shell) -> None:
    with sqlite3.connect(shell.folder / "farebox.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '0000'")
    database.close()
    assert "`farebox serve`" in findings(shell)["database"]["fix"]
    assert "`farebox serve`" in shell("keys", "list").refused()


def test_doctor_finds_a_damaged_journal(shell: Shell) -> None:
    slot = shell.folder / "journal" / "w0"
    slot.mkdir(parents=True)
    (slot / "00000001.journal").write_bytes(b"00000000 {}\n")
    (slot / "00000002.journal").write_bytes(b"")
    assert "keep the file" in findings(shell)["journal"]["fix"]


# --- the rest ----------------------------------------------------------------------------------------------------------------


def test_simulate_help_lists_every_directive(shell: Shell) -> None:
    said = shell.plain("simulate", "--help")
    assert said.status == 0
    for row in directives.ROWS:
        assert re.search(rf"^{re.escape(row.name)}\b", said.out, re.MULTILINE), row.name


def test_the_version_is_the_package_s(shell: Shell) -> None:
    assert shell.plain("--version").out.strip().endswith(f"version {__version__}, interpreted")


def test_a_group_alone_shows_its_help(shell: Shell) -> None:
    said = shell.plain("keys")
    assert said.status == 0 and "Usage: farebox keys" in said.out


def test_the_program_as_a_process(shell: Shell) -> None:
    environment = {**os.environ, "FAREBOX_CONFIG": str(shell.config)}
    good = subprocess.run(
        [sys.executable, "-m", "farebox", "ledger", "check"], capture_output=True, text=True, env=environment, timeout=60
    )
    assert (good.returncode, good.stderr) == (0, "") and good.stdout.startswith("The books balance")
    bad = subprocess.run(
        [sys.executable, "-m", "farebox", "topup", "nobody", "5"], capture_output=True, text=True, env=environment, timeout=60
    )
    assert (bad.returncode, bad.stdout) == (1, "") and bad.stderr.count("\n") == 1


def test_ledger_check_ends_with_1_when_the_books_do_not_balance(shell: Shell) -> None:
    shell.json("topup", "default", "5")
    with sqlite3.connect(shell.folder / "farebox.db") as database:
        database.execute("UPDATE scopes SET posted_nano = posted_nano + 1")
    database.close()
    said = shell("ledger", "check", "--json")
    found = json.loads(said.out)
    assert said.status == 1 and found["ok"] is False and found["violations"]
    assert all(set(violation) >= {"invariant", "subject", "sentence"} for violation in found["violations"])
    assert shell("ledger", "check").out.startswith("I")
