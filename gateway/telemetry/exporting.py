"""What became of what was to be exported, in counts that outlive the control process.

The counts stand in a tally that the supervisor owns, so that sent and dropped always add up to what was recorded.
"""

from __future__ import annotations

import threading

from gateway.telemetry.fates import Fate, Signal, place
from gateway.telemetry.otlp.client import Outcome
from runtime.shm.tally import Tally


class ExportCounts:
    """One signal's counts; thread-safe. Spans of requests and of runs are counted apart.

    `begin`, then `count`, for each export; `abandon` once at the end.
    """

    def __init__(self, tally: Tally, signal: Signal) -> None:
        self._tally = tally
        self._signal = signal
        self._under_way = {signal: 0, Signal.RUN_SPANS: 0}
        self._abandoned = False
        self._lock = threading.Lock()

    def begin(self, items: int, runs: int = 0) -> None:
        with self._lock:
            self._under_way[self._signal] += items
            self._under_way[Signal.RUN_SPANS] += runs

    def count(self, outcome: Outcome, items: int, runs: int = 0) -> None:
        """`items` (and `runs`) were in one export. What a receiver rejects it does not name: counted as items first."""
        rejected, dropped = outcome.rejected, outcome.dropped
        with self._lock:
            if self._abandoned:
                return
            for signal, total in ((self._signal, items), (Signal.RUN_SPANS, runs)):
                lost = min(dropped, total)
                refused = min(rejected, total - lost)
                rejected, dropped = rejected - refused, dropped - lost
                self._under_way[signal] -= total
                self._add(signal, Fate.FAILED, lost)
                self._add(signal, Fate.REJECTED, refused)
                self._add(signal, Fate.EXPORTED, total - lost - refused)

    def abandon(self) -> None:
        """What is under way counts as failed from now on, whatever becomes of it: nobody waits for it any more."""
        with self._lock:
            self._abandoned = True
            for signal, count in self._under_way.items():
                self._add(signal, Fate.FAILED, count)
                self._under_way[signal] = 0

    def dropped(self, fate: Fate, items: int, runs: int = 0) -> None:
        """What no export was begun with."""
        with self._lock:
            self._add(self._signal, fate, items)
            self._add(Signal.RUN_SPANS, fate, runs)

    def under_way(self, signal: Signal) -> int:
        """What has been handed to the exporter, and whose export has not ended."""
        return self._under_way.get(signal, 0)

    def _add(self, signal: Signal, fate: Fate, count: int) -> None:
        if count:
            self._tally.add(place(signal, fate), count)
