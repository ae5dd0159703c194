"""The worker process: composition root of the data plane."""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable

from pydantic import BaseModel

from gateway.link import Link
from gateway.logs import setup_logging
from gateway.messages import Desired, Hello, Progress
from gateway.process import Ending, Spawn, receive_orders
from gateway.routing.table import RouteTable
from gateway.telemetry.context import Tracer
from gateway.telemetry.recorder import FIXED_KEYS, Recorder, keep_bits
from gateway.telemetry.sampler import Sampler
from gateway.telemetry.settings import read_settings
from gateway.version_messages import report
from gateway.worker.catalog import Catalog, health_statuses
from gateway.worker.copies import Copies
from gateway.worker.health import CHECK, WATCH, Health
from gateway.worker.inference_service import SERVICE, InferenceService
from gateway.worker.observer import Observers
from gateway.worker.pipeline import Pipeline
from gateway.worker.reflection import PATHS, ReflectionStream, make_servicer
from gateway.worker.streams import InferStreams
from gateway.worker.target import Target
from gateway.worker.transport.choose import make_transport
from gateway.worker.transport.interface import BindError, Methods, Stream, StreamHandler, Tls, TransportSettings
from runtime.malloc import return_large_blocks
from runtime.shadow.ring_writer import CopyWriter
from runtime.shm.panes_writer import PaneWriter
from runtime.shm.ring import map_ring
from runtime.shm.segment import Segment
from runtime.shm.series import SeriesWriter
from runtime.shm.statistics import StatisticsReader, StatisticsWriter
from runtime.versions.manager import Instance, VersionManager
from runtime.versions.policy import InstanceKey
from runtime.versions.state import VersionState
from runtime.versions.version import LoadedVersion

log = logging.getLogger(__name__)

EVERYWHERE = ("0.0.0.0", "[::]")  # noqa: S104  (addresses that name no host)
GC_THRESHOLD = 50_000  # allocations between young collections; Python's 700 is passed several times in one batch
REFUSE_SECONDS = 0.2  # for clients that are between two requests to hear that the server drains
SETTLE_SECONDS = 2.0  # for runs to end between two nodes
TICK_SECONDS = 0.1  # how often runs that nobody waits for are looked for


