"""The control process: composition root of the control plane."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Iterable
from pathlib import Path

from gateway.background import background_ended, in_background
from gateway.control.admin import AdminServer, AdminService, AdminUnavailable
from gateway.control.audit import Actor
from gateway.control.changes import Changes
from gateway.control.comparisons import Comparisons
from gateway.control.crashes import CrashWatch
from gateway.control.drift_events import announce_drift
from gateway.control.drift_watch import Change
from gateway.control.events import Events
from gateway.control.figures import control_figures
from gateway.control.fleet import Fleet
from gateway.control.observation import CLOSING_SECONDS, Observation
from gateway.control.rollout_checks import Settings
from gateway.control.rollout_counts import Counters
from gateway.control.rollout_events import RolloutWatchers
from gateway.control.rollout_replay import ReplayDesk
from gateway.control.rollout_rows import RolloutRows
from gateway.control.rollout_run import Surroundings
from gateway.control.rollouts import Rollouts
from gateway.control.telemetry import TelemetryExport
from gateway.control.views import drift_thresholds, index_rows, served_of
from gateway.control.watching import Watching
from gateway.control.web import WebServer
from gateway.errors import status_of
from gateway.logs import setup_logging
from gateway.messages import Answer, ComparisonReport, Request, VersionReport
from gateway.process import Spawn, receive_orders
from gateway.store.sql import SqlStore, open_store
from gateway.telemetry.durations import DurationRecorder
from gateway.telemetry.events import CONTROL_RESTARTED
from gateway.telemetry.log_forwarder import LogForwarder
from gateway.telemetry.measure import Measures
from gateway.telemetry.refusals import RefusalSummary
from gateway.telemetry.resource import detect
from gateway.telemetry.settings import read_settings
from gateway.wire.pbtxt import read_config_pbtxt
from runtime.errors import ServingError
from runtime.malloc import share_one_heap
from runtime.profile.levels import Levels
from runtime.repository.cache import ArtifactCache, CacheUnwritable
from runtime.repository.repository import Repository
from runtime.shadow.ring_map import CopyCounter, map_copy_ring
from runtime.shm.panes_reader import PaneReader
from runtime.shm.segment import Segment
from runtime.shm.series import SeriesReader
from runtime.shm.statistics import StatisticsReader
from runtime.versions.state import VersionState

log = logging.getLogger(__name__)

TELL_SECONDS = 2.0
LOOK_SECONDS = 10.0  # how often a vanished repository is noticed where nothing polls it


class StartFailed(RuntimeError):
    """The desired state could not be brought back; the log says why. The supervisor starts control anew."""


class Control:
    def __init__(self, orders: Spawn, store: SqlStore) -> None:
        config = orders.config
        self._orders = orders
        self._config = config
        self._store = store
        self._start_mark = Path(orders.state_dir) / "started"
        self._cache = ArtifactCache(Path(orders.state_dir) / "cache")
        repository = Repository(
            config.models, self._cache, read_config_pbtxt, settle_seconds=config.repository.settle_seconds
        )
        pages = [Segment.attach(fd, writable=False) for fd in orders.page_fds]
        statistics = StatisticsReader(pages, [Segment.attach(orders.shadow_page_fd, writable=False)])
        series = SeriesReader([Segment.attach(fd, writable=False) for fd in orders.series_fds])
        self._events = Events()
        settings = read_settings(config.telemetry.environment(os.environ))
        resource = detect(orders.instance_id, config.telemetry.environment(os.environ))
        self._export = TelemetryExport(orders, settings, resource)
        self._log_events = self._export.events
        if settings.logs is not None:
            logging.getLogger().addHandler(LogForwarder(self._log_events))
        self._swaps, self._loads = DurationRecorder(), DurationRecorder()
        self._changes = Changes(store, repository, self._cache, self._log_events, self._swaps.record)
        listener = socket.socket(fileno=orders.listener_fd)
        listener.setblocking(False)
        self._fleet = Fleet(listener, self._on_report, self._on_request, self._log_events)
        self._changes.fleet = self._fleet
        self._crashes = CrashWatch(statistics, self._log_events)
        self._fleet.on_end = self._on_end
        self._fleet.on_comparison = self._on_comparison
        self._watching = self._watch(orders, store, series, repository)
        measured = config.statistics
        rings = [map_copy_ring(Segment.attach(fd, writable=False)) for fd in orders.copy_fds]
        self._copies = CopyCounter(rings)
        self._comparisons = Comparisons(
            store.comparisons,
            Levels(measured.pane_seconds, measured.windows_seconds),
            started_seconds=orders.started_at_seconds,
            drift_window_seconds=measured.drift_window_seconds,
            copies=self._copies.of_workers,
        )
        self._rollouts = self._roll(orders, store, series, statistics)
        self._changes.rollouts = self._rollouts
        service = AdminService(
            orders, self._changes, self._fleet, store, self._events, statistics, series, self.not_ready_because
        )
        service.use_comparisons(self._comparisons, lambda: {*self._changes.desired, *self._changes.scan.models})
        service.use_rollouts(self._rollouts)
        if self._watching is not None:
            service.observe(self._watching)
        self._admin = AdminServer(config, service)
        figures = control_figures(orders, self._changes, self._fleet, self._loads, self._swaps)
        figures = dataclasses.replace(figures, shadows=self._comparisons.figures, rollouts=self._rollouts.figures)
        if self._watching is not None:
            figures = dataclasses.replace(figures, drift=self._watching.figures)
        self._series = series
        self._refusals = RefusalSummary(series.totals(), time.monotonic())
        self._measures = Measures(
            series,
            statistics,
            self._export.figures(figures),
            orders.started_at_seconds,
            exemplars=settings.exemplar_filter != "always_off",
        )
        self._web = WebServer(self._measures, resource, self.not_ready_because)
        self._started = False
        self._failed = False
        self._all_have_listened = False
        self._ending = asyncio.Event()

    def _watch(self, orders: Spawn, store: SqlStore, series: SeriesReader, repository: Repository) -> Watching | None:
        """None where nothing is to be measured."""
        settings = orders.config.statistics
        if not settings.enabled:
            return None
        arenas = [Segment.attach(fd, writable=False) for fd in orders.arena_fds]
        reader = PaneReader(arenas, Segment.attach(orders.pane_control_fd, writable=True))
        return Watching(
            Observation(settings, reader, series, store.panes),
            store.panes,
            store,
            repository,
            served=functools.partial(served_of, self._changes),
            known_models=lambda: {*self._changes.desired, *self._changes.scan.models},
            on_changes=self._tell_drift,
        )

    def _roll(self, orders: Spawn, store: SqlStore, series: SeriesReader, statistics: StatisticsReader) -> Rollouts:
        counters = Counters(series, orders.instance_id, self._comparisons, statistics.crashes)
        rows = RolloutRows(self._watching.observation, store.panes) if self._watching is not None else None
        replays = ReplayDesk(self._fleet, rows, self._changes.refresh)
        self._fleet.on_replayed = replays.take
        self._changes.replaying = replays.replaying
        around = Surroundings(
            store.rollouts,
            self._changes,
            counters,
            self._log_events,
            RolloutWatchers(),
            rows,
            thresholds=functools.partial(drift_thresholds, self._changes),
            replays=replays,
        )
        settings = Settings(shadow=orders.config.shadow.enabled, statistics=orders.config.statistics.enabled)
        return Rollouts(around, self._changes, store, settings)

    def _tell_drift(self, changes: Iterable[Change]) -> None:
        for change in changes:
            announce_drift(self._log_events, change)

    def not_ready_because(self) -> str:
        """Nothing ("") when clients can be served: every worker has come up once, and one is up now."""
        if self._ending.is_set():
            return "shutting down"
        if not self._started:
            return "loading the first models"
        serving = sum(worker.state == "serving" for worker in self._fleet.workers.values())
        total = len(self._orders.page_fds)
        self._all_have_listened = self._all_have_listened or serving == total
        if self._all_have_listened and serving:
            return ""
        return f"{serving} of {total} workers serve"

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._ending.set)
        self._export.start(self._measures, follows=self._has_started_before())
        web = asyncio.create_task(self._web.serve(socket.socket(fileno=self._orders.http_fd)))
        await asyncio.to_thread(self._comparisons.restore)
        await self._fleet.start()
        await self._admin.start(self._orders.admin_address)
        starting = asyncio.create_task(self._start())
        looking = asyncio.create_task(self._look_forever())
        telling = asyncio.create_task(self._tell_forever())
        observing = asyncio.create_task(self._observe_forever())
        rolling = asyncio.create_task(self._rollouts.run(self._config.rollouts.tick_seconds))
        comparing = asyncio.create_task(self._compare_forever())
        await self._ending.wait()
        await self._admin.set_serving(serving=False)
        drain = self._config.drain
        if self._failed:
            raise StartFailed
        # Health and admin answer until the last worker has drained.
        await self._fleet.until(self._all_ended, drain.delay_seconds + drain.grace_seconds + 10)
        for task in (starting, looking, telling, observing, comparing, rolling):
            task.cancel()
        self._web.stop()
        await self._admin.stop()
        await asyncio.gather(web, starting, looking, telling, observing, rolling, comparing, return_exceptions=True)
        await self._rollouts.close()
        await self._fleet.stop()
        await background_ended()
        if self._watching is not None:  # the workers have ended: what they have left is there now
            await asyncio.to_thread(self._watching.tick, time.time(), also_open=True)
        await self._store_comparisons()
        self._refusals.tell(self._series.totals(), time.monotonic(), self._log_events, is_last=True)
        self._changes.refusals.tell(time.monotonic(), is_last=True)
        await asyncio.to_thread(self._export.stop)
        self._cache.close()

    def _all_ended(self) -> bool:
        return not self._fleet.workers and self._fleet.shadow is None

    async def _start(self) -> None:
        try:
            first = not self._has_started_before()
            self._all_have_listened = not first
            if not first:
                self._log_events.emit(CONTROL_RESTARTED, pid=os.getpid())
            await self._rollouts.restore()  # before workers are told anything: their traffic stays as it was
            await self._changes.start(load_new=first, workers=len(self._orders.page_fds))
            await self._rollouts.start_up()
            self._remember_start()
            self._started = True
            gc.freeze()  # what has come up stays
            served = [model.name for model in self._changes.desired.values() if model.served]
            log.info("serving %d models: %s", len(served), ", ".join(sorted(served)) or "none")
        except Exception:
            log.exception("control could not bring back the desired state; it ends, to be started anew")
            self._failed = True
            self._ending.set()

    def _has_started_before(self) -> bool:
        """Whether control has come up since the gateway was started: then only a crash brings it here again."""
        try:
            return self._start_mark.read_text() == str(self._orders.started_at_seconds)
        except OSError:
            return False

    def _remember_start(self) -> None:
        try:
            self._start_mark.write_text(str(self._orders.started_at_seconds))
        except OSError as error:
            log.warning("the start cannot be noted (%s): should control crash, it loads new models too", error.strerror)

    async def _look_forever(self) -> None:
        """Notices a repository that vanishes or returns; with poll_seconds, takes what is new in it."""
        poll = self._config.repository.poll_seconds
        while True:
            await asyncio.sleep(poll or LOOK_SECONDS)
            try:
                if self._started:
                    await self._look(take_new=poll > 0)
            except Exception:
                log.exception("the repository could not be looked at; the next look follows")

    async def _look(self, *, take_new: bool) -> None:
        scan = await self._changes.rescan()
        for model in scan.models if take_new else ():
            desired = self._changes.desired.get(model)
            if desired is not None and (not desired.served or desired.pinned_versions):
                continue  # an operator has decided
            if not await self._changes.differs(model):
                continue
            try:
                await self._changes.load(model, (), Actor("poll", "", "the repository has changed"))
            except ServingError:
                continue  # audited and logged where it was refused

    async def _tell_forever(self) -> None:
        """Refused requests and lost telemetry become log events, many to one."""
        while True:
            await asyncio.sleep(TELL_SECONDS)
            try:
                totals = await in_background(self._series.totals)
                self._refusals.tell(totals, time.monotonic(), self._log_events)
                self._changes.refusals.tell(time.monotonic())
                self._crashes.look()
                self._export.tell_losses()
            except Exception:
                log.exception("refusals and losses could not be summed up; the next summary follows")

    async def _observe_forever(self) -> None:
        """A look at what the workers have seen, once a pane."""
        watching = self._watching
        if watching is None:
            return
        seconds = self._config.statistics.pane_seconds
        looking: asyncio.Task[None] | None = None
        while True:
            now = time.time()
            await asyncio.sleep(seconds - now % seconds)
            try:
                watching.begin_pane(time.time())
                await asyncio.sleep(CLOSING_SECONDS)
                await in_background(watching.tick, time.time())
                if looking is None or looking.done():  # a look at thousands of features takes longer than a pane
                    looking = asyncio.create_task(self._look_for_drift(watching))
            except Exception:
                log.exception("what was seen could not be gathered; it is the next time")

    async def _compare_forever(self) -> None:
        """What came of shadows goes into panes and the store, once a pane."""
        seconds = self._config.statistics.pane_seconds
        while True:
            now = time.time()
            await asyncio.sleep(seconds - now % seconds)
            await self._store_comparisons()

    async def _store_comparisons(self) -> None:
        try:
            await in_background(self._comparisons.tick, time.time())
        except Exception:
            log.exception("comparisons of shadows could not be stored; they are the next time")

    async def _look_for_drift(self, watching: Watching) -> None:
        try:
            await in_background(watching.look, time.time())
        except Exception:
            log.exception("drift could not be looked for; the next look follows")

    async def _on_end(self) -> None:
        self._rollouts.look_now()
        if await self._crashes.after_end():
            self._rollouts.look_now()

    def _on_comparison(self, report: ComparisonReport) -> None:
        try:
            self._comparisons.take(report)
        except Exception:
            log.exception("what shadows answered could not be taken in; the next report follows")

    def _on_report(self, worker: int, report: VersionReport) -> None:
        self._events.publish(worker, report)
        if report.loaded is not None and report.state == VersionState.AVAILABLE.name:
            self._loads.record(report.loaded.load_seconds, report.model)

    async def _on_request(self, request: Request) -> Answer:
        actor = Actor(request.actor, request.peer, "by the data port")
        try:
            if request.verb == "load":
                await self._changes.load(request.model, (), actor)
            elif request.verb == "unload":
                await self._changes.unload(request.model, 0, actor)
            else:
                await self._changes.rescan()
                rows = index_rows(self._changes, self._fleet, ready_only=request.ready_only)
                return Answer(id=request.id, body={"models": rows})
        except Exception as error:
            status = status_of(error, request.verb)
            return Answer(id=request.id, code=status.code, message=status.message, details=status.details())
        return Answer(id=request.id)


def main() -> int:
    orders = receive_orders()
    setup_logging("control", orders.config.log_level, orders.log_style)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What has been imported never becomes garbage. A full collection that looked at it all would hold up every thread
    # for a tenth of a second, and workers on the same core with them, again and again.
    gc.freeze()
    share_one_heap()
    try:
        store = open_store(str(Path(orders.state_dir) / "state.db"))
    except ServingError as error:
        log.error("%s", error.message)  # noqa: TRY400  (the message says it all)
        return 2

    async def run() -> None:
        await Control(orders, store).run()

    try:
        asyncio.run(run())
    except (CacheUnwritable, AdminUnavailable) as error:
        log.error("%s", error)  # noqa: TRY400  (the message says it all)
        return 2
    except StartFailed:
        return 1
    finally:
        store.close()
    return 0
