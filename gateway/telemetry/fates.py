"""What can become of what is exported, and where in the tally each count stands."""

from __future__ import annotations

from enum import IntEnum


class Signal(IntEnum):
    SPANS = 0
    METRICS = 1
    LOGS = 2
    RUN_SPANS = 3


class Fate(IntEnum):
    """`EXPORTED`: the receiver took it. `REJECTED`: it said that it did not. `FAILED`: no export of it succeeded.
    `QUEUE_FULL`: it was never handed to the exporter.
    """

    EXPORTED = 0
    REJECTED = 1
    FAILED = 2
    QUEUE_FULL = 3


COUNTS = len(Signal) * len(Fate)


def place(signal: Signal, fate: Fate) -> int:
    """Where in the tally a count stands."""
    return signal * len(Fate) + fate
