"""The drawings and tables of docs/sketches.md, from runtime/sketch/."""

from __future__ import annotations

import inspect
import struct
import textwrap
from types import ModuleType

import numpy as np

from generator.markdown import code, number, table
from runtime.sketch import codec, codec_block, codec_keys, codec_numbers, codec_rows, exponential, layout, moments
from runtime.sketch.buckets import MAX_SCALE, MIN_SCALE, relative_error
from runtime.sketch.distinct import relative_standard_error
from runtime.sketch.frequent import frequent_bytes
from runtime.sketch.layout import BUCKETS, BlockShape

WIDE = 10_000


def block() -> str:
    return drawings(layout)


def scales() -> str:
    """Of the histogram: what each scale promises, and what fits at it."""
    rows = [
        (str(scale), f"{100 * relative_error(scale):.3g} %", f"{BUCKETS / 2**scale:g}")
        for scale in range(MAX_SCALE, MIN_SCALE - 1, -1)
    ]
    return table(("scale", "relative error of a quantile", "octaves of magnitudes that fit"), rows)


def memory() -> str:
    """Of a feature, by what is counted."""
    rows = [("histogram", number(exponential.HISTOGRAM_BYTES)), ("moments", number(moments.MOMENTS_BYTES))]
    rows += [
        (f"distinct count, lg_k {lg_k} (standard error {100 * relative_standard_error(lg_k):.3g} %)", number(1 << lg_k))
        for lg_k in (12, 8)
    ]
    rows += [
        (f"block with lg_k {lg_k}, one of {number(WIDE)} features", number(BlockShape(WIDE, lg_k).size_bytes // WIDE))
        for lg_k in (12, 8, 0)
    ]
    rows += [(f"frequent values, lg_slots {lg}", number(frequent_bytes(lg))) for lg in (8, 10)]
    rows += [("categories", "8 each, and 16")]
    return table(("what", "bytes"), rows)


def envelope() -> str:
    kinds = table(("kind", "class"), [(str(kind), code(type_.__name__)) for kind, (type_, *_) in codec.KINDS.items()])
    return f"{drawings(codec)}\n{kinds}"


def payloads() -> str:
    return "\n".join(drawings(module) for module in (codec_numbers, codec_keys, codec_block, codec_rows))


def drawings(module: ModuleType) -> str:
    """From the first line with a box to the last of the module's docstring, with the lines that say what a box is."""
    lines = (inspect.getdoc(module) or "").splitlines()
    boxed = [at for at, line in enumerate(lines) if any(sign in line for sign in "┌│├└")]
    first = boxed[0] - bool(lines[boxed[0] - 1])
    drawn = textwrap.dedent("\n".join(line.rstrip() for line in lines[first : boxed[-1] + 1]))
    return f"```text\n{drawn}\n```\n"


def example() -> str:
    """A small histogram, byte by byte."""
    data = codec.encode(exponential.ExponentialHistogram.of(np.array([1.0, 2.0, 2.0, -4.0, 0.0, np.nan])))
    at = 0
    rows = []

    def part(size: int, meaning: str) -> None:
        nonlocal at
        shown = data[at : at + size]
        text = shown.hex(" ", 8) if size <= 16 else f"{shown[:8].hex()} ..."
        rows.append((str(at), str(size), code(text), meaning))
        at += size

    part(codec.ENVELOPE.size, "magic, version 1, kind 1, bytes of the payload")
    part(1, "coarsening: 0, so scale 5")
    part(9 * 8, "counts: 3 positive, 1 negative, 1 zero, 1 NaN, then zeros")
    part(16, "positive values: least 1.0, greatest 2.0")
    part(33, "their counts, from the bucket of 1.0 (index -1) to that of 2.0 (index 31): 1, 31 zeros, 2")
    part(16, "negative values: least and greatest magnitude 4.0")
    part(1, "its count")
    part(struct.calcsize("<I"), "CRC-32 of all before")
    if at != len(data):
        raise SystemExit("docs/generator/sketches.py: the example has other parts than are told of")
    return table(("offset", "bytes", "hex", "meaning"), rows)
