"""Configuration errors name the file, the path inside it and the fix; nothing is silently defaulted."""

from pathlib import Path

import pytest

from farebox.config import ConfigError, load


def read(tmp_path: Path, text: str, **environment: str) -> object:
    path = tmp_path / "farebox.toml"
    path.write_text(text)
    return load(path, environment)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[server]\nprot = 1", ["`server.prot` is not a setting", "did you mean `port`?"]),
        ("[sever]\nport = 1", ["`sever` is not a setting", "did you mean `server`?"]),
        ("[server]\nport = 70000", ["`server.port`", "70000 is not a port"]),
        ("[server]\nworkers = 0", ["`server.workers`", "not from 1 to 64"]),
        ("[attempts]\nconnect_s = -1", ["`attempts.connect_s`", "-1"]),
        ("[billing]\nmarkup_percent = 5.5", ["`billing.markup_percent`", "in quotes"]),
        ('[billing]\nmarkup_percent = "5.555"', ["`billing.markup_percent`", "more than 2 decimals"]),
        ('[providers.lab]\nbase_url = "ftp://x"', ["`providers.lab.base_url`", "http or https"]),
        ('[providers.lab]\nwire = "soap"', ["`providers.lab.wire`: 'soap'", '"openai_chat" or "anthropic_messages"']),
        ('[providers.lab]\napi_key = "${NOWHERE}"', ["`providers.lab.api_key`", "`NOWHERE`"]),
        ('[providers.lab]\napi_key = "a"\napi_keys = ["b"]', ["`providers.lab`", "write one of them"]),
        ('[providers.lab]\napi_keys = ["a", { key = "b", weight = 0 }]', ["`providers.lab.api_keys[1].weight`", "from 1 to"]),
        ('[providers.lab]\napi_keys = [{ key = "b", wieght = 2 }]', ["`providers.lab.api_keys[0].wieght`", "`weight`"]),
        ("[providers.lab]\nconnect_s = 0.0", ["`providers.lab.connect_s`", "0.01"]),
        ('[providers.lab]\napi_keys = ["a", ""]', ["`providers.lab.api_keys[1]`", "is empty"]),
        ('[[models]]\nslug = "a/b"\ncontext_window = 1\nmax_output_tokens = 1\noffers = []', ["`models[0].offers`", "no offer"]),
        ('[[models]]\nslug = "a/b"\nmax_output_tokens = 1\noffers = []', ["`models[0].context_window`", "is missing"]),
        ('[display]\ncurrency = "EUR"', ["`display`", "has no rate"]),
        ('[display]\nrates = { "2026-11-01" = "0.92" }', ["`display.currency`", "is missing"]),
        ('[display]\ncurency = "EUR"', ["`display.curency` is not a setting", "did you mean `currency`?"]),
        ('[display]\ncurrency = "EUR"\nrates = { "2026-11-01" = 0.92 }', ["`display.rates[...]`", "in quotes"]),
        ("port = = 1", ["not valid TOML"]),
        ('[journal]\nsync = "sometimes"', ["`journal.sync`: 'sometimes'", '"always", "interval" or "os"']),
        ('[policies.p]\nsort = "pace"', ["`policies.p.sort`: 'pace'", '"price", "throughput" or "latency"']),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, text: str, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "farebox.toml"))
    for part in parts:
        assert part in message, message


def test_a_price_written_as_a_number_is_refused_because_it_is_a_float(tmp_path: Path) -> None:
    offer = '{ provider = "lab", id = "x", input = 2.5, output = "10" }'
    with pytest.raises(ConfigError, match="decimal strings, never floats"):
        read(tmp_path, f'[[models]]\nslug = "a/b"\ncontext_window = 1\nmax_output_tokens = 1\noffers = [{offer}]')


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="farebox init --data"):
        load(tmp_path / "none.toml", {})


def test_the_environment_fills_values_in(tmp_path: Path) -> None:
    path = tmp_path / "farebox.toml"
    path.write_text('[providers.lab]\nwire = "openai_chat"\nbase_url = "http://h/v1"\napi_key = "${LAB_KEY}-x"')
    assert load(path, {"LAB_KEY": "k"}).config.providers["lab"].api_key == "k-x"


def test_sqlite_paths_are_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "farebox.toml"
    path.write_text("")
    loaded = load(path, {})
    assert loaded.database_url == f"sqlite:///{tmp_path.resolve() / 'farebox.db'}"
    assert loaded.markup_bp == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('tax_percent = "19.555"', "`invoices.tax_percent`"),
        ('tax_percent = "101"', "more than 100 percent"),
        ('tax_percent = 19', "in quotes"),
        ('prefix = "A"\ncredit_note_prefix = "A"', "two documents would have one number"),
        ("reminder_days = [10, 3]", "ascending"),
        ("reminder_days = [0]", "from 1 on"),
        ("grace_hours = -1", "`invoices.grace_hours`"),
        ('sellr = "x"', "did you mean `seller`?"),
    ],
)
def test_invoice_settings_that_cannot_be_are_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, f"[invoices]\n{text}")
    assert words in str(caught.value)
