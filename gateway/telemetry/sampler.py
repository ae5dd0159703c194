"""Whether a request's span is exported (OpenTelemetry SDK specification, "Sampling"). Metrics count all the same."""

from __future__ import annotations

from dataclasses import dataclass

SAMPLED = 0x01  # of W3C's trace-flags


@dataclass(frozen=True, slots=True)
class Sampler:
    """`ratio` of new traces is sampled: 1 all, 0 none. `parent_based`: a caller's decision goes before it."""

    ratio: float
    parent_based: bool

    @classmethod
    def named(cls, name: str, ratio: float) -> Sampler:
        """By OTEL_TRACES_SAMPLER's values; `ratio` counts for those with traceidratio in their name."""
        root = name.removeprefix("parentbased_")
        return cls({"always_on": 1.0, "always_off": 0.0}.get(root, ratio), root != name)

    @property
    def threshold(self) -> int:
        """A new trace is sampled when the last 64 bits of its id are below this, as every SDK decides."""
        return round(self.ratio * 2**64)

    def root(self, trace_id: bytes) -> bool:
        return int.from_bytes(trace_id[8:], "big") < self.threshold

    def child(self, trace_id: bytes, parent_flags: int) -> bool:
        return bool(parent_flags & SAMPLED) if self.parent_based else self.root(trace_id)
