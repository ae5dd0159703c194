"""How the answers of shadows differ from those that clients got, by pair of versions: what control gathers and keeps.

The shadow process sends what has come since its last report; a pane of it goes to the windows at each tick, and to the
store. Copies are counted as chosen, and as thrown away by workers, in the memory of the rings, which outlives control;
`copies` reads it.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gateway.messages import ComparisonReport, PairReport
from gateway.store.comparisons import TOTALS_LENGTH, ComparisonStore, ComparisonTick
from gateway.store.contract import StoreError
from gateway.telemetry.shadow_measures import PairFigures
from runtime.errors import NotFound
from runtime.profile.levels import Levels
from runtime.profile.pane import Pane, PaneChanges, PaneKey
from runtime.profile.windows import Windows
from runtime.shadow.comparison import PairComparison
from runtime.shadow.pair import PairKey, PairSettings
from runtime.sketch.errors import Malformed

log = logging.getLogger(__name__)

MAX_PAIRS = 64
"""Held at once: those of which nothing was heard for longest are forgotten first, and that is told."""

CopyCounts = Mapping[PairKey, tuple[int, Mapping[str, int]]]
"""Since the gateway's start: requests that were chosen, and those that workers threw away themselves, by reason."""


@dataclass(frozen=True, slots=True)
class PairTotals:
    """Cumulative since control's start. `counters` names the memory that counts: of another they begin anew.

    `requests`: that the shadow has answered or failed on; compared + failed.
    """

    counters: str
    compared: int
    agreed: int
    failed: int
    requests: int


@dataclass(frozen=True, slots=True)
class PairView:
    """chosen = compared + failed + all that was shed + waiting. `shed`: by reason; with what was lost when control
    ended, which `whole` has not.
    """

    whole: PairComparison
    begin_seconds: float
    end_seconds: float
    chosen: int
    waiting: int
    shed: Mapping[str, int]


class _Pair:
    """`whole`: since the gateway's start. `pending`: since the last tick. `base`: what `whole` began with here.

    `chosen`, `refused`: what the rings said last. `lost`: copies whose fate died with a control before this one.
    """

    def __init__(
        self, key: PairKey, levels: Levels, counters: str, now_seconds: float, whole: PairComparison | None = None
    ) -> None:
        self.key = key
        self.counters = counters
        self.windows = Windows(levels, PairComparison.from_bytes)
        self.whole = whole if whole is not None else _empty(key)
        self.base = outcomes(self.whole)
        self.pending = _empty(key)
        self.began_seconds = now_seconds
        self.heard_seconds = now_seconds
        self.chosen_total = 0
        self.chosen = 0
        self.refused: dict[str, int] = dict(self.whole.refused)
        self.lost = 0
        self.window_figures: tuple[float, float] | None = None

    def add(self, delta: PairComparison, now_seconds: float) -> None:
        self.whole.merge(delta)
        self.pending.merge(delta)
        self.heard_seconds = now_seconds

    def count(self, chosen: int, refused: Mapping[str, int], now_seconds: float) -> None:
        """What the rings have counted so far. Less than before: they were made anew."""
        delta = _empty(self.key)
        delta.refuse({reason: _grown(count, self.refused.get(reason, 0)) for reason, count in refused.items()})
        self.chosen_total += _grown(chosen, self.chosen)
        if not delta.is_empty or chosen != self.chosen:
            self.add(delta, now_seconds)
        self.chosen, self.refused = chosen, dict(refused)
        # After a restart of control it is not known which copies still wait, and which were in reports that died with
        # it. Those that wait come; so the fewest that were ever missing since are lost.
        self.lost = min(self.lost, self.missing)

    @property
    def missing(self) -> int:
        return max(self.chosen_total - self.whole.rows, 0)

    @property
    def waiting(self) -> int:
        return self.missing - self.lost


def _grown(now: int, before: int) -> int:
    return now - before if now >= before else now


def outcomes(comparison: PairComparison) -> Counter[tuple[str, str]]:
    """Requests by what became of their copies, and of those that were shed the reason."""
    counts = Counter({("shed", reason): count for reason, count in comparison.shed_requests.items()})
    counts["agreed", ""] = comparison.agreed
    counts["disagreed", ""] = comparison.compared - comparison.agreed
    counts["failed", ""] = comparison.failed
    return counts


def _empty(key: PairKey) -> PairComparison:
    empty = PairComparison(key, PairSettings(worst=0))
    empty.tolerances.clear()
    return empty


