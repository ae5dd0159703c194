"""From values to places on a plot: linear, by the logarithm, or by the logarithm to both sides of zero. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from gateway.report.text import number

MOST_TICKS = 5


class Warp(Enum):
    LINEAR = "linear"
    LOG = "logarithmic"
    BOTH_WAYS = "logarithmic to both sides of zero"


@dataclass(frozen=True, slots=True)
class Axis:
    """From `low` to `high`, in the values' unit. `near`: within ± this, an axis both ways is about linear."""

    low: float
    high: float
    warp: Warp = Warp.LINEAR
    near: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"expected finite low < high, got {self.low} and {self.high}")
        if self.warp is Warp.LOG and self.low <= 0:
            raise ValueError(f"expected low > 0 on a logarithmic axis, got {self.low}")

    def place(self, value: float) -> float:
        """0 at `low`, 1 at `high`; beyond them further out."""
        low, high = self._warped(self.low), self._warped(self.high)
        if self.warp is Warp.LINEAR:
            return (value / 2 - low / 2) / (high / 2 - low / 2)  # halves: a span may be more than the largest float
        return (self._warped(value) - low) / (high - low)

    def value(self, place: float) -> float:
        """The other way: 0 gives `low`, 1 gives `high`."""
        low, high = self._warped(self.low), self._warped(self.high)
        at = low * (1 - place) + high * place
        if self.warp is Warp.LOG:
            return math.pow(10.0, at)
        if self.warp is Warp.LINEAR:
            return at
        if abs(at) < 20:
            return math.sinh(at) * self.near
        return math.copysign(math.exp(abs(at) - math.log(2) + math.log(self.near)), at)

    def ticks(self, most: int = MOST_TICKS) -> list[tuple[float, str]]:
        """At most so many round values within, ascending, each with its text."""
        return [(value, tick_text(value)) for value in self._values(most) if self.low <= value <= self.high]

    def _warped(self, value: float) -> float:
        if self.warp is Warp.LOG:
            return math.log10(value) if value > 0 else -math.inf
        return self._both(value) if self.warp is Warp.BOTH_WAYS else value

    def _both(self, value: float) -> float:
        """asinh(value / near), also where the quotient is larger than the largest float."""
        if abs(value) <= self.near * 1e6:
            return math.asinh(value / self.near)
        return math.copysign(math.log(abs(value)) - math.log(self.near) + math.log(2), value)

    def _values(self, most: int) -> list[float]:
        if self.warp is Warp.LINEAR:
            return linear_ticks(self.low, self.high, most)
        if self.warp is Warp.LOG:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            if last - first < 1:
                return linear_ticks(self.low, self.high, most)
            step = math.ceil((last - first + 1) / most)
            return [10.0**exponent for exponent in range(first, last + 1, step)]
        return self._both_ways(most)

    def _both_ways(self, most: int) -> list[float]:
        """Zero, and powers of ten on either side, not so near to zero that their texts would touch."""
        first = math.ceil(math.log10(self.near))
        last = math.floor(math.log10(max(abs(self.low), abs(self.high))) + 1e-9)
        each = (most - 1) // 2 if self.low < 0 < self.high else most - 1
        step = max(math.ceil((last - first + 1) / max(each, 1)), 1)
        powers = [10.0**exponent for exponent in range(last, first - 1, -step)]
        return sorted([-power for power in powers] + [0.0] + powers)


def linear_ticks(low: float, high: float, most: int = MOST_TICKS) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten."""
    span = high / most - low / most
    power = 10.0 ** math.floor(math.log10(span))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if power * factor >= span * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [value if abs(value) > step * 1e-9 else 0.0 for value in (step * n for n in range(first, last + 1))][
        : most + 1
    ]


def tick_text(value: float) -> str:
    """As short as can be: 1,000 → "1k", 2.5e6 → "2.5M"."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size <= abs(value) < size * 1000 and (size > 1e3 or abs(value) >= 1e4 or value % 1000 == 0):
            return f"{number(value / size, 4)}{letter}"
    return number(value, 4)
