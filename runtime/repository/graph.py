"""Which other files an ONNX graph keeps its tensors in, read from the protobuf wire format.

The walk enters only messages that can hold a tensor, steps over tensor contents without reading them, and keeps one
record per file named: its cost is the graph's nodes, whatever its weights weigh. Whether the graph is a good one is
ONNX Runtime's to say; here it is only asked whether the file is whole and what else must be there.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import IncompleteVersion

Buffer = bytes | mmap.mmap

HOLDERS: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 25: "FunctionProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
}
"""Field numbers, by message, of the fields through which inference can reach a tensor (not `training_info`)."""

NESTING_LIMIT = 100  # protobuf's own default
FILES_LIMIT = 10_000  # exporters write one file, or one per tensor
ENTRY_LIMIT_BYTES = 4096  # PATH_MAX: no key, offset or usable location is longer

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_IR_VERSION, _OPSET_IMPORT, _GRAPH = 1, 8, 7
_FLOATS, _INTS, _STRINGS = 7, 8, 9
_STRING_DATA, _TENSOR_NAME, _EXTERNAL_DATA, _DATA_LOCATION = 6, 8, 13, 14
_EXTERNAL = 1


@dataclass(frozen=True, slots=True)
class ExternalFile:
    """A file that a graph's tensors lie in: `location` as the graph spells it, and how long it must be at least."""

    location: str
    needed_bytes: int
    tensor: str


def external_files(buffer: Buffer, filename: str) -> tuple[ExternalFile, ...]:
    """The files that the ONNX model in `buffer` needs beside it, by location.

    IncompleteVersion, naming `filename`, if the model is truncated or is no ONNX model.
    """
    return _Walk(buffer, filename).run()


def external_files_of(path: Path, filename: str) -> tuple[ExternalFile, ...]:
    """`external_files` of the file at `path`, which nobody may truncate meanwhile: it is mapped, not read."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:  # which cannot be mapped
            return external_files(b"", filename)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
            return external_files(buffer, filename)


class _Walk:
    def __init__(self, buffer: Buffer, filename: str) -> None:
        self._buffer = buffer
        self._filename = filename
        self._files: dict[str, ExternalFile] = {}

    def run(self) -> tuple[ExternalFile, ...]:
        message, position, end = "ModelProto", 0, len(self._buffer)
        rest: list[tuple[str, int, int]] = []
        ir_version = 0
        seen: set[int] = set()
        while True:
            if position >= end:
                if not rest:
                    break
                message, position, end = rest.pop()
                continue
            number, wire_type, start, stop, value = self._field(position, end)
            position = stop
            if message == "ModelProto":
                seen.add(number)
                ir_version = value if number == _IR_VERSION and wire_type == _VARINT else ir_version
            elif message == "AttributeProto" and number in (_FLOATS, _INTS, _STRINGS):
                # An attribute holds one kind of value, and a tree ensemble's lists have millions of entries.
                position = end
                continue
            inner = HOLDERS[message].get(number) if wire_type == _BYTES else None
            if inner == "TensorProto":
                self._tensor(start, stop)
            elif inner is not None:
                if len(rest) >= NESTING_LIMIT:
                    raise self._damaged(f"messages nest deeper than {NESTING_LIMIT} at byte {start}")
                rest.append((message, position, end))
                message, position, end = inner, start, stop
        if _GRAPH not in seen:
            raise self._damaged("it holds no graph")
        if ir_version >= 3 and _OPSET_IMPORT not in seen:  # obligatory since IR version 3, and written after the graph
            raise self._truncated("it ends before its operator sets are named")
        return tuple(self._files[location] for location in sorted(self._files))

    def _field(self, position: int, end: int) -> tuple[int, int, int, int, int]:
        """(number, wire type, start and stop of the content, value of a varint) of the field at `position`."""
        at = position
        tag, position = self._varint(position, end)
        number, wire_type = tag >> 3, tag & 7
        if number == 0:
            raise self._damaged(f"a field at byte {at} has number 0")
        if wire_type == _VARINT:
            value, stop = self._varint(position, end)
            return number, wire_type, position, stop, value
        if wire_type == _BYTES:
            size, position = self._varint(position, end)
        elif wire_type in (_FIXED32, _FIXED64):
            size = 4 if wire_type == _FIXED32 else 8
        else:
            raise self._damaged(f"a field at byte {at} has wire type {wire_type}")
        if size > end - position:
            claim = f"field at byte {at} claims {size} bytes, {end - position} are left"
            if end == len(self._buffer):
                raise self._truncated(claim)
            raise self._damaged(f"{claim} in its message")
        return number, wire_type, position, position + size, 0

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        at, value, shift = position, 0, 0
        while position < end:
            byte = self._buffer[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, position
            shift += 7
            if shift >= 70:
                raise self._damaged(f"a number at byte {at} is longer than 10 bytes")
        if end == len(self._buffer):
            raise self._truncated(f"the number at byte {at} breaks off")
        raise self._damaged(f"the number at byte {at} runs over the end of its message")

    def _tensor(self, position: int, end: int) -> None:
        entries: dict[str, str] = {}
        name, data_location = "", 0
        while position < end:
            number, wire_type, start, position, value = self._field(position, end)
            if number == _STRING_DATA:
                return  # strings are never external, and there is one field for each of them
            if number == _DATA_LOCATION and wire_type == _VARINT:
                data_location = value
            elif number == _TENSOR_NAME and wire_type == _BYTES:
                name = self._buffer[start : min(position, start + 200)].decode("utf-8", "replace")
            elif number == _EXTERNAL_DATA and wire_type == _BYTES:
                key, text = self._entry(start, position)
                entries[key] = text
        if data_location == _EXTERNAL:
            self._note(name, entries)

    def _entry(self, position: int, end: int) -> tuple[str, str]:
        texts = {1: "", 2: ""}
        while position < end:
            number, wire_type, start, position, _ = self._field(position, end)
            if number in texts and wire_type == _BYTES:
                if position - start > ENTRY_LIMIT_BYTES:
                    raise self._damaged(
                        f"an external_data entry at byte {start} is longer than {ENTRY_LIMIT_BYTES} bytes"
                    )
                try:
                    texts[number] = self._buffer[start:position].decode()
                except UnicodeDecodeError as error:
                    raise self._damaged(f"an external_data text at byte {start} is not UTF-8") from error
        return texts[1], texts[2]

    def _note(self, tensor: str, entries: dict[str, str]) -> None:
        location = entries.get("location", "")
        needed = self._bytes_of(tensor, entries, "offset") + self._bytes_of(tensor, entries, "length")
        known = self._files.get(location)
        if known is None and len(self._files) >= FILES_LIMIT:
            raise self._damaged(f"its tensors lie in more than {FILES_LIMIT} files")
        if known is None or needed > known.needed_bytes:
            self._files[location] = ExternalFile(location, needed, tensor)

    def _bytes_of(self, tensor: str, entries: dict[str, str], key: str) -> int:
        text = entries.get(key, "0")
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            raise self._damaged(f"tensor {tensor!r} has the {key} {text[:40]!r}, expected a number of bytes")
        return int(text)

    def _truncated(self, how: str) -> IncompleteVersion:
        return IncompleteVersion(f"{self._filename} is truncated: {how}", field=self._filename)

    def _damaged(self, how: str) -> IncompleteVersion:
        return IncompleteVersion(f"{self._filename} is not a whole ONNX model: {how}", field=self._filename)
