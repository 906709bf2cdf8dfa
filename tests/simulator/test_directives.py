"""The grammar of model names."""

import pytest

from farebox.simulator.__main__ import config_from
from farebox.simulator.directives import NONE, ROWS, DirectiveError, Directives, merge, parse, table, without_faults


def test_every_field_has_a_row_and_every_row_a_field():
    assert {row.field for row in ROWS} == set(Directives.__struct_fields__)
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_reading():
    assert parse("") == NONE
    assert parse("tokens=50+status=503+times=2") == Directives(tokens=50, status=503, times=2)
    assert parse("delay-first=500ms+delay-chunk=20us+delay-headers=2s") == Directives(
        delay_first_us=500_000, delay_chunk_us=20, delay_headers_us=2_000_000
    )
    assert parse("tool") == parse("tools=1")
    assert parse("lying-length=-5").lying_length == -5 and parse("lying-length").lying_length == 100
    assert parse("slow-headers").slow_headers_us == 5_000


@pytest.mark.parametrize(
    "text",
    ["nonsense", "tokens", "tokens=", "tokens=-1", "tokens=x", "tokens=1e9999", "no-done=1", "status=20", "usage=odd", "+",
     "delay-first=5", "delay-first=ms", "delay-first=601s", "should-retry=maybe", "code=" + "x" * 65, "tokens=1+" * 70],
)  # fmt: skip
def test_refusing(text):
    with pytest.raises(DirectiveError):
        parse(text)


def test_merging_and_lapsing():
    assert merge(parse("tokens=5+status=500"), parse("status=503+no-done")) == parse("tokens=5+status=503+no-done")
    assert without_faults(parse("tokens=5+status=503+times=2+cached=3")) == parse("tokens=5+cached=3")


def test_the_table_names_every_directive(capsys):
    assert all(f"\n{row.name}" in "\n" + table() and row.meaning in table() for row in ROWS)
    with pytest.raises(SystemExit):
        config_from(["--help"])
    assert "reset-before-headers" in capsys.readouterr().out


def test_the_command_line():
    config = config_from(["--port", "9", "--seed", "4", "--bill", "b", "--no-bill-sync", "--bill-to-the-end", "--model", "m"])
    assert (config.port, config.seed, str(config.bill), config.models) == (9, 4, "b", ("m",))
    assert not config.bill_sync and not config.abort_stops_billing
