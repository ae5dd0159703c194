"""What was seen of every version, gathered from the workers: panes of time, windows, and what hangs on them.

Once a pane (statistics.pane_seconds), in a thread beside the event loop:

    raise the epoch → workers close their panes → read and merge them → store them with how far each was collected
    → acknowledge → look for drift

A pane is acknowledged after it is stored, and a stored one is not merged again: so whatever ends control in between,
a row is counted once. While control is away, workers go on in the panes that are open.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from gateway.config import Statistics
from gateway.control.service_counts import ServiceCounts, ServiceMeter
from gateway.store.contract import StoreError
from gateway.store.panes import PaneStore, Tick, VersionKey, load_windows
from gateway.throttle import Throttle
from runtime.profile.levels import Levels
from runtime.profile.schema import Schema
from runtime.profile.summary import Summary
from runtime.profile.windows import Windows
from runtime.shm.panes_reader import ClosedPane, PaneReader, SlotView
from runtime.shm.series import SeriesReader
from runtime.sketch.errors import Malformed

log = logging.getLogger(__name__)

SERVICE = "/service"
"""After a version's digest: the key under which its latencies and errors are stored."""

MAX_VERSIONS = 2_048
"""Versions that are unloaded are remembered until their windows are empty, and no longer where there are more."""

CLOSING_SECONDS = 0.3
"""Workers look at the epoch every 0.1 s where no request makes them; a pane closed later is collected the next time."""


@dataclass(eq=False)
class Observed:
    """One version's windows. `generation`: of the newest slot; a version loaded anew may have other settings."""

    key: VersionKey
    schema: Schema
    generation: int
    windows: Windows[Summary]
    service: Windows[ServiceCounts]
    used_bytes: int = 0
    """Of the workers' panes."""


@dataclass
class Collected:
    """What one collection brought. `fresh`: the summaries that were added, by version."""

    fresh: dict[VersionKey, list[Summary]] = field(default_factory=dict)
    rows: int = 0


