"""Compiled helpers that write protobuf's wire format into an array of bytes: numbers, texts, attributes of a span.

Each `put_...` writes at `at` and returns where the next byte goes; the caller has made sure that there is room. `keys`
and `key_starts` are the pieces of span_template.key_pieces.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy.typing as npt
from numba import boolean, int64, types, uint8, uint64
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from runtime.kernels import inline, kernel

Array = npt.NDArray[Any]
Int = Any  # a number, of the width that numba gives it

BYTES = types.Array(uint8, 1, "C")
SOURCE = types.Array(uint8, 1, "C", readonly=True)
NUMBERS = types.Array(int64, 1, "C")
HIGH_BITS = 0x8080808080808080
COLON, DOT, ZERO = ord(":"), ord("."), ord("0")
LETTER_A = ord("a") - 10


def _primitive(definition: Callable[..., Any]) -> Any:
    """An instruction for kernels: what it is called with differs from what defines it."""
    return intrinsic(definition)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, at: Any) -> Any:
    """To byte `at` of an array of bytes, or of one that is a record's field."""
    return builder.gep(make_array(array_type)(context, builder, array).data, [at])  # type: ignore[no-untyped-call]


@_primitive
def store(_context: Any, array: Any, at: Any, value: Any) -> Any:  # noqa: ARG001
    """Writes a number of any width, little-endian, at a place of any alignment."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], arguments[0], arguments[1])
        place = builder.bitcast(pointer, context.get_data_type(signature.args[2]).as_pointer())
        builder.store(arguments[2], place, align=1)
        return context.get_dummy_value()

    return types.none(array, types.int64, value), generate


@_primitive
def load64(_context: Any, array: Any, at: Any) -> Any:  # noqa: ARG001
    """The uint64 at a place of any alignment."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], arguments[0], arguments[1])
        return builder.load(builder.bitcast(pointer, context.get_data_type(types.uint64).as_pointer()), align=1)

    return types.uint64(array, types.int64), generate


@_primitive
def copy(_context: Any, out: Any, at: Any, source: Any, start: Any, length: Any) -> Any:  # noqa: ARG001
    """`length` bytes from source[start:] to out[at:], which do not overlap."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        to = _pointer(context, builder, signature.args[0], arguments[0], arguments[1])
        whence = _pointer(context, builder, signature.args[2], arguments[2], arguments[3])
        cgutils.raw_memcpy(builder, to, whence, arguments[4], 1)  # type: ignore[no-untyped-call]
        return context.get_dummy_value()

    return types.none(out, types.int64, source, types.int64, types.int64), generate


@inline
def varint_bytes(value: Int) -> Int:
    """Of a length: int64, below 2^28."""
    return 1 + (value > 0x7F) + (value > 0x3FFF) + (value > 0x1FFFFF)


@inline
def put_varint(out: Array, at: Int, value: Int) -> Int:
    """value: uint64."""
    while value > uint64(0x7F):
        out[at] = uint8(value & uint64(0x7F)) | uint8(0x80)
        value >>= uint64(7)
        at += 1
    out[at] = uint8(value)
    return at + 1


@inline
def put_bytes(out: Array, at: Int, tag: Int, source: Array, start: Int, length: Int) -> Int:
    """A field of bytes or a string."""
    out[at] = tag
    at = put_varint(out, at + 1, uint64(length))
    copy(out, at, source, start, length)
    return at + length


@inline
def put_int(out: Array, at: Int, keys: Array, key_starts: Array, key: Int, value: Int) -> Int:
    """The piece holds the lengths of an attribute whose value has no bytes: the value's are added to both."""
    length = key_starts[key + 1] - key_starts[key]
    copy(out, at, keys, key_starts[key], length)
    end = put_varint(out, at + length, value)
    size = uint8(end - at - length)
    out[at + 1] += size
    out[at + length - 2] += size
    return end


@inline
def put_double(out: Array, at: Int, keys: Array, key_starts: Array, key: Int, value: float) -> Int:
    length = key_starts[key + 1] - key_starts[key]
    copy(out, at, keys, key_starts[key], length)
    store(out, at + length, value)
    return at + length + 8


@kernel(int64(BYTES, int64, BYTES, NUMBERS, int64, SOURCE, int64, int64), nogil=True)
def put_text(
    out: Array, at: Int, keys: Array, key_starts: Array, key: Int, source: Array, start: Int, length: Int
) -> Int:
    """source[start : start + length]: UTF-8."""
    key_length = key_starts[key + 1] - key_starts[key]
    value_length = 1 + varint_bytes(length) + length
    out[at] = 0x4A
    at = put_varint(out, at + 1, uint64(key_length + 1 + varint_bytes(value_length) + value_length))
    copy(out, at, keys, key_starts[key], key_length)
    at += key_length
    out[at] = 0x12
    at = put_varint(out, at + 1, uint64(value_length))
    return put_bytes(out, at, 0x0A, source, start, length)


