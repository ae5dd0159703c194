"""Values as people read them. Pure; text that came over the wire is made harmless to a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

NOTHING = "-"
SHORT_DIGEST_DIGITS = 12
BYTE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def one_line(text: str) -> str:
    """No control or escape sequence survives: one could forge lines or drive the terminal that shows them."""
    words = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in words)


def byte_count(count: int) -> str:
    """1536 → "1.5 KiB"."""
    value, unit = float(count), 0
    while abs(value) >= 1023.95 and unit < len(BYTE_UNITS) - 1:  # what would round to 1024.0 belongs to the next unit
        value, unit = value / 1024, unit + 1
    return f"{value:.1f} {BYTE_UNITS[unit]}" if unit else f"{count} B"


def seconds(value: float) -> str:
    """0.0123 → "12 ms", 83 → "1 min 23 s"."""
    if value < 0.9995:
        return f"{value * 1000:.0f} ms"
    if value < 59.95:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s"


def duration(message: Duration) -> str:
    return seconds(message.ToNanoseconds() / 1e9)


def moment(timestamp: Timestamp, timespec: str = "seconds") -> str:
    """UTC, ISO 8601."""
    return timestamp.ToDatetime(tzinfo=UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


def short_digest(digest: str) -> str:
    """Of "sha256:<64 digits>" the first 12 digits."""
    return one_line(digest.rpartition(":")[2][:SHORT_DIGEST_DIGITS]) or NOTHING


def signature(tensors: Iterable[pb.Tensor]) -> str:
    """`X FP32[-1,30], y INT64[]`; a scalar has no axes."""
    return ", ".join(f"{one_line(t.name)} {one_line(t.datatype)}[{','.join(map(str, t.shape))}]" for t in tensors)
