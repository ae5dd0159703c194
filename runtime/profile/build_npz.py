"""Arrays of an .npz file, read a few rows at a time: neither the file nor an array is ever in memory as a whole."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
from numpy.lib import format as npy

from runtime.profile.build_data import Array, Column, DataProblem, Rows, Wanted

SUFFIX = ".npy"
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError)


class NpzData:
    """Arrays by name. Rows lie along the first axis; an array without axes stands for a value that all rows share."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._headers: dict[str, tuple[tuple[int, ...], bool, np.dtype[Any]]] = {}
        try:
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    with archive.open(name) as member:
                        self._headers[name.removesuffix(SUFFIX)] = _header(path.name, name, member)
        except BROKEN as error:
            raise DataProblem(f"{path.name}: is not a readable .npz file: {error}") from None
        self.columns: Mapping[str, tuple[int, ...]] = {name: shape[1:] for name, (shape, _, _) in self._headers.items()}

    @property
    def rows(self) -> int | None:
        """Of the array with the most: which ones are wanted is not known yet."""
        return max((shape[0] for shape, _, _ in self._headers.values() if shape), default=0)

    @property
    def bytes_read(self) -> int:
        return 0

    def batches(self, wanted: Mapping[str, Wanted], rows: int) -> Iterator[Rows]:
        total = self._rows_of(wanted)
        try:
            with contextlib.ExitStack() as stack:
                archive = stack.enter_context(zipfile.ZipFile(self._path))
                readers = {name: stack.enter_context(self._reader(archive, name)) for name in wanted}
                for start in range(0, total, rows):
                    count = min(rows, total - start)
                    yield {name: Column(reader.take(count)) for name, reader in readers.items()}
        except BROKEN as error:
            raise DataProblem(f"{self._path.name}: is damaged: {error}") from None

    def _rows_of(self, wanted: Mapping[str, Wanted]) -> int:
        counts = {name: self._headers[name][0][0] for name in wanted if self._headers[name][0]}
        if not counts:
            raise DataProblem(f"{self._path.name}: expected arrays with rows along the first axis, got none")
        if len(set(counts.values())) > 1:
            shown = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise DataProblem(f"{self._path.name}: expected arrays with as many rows each, got {shown}")
        return next(iter(counts.values()))

    def _reader(self, archive: zipfile.ZipFile, name: str) -> _Reader:
        shape, fortran, dtype = self._headers[name]
        member = archive.open(name + SUFFIX if name + SUFFIX in archive.NameToInfo else name)
        _header(self._path.name, name, member)
        if not shape:
            return _Shared(member, shape, dtype)
        return _ByColumns(member, shape, dtype) if fortran and len(shape) > 1 else _Reader(member, shape, dtype)


def _header(file: str, name: str, member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        version = npy.read_magic(member)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(member)
    except ValueError as error:
        raise DataProblem(f"{file}: {name} is no array: {error}") from None
    if dtype.hasobject:
        raise DataProblem(
            f"{file}: the array {name.removesuffix(SUFFIX)!r} holds Python objects, which are not read: save texts as "
            "array.astype(str)"
        )
    return shape, fortran, dtype


class _Reader:
    """Rows that lie one after the other."""

    def __init__(self, member: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._member, self._dtype = member, dtype
        self._row = shape[1:]
        self._row_bytes = math.prod(self._row) * dtype.itemsize

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._member.close()

    def take(self, rows: int) -> Array:
        data = self._member.read(rows * self._row_bytes)
        if len(data) != rows * self._row_bytes:
            raise EOFError("an array ends before its last row")
        return np.frombuffer(data, self._dtype).reshape(rows, *self._row)


class _Shared(_Reader):
    def __init__(self, member: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        super().__init__(member, (1, *shape), dtype)
        self._value = super().take(1)

    def take(self, rows: int) -> Array:
        return np.repeat(self._value, rows)


class _ByColumns(_Reader):
    """An array in Fortran's order, as a table of pandas gives it: copied to disk first, then read column by column."""

    def __init__(self, member: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        super().__init__(member, shape, dtype)
        self._rows, self._at = shape[0], 0
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (closed by __exit__)
        try:
            shutil.copyfileobj(member, self._file, 1 << 20)
            self._file.flush()
        except BaseException:
            self._file.close()
            raise

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._member.close()

    def take(self, rows: int) -> Array:
        width, size = math.prod(self._row), self._dtype.itemsize
        taken = np.empty((rows, width), self._dtype, order="F")
        for column in range(width):
            data = os.pread(self._file.fileno(), rows * size, (column * self._rows + self._at) * size)
            taken[:, column] = np.frombuffer(data, self._dtype)
        self._at += rows
        return taken.reshape(rows, *self._row, order="F")