class Comparisons:
    """`take` on control's loop, `tick` on one thread; the rest on any.

    started_seconds: of the gateway: totals count from there. drift_window_seconds: the window of the metrics.
    """

    def __init__(
        self,
        store: ComparisonStore,
        levels: Levels,
        *,
        started_seconds: float,
        drift_window_seconds: int,
        copies: Callable[[], CopyCounts] = dict,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.levels = levels
        self._store = store
        self._started_seconds = int(started_seconds)
        self._drift_window_seconds = drift_window_seconds
        self._copies = copies
        self._clock = clock
        self._memory = uuid.uuid4().hex
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._pairs: dict[PairKey, _Pair] = {}
        self._unsaved: set[PairKey] = set()  # pairs whose totals have changed since they were stored; of one thread
        self._forgotten: dict[PairKey, tuple[int, Mapping[str, int]]] = {}  # what the rings had counted of them
        self._forgotten_pairs = 0
        self._unreadable_reports = 0

    def restore(self) -> None:
        """Takes over what the store holds, before the first report. What cannot be read is logged and left."""
        now = self._clock()
        try:
            panes = self._store.load_comparisons()
            totals = self._store.load_totals(self._started_seconds)
        except StoreError:
            log.exception("the comparisons of shadows cannot be read from the store; they begin anew")
            return
        with self._lock:
            for key in sorted({*panes, *totals}):
                pair = self._pair(key, now, _whole(key, totals.get(key)))
                pair.windows.restore(panes.get(key, ()), now)
            counts = self._copies()
            for key, pair in self._pairs.items():  # the rings may have forgotten what the store knows, which is no news
                _, refused = counts.get(key, (0, {}))
                pair.refused = {reason: min(count, refused.get(reason, 0)) for reason, count in pair.refused.items()}
            self._count(counts, now)
            for pair in self._pairs.values():
                pair.lost = pair.missing

    def take(self, report: ComparisonReport) -> None:
        """Adds what the shadow process has seen since its last report. A damaged delta is logged and counted."""
        now = self._clock()
        for each in report.pairs:
            key = _key(each)
            try:
                delta = PairComparison.from_bytes(each.delta)
                if delta.key != key:
                    raise Malformed(f"expected a comparison of {key}, got one of {delta.key}")
            except Malformed as error:
                self._unreadable_reports += 1
                log.warning("a comparison of %s/%d cannot be read: %s", each.model, each.shadow, error)
                continue
            with self._lock:
                self._pair(key, now).add(delta, now)

    def tick(self, now_seconds: float) -> None:
        """Puts what has come into panes, and stores what has changed. A store that fails is tried again next time."""
        counts = self._copies()
        with self._lock:
            self._count(counts, now_seconds)
            panes, totals = self._changes(now_seconds)
        tick = ComparisonTick(int(now_seconds), self.levels.retain_seconds, self._started_seconds, panes, totals)
        if tick.panes or tick.totals:
            self._store.put_comparisons(tick)
        with self._lock:
            self._unsaved.difference_update(totals)
            for key, changes in panes.items():
                if key in self._pairs:
                    self._pairs[key].windows.saved(changes)

    def totals(self, model: str, primary: int, shadow: int) -> PairTotals:
        """Of the pair of these numbers that was last heard of; zeros where none was."""
        with self._lock:
            pair = self._last(model, primary, shadow)
            if pair is None:
                return PairTotals(self._memory, 0, 0, 0, 0)
            now = Counter(outcomes(pair.whole))
            now.subtract(pair.base)
        agreed, failed = now["agreed", ""], now["failed", ""]
        compared = agreed + now["disagreed", ""]
        return PairTotals(pair.counters, compared, agreed, failed, compared + failed)

    def pairs(self, model: str = "", primary: int = 0, shadow: int = 0) -> list[PairKey]:
        """Those that something is known of, in order; "" and 0: any."""
        wanted = (model, primary, shadow)
        with self._lock:
            self._count(self._copies(), self._clock())
            return sorted(key for key in self._pairs if _matches(key, *wanted))

    def view(self, key: PairKey, window_seconds: int = 0) -> PairView:
        """Over one of the gateway's windows; 0: since its start.

        Raises ValueError for a window that there is not, NotFound for a pair that has gone.
        """
        now = self._clock()
        with self._lock:
            self._count(self._copies(), now)
            pair = self._pairs.get(key)
            if pair is None:
                raise NotFound(f"nothing is known any more of shadow {key.shadow} of model {key.model!r}")
            if not window_seconds:
                return _view(pair, pair.whole.copy(), self._started_seconds, now, pair.lost)
            window = pair.windows.window(window_seconds, now)
            whole = window.summary if window.summary is not None else _empty(key)
            whole.merge(pair.pending)
            return _view(pair, whole, window.start_seconds, now, 0)

    def figures(self) -> list[PairFigures]:
        """For the metrics: requests since control's start; of the drift window as it was at the last tick."""
        with self._lock:
            found = []
            for key, pair in sorted(self._pairs.items()):
                now = Counter(outcomes(pair.whole))
                now.subtract(pair.base)
                agreement, latency = pair.window_figures or (None, None)
                found.append(
                    PairFigures(key.model, key.primary, key.shadow, dict(now), pair.waiting, agreement, latency)
                )
        return found

    def notes(self) -> list[str]:
        """What is to be known of all figures."""
        found = []
        if self._unreadable_reports:
            found.append(
                f"{self._unreadable_reports:,} reports of the shadow process could not be read, and are left out"
            )
        if self._forgotten_pairs:
            count = f"{self._forgotten_pairs:,} so far"
            found.append(f"beyond {MAX_PAIRS} pairs, those unheard of for longest are forgotten: {count}")
        with self._lock:
            panes = sum(pair.windows.unreadable_rows for pair in self._pairs.values())
        if panes:
            found.append(f"{panes:,} requests are in stored panes that cannot be read, and are left out of windows")
        return found

    def _count(self, counts: CopyCounts, now_seconds: float) -> None:
        """The rings go on naming pairs that were forgotten: those come back when something new is counted of them."""
        self._forgotten = {key: known for key, known in self._forgotten.items() if key in counts}
        for key, (chosen, refused) in counts.items():
            if key in self._pairs or (chosen and self._forgotten.get(key) != (chosen, refused)):
                self._pair(key, now_seconds).count(chosen, refused, now_seconds)

    def _changes(self, now_seconds: float) -> tuple[dict[PairKey, PaneChanges], dict[PairKey, Pane]]:
        panes = {}
        for key, pair in self._pairs.items():
            if not pair.pending.is_empty:
                pair.windows.add(pair.began_seconds, now_seconds, pair.pending, now_seconds)
                pair.pending = _empty(key)
                self._unsaved.add(key)
            pair.began_seconds = now_seconds
            pair.windows.advance(now_seconds)
            window = pair.windows.window(self._drift_window_seconds, now_seconds).summary
            pair.window_figures = _ratios(window) if window is not None else None
            changes = pair.windows.changes()
            if changes.put or changes.delete:
                panes[key] = changes
        totals = {
            key: _totals_pane(self._pairs[key].whole, self._started_seconds)
            for key in self._unsaved & self._pairs.keys()
        }
        return panes, totals

    def _pair(self, key: PairKey, now_seconds: float, whole: PairComparison | None = None) -> _Pair:
        pair = self._pairs.get(key)
        if pair is None:
            if len(self._pairs) >= MAX_PAIRS:
                self._forget(min(self._pairs.values(), key=lambda each: each.heard_seconds))
            counters = f"{self._memory}/{next(self._numbers)}"
            pair = self._pairs[key] = _Pair(key, self.levels, counters, now_seconds, whole)
            if key in self._forgotten:
                pair.chosen, refused = self._forgotten.pop(key)
                pair.refused = dict(refused)
        return pair

    def _forget(self, pair: _Pair) -> None:
        del self._pairs[pair.key]
        self._forgotten[pair.key] = (pair.chosen, dict(pair.refused))
        self._forgotten_pairs += 1

    def _last(self, model: str, primary: int, shadow: int) -> _Pair | None:
        found = [pair for key, pair in self._pairs.items() if _matches(key, model, primary, shadow)]
        return max(found, key=lambda pair: pair.heard_seconds, default=None)


def _key(report: PairReport) -> PairKey:
    return PairKey(report.model, report.primary, report.primary_digest, report.shadow, report.shadow_digest)


def _matches(key: PairKey, model: str, primary: int, shadow: int) -> bool:
    return model in ("", key.model) and primary in (0, key.primary) and shadow in (0, key.shadow)


def _whole(key: PairKey, pane: Pane | None) -> PairComparison | None:
    if pane is None:
        return None
    try:
        return PairComparison.from_bytes(zlib.decompress(pane.data))
    except (Malformed, zlib.error):
        log.exception("the totals of shadow %d of %s cannot be read; they begin anew", key.shadow, key.model)
        return None


def _totals_pane(whole: PairComparison, started_seconds: int) -> Pane:
    return Pane.of(PaneKey(TOTALS_LENGTH, started_seconds), whole)


def _view(pair: _Pair, whole: PairComparison, begin: float, end: float, lost: int) -> PairView:
    shed = dict(whole.shed_requests)
    if lost:
        shed["lost"] = shed.get("lost", 0) + lost
    waiting = pair.waiting
    chosen = whole.compared + whole.failed + sum(shed.values()) + waiting
    return PairView(whole, begin, end, chosen, waiting, shed)


def _ratios(whole: PairComparison) -> tuple[float, float] | None:
    """Share of the requests that agree, and the shadow's time over the primary's."""
    return (whole.agreed / whole.compared, whole.latency_ratio) if whole.compared else None
