"""Runs what comes through the rings, and what control asks to replay: one run after the other, on a thread that only
gets what is left of the cores.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gateway.shadow.fit import by_request, misfit, misshapen
from gateway.shadow.idle import run_when_idle
from gateway.shadow.quota import Quota
from gateway.shadow.replays import Replays
from gateway.shadow.reports import Reports
from gateway.shadow.versions import ShadowVersion, ShadowVersions
from runtime.errors import NotReady, RunError, ServingError
from runtime.onnx.session import RunStop
from runtime.shadow.pair import Array, Copy
from runtime.shadow.ring_layout import Shed, Status
from runtime.shadow.ring_reader import CopyReader, PairSlot, Taken

log = logging.getLogger(__name__)

REPORT_SECONDS = 1.0
FIRST_NAP_SECONDS, LONGEST_NAP_SECONDS = 0.001, 0.02
"""Between two looks at rings that were empty. A ring of 16 MiB holds what a worker copies in a tenth of a second."""

IDLE_SECONDS = 0.25  # the same, while no shadow version is loaded
FOLLOW_SECONDS = 0.1  # how soon a pair that a worker begins to copy is noticed
PAUSE_SECONDS = 1.0  # after the container's CPU quota was used up: the rest of the time is the workers'
MOST_TOLD = 1000  # warnings that are given once
DROPS = 256  # copies thrown away at once, until the other rings have their turn


@dataclass(frozen=True, slots=True)
class Followed:
    """A pair in one ring, and who runs its copies; None: nobody, because of `why`."""

    slot: PairSlot
    version: ShadowVersion | None
    why: Shed = Shed.NO_SHADOW


class CopyRuns:
    """`loading`: whether versions are being loaded, which goes first. `late_seconds`: what has waited so long, or runs
    so long, is given up.
    """

    def __init__(
        self,
        readers: Sequence[CopyReader],
        versions: ShadowVersions,
        reports: Reports,
        replays: Replays,
        loading: Callable[[], bool],
        late_seconds: float,
        quota: Quota,
    ) -> None:
        self._readers = readers
        self._quota = quota
        self._pause_until = 0.0
        self._versions = versions
        self._reports = reports
        self._replays = replays
        self._loading = loading
        self._late_ns = int(late_seconds * 1e9)
        self._followed: dict[tuple[int, int], Followed] = {}
        self._looked_at: tuple[int, tuple[tuple[int, ...], ...]] = (-1, ())
        self._follow_at = self._report_at = 0.0
        self._told: set[tuple[object, object]] = set()
        self._running: tuple[RunStop, int] | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run_forever, name="copies", daemon=True)
        self._recover()

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_seconds: float) -> bool:
        """False if a run goes on: it computes in one operator of its graph."""
        self._stopping.set()
        running = self._running
        if running is not None:
            running[0].stop()
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def look_after(self) -> None:
        """Now and then, on another thread: ends a run that takes longer than anybody waits for it."""
        running = self._running
        if running is not None and time.monotonic_ns() - running[1] > self._late_ns:
            running[0].stop()

    def _run_forever(self) -> None:
        if not run_when_idle():
            log.warning("shadows run at the lowest priority, not only on idle cores: the system has no such scheduling")
        nap = FIRST_NAP_SECONDS
        while not self._stopping.is_set():
            try:
                worked = self.step()
            except Exception:
                log.exception("a look at the copies failed; the next follows")
                worked = False
            if worked:
                nap = FIRST_NAP_SECONDS
                continue
            nap = min(2 * nap, LONGEST_NAP_SECONDS)
            self._stopping.wait(nap if len(self._versions) else IDLE_SECONDS)

    def step(self) -> bool:
        """One copy from each ring, at most, and one block of a replay; False if there was none."""
        now = time.monotonic()
        if now >= self._report_at:
            self._report_at = now + REPORT_SECONDS
            self._reports.send()
        if now >= self._follow_at:
            self._follow_at = now + FOLLOW_SECONDS
            self._follow()
            if self._quota.was_used_up():
                self._pause_until = now + PAUSE_SECONDS
        if self._loading() or now < self._pause_until:
            return False
        worked = False
        for number, reader in enumerate(self._readers):
            worked = self._next(number, reader) or worked
        return self._replays.step(self._run_alone) or worked

    def _next(self, number: int, reader: CopyReader) -> bool:
        """The oldest copy of a ring that is still worth a run, past those that are not; False if the ring was empty."""
        for _ in range(DROPS):
            taken = reader.look()
            if taken is None:
                return False
            followed = self._of(number, taken)
            if followed is None:
                reader.drop()
                continue
            reason = followed.why if followed.version is None else self._late(taken)
            if reason is None and followed.version is not None:
                self._take(reader, taken, followed.slot, followed.version)
                return True
            reader.drop()
            self._reports.shed(followed.slot, reason or followed.why, taken.requests)
        return True

    def _take(self, reader: CopyReader, taken: Taken, slot: PairSlot, version: ShadowVersion) -> None:
        """Answers the oldest copy. What fails here in a way that nobody thought of costs this copy, and is counted."""
        before = self._reports.counted
        try:
            self._answer(slot, version, reader.take(slot.described))
        except Exception:
            if self._is_news(slot.described, "bug"):
                log.exception("a copy of %s could not be compared; this is told once", slot.described.key)
            self._reports.shed(slot, Shed.LOST, taken.requests - (self._reports.counted - before))

    def _late(self, taken: Taken) -> Shed | None:
        return Shed.LATE if time.time_ns() - taken.unix_ns > self._late_ns else None

    def _answer(self, slot: PairSlot, version: ShadowVersion, copy: Copy) -> None:
        """One run, as the primary's was; one for each request where the version cannot have their rows together."""
        wrong = misshapen(copy, version.signature)
        if wrong:
            self._tell_once(slot, "shape", f"copies of {slot.described.key} do not fit: {wrong}")
            self._reports.shed(slot, Shed.INCOMPATIBLE, len(copy.rows))
            return
        together = version.merges_rows or len(copy.rows) == 1
        if together and self._run(slot, version, copy, alone=len(copy.rows) == 1 or not copy.batched):
            return
        for part in by_request(copy):
            self._run(slot, version, part, alone=True)

    def _run(self, slot: PairSlot, version: ShadowVersion, copy: Copy, *, alone: bool) -> bool:
        """False if it failed and is not `alone`: one request's values may have failed the others'."""
        stop = RunStop()
        began_ns = time.monotonic_ns()
        self._running = (stop, began_ns)
        begun = version.counters.begin()
        try:
            answers = version.run(copy.inputs, list(copy.outputs), stop)
        except ServingError as error:
            self._running = None
            return self._gave_no_answer(slot, version, copy, error, began_ns, alone=alone)
        finally:
            version.counters.end(begun)
            self._running = None
        run_ns = time.monotonic_ns() - began_ns
        self._reports.compared(slot, version.comparable, copy, answers, run_ns)
        rows = sum(copy.rows)
        version.counters.add_run(len(copy.rows), rows, run_ns, 0, 0, run_ns, 0, time.time_ns() // 1_000_000)
        return True

    def _run_alone(self, version: ShadowVersion, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """A run that no copy asks for; a process that ends in it is the version's doing. Raises RunError, or NotReady
        where the run was ended from here.
        """
        stop = RunStop()
        began_ns = time.monotonic_ns()
        self._running = (stop, began_ns)
        begun = version.counters.begin()
        try:
            return version.run(feeds, [spec.name for spec in version.signature.outputs], stop)
        except RunError:
            if self._stopping.is_set():
                raise NotReady("the shadow process is ending") from None
            if time.monotonic_ns() - began_ns > self._late_ns:
                late = f"{self._late_ns / 1e9:g} s (shadow.late_seconds)"
                raise NotReady(f"a run of {version.loaded.name} takes longer than {late}") from None
            raise
        finally:
            version.counters.end(begun)
            self._running = None

    def _gave_no_answer(
        self, slot: PairSlot, version: ShadowVersion, copy: Copy, error: ServingError, began_ns: int, *, alone: bool
    ) -> bool:
        taken_ns = time.monotonic_ns() - began_ns
        if self._stopping.is_set():
            self._reports.shed(slot, Shed.LOST, len(copy.rows))
        elif isinstance(error, NotReady):
            self._reports.shed(slot, Shed.NO_SHADOW, len(copy.rows))
        elif taken_ns > self._late_ns:
            self._reports.shed(slot, Shed.LATE, len(copy.rows))
        elif alone:
            version.counters.add_failures(len(copy.rows), taken_ns, cancelled=False)
            self._reports.failed(slot, version.comparable, copy, error.detail or error.message)
        else:
            return False
        return True

    def _of(self, number: int, taken: Taken) -> Followed | None:
        followed = self._followed.get((number, taken.pair))
        if followed is None or followed.slot.serial != taken.serial:
            self._follow()
            followed = self._followed.get((number, taken.pair))
        if followed is None or followed.slot.serial != taken.serial:
            self._tell_once(number, taken.serial, f"a copy in ring {number} is of no pair that the ring describes")
            return None
        return followed

    def _follow(self) -> None:
        """Takes up pairs and versions that came or went, and tells the writers which copies are of use."""
        looked_at = (self._versions.changes, tuple(reader.serials() for reader in self._readers))
        if looked_at == self._looked_at:
            return
        self._looked_at = looked_at
        followed = {}
        for number, reader in enumerate(self._readers):
            for slot in reader.slots():
                followed[number, slot.pair] = self._follow_one(reader, slot)
        self._followed = followed

    def _follow_one(self, reader: CopyReader, slot: PairSlot) -> Followed:
        version = self._versions.of(slot.described.key)
        if version is None:
            reader.set_status(slot, Status.ABSENT)
            return Followed(slot, None)
        wrong = misfit(slot.described, version.signature)
        if wrong:
            self._tell_once(slot.described, "names", f"copies of {slot.described.key} cannot be compared: {wrong}")
            reader.set_status(slot, Status.INCOMPATIBLE)
            return Followed(slot, None, Shed.INCOMPATIBLE)
        reader.set_status(slot, Status.READY)
        return Followed(slot, version)

    def _recover(self) -> None:
        """What the process before had taken and not told of is lost with it."""
        for reader in self._readers:
            for slot in reader.slots():
                lost = reader.untold(slot)
                if lost > 0:
                    self._reports.shed(slot, Shed.LOST, lost)

    def _tell_once(self, what: object, kind: object, message: str) -> None:
        if self._is_news(what, kind):
            log.warning("%s", message)

    def _is_news(self, what: object, kind: object) -> bool:
        if len(self._told) >= MOST_TOLD or (what, kind) in self._told:
            return False
        self._told.add((what, kind))
        return True
