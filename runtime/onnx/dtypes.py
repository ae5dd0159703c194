"""One table: the protocol's datatype, ONNX Runtime's type, numpy's dtype, and the field of typed contents.

BF16 has no numpy type; its arrays are uint16 that hold the bit pattern. BYTES arrays are object arrays of str.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Datatype:
    """`size_bytes` is 0 for BYTES; `contents` is "" where values travel raw only; `element_type` is ONNX's number."""

    name: str
    onnx: str
    element_type: int
    numpy: np.dtype[Any]
    size_bytes: int
    contents: str


def _row(name: str, onnx: str, element_type: int, numpy: str, contents: str) -> Datatype:
    dtype = np.dtype(numpy)
    return Datatype(name, f"tensor({onnx})", element_type, dtype, 0 if name == "BYTES" else dtype.itemsize, contents)


DATATYPES = (
    _row("BOOL", "bool", 9, "?", "bool_contents"),
    _row("INT8", "int8", 3, "<i1", "int_contents"),
    _row("INT16", "int16", 5, "<i2", "int_contents"),
    _row("INT32", "int32", 6, "<i4", "int_contents"),
    _row("INT64", "int64", 7, "<i8", "int64_contents"),
    _row("UINT8", "uint8", 2, "<u1", "uint_contents"),
    _row("UINT16", "uint16", 4, "<u2", "uint_contents"),
    _row("UINT32", "uint32", 12, "<u4", "uint_contents"),
    _row("UINT64", "uint64", 13, "<u8", "uint64_contents"),
    _row("FP16", "float16", 10, "<f2", ""),
    _row("BF16", "bfloat16", 16, "<u2", ""),
    _row("FP32", "float", 1, "<f4", "fp32_contents"),
    _row("FP64", "double", 11, "<f8", "fp64_contents"),
    _row("BYTES", "string", 8, "O", "bytes_contents"),
)

BY_NAME = {datatype.name: datatype for datatype in DATATYPES}
BY_ONNX = {datatype.onnx: datatype for datatype in DATATYPES}
