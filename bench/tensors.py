"""Tensors of the protocol, to and from the raw bytes that messages have of them."""

from __future__ import annotations

from typing import Any

import numpy as np

PROTOCOL_NAMES = {"float32": "FP32", "int64": "INT64", "object": "BYTES"}
DTYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype(np.float32), "INT64": np.dtype(np.int64)}
LENGTH_BYTES = 4
"""Before the bytes of each string, little-endian."""


def encoded(value: np.ndarray) -> bytes:
    """As raw_input_contents and raw_output_contents have it."""
    if value.dtype != object:
        return value.tobytes()
    texts = [str(each).encode() for each in value.ravel()]
    return b"".join(len(text).to_bytes(LENGTH_BYTES, "little") + text for text in texts)


def decoded(datatype: str, shape: tuple[int, ...], raw: bytes) -> np.ndarray:
    """The opposite of `encoded`, a view where it can be; strings are an array of objects."""
    if datatype != "BYTES":
        return np.frombuffer(raw, DTYPES[datatype]).reshape(shape)
    texts, at = [], 0
    while at < len(raw):
        begin = at + LENGTH_BYTES
        at = begin + int.from_bytes(raw[at:begin], "little")
        texts.append(raw[begin:at].decode())
    return np.array(texts, object).reshape(shape)
