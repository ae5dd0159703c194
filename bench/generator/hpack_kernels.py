"""Reads the peer's header blocks (RFC 7541) as far as it takes to know grpc-status, whatever the peer indexes."""

from __future__ import annotations

from numba import int32, int64, types, uint8

from bench.generator.hpack import ENTRY_OVERHEAD_BYTES, MOST_ENTRIES, STATIC_ENTRIES, TABLE_BYTES
from bench.generator.layout import STATE, TEXT_BYTES
from runtime.kernels import inline, kernel

NO_STATUS, UNREADABLE = -1, -2
UNKNOWN = 2
"""gRPC's status for one that is no number."""

_BYTES = types.Array(uint8, 1, "C")
_TREE = types.Array(int32, 1, "C")
_PAIR = types.UniTuple(int64, 2)  # type: ignore[no-untyped-call]

_NAME = (103, 114, 112, 99, 45, 115, 116, 97, 116, 117, 115)  # grpc-status
_NAME_BYTES = len(_NAME)
_MOST_INTEGER = 1 << 28
_END = -257


@kernel(_PAIR(_BYTES, int64, int64, int64), allocates=False)
def read_integer(block, at, end, bits):  # type: ignore[no-untyped-def]
    """A number with a prefix of so many bits (section 5.1), and where the next byte is: -1 if it cannot be read."""
    if at >= end:
        return 0, -1
    most = (1 << bits) - 1
    value = int64(block[at]) & most
    at += 1
    if value < most:
        return value, at
    shift = 0
    while at < end and value < _MOST_INTEGER and shift <= 28:
        byte = int64(block[at])
        at += 1
        value += (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at
    return 0, -1


@kernel(int64(_BYTES, int64, int64, _TREE, _BYTES), allocates=False)
def read_huffman(block, at, end, tree, text):  # type: ignore[no-untyped-def]
    """How long the text in block[at:end] is, or -1; text: uint8[TEXT_BYTES] gets its first bytes."""
    length = 0
    node = 0
    depth = 0
    ones = True
    while at < end:
        byte = int64(block[at])
        at += 1
        for place in range(7, -1, -1):
            bit = byte >> place & 1
            node = int64(tree[2 * node + bit])
            depth += 1
            ones = ones and bit == 1
            if node < 0:
                if node == _END:
                    return -1
                if length < TEXT_BYTES:
                    text[length] = uint8(-1 - node)
                length += 1
                node = 0
                depth = 0
                ones = True
    # What is left is a part of the end's code: fewer than 8 ones.
    return length if depth < 8 and ones else -1


@kernel(_PAIR(_BYTES, int64, int64, _TREE, _BYTES), allocates=False)
def read_text(block, at, end, tree, text):  # type: ignore[no-untyped-def]
    """The length of a string literal (section 5.2), and where the next byte is: -1 if it cannot be read."""
    if at >= end:
        return 0, -1
    coded = block[at] >= 128
    size, at = read_integer(block, at, end, 7)
    if at < 0 or at + size > end:
        return 0, -1
    if coded:
        length = read_huffman(block, at, at + size, tree, text)
        return length, (at + size if length >= 0 else -1)
    for place in range(min(size, TEXT_BYTES)):
        text[place] = block[at + place]
    return size, at + size


@inline
def _is_status(text, length):  # type: ignore[no-untyped-def]
    same = length == _NAME_BYTES
    if same:
        for place in range(_NAME_BYTES):
            same = same and text[place] == _NAME[place]
    return same


@inline
def _number(text, length):  # type: ignore[no-untyped-def]
    if length < 1 or length > 9:
        return UNKNOWN
    value = 0
    for place in range(length):
        digit = int64(text[place]) - 48
        if digit < 0 or digit > 9:
            return UNKNOWN
        value = value * 10 + digit
    return value


@kernel(types.void(STATE, int64, int64), allocates=False)
def _shrink(state, c, most):  # type: ignore[no-untyped-def]
    """Forgets the oldest entries until at most so many bytes are left."""
    connection = state.connection[c]
    while connection.table_bytes > most and connection.table_entries > 0:
        connection.table_entries -= 1
        oldest = (connection.table_at + connection.table_entries) & (MOST_ENTRIES - 1)
        entry = state.table[c * MOST_ENTRIES + oldest]
        connection.table_bytes -= int64(entry.name) + int64(entry.value) + ENTRY_OVERHEAD_BYTES


@kernel(types.void(STATE, int64, int64, int64, int64, int64), allocates=False)
def _remember(state, c, name, value, is_status, status):  # type: ignore[no-untyped-def]
    connection = state.connection[c]
    size = name + value + ENTRY_OVERHEAD_BYTES
    _shrink(state, c, max(connection.table_most - size, 0))
    if size > connection.table_most:
        return
    connection.table_at = (connection.table_at - 1) & (MOST_ENTRIES - 1)
    entry = state.table[c * MOST_ENTRIES + connection.table_at]
    entry.name = int32(name)
    entry.value = int32(value)
    entry.is_status = int32(is_status)
    entry.status = int32(status)
    connection.table_entries += 1
    connection.table_bytes += size


@kernel(int64(STATE, int64, _BYTES, int64, int64), allocates=False)
def read_status(state, c, block, at, end):  # type: ignore[no-untyped-def]
    """The grpc-status in block[at:end], NO_STATUS, or UNREADABLE; the connection's table takes what is to be kept."""
    connection = state.connection[c]
    base = c * MOST_ENTRIES
    status = NO_STATUS
    while at < end:
        byte = block[at]
        if byte >= 128:  # a whole field of a table
            index, at = read_integer(block, at, end, 7)
            if at < 0 or index == 0 or index > STATIC_ENTRIES + connection.table_entries:
                return UNREADABLE
            if index > STATIC_ENTRIES:
                entry = state.table[base + ((connection.table_at + index - STATIC_ENTRIES - 1) & (MOST_ENTRIES - 1))]
                if entry.is_status:
                    status = int64(entry.status)
            continue
        if byte & 0xE0 == 0x20:  # the table's new size
            size, at = read_integer(block, at, end, 5)
            if at < 0 or size > TABLE_BYTES:
                return UNREADABLE
            connection.table_most = size
            _shrink(state, c, size)
            continue
        kept = byte & 0x40 != 0
        index, at = read_integer(block, at, end, 6 if kept else 4)
        if at < 0 or index > STATIC_ENTRIES + connection.table_entries:
            return UNREADABLE
        is_status = False
        if index == 0:
            name, at = read_text(block, at, end, state.tree, state.text)
            if at < 0:
                return UNREADABLE
            is_status = _is_status(state.text, name)
        elif index > STATIC_ENTRIES:
            entry = state.table[base + ((connection.table_at + index - STATIC_ENTRIES - 1) & (MOST_ENTRIES - 1))]
            name = int64(entry.name)
            is_status = entry.is_status != 0
        else:
            name = int64(state.static[index])
        value, at = read_text(block, at, end, state.tree, state.text)
        if at < 0:
            return UNREADABLE
        number = 0
        if is_status:
            number = _number(state.text, value)
            status = number
        if kept:
            _remember(state, c, name, value, int64(is_status), number)
    return status
