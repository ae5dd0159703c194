"""What control counts of its export: it outlives control, and where nothing is exported nothing is missed."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from shm_records import desk
from support.received import Fault
from support.receiver import OtlpReceiver

from gateway.config import Config
from gateway.control.telemetry import TelemetryExport
from gateway.process import Spawn
from gateway.telemetry.events import WORKER_DIED
from gateway.telemetry.fates import COUNTS, Fate, Signal, place
from gateway.telemetry.measure import ExporterFigures, Figures, Measures, ProcessorFigures
from gateway.telemetry.settings import read_settings
from runtime.shm.series import SeriesReader
from runtime.shm.statistics import StatisticsReader
from runtime.shm.tally import Tally, create_tally

WAIT_SECONDS = 20.0
OFTEN = {"OTEL_BLRP_SCHEDULE_DELAY": "10", "OTEL_METRIC_EXPORT_INTERVAL": "10"}


class Gateway:
    """As much of one as its export needs: a tally that control's restarts leave as it is."""

    def __init__(self, tmp_path: Path, environment: dict[str, str]) -> None:
        self.segment = create_tally("exported", COUNTS)
        self.settings = read_settings(environment)
        self._orders = Spawn(
            config=Config(models=[str(tmp_path)]), index=-1, parent_pid=0, link_address="", page_fds=(),
            shadow_page_fd=-1, series_fds=(), ring_fds=(), arena_fds=(), copy_fds=(), pane_control_fd=-1,
            export_fd=self.segment.fd, tally_fd=-1, listener_fd=-1, http_fd=-1, grpc_address="", admin_address="",
            state_dir=str(tmp_path), started_at_seconds=0.0, instance_id="i", log_style="json",
        )  # fmt: skip

    def control(self) -> TelemetryExport:
        return TelemetryExport(self._orders, self.settings, {})

    def count(self, signal: Signal, fate: Fate) -> int:
        return Tally(self.segment).value(place(signal, fate))


def figures(export: TelemetryExport) -> Figures:
    nothing = Figures(
        workers_expected=0, workers_serving=lambda: 0, restarts=dict, memory_bytes=dict, versions_served=list,
        repository_problems=lambda: 0,
    )  # fmt: skip
    return export.figures(nothing)


def exporter(export: TelemetryExport, signal: str) -> ExporterFigures:
    (found,) = (each for each in figures(export).exporters() if each.signal == signal)
    return found


def log_processor(export: TelemetryExport) -> ProcessorFigures:
    (found,) = (each for each in figures(export).processors() if each.signal == "log")
    return found


@contextmanager
def running(export: TelemetryExport) -> Iterator[TelemetryExport]:
    measures = Measures(SeriesReader([]), StatisticsReader([]), figures(export), 1.0)
    export.start(measures, follows=False)
    try:
        yield export
    finally:
        export.stop()


@pytest.mark.parametrize("environment", [{}, {"OTEL_BLRP_MAX_QUEUE_SIZE": "1"}])
def test_where_no_log_events_are_exported_none_is_kept_and_none_is_lost(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    export = Gateway(tmp_path, environment).control()
    for pid in range(5000):
        export.events.emit(WORKER_DIED, worker=0, pid=pid)
    assert export.events.waiting == 0
    assert set(export.lost().values()) == {0}


def test_events_that_found_no_room_are_counted_over_a_restart_of_control(tmp_path: Path) -> None:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_BLRP_MAX_QUEUE_SIZE": "2"}
    gateway = Gateway(tmp_path, environment)
    for control, lost in ((gateway.control(), 3), (gateway.control(), 6)):
        for pid in range(5):
            control.events.emit(WORKER_DIED, worker=0, pid=pid)
        assert log_processor(control).dropped == {"queue_full": lost}
        assert control.lost()["logs", "too many waited for export"] == lost


def test_signals_have_the_names_that_the_catalogue_gives_them(tmp_path: Path) -> None:
    signals = {signal for signal, _ in Gateway(tmp_path, {}).control().lost()}
    assert signals == {"spans", "metrics", "logs", "access_log"}


def test_log_records_and_data_points_under_way_are_told(tmp_path: Path) -> None:
    with OtlpReceiver() as receiver:
        receiver.answer_always(Fault(seconds=WAIT_SECONDS))
        gateway = Gateway(tmp_path, {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{receiver.grpc}", **OFTEN})
        with running(gateway.control()) as export:
            export.events.emit(WORKER_DIED, worker=0, pid=7)
            receiver.wait_for(lambda: receiver.waiting == 2)
            assert exporter(export, "log").inflight == 1
            assert exporter(export, "metric_data_point").inflight > 0
        assert (exporter(export, "log").inflight, exporter(export, "metric_data_point").inflight) == (0, 0)
    assert gateway.count(Signal.LOGS, Fate.FAILED) == 1


@contextmanager
def black_hole() -> Iterator[int]:
    """A port whose queue of connections is full: to connect takes until one gives up."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        callers = [socket.socket() for _ in range(4)]
        try:
            for caller in callers:
                caller.setblocking(False)
                caller.connect_ex(listener.getsockname())
            yield listener.getsockname()[1]
        finally:
            for caller in callers:
                caller.close()


def test_the_end_does_not_wait_for_a_connection_that_is_never_made(tmp_path: Path) -> None:
    """What is on its way into it counts as failed, once, whatever becomes of the attempt."""
    with black_hole() as port, desk():
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "60000",
            "NO_PROXY": "127.0.0.1",
            **OFTEN,
        }
        gateway = Gateway(tmp_path, environment)
        began = time.monotonic()
        with running(gateway.control()) as export:
            export.events.emit(WORKER_DIED, worker=0, pid=7)
            deadline = time.monotonic() + WAIT_SECONDS
            while not (exporter(export, "log").inflight and exporter(export, "metric_data_point").inflight):
                assert time.monotonic() < deadline
                time.sleep(0.001)
        assert time.monotonic() - began < WAIT_SECONDS
        assert gateway.count(Signal.LOGS, Fate.FAILED) == 1
        assert gateway.count(Signal.METRICS, Fate.FAILED) > 0
    hanging = [thread for thread in threading.enumerate() if thread.name.startswith("export ")]
    for thread in hanging:
        assert thread.daemon, "the process may end while it hangs"
    for thread in hanging:  # the port has gone, so the attempt ends: what it says of that is no other test's
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive()
