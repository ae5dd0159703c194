"""A block as bytes.

    block
    ┌──────────────┬─────────┬──────────┐
    │ features u32 │ lg_k u8 │ rows u64 │
    └──────────────┴─────────┴──────────┘
    then each feature
    ┌─────────┬──────────┬──────────────┬───────────┬─────────┬──────────────────────────────┐
    │ low f64 │ high f64 │ sentinel f64 │ histogram │ moments │ distinct count, if lg_k > 0  │
    └─────────┴──────────┴──────────────┴───────────┴─────────┴──────────────────────────────┘
A sentinel of NaN, written as 0x7ff8000000000000, is none.
"""

from __future__ import annotations

import math
import struct

from runtime.sketch.block import Block
from runtime.sketch.codec_numbers import (
    HEAD,
    MOMENTS,
    MOST_IN_COUNTER,
    read_distinct,
    read_histogram,
    read_moments,
    write_distinct,
    write_histogram,
    write_moments,
)
from runtime.sketch.codec_reader import Reader, require
from runtime.sketch.errors import Malformed
from runtime.sketch.layout import BlockShape

BLOCK = struct.Struct("<IBQ")
SETTINGS = struct.Struct("<ddd")
NO_SENTINEL = struct.pack("<d", math.nan)


def write_block(block: Block) -> bytes:
    parts = [BLOCK.pack(block.shape.features, block.shape.lg_k, block.rows)]
    for feature in range(block.shape.features):
        parts += [
            SETTINGS.pack(*block.settings[feature].tolist()),
            write_histogram(block.histogram(feature)),
            write_moments(block.moments_of(feature)),
        ]
        if distinct := block.distinct(feature):
            parts.append(write_distinct(distinct))
    return b"".join(parts)


def read_block(reader: Reader) -> Block:
    features, lg_k, rows = reader.fields(BLOCK)
    require(rows <= MOST_IN_COUNTER, f"{MOST_IN_COUNTER} rows or less, got {rows}")
    try:
        shape = BlockShape(features, lg_k)
    except ValueError as error:
        raise Malformed(f"a block: {error}") from error
    reader.need(features * (SETTINGS.size + HEAD.size + MOMENTS.size))  # before memory is taken for them
    block = Block.create(shape)
    block.set_rows(rows)
    for feature in range(features):
        _read_feature(reader, block, feature)
    return block


def _read_feature(reader: Reader, block: Block, feature: int) -> None:
    settings = reader.take(SETTINGS.size)
    low, high, sentinel = SETTINGS.unpack(settings)
    require(low <= high, f"a range from low to high, got {low} and {high}")
    require(not math.isnan(sentinel) or settings.endswith(NO_SENTINEL), "one way to write that there is no sentinel")
    block.settings[feature] = low, high, sentinel
    histogram, moments = read_histogram(reader), read_moments(reader)
    require(moments.count == histogram.finite, f"moments of {histogram.finite} values, got {moments.count}")
    require(histogram.total == block.rows, f"{block.rows} values of a feature, one a row, got {histogram.total}")
    block.heads[feature] = histogram.heads[0]
    block.buckets[:, feature] = histogram.buckets[:, 0]
    block.moments[feature] = moments.row[0]
    if block.shape.lg_k:
        distinct = read_distinct(reader)
        require(distinct.lg_k == block.shape.lg_k, f"an lg_k of {block.shape.lg_k}, got {distinct.lg_k}")
        require(bool(distinct.registers.any()) == bool(histogram.finite), "registers if and only if there are values")
        block.registers[feature] = distinct.registers[0]
