"""Which inputs and outputs have no declared rank: ONNX Runtime reports these like scalars, with an empty shape.

Reads the graph's value infos from the protobuf wire format and steps over everything else, weights included. The file
has been loaded by ONNX Runtime before, so it is whole; anything unexpected only ends the walk.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

MODEL_GRAPH = 7
GRAPH_INPUT, GRAPH_OUTPUT = 11, 12
VALUE_NAME, VALUE_TYPE = 1, 2
TYPE_TENSOR = 1
TENSOR_SHAPE = 2
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

Buffer = bytes | mmap.mmap


def without_rank(model_file: Path) -> frozenset[str]:
    """Names of the graph's inputs and outputs whose type has no shape."""
    with model_file.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
        names = set()
        for number, start, end in _fields(buffer, 0, len(buffer)):
            if number != MODEL_GRAPH:
                continue
            for part, value_start, value_end in _fields(buffer, start, end):
                if part in (GRAPH_INPUT, GRAPH_OUTPUT):
                    name, ranked = _value(buffer, value_start, value_end)
                    if not ranked:
                        names.add(name)
        return frozenset(names)


def _value(buffer: Buffer, start: int, end: int) -> tuple[str, bool]:
    name, ranked = "", False
    for number, first, last in _fields(buffer, start, end):
        if number == VALUE_NAME:
            name = bytes(buffer[first:last]).decode("utf-8", "replace")
        elif number == VALUE_TYPE:
            for kind, tensor_start, tensor_end in _fields(buffer, first, last):
                if kind == TYPE_TENSOR:
                    parts = [part for part, _, _ in _fields(buffer, tensor_start, tensor_end)]
                    ranked = TENSOR_SHAPE in parts
    return name, ranked


def _fields(buffer: Buffer, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(field number, from, to) of each length-delimited field; others are stepped over."""
    position = start
    while position < end:
        tag, position = _varint(buffer, position)
        kind = tag & 7
        if kind == BYTES:
            length, position = _varint(buffer, position)
            yield tag >> 3, position, min(position + length, end)
            position += length
        elif kind == VARINT:
            _, position = _varint(buffer, position)
        elif kind == FIXED64:
            position += 8
        elif kind == FIXED32:
            position += 4
        else:
            return


def _varint(buffer: Buffer, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = buffer[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
