"""HPACK (RFC 7541): the request's header blocks, and the tables by which the peer's are read."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

TABLE_BYTES = 4096
"""Of a dynamic table, in either direction, where nothing else is said."""

ENTRY_OVERHEAD_BYTES = 32
MOST_ENTRIES = TABLE_BYTES // ENTRY_OVERHEAD_BYTES

STATIC_NAMES = [
    ":authority",
    ":method",
    ":method",
    ":path",
    ":path",
    ":scheme",
    ":scheme",
    ":status",
    ":status",
    ":status",
    ":status",
    ":status",
    ":status",
    ":status",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "accept",
    "access-control-allow-origin",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "link",
    "location",
    "max-forwards",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "refresh",
    "retry-after",
    "server",
    "set-cookie",
    "strict-transport-security",
    "transfer-encoding",
    "user-agent",
    "vary",
    "via",
    "www-authenticate",
]
STATIC_ENTRIES = len(STATIC_NAMES)
POST, HTTP = 3, 6
"""Where the static table has `:method: POST` and `:scheme: http`."""

_CODE_LENGTHS = (
    "isxxxxxxxtzxxzxxxxxxxxzxxxxxxxxxbffhibdgffdgdbbbaaabbbbbbbcdkbhfibccccccccccccccccccccccdcdioijbkaba"
    "babbbaccbbbabcbaabccccckgjixprpprrrsrssssststtrstssssqrsrsstrqprrssqsrrtqrssqqrqsrssprrrsrrsvvporsru"
    "vvvwwvtuoqvwwvwtqqvvxwwwptpqrqqsrruuttvsvwvvwwwwwxwwwwwvz"
)
"""Of each byte's Huffman code and of the end's, in bits: 'a' is 5. The codes follow, since they are canonical."""

Headers = Sequence[tuple[str, str]]


def static_name_lengths() -> npt.NDArray[np.int32]:
    """int32[62], by index; there is no index 0."""
    return np.array([0, *map(len, STATIC_NAMES)], np.int32)


def huffman_tree() -> npt.NDArray[np.int32]:
    """int32[2 * nodes]: at 2 * node + bit the next node, or -1 - byte where a code ends (-257: the end of a string)."""
    lengths = [ord(letter) - ord("a") + 5 for letter in _CODE_LENGTHS]
    tree = [0, 0]
    code, before = 0, 0
    for byte in sorted(range(len(lengths)), key=lambda each: (lengths[each], each)):
        length = lengths[byte]
        code <<= length - before
        before = length
        node = 0
        for place in range(length - 1, 0, -1):
            step = 2 * node + (code >> place & 1)
            if not tree[step]:
                tree[step] = len(tree) // 2
                tree += [0, 0]
            node = tree[step]
        tree[2 * node + (code & 1)] = -1 - byte
        code += 1
    return np.array(tree, np.int32)


def _integer(value: int, bits: int, first: int) -> bytes:
    """`first` holds what stands above the `bits` of the prefix."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([first | value])
    written = [first | most]
    value -= most
    while value >= 128:
        written.append(value & 127 | 128)
        value >>= 7
    return bytes([*written, value])


def _text(text: str) -> bytes:
    raw = text.encode("ascii")
    return _integer(len(raw), 7, 0) + raw


def _literal(name: str, value: str, *, indexed: bool) -> bytes:
    bits, first = (6, 0x40) if indexed else (4, 0)
    if name in STATIC_NAMES:
        return _integer(STATIC_NAMES.index(name) + 1, bits, first) + _text(value)
    return bytes([first]) + _text(name) + _text(value)


def request_blocks(authority: str, path: str, headers: Headers) -> tuple[bytes, bytes, bytes, bytes]:
    """Header blocks of a connection's first request and of the later ones, and both for a peer that keeps no table.

    As gRPC's clients do it, the first request puts into the peer's table what the later ones only point at.
    """
    own = [(":path", path), (":authority", authority), ("content-type", "application/grpc"), ("te", "trailers")]
    fields = [*own, ("user-agent", "driftgate-bench"), *headers]
    fixed = bytes([0x80 | POST, 0x80 | HTTP])
    plain = fixed + b"".join(_literal(name, value, indexed=False) for name, value in fields)
    forget = _integer(0, 5, 0x20)
    if sum(len(text) for text in chain(*fields)) + ENTRY_OVERHEAD_BYTES * len(fields) > TABLE_BYTES:
        return plain, plain, forget + plain, plain
    first = fixed + b"".join(_literal(name, value, indexed=True) for name, value in fields)
    newest = STATIC_ENTRIES + 1
    later = fixed + b"".join(_integer(newest + age, 7, 0x80) for age in reversed(range(len(fields))))
    return first, later, forget + plain, plain
