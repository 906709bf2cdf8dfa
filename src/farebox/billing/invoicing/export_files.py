"""Export files: tables of typed columns as CSV, JSON lines or Parquet, written as they come, in bounded memory."""

import csv
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from importlib import import_module
from typing import IO, Any, Literal, Protocol

import msgspec

from farebox.billing.books.periods import format_moment
from farebox.billing.invoicing.exports import Column, Kind, Values
from farebox.money import format_amount, format_unit_rate

Format = Literal["csv", "jsonl", "parquet"]
GROUP_ROWS = 10_000
"""A row group of Parquet, held in memory, packed, until it is full."""
PACKED_ROWS = 1_000
"""Rows that are packed at a time."""


class ParquetMissing(Exception):
    """Parquet needs a package that is not installed."""


class Writer(Protocol):
    """Takes lines; `close` ends the file, which is not whole before."""

    def write(self, rows: Iterable[Values]) -> None: ...

    def close(self) -> None: ...


def writer(form: Format, columns: Sequence[Column], file: IO[bytes]) -> Writer:
    """A writer onto an open binary file. Raises `ParquetMissing`."""
    if form == "csv":
        return _Csv(columns, file)
    return _JsonLines(columns, file) if form == "jsonl" else _Parquet(columns, file)


def text_of(kind: Kind, value: str | int | None) -> str | int | None:
    """A value as text formats show it: amounts and rates as decimal strings, times in RFC 3339."""
    if value is None or isinstance(value, str):
        return value
    match kind:
        case "amount":
            return format_amount(value)
        case "quantity":
            return f"{value}.0"
        case "decimal":
            return format_unit_rate(value)
        case "time":
            return format_moment(value)
        case _:
            return value


class _Lines:
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, text: str) -> int:
        return self._file.write(text.encode())


class _Csv:
    """RFC 4180, UTF-8, a header line."""

    def __init__(self, columns: Sequence[Column], file: IO[bytes]) -> None:
        self._kinds: list[Kind] = [column.kind for column in columns]
        self._writer = csv.writer(_Lines(file))
        self._writer.writerow([column.name for column in columns])

    def write(self, rows: Iterable[Values]) -> None:
        kinds = self._kinds
        self._writer.writerows([text_of(kind, value) for kind, value in zip(kinds, row, strict=True)] for row in rows)

    def close(self) -> None: ...


class _JsonLines:
    """One object per line; money as decimal strings."""

    def __init__(self, columns: Sequence[Column], file: IO[bytes]) -> None:
        self._columns = columns
        self._file = file
        self._encode = msgspec.json.Encoder().encode

    def write(self, rows: Iterable[Values]) -> None:
        for row in rows:
            shown = {one.name: text_of(one.kind, value) for one, value in zip(self._columns, row, strict=True)}
            self._file.write(self._encode(shown) + b"\n")

    def close(self) -> None: ...


class _Parquet:
    """Typed columns: amounts as decimals with 9 places, prices with 12, times as UTC timestamps."""

    def __init__(self, columns: Sequence[Column], file: IO[bytes]) -> None:
        try:
            # Optional, and without types.
            self._arrow: Any = import_module("pyarrow")
            files: Any = import_module("pyarrow.parquet")
        except ImportError:
            raise ParquetMissing("Parquet needs the package pyarrow: pip install 'farebox[parquet]'") from None
        types: dict[Kind, Any] = {
            "text": self._arrow.string(),
            "count": self._arrow.int64(),
            "quantity": self._arrow.decimal128(20, 1),
            "amount": self._arrow.decimal128(19, 9),
            "decimal": self._arrow.decimal128(30, 12),
            "time": self._arrow.timestamp("us", tz="UTC"),
        }
        self._kinds: list[Kind] = [column.kind for column in columns]
        self._schema: Any = self._arrow.schema([(column.name, types[column.kind]) for column in columns])
        self._writer: Any = files.ParquetWriter(file, self._schema, compression="zstd")
        self._waiting: list[Values] = []
        self._packed: list[Any] = []

    def write(self, rows: Iterable[Values]) -> None:
        for row in rows:
            self._waiting.append(row)
            if len(self._waiting) >= PACKED_ROWS:
                self._pack()
                if len(self._packed) * PACKED_ROWS >= GROUP_ROWS:
                    self._flush()

    def _pack(self) -> None:
        columns = zip(*self._waiting, strict=True)
        arrays = [
            self._arrow.array([_typed(kind, value) for value in column], type=field.type)
            for kind, column, field in zip(self._kinds, columns, self._schema, strict=True)
        ]
        self._packed.append(self._arrow.RecordBatch.from_arrays(arrays, schema=self._schema))
        self._waiting.clear()

    def _flush(self) -> None:
        self._writer.write_table(self._arrow.Table.from_batches(self._packed, schema=self._schema), row_group_size=GROUP_ROWS)
        self._packed.clear()

    def close(self) -> None:
        if self._waiting:
            self._pack()
        if self._packed:
            self._flush()
        self._writer.close()


def _typed(kind: Kind, value: str | int | None) -> object:
    if value is None or isinstance(value, str):
        return value
    match kind:
        case "amount":
            return Decimal(value).scaleb(-9)
        case "quantity":
            return Decimal(value)
        case "decimal":
            return Decimal(value).scaleb(-12)
        case "time":
            return datetime.fromtimestamp(value // 1_000_000, UTC).replace(microsecond=value % 1_000_000)
        case _:
            return value
