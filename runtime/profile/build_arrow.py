"""Parquet and CSV files, by pyarrow, which is imported by whoever imports this."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from runtime.profile.build_data import VARIES, Column, DataProblem, Rows, Wanted

READ_BYTES = 1 << 20
"""At once of a column, so that a row group is never in memory as a whole."""

CSV_BLOCK_BYTES = 1 << 20
"""What a CSV file is read in; a line must be shorter."""

TYPES = {
    Wanted.NUMBER: pa.float64(),
    Wanted.INTEGER: pa.int64(),
    Wanted.UNSIGNED: pa.uint64(),
    Wanted.BOOLEAN: pa.bool_(),
    Wanted.TEXT: pa.string(),
}


class ParquetData:
    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                self._rows: int = file.metadata.num_rows
                schema = file.schema_arrow
        except (pa.ArrowException, OSError) as error:
            raise DataProblem(f"{path.name}: is not a readable Parquet file: {_first_line(error)}") from None
        self.columns: Mapping[str, tuple[int, ...]] = {field.name: _row_shape(field.type) for field in schema}

    @property
    def rows(self) -> int | None:
        return self._rows

    @property
    def bytes_read(self) -> int:
        return 0

    def batches(self, wanted: Mapping[str, Wanted], rows: int) -> Iterator[Rows]:
        try:
            with pyarrow.parquet.ParquetFile(self._path, buffer_size=READ_BYTES, pre_buffer=False) as file:
                for batch in file.iter_batches(rows, columns=list(wanted), use_threads=False):
                    yield {name: _column(name, batch.column(name)) for name in wanted}
        except (pa.ArrowException, OSError) as error:
            raise DataProblem(f"{self._path.name}: is damaged: {_first_line(error)}") from None


class CsvData:
    """A first line of names, then rows; compressed by gzip where the file's name ends in .gz."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Any = None
        self._before = 0
        try:
            with pyarrow.csv.open_csv(self._stream(), read_options=_read_options()) as reader:
                names = reader.schema.names
        except (pa.ArrowException, OSError) as error:
            raise DataProblem(f"{path.name}: is not a readable CSV file: {_first_line(error)}") from None
        if twice := {name for name in names if names.count(name) > 1}:
            raise DataProblem(f"{path.name}: expected columns with different names, got {min(twice)!r} twice")
        self.columns: Mapping[str, tuple[int, ...]] = dict.fromkeys(names, ())

    @property
    def rows(self) -> int | None:
        return None

    @property
    def bytes_read(self) -> int:
        return int(self._file.tell()) if self._file is not None and not self._file.closed else self._before

    def batches(self, wanted: Mapping[str, Wanted], rows: int) -> Iterator[Rows]:  # noqa: ARG002  (it has blocks)
        options = pyarrow.csv.ConvertOptions(
            include_columns=list(wanted), column_types={name: TYPES[kind] for name, kind in wanted.items()}
        )
        try:
            # Without threads, an error names its row. Of one column, an empty line is a row without a value.
            parse = pyarrow.csv.ParseOptions(ignore_empty_lines=len(self.columns) > 1)
            settings = {"read_options": _read_options(), "parse_options": parse, "convert_options": options}
            with pyarrow.csv.open_csv(self._stream(), **settings) as reader:
                for batch in reader:
                    yield {name: _column(name, batch.column(name)) for name in wanted}
        except (pa.ArrowException, OSError) as error:
            raise DataProblem(f"{self._path.name}: {_first_line(error)}") from None
        finally:
            self._before = self._path.stat().st_size

    def _stream(self) -> Any:
        self._file = pa.OSFile(str(self._path), "rb")
        return pa.CompressedInputStream(self._file, "gzip") if self._path.name.endswith(".gz") else self._file


def _read_options() -> Any:
    return pyarrow.csv.ReadOptions(block_size=CSV_BLOCK_BYTES, use_threads=False)


def _row_shape(kind: Any) -> tuple[int, ...]:
    if pa.types.is_fixed_size_list(kind):
        return (kind.list_size, *_row_shape(kind.value_type))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return (VARIES, *_row_shape(kind.value_type))
    return ()


def _column(name: str, array: Any) -> Column:
    kind = array.type
    if pa.types.is_dictionary(kind):
        array = array.dictionary_decode()
        kind = array.type
    if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _lists(name, array)
    if pa.types.is_decimal(kind):
        array = array.cast(pa.float64())
        kind = array.type
    if pa.types.is_null(kind):
        return Column(np.zeros(len(array)), np.ones(len(array), np.bool_))
    texts = pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view()
    if texts or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        values = array.to_numpy(zero_copy_only=False)
        return Column(values, _nulls(array))
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise DataProblem(
            f"column {name!r} is of type {kind}: expected numbers, booleans or texts; convert it as clients do"
        )
    nulls = _nulls(array)
    if nulls is not None:
        array = array.fill_null(False if pa.types.is_boolean(kind) else 0)  # an integer stays one
    return Column(array.to_numpy(zero_copy_only=False), nulls)


def _lists(name: str, array: Any) -> Column:
    if array.null_count:
        raise DataProblem(f"column {name!r}: expected a list in each row, got none in row {_first_null(array)}")
    values = _column(name, array.flatten())
    if values.nulls is not None:
        raise DataProblem(f"column {name!r}: expected no missing numbers in its lists")
    if not len(array):
        return Column(values.values)
    width, rest = divmod(len(values.values), len(array))
    if not pa.types.is_fixed_size_list(array.type):
        lengths = np.diff(array.offsets.to_numpy())
        if rest or (lengths != width).any():
            raise DataProblem(f"column {name!r}: expected lists of one length, got {lengths.min()} to {lengths.max()}")
    return Column(values.values.reshape(len(array), width, *values.values.shape[1:]))


def _nulls(array: Any) -> Any:
    return array.is_null().to_numpy(zero_copy_only=False) if array.null_count else None


def _first_null(array: Any) -> int:
    return int(np.argmax(_nulls(array))) + 1


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