class Observation:
    """Thread-safe: `tick` is called by one thread, and answers are given by others, one at a time."""

    def __init__(self, settings: Statistics, reader: PaneReader, series: SeriesReader, store: PaneStore) -> None:
        self.settings = settings
        self.levels = Levels(settings.pane_seconds, settings.windows_seconds)
        self.lock = threading.RLock()
        self.versions: dict[VersionKey, Observed] = {}
        self.unreadable_panes = 0
        self._reader = reader
        self._series = series
        self._store = store
        self._meter = ServiceMeter()
        self._collected = store.load_collected()
        self._merged: dict[str, int] = {}  # slots' serials that are in the windows here, stored or not
        self._complaints: Throttle[str] = Throttle("others")
        self.on_pane: Callable[[VersionKey, float, Summary], None] = lambda _key, _began_seconds, _pane: None
        """Told of each pane that is added, once, under the lock: whose, when it began, and what is in it, on loan."""

    def epoch(self, now_seconds: float) -> int:
        return int(now_seconds // self.settings.pane_seconds)

    def begin_pane(self, now_seconds: float) -> None:
        """Workers close what they have at their next run, or within 0.1 s."""
        self._reader.raise_epoch(max(self.epoch(now_seconds), self._reader.epoch))

    def meet(self, now_seconds: float) -> None:
        """Versions that were loaded since the last collection are known, with what is stored of them."""
        with self.lock:
            self._know(self._reader.slots(), now_seconds)

    def collect(
        self, now_seconds: float, *, also_open: bool = False, drift: Mapping[VersionKey, str] | None = None
    ) -> Collected:
        """Merges, stores and acknowledges what is closed. `also_open`: the workers have ended, and it is the last time.

        drift: states to be stored with it, as JSON.

        A store that cannot be written leaves all for the next time.
        """
        with self.lock:
            panes = self._reader.closed(also_open=also_open)
            slots = self._reader.slots()
            self._know(slots, now_seconds)
            collected = Collected()
            marks: dict[str, int] = {}
            for pane in sorted(panes, key=lambda pane: pane.serial):
                self._merge(pane, now_seconds, collected)
                name = slot_name(pane.slot.id)
                marks[name] = max(pane.serial, marks.get(name, 0))
            self._count_service(now_seconds)
            if self._put(marks, slots, drift or {}, now_seconds):
                for pane in panes:
                    self._reader.acknowledge(pane)
            return collected

    def losses(self) -> list[str]:
        """What of any version was lost on the way from the workers, since the gateway's start; for people."""
        with self.lock:
            figures = self._reader.figures()
        rows, panes = sum(each.discarded_rows for each in figures), sum(each.discarded_panes for each in figures)
        refused = sum(each.refused_slots for each in figures)
        told = []
        if panes:
            told.append(
                f"{panes} panes with {rows:,} rows of any version were discarded, half-written by killed workers"
            )
        if refused:
            told.append(f"{refused} versions found no room to be measured: raise statistics.max_bytes_per_worker")
        if self.unreadable_panes:
            told.append(f"{self.unreadable_panes} panes of any version could not be read; the log says why")
        return told

    def _know(self, slots: Iterable[SlotView], now_seconds: float) -> None:
        """Versions that workers hold are here from their load on, with what is stored of them."""
        used: dict[VersionKey, int] = {}
        for slot in slots:
            key = VersionKey(slot.model, slot.version, slot.digest)
            used[key] = used.get(key, 0) + slot.used_bytes
            known = self.versions.get(key)
            if known is not None and known.generation >= slot.generation:
                continue
            try:
                schema = Schema.from_json(slot.description.decode("utf-8", "surrogatepass"))
            except (Malformed, UnicodeDecodeError):
                log.exception("the features of %s/%d cannot be read; it is not measured", slot.model, slot.version)
                continue
            if known is not None and known.schema.digest == schema.digest:
                known.generation = slot.generation
                continue
            self.versions[key] = self._open(key, schema, slot.generation, now_seconds)
        unloaded = [key for key in self.versions if key not in used]
        for key in unloaded:
            windows = self.versions[key].windows
            windows.advance(now_seconds)
            if not windows.panes or len(self.versions) > MAX_VERSIONS:
                del self.versions[key]
        for key, observed in self.versions.items():
            observed.used_bytes = used.get(key, 0)

    def _open(self, key: VersionKey, schema: Schema, generation: int, now_seconds: float) -> Observed:
        windows: Windows[Summary] = load_windows(
            self._store, key, self.levels, lambda data: Summary.decode(schema, data), now_seconds
        )
        service: Windows[ServiceCounts] = load_windows(
            self._store, service_key(key), self.levels, ServiceCounts.decode, now_seconds
        )
        return Observed(key, schema, generation, windows, service)

    def _merge(self, pane: ClosedPane, now_seconds: float, collected: Collected) -> None:
        slot = pane.slot
        name = slot_name(slot.id)
        if pane.serial <= max(self._collected.get(name, 0), self._merged.get(name, 0)):
            return  # stored before control came back, or merged before the store failed
        observed = self.versions.get(VersionKey(slot.model, slot.version, slot.digest))
        self._merged[name] = pane.serial
        if observed is None or not pane.rows:
            return
        try:
            schema = Schema.from_json(slot.description.decode("utf-8", "surrogatepass"))
            summary = Summary.attach(schema, pane.read())
            if schema.digest != observed.schema.digest:
                raise Malformed("the version was loaded anew with other settings")
        except ValueError as error:
            self.unreadable_panes += 1
            if self._may_tell(f"{slot.model}/{slot.version}"):
                log.warning("%d rows of %s/%d are left out: %s", pane.rows, slot.model, slot.version, error)
            return
        observed.windows.add(pane.first_unix_ns / 1e9, pane.last_unix_ns / 1e9, summary, now_seconds)
        self.on_pane(observed.key, pane.first_unix_ns / 1e9, summary)
        collected.fresh.setdefault(observed.key, []).append(summary)
        collected.rows += summary.rows

    def _count_service(self, now_seconds: float) -> None:
        counts = self._meter.take(self._series.totals())
        newest: dict[tuple[str, int], Observed] = {}
        for observed in self.versions.values():
            place = (observed.key.model, observed.key.version)
            if place not in newest or newest[place].generation <= observed.generation:
                newest[place] = observed
        for place, seen in counts.items():
            if place in newest:
                start = now_seconds - self.settings.pane_seconds
                newest[place].service.add(start, now_seconds, seen, now_seconds)

    def _put(
        self, marks: dict[str, int], slots: Iterable[SlotView], drift: Mapping[VersionKey, str], now_seconds: float
    ) -> bool:
        """Whether the store has it."""
        living = {slot_name(slot.id) for slot in slots}
        windows: list[tuple[VersionKey, Windows[Summary] | Windows[ServiceCounts]]] = []
        for key, observed in self.versions.items():
            windows += [(key, observed.windows), (service_key(key), observed.service)]
        changes = {key: each.changes() for key, each in windows}
        forgotten = [name for name in self._collected if name not in living]
        tick = Tick(
            now_seconds=int(now_seconds),
            retain_seconds=self.levels.retain_seconds,
            panes={key: change for key, change in changes.items() if change.put or change.delete},
            collected=marks,
            forgotten=forgotten,
            drift=drift,
        )
        try:
            self._store.put_tick(tick)
        except StoreError as error:
            if self._may_tell("store"):
                log.warning("what was measured cannot be stored, and is kept until it can: %s", error.message)
            return False
        for key, each in windows:
            each.saved(changes[key])
        self._collected.update(marks)
        for name in forgotten:
            self._collected.pop(name, None)
        self._merged = {name: serial for name, serial in self._merged.items() if name in living}
        return True

    def _may_tell(self, what: str) -> bool:
        return self._complaints.passes(what, time.monotonic())[0] is not None


def slot_name(slot_id: int) -> str:
    return f"{slot_id:016x}"


def service_key(key: VersionKey) -> VersionKey:
    return VersionKey(key.model, key.version, key.digest + SERVICE)
