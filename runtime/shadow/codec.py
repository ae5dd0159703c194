"""A comparison as bytes, for the wire and the store.

    ┌───────────┬─────────────┬──────────────┬──────┬────────────┬───────────────────────────┬───────────┐
    │ "DGCP" 4s │ version u16 │ JSON's bytes │ JSON │ blocks u16 │ each: bytes u32, a block  │ crc32 u32 │
    │           │             │ u32          │      │            │ as docs/sketches.md has it│           │
    └───────────┴─────────────┴──────────────┴──────┴────────────┴───────────────────────────┴───────────┘

Little-endian. The JSON has all counts and texts, names in order and without spaces. Blocks: the times, then the
differences of each output that has some, by name. The checksum (zlib's CRC-32) is over all that comes before it.

The same state has the same bytes, and there is one way only to write it: what is read is written again and compared.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import asdict, astuple
from typing import TYPE_CHECKING, Any, TypeVar

from runtime.shadow.confusion import ClassPair, Confusion
from runtime.shadow.pair import PairKey, PairSettings
from runtime.shadow.tally import COUNTS, DIFFERENCES, OutputTally
from runtime.shadow.worst import Disagreement, Worst
from runtime.sketch.block import Block
from runtime.sketch.codec import decode, encode
from runtime.sketch.errors import Malformed
from runtime.sketch.layout import BlockShape

if TYPE_CHECKING:
    from runtime.shadow.comparison import PairComparison

    C = TypeVar("C", bound=PairComparison)

MAGIC = b"DGCP"
VERSION = 1
FRONT = struct.Struct("<4sHI")
BLOCKS = struct.Struct("<H")
LENGTH = struct.Struct("<I")
MAX_BYTES = 64 << 20
"""Ten times what the greatest comparison has: bytes that claim more are no comparison."""

TOTALS = ("compared", "agreed", "failed", "compared_rows", "agreed_rows", "primary_ns", "shadow_ns")
MOST_COUNTED = 1 << 62
"""Sums of a few cannot overflow."""


def write_comparison(comparison: PairComparison) -> bytes:
    document = {
        "key": asdict(comparison.key),
        "tolerances": sorted(comparison.tolerances),
        **{name: getattr(comparison, name) for name in (*TOTALS, "first_ns", "last_ns")},
        "sheds": comparison.sheds,
        "refused": comparison.refused,
        "failure": comparison.failure,
        "most": comparison.worst.most,
        "worst": [astuple(each) for each in comparison.worst.kept],
        "outputs": {name: _tally_document(tally) for name, tally in comparison.outputs.items()},
    }
    text = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    blocks = [comparison.times]
    blocks += [tally.differences for _, tally in sorted(comparison.outputs.items()) if tally.differences is not None]
    parts = [FRONT.pack(MAGIC, VERSION, len(text)), text, BLOCKS.pack(len(blocks))]
    for block in blocks:
        data = encode(block)
        parts += [LENGTH.pack(len(data)), data]
    body = b"".join(parts)
    return body + LENGTH.pack(zlib.crc32(body))


def _tally_document(tally: OutputTally) -> dict[str, Any]:
    return {
        **{name: getattr(tally, name) for name in COUNTS},
        "confusion": [[*pair, rows] for pair, rows in tally.confusion.items()],
        "confusion_other": tally.confusion.other,
        "differs": tally.differences is not None,
    }


def read_comparison(data: bytes, kind: type[C]) -> C:
    if not FRONT.size + LENGTH.size <= len(data) <= MAX_BYTES:
        raise Malformed(f"expected a comparison of {FRONT.size + LENGTH.size} to {MAX_BYTES} bytes, got {len(data)}")
    magic, version, size = FRONT.unpack_from(data)
    if magic != MAGIC:
        raise Malformed(f"expected a comparison, which begins with {MAGIC!r}, got {magic!r}")
    if version != VERSION:
        raise Malformed(f"expected version {VERSION} of the format, got {version}")
    body = data[: -LENGTH.size]
    if LENGTH.unpack_from(data, len(body))[0] != zlib.crc32(body):
        raise Malformed("the checksum is that of other bytes: they were changed on their way")
    try:
        comparison = _read(body, size, kind)
        written = comparison.to_bytes()
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, struct.error) as error:
        raise error if isinstance(error, Malformed) else Malformed(f"not a comparison: {error!r}"[:500]) from error
    if written != data:
        raise Malformed("expected a comparison as it is written, in its only form")
    return comparison


def _read(body: bytes, size: int, kind: type[C]) -> C:
    at = FRONT.size + size
    document = json.loads(body[FRONT.size : at])
    blocks = _read_blocks(body, at)
    comparison = kind(PairKey(**document["key"]), PairSettings(worst=document["most"]))
    comparison.tolerances = {(float(absolute), float(relative)) for absolute, relative in document["tolerances"]}
    for name in (*TOTALS, "first_ns", "last_ns"):
        setattr(comparison, name, _count(name, document[name]))
    for reason, requests in document["sheds"].items():
        comparison.shed(reason, _count(reason, requests))
    comparison.refuse({reason: _count(reason, requests) for reason, requests in document["refused"].items()})
    when, why = document["failure"]
    comparison.failure = (_count("failure", when), str(why))
    comparison.worst = Worst(document["most"], (Disagreement(*each) for each in document["worst"]))
    comparison.times = _next(blocks, comparison.times.shape)
    for name, fields in sorted(document["outputs"].items()):
        pairs = {ClassPair(*pair): _count(name, rows) for *pair, rows in fields["confusion"]}
        comparison.outputs[name] = OutputTally(
            **{count: _count(count, fields[count]) for count in COUNTS},
            confusion=Confusion(pairs, _count("confusion_other", fields["confusion_other"])),
            differences=_next(blocks, DIFFERENCES) if fields["differs"] else None,
        )
    if blocks:
        raise Malformed(f"expected {len(blocks)} blocks fewer")
    return comparison


def _read_blocks(body: bytes, at: int) -> list[Block]:
    (count,) = BLOCKS.unpack_from(body, at)
    at += BLOCKS.size
    blocks = []
    for _ in range(count):
        (size,) = LENGTH.unpack_from(body, at)
        at += LENGTH.size
        block = decode(body[at : at + size])
        if not isinstance(block, Block):
            raise Malformed(f"expected a block, got {block!r}")
        blocks.append(block)
        at += size
    if at != len(body):
        raise Malformed(f"expected the comparison to end at byte {at}, got {len(body) - at} more")
    return blocks


def _next(blocks: list[Block], shape: BlockShape) -> Block:
    if not blocks or blocks[0].shape != shape:
        raise Malformed(f"expected a block of {shape}, got {blocks[:1]}")
    return blocks.pop(0)


def _count(name: str, value: Any) -> int:
    if type(value) is not int or not 0 <= value <= MOST_COUNTED:
        raise Malformed(f"{name}: expected a count of 0 to {MOST_COUNTED}, got {value!r}")
    return value
