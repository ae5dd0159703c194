"""kill -9 and SIGTERM under load: counts never fall, and what was recorded is exported or counted."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest
from support.admin import admin_of, until
from support.calls import Ask, Caller
from support.export_counts import export_counts
from support.gateway import Gateway
from support.leaks import alive
from support.received import OK, SIGNALS, Fault
from support.receiver import OtlpReceiver
from support.spans import Span, requests_and_runs
from support.traffic import answered, set_labels, write_models

from gateway.telemetry.events import TELEMETRY_DROPPED

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]

WORKERS = 2
IN_FLIGHT, CHANNELS = 32, 16
END_SECONDS = 20.0
"""Of a stop with a dead receiver: the flush, the drain, and a busy machine."""


def endless(seed: int = 7) -> Iterator[Ask]:
    draw = random.Random(seed)
    while True:
        yield answered(draw)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("kills") / "models")


@contextmanager
def serving(models: Path, state: Path, endpoint: str, *, log_format: str = "text", **more: str) -> Iterator[Gateway]:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{endpoint}", **more}
    gateway = Gateway(models, state, workers=WORKERS, environment=environment, log_format=log_format)
    with gateway:
        with admin_of(gateway.admin) as admin:
            set_labels(admin)
        yield gateway


def caller_of(gateway: Gateway, *, patient: bool = True) -> Caller:
    return Caller(gateway.grpc, endless(), in_flight=IN_FLIGHT, channels=CHANNELS, patient=patient)


class Totals:
    """Looks at the requests that /metrics counts, again and again, from entry to exit. Control may be away."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._look, name="totals")
        self.seen: list[float] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ending.wait(0.02):
            try:
                self.seen.append(requests_counted(self._gateway))
            except AssertionError:  # nobody answers just now
                continue


def requests_counted(gateway: Gateway) -> float:
    return gateway.metric("driftgate_requests_total", rpc_response_status_code="OK")


def spans_of(receiver: OtlpReceiver) -> dict[str, Span]:
    return {span.span_id: span for span in requests_and_runs(receiver.spans)[0]}


def test_a_killed_worker_takes_no_count_with_it_and_its_successor_counts_on(models: Path, tmp_path: Path) -> None:
    with OtlpReceiver() as receiver:
        with serving(models, tmp_path / "state", receiver.grpc) as gateway:
            with Totals(gateway) as totals, caller_of(gateway) as caller:
                caller.wait_for(1000)
                doomed = gateway.children("worker")[0]
                doomed.kill()
                until(lambda: serves_anew(gateway, doomed.pid), "both workers serve again")
                caller.wait_for(2000)
            got = [told for told in caller.told if told.code == "OK"]
            lost = [told for told in caller.told if told.code != "OK"]
            assert {told.code for told in lost} <= {"UNAVAILABLE"}
            gateway.wait_for(lambda: settled(gateway), 20.0, "to export what it has")
            counted = requests_counted(gateway)
            counts = export_counts(gateway)
        assert totals.seen == sorted(totals.seen), "a total fell"
        assert abs(counted - len(got)) <= IN_FLIGHT, "but for those in flight"
        spans = spans_of(receiver)
        missing = [told for told in got if told.span_id not in spans]
        print(
            f"\n{len(got)} answers, {counted:.0f} counted, {len(spans)} spans, {len(missing)} missing, {len(lost)} lost"
        )
        assert len(missing) <= IN_FLIGHT
        assert counts.exported == counts.known == len(spans)
        assert len({span.attributes["driftgate.worker"] for span in spans.values()}) == WORKERS


def serves_anew(gateway: Gateway, old_pid: int) -> bool:
    with admin_of(gateway.admin) as admin:
        workers = admin.status().workers
    return all(worker.state == "serving" and worker.pid != old_pid for worker in workers)


def settled(gateway: Gateway) -> bool:
    """Nothing waits in a ring."""
    return gateway.metric("otel_sdk_processor_span_queue_size") == 0


