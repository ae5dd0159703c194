"""Where the rows of a profile come from: files of columns, read a few rows at a time, in memory that does not grow.

build_data     what a file of columns is, and which formats there are
build_arrow    Parquet and CSV, by pyarrow
build_npz      NumPy archives
build_columns  which columns are which input, and of which datatype
build          runs the model on all rows, and measures what goes in and comes out
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from runtime.repository.digest import CHUNK_BYTES

Array = npt.NDArray[Any]

PARQUET = (".parquet", ".pq")
CSV = (".csv", ".csv.gz")
NPZ = (".npz",)
FORMATS = (*PARQUET, *CSV, *NPZ)

VARIES = -1
"""In the shape of a row: lists whose lengths the file does not declare."""


class DataProblem(ValueError):
    """The data cannot be read, or does not fit the model. The message says what was expected, what came, and where."""


class Wanted(Enum):
    """What a column is read as, where the file itself does not say: in CSV all is text."""

    NUMBER = "number"
    INTEGER = "integer"
    UNSIGNED = "unsigned"
    BOOLEAN = "boolean"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Column:
    """Some rows of a column. values: [rows, ...] of numbers, booleans, str or bytes; `nulls`: bool[rows], or none."""

    values: Array
    nulls: npt.NDArray[np.bool_] | None = None


Rows = Mapping[str, Column]


class Data(Protocol):
    """columns: the shape of a row of each, () for a single value, in the file's order."""

    columns: Mapping[str, tuple[int, ...]]

    @property
    def rows(self) -> int | None:
        """None where the file does not say."""

    @property
    def bytes_read(self) -> int:
        """So far, where `rows` is None."""

    def batches(self, wanted: Mapping[str, Wanted], rows: int) -> Iterator[Rows]:
        """The columns named, in order, `rows` at a time or about as many. Raises DataProblem."""


def data_files(paths: Sequence[Path]) -> tuple[Path, ...]:
    """The files meant: a folder stands for the Parquet files below it. Raises DataProblem unless of one format."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            below = sorted(file for file in path.rglob("*") if file.is_file() and _suffix(file) in PARQUET)
            files += [file for file in below if not file.name.startswith((".", "_"))]
            if not files:
                raise DataProblem(f"{path}: expected Parquet files in the folder, found none")
        elif path.is_file():
            files.append(path)
        else:
            raise DataProblem(f"{path}: there is no such file")
    formats = {_format(file) for file in files}
    if len(formats) > 1:
        raise DataProblem(f"expected files of one format, got {', '.join(sorted(formats))}")
    return tuple(files)


def open_data(files: Sequence[Path]) -> Data:
    """Raises DataProblem for what cannot be read, or where the format needs a package that is not installed."""
    kind = _format(files[0])
    opener: Callable[[Path], Data]
    if kind == "npz":
        from runtime.profile.build_npz import NpzData as opener  # noqa: N813
    else:
        try:
            from runtime.profile import build_arrow
        except ImportError as error:
            raise DataProblem(
                f"{files[0].name}: Parquet and CSV need pyarrow: pip install 'driftgate[profile]' ({error})"
            ) from None
        opener = build_arrow.ParquetData if kind == "parquet" else build_arrow.CsvData
    opened = [opener(file) for file in files]
    return opened[0] if len(opened) == 1 else _Chain([file.name for file in files], opened)


def fingerprint(files: Sequence[Path], on_bytes: Callable[[int], None] = lambda _: None) -> str:
    """The digest of the file; of several, that of their digests in order. on_bytes: gets how many more were read."""
    digests = []
    for file in files:
        content = hashlib.sha256()
        try:
            with file.open("rb") as stream:
                while chunk := stream.read(CHUNK_BYTES):
                    content.update(chunk)
                    on_bytes(len(chunk))
        except OSError as error:
            raise DataProblem(f"{file}: cannot be read: {error.strerror}") from None
        digests.append(content)
    if len(digests) == 1:
        return f"sha256:{digests[0].hexdigest()}"
    return "sha256:" + hashlib.sha256(b"".join(digest.digest() for digest in digests)).hexdigest()


def _suffix(file: Path) -> str:
    name = file.name.lower()
    return next((suffix for suffix in FORMATS if name.endswith(suffix)), "")


def _format(file: Path) -> str:
    suffix = _suffix(file)
    if suffix in PARQUET:
        return "parquet"
    if suffix in CSV:
        return "csv"
    if suffix in NPZ:
        return "npz"
    raise DataProblem(f"{file.name}: expected a file whose name ends in {', '.join(FORMATS)}")


class _Chain:
    """Files with the same columns, one after the other."""

    def __init__(self, names: list[str], parts: list[Data]) -> None:
        self._names, self._parts = names, parts
        self.columns = parts[0].columns

    @property
    def rows(self) -> int | None:
        counts = [part.rows for part in self._parts]
        return None if None in counts else sum(count for count in counts if count is not None)

    @property
    def bytes_read(self) -> int:
        return sum(part.bytes_read for part in self._parts)

    def batches(self, wanted: Mapping[str, Wanted], rows: int) -> Iterator[Rows]:
        for name, part in zip(self._names, self._parts, strict=True):
            if missing := [column for column in wanted if column not in part.columns]:
                raise DataProblem(f"{name}: expected the columns of {self._names[0]}, but {missing[0]!r} is not there")
            yield from part.batches(wanted, rows)
