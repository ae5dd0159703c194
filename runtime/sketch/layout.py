"""Where the state of sketches lies: flat, little-endian memory, given from outside.

    block of F features, 2^k registers each                                            bytes
    ┌───────────────────────────────────────────────────────────────────────────────┐
    │ magic 8s │ layout u32 │ features u32 │ lg_k u32 │ buckets u32 │ rows u64 │ 0s │  64
    ├───────────────────────────────────────────────────────────────────────────────┤
    │ settings   f64[F, 3]       low, high, sentinel                                │  24 F
    ├───────────────────────────────────────────────────────────────────────────────┤
    │ heads      i64[F, 16]      of the histograms: counts, scale, extremes         │ 128 F
    ├───────────────────────────────────────────────────────────────────────────────┤
    │ moments    f64[F, 9]                                                          │  72 F
    ├───────────────────────────────────────────────────────────────────────────────┤
    │ registers  u8[F, 2^k]      of the distinct counts; k = 0: none                │ 2^k F
    ├───────────────────────────────────────────────────────────────────────────────┤
    │ buckets    u32[2, F, 512]  of the positive values, then of the negative ones  │ 4096 F
    └───────────────────────────────────────────────────────────────────────────────┘
Each part begins at a multiple of 64 bytes. With k = 12 a feature takes 8,416 bytes. Memory that was never written is
never taken from the machine: features without negative values take 6,368.

    head of one histogram, i64[16]
    ┌──────────┬──────────┬──────┬─────┬───────┬───────┬─────────┬───────┬───────┐
    │ positive │ negative │ zero │ nan │ +inf  │ -inf  │ missing │ below │ above │   counts of values
    ├──────────┴─┬────────┴──────┴───┬─┴───────┴───────┴──┬──────┴───────┴───────┤
    │ coarsening │ positive: least,  │ negative: least,   │ reserved: 0, 0, 0    │
    │            │ greatest (f64)    │ greatest (f64)     │                      │
    └────────────┴───────────────────┴────────────────────┴──────────────────────┘
The scale is MAX_SCALE - coarsening. Extremes are magnitudes and mean nothing where nothing is counted. Bucket i of
either sign lies at place i modulo 512, so that a wider span moves nothing.

    moments of one feature, f64[9]
    ┌───────┬──────┬────┬───────┬────────┬────────┬──────┬──────┬──────┐
    │ count │ mean │ M2 │ pairs │ mean x │ mean y │ M2 x │ M2 y │ C xy │
    └───────┴──────┴────┴───────┴────────┴────────┴──────┴──────┴──────┘

All zeros is an empty sketch, except for header and settings.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property

BLOCK_MAGIC = b"DGBLOCK\0"
LAYOUT_VERSION = 1
HEADER = struct.Struct("<8sIIIIQ")
HEADER_BYTES = 64
ROWS_AT = HEADER.size - 8

BUCKETS = 512
"""Of each sign: 16 octaves at scale 5, 32 at scale 4."""

COUNT_BYTES = 4
MOST_COUNTED = (1 << 32) - 1
"""A bucket that holds so many stays there; `saturated` says how many it missed."""

HEAD_FIELDS = (
    "positive",
    "negative",
    "zero",
    "nan",
    "plus_infinity",
    "minus_infinity",
    "missing",
    "below",
    "above",
    "coarsening",
    "positive_least",
    "positive_greatest",
    "negative_least",
    "negative_greatest",
)
POSITIVE, NEGATIVE, ZERO, NAN, PLUS_INFINITY, MINUS_INFINITY, MISSING, BELOW, ABOVE = range(9)
COARSENING, POSITIVE_LEAST, POSITIVE_GREATEST, NEGATIVE_LEAST, NEGATIVE_GREATEST = range(9, 14)
HEAD_WORDS = 16

MOMENT_FIELDS = ("count", "mean", "m2", "pairs", "mean_x", "mean_y", "m2_x", "m2_y", "c_xy")
COUNT, MEAN, M2, PAIRS, MEAN_X, MEAN_Y, M2_X, M2_Y, C_XY = range(len(MOMENT_FIELDS))
MOMENT_WORDS = len(MOMENT_FIELDS)

LOW, HIGH, SENTINEL = range(3)
SETTING_WORDS = 3

LEAST_LG_K, GREATEST_LG_K = 4, 16
DEFAULT_LG_K = 12
NO_DISTINCT = 0

MAX_FEATURES = 1 << 20

_WORD = 8
_LINE = 64


def _aligned(offset: int) -> int:
    return -(-offset // _LINE) * _LINE


@dataclass(frozen=True)
class BlockShape:
    """Of a block: its features, and 2^lg_k registers for each (0: distinct values are not counted).

    Raises ValueError outside of 1 to MAX_FEATURES features, or for an lg_k that is neither 0 nor 4 to 16.
    """

    features: int
    lg_k: int = DEFAULT_LG_K

    def __post_init__(self) -> None:
        if not 1 <= self.features <= MAX_FEATURES:
            raise ValueError(f"expected 1 to {MAX_FEATURES} features, got {self.features}")
        if self.lg_k != NO_DISTINCT and not LEAST_LG_K <= self.lg_k <= GREATEST_LG_K:
            raise ValueError(f"expected an lg_k of 0 or {LEAST_LG_K} to {GREATEST_LG_K}, got {self.lg_k}")

    @property
    def registers(self) -> int:
        """Of one feature."""
        return 1 << self.lg_k if self.lg_k else 0

    @cached_property
    def settings_at(self) -> int:
        return HEADER_BYTES

    @cached_property
    def heads_at(self) -> int:
        return _aligned(self.settings_at + self.features * SETTING_WORDS * _WORD)

    @cached_property
    def moments_at(self) -> int:
        return _aligned(self.heads_at + self.features * HEAD_WORDS * _WORD)

    @cached_property
    def registers_at(self) -> int:
        return _aligned(self.moments_at + self.features * MOMENT_WORDS * _WORD)

    @cached_property
    def buckets_at(self) -> int:
        return _aligned(self.registers_at + self.features * self.registers)

    @cached_property
    def size_bytes(self) -> int:
        return _aligned(self.buckets_at + 2 * self.features * BUCKETS * COUNT_BYTES)