def test_what_a_killed_control_process_had_not_exported_its_successor_exports(models: Path, tmp_path: Path) -> None:
    """With exports under way; what has come twice the ids tell."""
    with OtlpReceiver() as receiver:
        with serving(models, tmp_path / "state", receiver.grpc) as gateway:
            with Totals(gateway) as totals, caller_of(gateway) as caller:
                caller.wait_for(2000)
                receiver.answer_always(Fault(seconds=1.0))
                receiver.wait_for(lambda: receiver.waiting > 0)
                (control,) = gateway.children("control")
                control.kill()
                until(lambda: not alive([control]), "control is dead")
                receiver.answer_always(OK)
                gateway.wait_ready()
                caller.wait_for(500)
            assert {told.code for told in caller.told} == {"OK"}
            sent = {told.span_id for told in caller.told}
            gateway.wait_for(lambda: requests_counted(gateway) >= len(sent), 20.0, "to count all")
            gateway.wait_for(lambda: settled(gateway), 20.0, "to export what it has")
            assert requests_counted(gateway) == len(sent)
            counts = export_counts(gateway)
        assert totals.seen == sorted(totals.seen), "a total fell"
        spans = [span.span_id for span in requests_and_runs(receiver.spans)[0]]
        print(f"\n{len(sent)} requests, {len(spans)} spans, {len(spans) - len(set(spans))} of them twice; {counts}")
        assert set(spans) == sent
        assert len(instances(receiver)) == 1, "the totals of two instances would be added up"
        assert counts.exported >= len(sent)
        assert counts.rejected == counts.failed == counts.queue_full == 0


def instances(receiver: OtlpReceiver) -> set[str]:
    """The gateways that a receiver sees, over all signals."""
    requests = [SIGNALS[each.signal].request.FromString(each.payload) for each in receiver.taken]
    resources = [part.resource for request in requests for _, parts in request.ListFields() for part in parts]
    named = [attribute for resource in resources for attribute in resource.attributes]
    return {attribute.value.string_value for attribute in named if attribute.key == "service.instance.id"}


def test_the_end_by_sigterm_exports_all_that_clients_were_told(models: Path, tmp_path: Path) -> None:
    """Also what they were refused with while it drained. The metrics, exported only then, know of all of it."""
    with OtlpReceiver() as receiver:
        with (
            serving(models, tmp_path / "state", receiver.grpc, OTEL_METRIC_EXPORT_INTERVAL="600000") as gateway,
            caller_of(gateway, patient=False) as caller,
        ):
            caller.wait_for(3000)
            assert gateway.stop() == 0
        told = [each for each in caller.told if each.span_id]
        spans, runs = requests_and_runs(receiver.spans)
        assert len({span.span_id for span in spans}) == len(spans)
        refused = [each for each in told if each.code != "OK"]
        print(f"\n{len(told)} told, {len(refused)} of them refused; {len(spans)} spans")
        assert {each.code for each in refused} <= {"UNAVAILABLE"}
        assert {each.span_id for each in told} <= {span.span_id for span in spans}
        points = points_of(receiver, "rpc.server.call.duration")
        assert sum(point.count for point in points) == len(spans)
        exported = [point.as_int for point in points_of(receiver, "otel.sdk.exporter.span.exported")]
        assert sum(exported) == len(spans) + len(runs)


def points_of(receiver: OtlpReceiver, name: str) -> list[Any]:
    """Of the only export of this metric."""
    (metric,) = (metric for metric in receiver.metrics if metric.name == name)
    return list(getattr(metric, metric.WhichOneof("data")).data_points)


def test_without_a_receiver_the_end_comes_in_time_and_says_how_much_is_lost(models: Path, tmp_path: Path) -> None:
    with OtlpReceiver() as receiver:
        endpoint = receiver.grpc
    with (
        serving(models, tmp_path / "state", endpoint, log_format="json") as gateway,
        caller_of(gateway, patient=False) as caller,
    ):
        caller.wait_for(3000)
        began = time.monotonic()
        assert gateway.stop(END_SECONDS) == 0
        seconds = time.monotonic() - began
    recorded = sum(told.span_id != "" for told in caller.told)
    lines = [json.loads(line) for line in gateway.log.splitlines()]
    lost = [line for line in lines if line.get("event_name") == TELEMETRY_DROPPED.name]
    print(f"\nended in {seconds:.1f} s; {recorded} recorded; " + "; ".join(line["message"] for line in lost))
    spans = (line["driftgate.event.count"] for line in lost if line["driftgate.telemetry.signal"] == "spans")
    assert sum(spans) == recorded
    assert {line["driftgate.telemetry.signal"] for line in lost} >= {"metrics", "logs"}
