"""Rows of JSON, CSV and Parquet files, one at a time; a bad row is named and costs no other row."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import IO, Any, cast

from boost_qa.errors import SourceError
from boost_qa.sources.files import DataFile
from boost_qa.sources.stream import Unfit

Located = tuple[str, dict[str, Any] | Unfit]  # (`file:line` or `file row N`, the row or why it cannot be read)

_PEEKED = 100  # rows of a JSON file whose keys are taken for its columns
_CHUNK = 2**20
_LARGEST_ROW = 2**26  # characters; beyond, a JSON list is taken for broken
_BETWEEN = re.compile(r"[\s,]*")


def read_rows(file: DataFile, columns: Sequence[str]) -> Iterator[Located]:
    """All rows of the file; of Parquet files only `columns` are read.

    Raises:
        SourceError: the file is damaged in a way that leaves no further rows.
    """
    with _damage(file), file.open() as raw:
        yield from _rows(file, raw, columns)


def read_columns(file: DataFile) -> list[str]:
    """The names of the columns, without reading much: the schema, the header, or the first rows' keys.

    Raises:
        SourceError: the file is damaged.
    """
    with _damage(file), file.peek() as raw:
        if file.suffix == ".parquet":
            from pyarrow.parquet import read_schema

            return list(read_schema(raw).names)
        first = islice(_rows(file, raw, ()), _PEEKED)
        return list(dict.fromkeys(key for _, row in first if isinstance(row, dict) for key in row))


def _rows(file: DataFile, raw: IO[bytes], columns: Sequence[str]) -> Iterator[Located]:
    if file.suffix == ".parquet":
        return _parquet(file.name, raw, columns)
    if file.suffix.endswith(".gz"):
        raw = cast(IO[bytes], gzip.GzipFile(fileobj=raw))
    if file.suffix.startswith(".csv"):
        return _csv(file.name, raw)
    start = raw.read(64).removeprefix(codecs.BOM_UTF8).lstrip()
    raw.seek(0)
    return _json_list(file.name, raw) if start.startswith(b"[") else _json_lines(file.name, raw)


def _json_lines(name: str, raw: IO[bytes]) -> Iterator[Located]:
    for number, line in enumerate(raw, start=1):
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if line.strip():
            yield f"{name}:{number}", _json_object(line)


def _json_object(line: bytes) -> dict[str, Any] | Unfit:
    try:
        return _object(json.loads(line.decode("utf-8")))
    except UnicodeDecodeError:
        return Unfit("not UTF-8")
    except (ValueError, RecursionError):
        return Unfit("unreadable JSON")


def _object(value: Any) -> dict[str, Any] | Unfit:
    return value if isinstance(value, dict) else Unfit("not a JSON object")


def _json_list(name: str, raw: IO[bytes]) -> Iterator[Located]:
    text, decoder = _text(raw), json.JSONDecoder()
    buffer = text.read(_CHUNK)
    at, number = buffer.index("[") + 1, 0
    while True:
        at = cast(re.Match[str], _BETWEEN.match(buffer, at)).end()
        if buffer.startswith("]", at):
            return
        try:
            value, at = decoder.raw_decode(buffer, at)
        except (ValueError, RecursionError) as error:  # broken, or not all there yet
            rest = len(buffer) - at
            more = text.read(max(_CHUNK, rest)) if rest < _LARGEST_ROW else ""
            if not more:
                raise _damaged(name, f"no JSON after row {number:,}: {error}") from error
            buffer, at = buffer[at:] + more, 0
            continue
        number += 1
        yield f"{name} row {number}", _object(value)


def _csv(name: str, raw: IO[bytes]) -> Iterator[Located]:
    csv.field_size_limit(_LARGEST_ROW)  # the default of 128 KiB is less than some answers
    reader = csv.reader(_text(raw), strict=True)
    header = next(reader, [])
    while True:
        place = f"{name}:{reader.line_num + 1}"
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield place, Unfit("unreadable CSV")
            continue
        if len(values) > len(header):
            yield place, Unfit("more fields than the header")
        elif values:
            yield place, dict(zip(header, values, strict=False))


def _text(raw: IO[bytes]) -> io.TextIOWrapper:
    # surrogateescape turns bytes that are no UTF-8 into lone surrogates, which make only their own row unfit
    return io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _parquet(name: str, raw: IO[bytes], columns: Sequence[str]) -> Iterator[Located]:
    from pyarrow.parquet import ParquetFile

    table = ParquetFile(raw, buffer_size=_CHUNK)
    known = [column for column in columns if column in table.schema_arrow.names]
    number = 0
    for batch in table.iter_batches(1024, columns=known):
        for row in _parquet_rows(batch):
            number += 1
            yield f"{name} row {number}", row


def _parquet_rows(batch: Any) -> list[dict[str, Any] | Unfit]:
    try:
        return cast(list[dict[str, Any] | Unfit], batch.to_pylist())
    except UnicodeDecodeError:
        if batch.num_rows == 1:
            return [Unfit("not UTF-8")]
        return [row for at in range(batch.num_rows) for row in _parquet_rows(batch.slice(at, 1))]


@contextmanager
def _damage(file: DataFile) -> Iterator[None]:
    errors: tuple[type[Exception], ...] = (*file.errors, EOFError, zlib.error, csv.Error)
    if file.suffix == ".parquet":
        from pyarrow import ArrowException

        errors = (*errors, ArrowException)
    try:
        yield
    except errors as error:
        raise _damaged(file.name, error) from error


def _damaged(name: str, why: object) -> SourceError:
    return SourceError(f"{name}: cannot be read: {why}", "The file may be cut off or of another kind; fetch it again.")