class Worker:
    """Starts listening when every version it was told to hold at first is available or has failed."""

    def __init__(self, orders: Spawn) -> None:
        config = orders.config
        self._config = config
        self._index = orders.index
        self._draining = False
        self._listening = False
        self._revision = 0
        self._wake = threading.Event()
        self._telling = threading.Lock()  # what is told last is what was so last
        self._first_order = threading.Event()
        self._ended = threading.Event()
        pages = [Segment.attach(fd, writable=i == orders.index) for i, fd in enumerate(orders.page_fds)]
        self._statistics = StatisticsWriter(pages[orders.index])
        self._recorder = make_recorder(orders)
        self._observers = Observers(make_pane_writer(orders))
        self._pipeline = Pipeline(config.limits.max_in_flight, self._statistics.set_in_flight, self._recorder)
        self._health = Health()
        self._streams = InferStreams()
        self._catalog = Catalog(orders.index, self._on_table, make_copies(orders))
        self._manager = VersionManager(
            self._make_target, self._on_change, lambda key: self._statistics.mark(key.model, key.version)
        )
        self._link = Link(orders.link_address, self._greet, self._on_desired)
        self._transport = make_transport(config.transport, transport_settings(orders))
        service = InferenceService(
            config, self._pipeline, self._link, StatisticsReader(pages), lambda: self._listening and not self._draining
        )
        self._service = service

    def run(self, ending: Ending) -> int:
        """Serves until told to end; answers the exit status."""
        self._manager.start()
        self._link.start()
        while not ending.requested and not self._settled():
            self._wake.wait(TICK_SECONDS)
            self._wake.clear()
        if not ending.requested:
            self._transport.start(self._methods())
            self._listening = True
            self._tell()
            log.info("worker %d listens with the %s transport", self._index, self._transport.name)
        looking = threading.Thread(target=self._look_after_runs, name="look after runs", daemon=True)
        looking.start()
        while not ending.requested:
            self._wake.wait(TICK_SECONDS)
            self._wake.clear()
        status = self._drain()
        looking.join()
        return status

    def _look_after_runs(self) -> None:
        """Until the transport is stopped: through the drain too, where runs nobody waits for would use up the grace."""
        while not self._ended.wait(TICK_SECONDS):
            try:
                self._transport.relieve(self._manager.watch_runs())
                self._observers.tick()
            except Exception:
                log.exception("a look after the runs failed; the next follows")

    def _drain(self) -> int:
        """Health first, then the port; what is in flight finishes."""
        drain = self._config.drain
        self._draining = True
        self._tell()
        in_time = True
        if self._listening:
            time.sleep(drain.delay_seconds)
            self._pipeline.draining = True
            self._health.end_watches()
            self._streams.drain()
            in_time = self._transport.stop(self._refuse_new(drain.grace_seconds))
            self._ended.set()
            if not in_time:
                log.warning(
                    "worker %d ended with requests in flight: the grace of %g s passed",
                    self._index,
                    drain.grace_seconds,
                )
        self._ended.set()
        self._link.stop()
        settled = self._end_runs()
        if self._listening and settled:
            self._transport.close()
        self._manager.stop()
        self._observers.close()
        log.info("worker %d has ended", self._index)
        if not settled:  # one operator computes on, and Python would wait for it
            logging.shutdown()
            os._exit(0)
        return 0

    def _refuse_new(self, grace_seconds: float) -> float:
        """Lets what is in flight finish while new requests are told to go elsewhere; answers what is left of the grace.

        The port closes after it: a call that reaches the C-core in the moment of closing is cancelled without a word.
        """
        began = time.monotonic()
        while (gone := time.monotonic() - began) < grace_seconds:
            if gone >= REFUSE_SECONDS and not self._pipeline.in_flight:
                break
            time.sleep(min(0.01, grace_seconds - gone))
        return max(grace_seconds - gone, 0.0)

    def _end_runs(self) -> bool:
        """Ends what still runs: nobody waits for it. False if it goes on."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while self._pipeline.in_flight and time.monotonic() < deadline:
            self._manager.stop_runs()
            time.sleep(0.01)
        return not self._pipeline.in_flight

    def _settled(self) -> bool:
        return self._first_order.is_set() and self._manager.settled()

    def _methods(self) -> Methods:
        servicer = make_servicer()
        streams: dict[str, Callable[[Stream], StreamHandler]] = {
            SERVICE + "ModelStreamInfer": self._streams.open,
            WATCH: self._health.watch,
        }
        for path in PATHS:
            streams[path] = lambda stream: ReflectionStream(servicer, stream)
        unary = {**self._service.methods(), CHECK: self._health.check}
        return Methods(SERVICE + "ModelInfer", self._pipeline.infer, unary, streams, self._pipeline.empty)

    def _make_target(self, key: InstanceKey, version: LoadedVersion) -> Target:
        slot = self._statistics.slot(key.model, key.version)
        observer = self._observers.of(key, version)
        target = Target(version, slot, self._pipeline.done, self._recorder, observer)
        self._catalog.add_target(key, target)
        return target

    def _on_change(self, instance: Instance) -> None:
        self._catalog.note(instance)
        if instance.state in (VersionState.UNLOADED, VersionState.FAILED):
            self._observers.end(instance.key)
        self._link.report(report(instance))
        self._wake.set()

    def _on_desired(self, desired: Desired) -> None:
        targets = self._catalog.set_desired(desired)
        self._manager.set_desired(targets)
        self._revision = desired.revision
        if not desired.hold:
            self._first_order.set()
        self._tell()
        self._wake.set()

    def _on_table(self, table: RouteTable[Target]) -> None:
        self._pipeline.table = table
        with self._telling:
            self._tell_health()

    def _tell(self) -> None:
        with self._telling:
            self._tell_health()
            self._link.report(self._progress())

    def _tell_health(self) -> None:
        self._health.set_all(health_statuses(self._pipeline.table, ready=self._listening and not self._draining))

    def _greet(self) -> list[BaseModel]:
        hello = Hello(index=self._index, pid=os.getpid(), transport=self._transport.name)
        return [hello, *(report(instance) for instance in self._manager.instances()), self._progress()]

    def _progress(self) -> Progress:
        return Progress(
            revision=self._revision,
            settled=self._manager.settled(),
            listening=self._listening,
            draining=self._draining,
        )


def make_pane_writer(orders: Spawn) -> PaneWriter | None:
    """None where nothing is to be measured."""
    if not orders.config.statistics.enabled:
        return None
    arena = Segment.attach(orders.arena_fds[orders.index], writable=True)
    return PaneWriter(arena, Segment.attach(orders.pane_control_fd, writable=False), orders.index)


def make_copies(orders: Spawn) -> Copies | None:
    """None where nothing is to be copied for shadows."""
    if not orders.config.shadow.enabled:
        return None
    return Copies(CopyWriter(Segment.attach(orders.copy_fds[orders.index], writable=True)))


def make_recorder(orders: Spawn) -> Recorder | None:
    """None where nothing is to be recorded."""
    telemetry = orders.config.telemetry
    settings = read_settings(telemetry.environment(os.environ))
    if not telemetry.enabled or settings.disabled:
        return None
    ring = map_ring(Segment.attach(orders.ring_fds[orders.index], writable=True))
    series = SeriesWriter(Segment.attach(orders.series_fds[orders.index], writable=True))
    spans = settings.traces is not None
    tracer = None
    if spans or telemetry.access_log != "off":
        tracer = Tracer(
            Sampler.named(settings.sampler, settings.sampler_ratio) if spans else Sampler(0.0, parent_based=False),
            settings.propagators,
            respond=telemetry.respond_with_context and spans,
            metadata_keys=telemetry.metadata_attributes,
            baggage_keys=telemetry.baggage_attributes,
            first_key=len(FIXED_KEYS),
        )
    host, _, port = orders.grpc_address.rpartition(":")
    named = socket.gethostname() if host in EVERYWHERE else host
    keep = keep_bits(spans=spans, access_log=telemetry.access_log)
    return Recorder(ring, series, tracer, keep, f"{named}:{port}")


def transport_settings(orders: Spawn) -> TransportSettings:
    config = orders.config
    tls = None
    if config.tls is not None:
        ca = config.tls.client_ca
        tls = Tls(config.tls.certificate.read_bytes(), config.tls.key.read_bytes(), ca.read_bytes() if ca else None)
    return TransportSettings(
        address=orders.grpc_address,
        max_message_bytes=config.limits.max_message_bytes,
        max_metadata_bytes=config.limits.max_metadata_bytes,
        max_concurrent_streams=config.limits.max_concurrent_streams,
        max_connection_age_seconds=config.limits.max_connection_age_seconds,
        max_connection_idle_seconds=config.limits.max_connection_idle_seconds,
        tls=tls,
        threads=config.threads,
    )


def main() -> int:
    orders = receive_orders()
    setup_logging(f"worker {orders.index}", orders.config.log_level, orders.log_style)
    # What has been imported never becomes garbage, and a request leaves no cycles: full collections would find nothing.
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 10, 100)
    return_large_blocks()
    ending = Ending()
    signal.signal(signal.SIGTERM, ending)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C goes to the group; the supervisor decides
    try:
        return Worker(orders).run(ending)
    except BindError as error:
        log.error("%s", error)  # noqa: TRY400  (the message says it all)
        return 2