@kernel(int64(BYTES, int64, int64), nogil=True)
def close(out: Array, begin: Int, end: Int) -> Int:
    """Puts the tag and the length before a span of out[begin + 3 : end], and moves it where a length of two bytes is
    not the right one. Returns the new end.
    """
    out[begin] = 0x12
    length = end - begin - 3
    shift = varint_bytes(length) - 2
    if shift < 0:
        for k in range(begin + 3, end):
            out[k + shift] = out[k]
    elif shift > 0:
        for k in range(end - 1, begin + 2, -1):
            out[k + shift] = out[k]
    put_varint(out, begin + 1, uint64(length))
    return end + shift


@kernel(boolean(SOURCE, int64, int64), nogil=True)
def is_printable(source: Array, start: Int, length: Int) -> bool:
    """Whether all of it is ASCII from blank to tilde."""
    good = True
    for k in range(start, start + length):
        good &= (source[k] >= 0x20) & (source[k] <= 0x7E)
    return good


@kernel(int64(SOURCE, int64, int64), nogil=True)
def utf8_length(source: Array, start: Int, length: Int) -> Int:
    """Bytes of source[start : start + length] up to the first that is not of a whole UTF-8 character (RFC 3629)."""
    k = start
    end = start + length
    while True:
        while k + 8 <= end and load64(source, k) & uint64(HIGH_BITS) == 0:
            k += 8
        if k >= end:
            break
        lead = source[k]
        more = 0 if lead < 0x80 else 1 if lead < 0xE0 else 2 if lead < 0xF0 else 3
        lowest = 0xA0 if lead == 0xE0 else 0x90 if lead == 0xF0 else 0x80  # no longer than needed
        highest = 0x9F if lead == 0xED else 0x8F if lead == 0xF4 else 0xBF  # no surrogates, nothing past U+10FFFF
        if 0x80 <= lead < 0xC2 or lead > 0xF4 or k + more >= end:
            break
        good = more == 0 or lowest <= source[k + 1] <= highest
        for follow in range(k + 2, k + more + 1):
            good = good and (source[follow] & 0xC0) == 0x80
        if not good:
            break
        k += more + 1
    return k - start


@kernel(int64(BYTES, int64, SOURCE, int64), nogil=True)
def put_octets(out: Array, at: Int, address: Array, first: Int) -> Int:
    """Four bytes as IPv4's dotted decimals."""
    for k in range(first, first + 4):
        value = int64(address[k])
        if k > first:
            out[at] = DOT
            at += 1
        if value >= 100:
            out[at] = ZERO + value // 100
            at += 1
        if value >= 10:
            out[at] = ZERO + value // 10 % 10
            at += 1
        out[at] = ZERO + value % 10
        at += 1
    return at


@kernel(int64(BYTES, int64, SOURCE), nogil=True)
def put_groups(out: Array, at: Int, address: Array) -> Int:
    """Sixteen bytes as RFC 5952 writes IPv6: the longest row of zeros, if of two groups or more, is `::`."""
    longest = 1
    gap = -1
    zeros = 0
    for group in range(8):
        zeros = zeros + 1 if address[2 * group] | address[2 * group + 1] == 0 else 0
        if zeros > longest:
            longest = zeros
            gap = group - zeros + 1
    group = 0
    while group < 8:
        if group == gap:
            out[at] = COLON
            out[at + 1] = COLON
            at += 2
            group += longest
            continue
        if group > 0 and group != gap + longest:
            out[at] = COLON
            at += 1
        value = int64(address[2 * group]) << 8 | int64(address[2 * group + 1])
        shift = 12
        while shift > 0 and value >> shift == 0:
            shift -= 4
        while shift >= 0:
            digit = (value >> shift) & 15
            out[at] = digit + (ZERO if digit < 10 else LETTER_A)
            at += 1
            shift -= 4
        group += 1
    return at


@kernel(int64(SOURCE, boolean, BYTES), nogil=True)
def address_text(address: Array, wide: bool, out: Array) -> Int:
    """Writes a peer's address as text, and returns its length. An IPv4 address that IPv6 carries (::ffff:0:0/96) keeps
    its decimals (RFC 5952, section 5).
    """
    if not wide:
        return put_octets(out, 0, address, 0)
    mapped = load64(address, 0) == 0 and address[8] | address[9] == 0 and address[10] & address[11] == 0xFF
    if not mapped:
        return put_groups(out, 0, address)
    out[0] = COLON
    out[1] = COLON
    out[2] = out[3] = out[4] = out[5] = ord("f")
    out[6] = COLON
    return put_octets(out, 7, address, 12)
