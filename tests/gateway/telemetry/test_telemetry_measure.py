"""A snapshot: every metric's value at one moment, of all workers together."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from measured_desk import (
    PINNED,
    STARTED_AT_SECONDS,
    UNKNOWN,
    MeasuredDesk,
    measured_desk,
)

from gateway.telemetry import durations, measure
from gateway.telemetry.durations import DurationRecorder
from gateway.telemetry.instruments import MetricsInvalid, instruments
from gateway.telemetry.snapshot import Attributes, Distribution, Point, Snapshot
from runtime.shm.series import OVERFLOW_REFUSED, SeriesReader
from runtime.shm.series_layout import SCALE, TIME_BUCKETS, TIME_OFFSET


def values(snapshot: Snapshot, name: str) -> dict[Attributes, int | float | Distribution]:
    return {point.attributes: point.value for point in snapshot[name].points}


def histogram(point: Point) -> Distribution:
    assert isinstance(point.value, Distribution)
    return point.value


def busy(at: MeasuredDesk) -> Snapshot:
    at.answer([0.001, 0.002, 0.004])
    at.answer([0.003], PINNED, rows=5)
    at.refuse([1.0, 1.0])
    at.refuse([0.0001], UNKNOWN)
    return at.measures().snapshot()


def test_series_are_added_up_over_the_attributes_that_a_metric_lacks() -> None:
    with measured_desk() as at:
        snapshot = busy(at)
        ok = ("rpc.response.status_code", "OK")
        iris = (("driftgate.model.name", "iris"), ("driftgate.model.version", 3))
        assert values(snapshot, "driftgate.requests") == {
            (("rpc.response.status_code", "NOT_FOUND"),): 1,
            (ok, *iris, ("driftgate.route.variant", "default")): 3,
            (("rpc.response.status_code", "DEADLINE_EXCEEDED"), *iris, ("driftgate.route.variant", "default")): 2,
            (ok, *iris, ("driftgate.route.variant", "pinned")): 1,
        }
        assert values(snapshot, "driftgate.runs") == {iris: 4}
        (rows,) = map(histogram, snapshot["driftgate.batch.rows"].points)
        assert (rows.count, rows.total) == (4, 11)
        (run,) = map(histogram, snapshot["driftgate.run.duration"].points)
        assert run.total == pytest.approx((0.001 + 0.002 + 0.004 + 0.003) / 4)
        queues = [histogram(point) for point in snapshot["driftgate.queue.duration"].points]
        assert [(queue.count, queue.total) for queue in queues] == [
            (3, pytest.approx(0.0035)), (1, pytest.approx(0.0015)),
        ]  # fmt: skip
        sizes = values(snapshot, "driftgate.request.size")
        assert sizes[*iris, ("driftgate.route.variant", "default")] == 500


def test_refusals_have_their_reason_and_only_the_servers_fault_is_an_error() -> None:
    with measured_desk() as at:
        refused = values(busy(at), "driftgate.request.refused")
        assert refused == {
            (("rpc.response.status_code", "NOT_FOUND"), ("driftgate.refusal.reason", "MODEL_NOT_FOUND")): 1,
            (
                ("rpc.response.status_code", "DEADLINE_EXCEEDED"),
                ("error.type", "DEADLINE_EXCEEDED"),
                ("driftgate.model.name", "iris"),
                ("driftgate.model.version", 3),
                ("driftgate.route.variant", "default"),
                ("driftgate.refusal.reason", "DEADLINE_EXCEEDED"),
            ): 2,
        }


def test_every_metric_has_points_and_only_attributes_it_declares() -> None:
    with measured_desk() as at:
        at.with_exporters()
        at.figures.loads.record(0.5, "iris")
        at.figures.swaps.record(0.6, "iris")
        snapshot = busy(at)
        assert [each.instrument for each in snapshot.measurements] == list(instruments())
        for measurement in snapshot.measurements:
            keys = {key for point in measurement.points for key, _ in point.attributes}
            assert keys <= set(measurement.instrument.attributes)
            attributes = [point.attributes for point in measurement.points]
            assert len(attributes) == len(set(attributes))


def test_what_found_no_room_is_counted_under_one_attribute() -> None:
    with measured_desk() as at:
        at.answer([0.001])
        at.overflow()
        snapshot = at.measures().snapshot()
        overflow = (("otel.metric.overflow", True),)
        assert values(snapshot, "driftgate.requests")[overflow] == 1
        assert overflow in values(snapshot, "rpc.server.call.duration")
        assert "driftgate.request.refused" not in [each.instrument.name for each in snapshot.measurements]


def test_refusals_that_found_no_room_are_refusals_all_the_same() -> None:
    with measured_desk() as at:
        at.overflow()
        at.refuse([0.001, 0.001], OVERFLOW_REFUSED)
        snapshot = at.measures().snapshot()
        overflow = (("otel.metric.overflow", True),)
        assert values(snapshot, "driftgate.request.refused") == {overflow: 2}
        assert values(snapshot, "driftgate.requests") == {overflow: 3}


def test_totals_in_shared_memory_start_with_the_gateway_and_controls_own_with_control() -> None:
    with measured_desk() as at:
        before = time.time_ns()
        at.figures.loads.record(0.5, "iris")
        snapshot = busy(at)
        for name in ("rpc.server.call.duration", "driftgate.requests", "driftgate.process.restarts"):
            assert snapshot[name].start_unix_ns == int(STARTED_AT_SECONDS * 1e9)
        assert before <= snapshot["driftgate.model.load.duration"].start_unix_ns <= snapshot.unix_ns <= time.time_ns()


def test_requests_in_flight_are_by_worker() -> None:
    with measured_desk() as at:
        at.in_flight.set_in_flight(12)
        assert values(at.measures().snapshot(), "driftgate.request.in_flight") == {(("driftgate.process", "0"),): 12}


def test_export_is_counted_as_opentelemetry_counts_it() -> None:
    with measured_desk() as at:
        at.with_exporters()
        snapshot = at.measures().snapshot()
        spans = (
            ("otel.component.name", "otlp_grpc_span_exporter/0"),
            ("otel.component.type", "otlp_grpc_span_exporter"),
        )
        assert values(snapshot, "otel.sdk.exporter.span.exported") == {
            spans: 90, (*spans, ("error.type", "rejected")): 4, (*spans, ("error.type", "UNAVAILABLE")): 6,
        }  # fmt: skip
        assert values(snapshot, "otel.sdk.exporter.span.inflight") == {spans: 10}
        processed = values(snapshot, "otel.sdk.processor.span.processed")
        assert sorted(map(str, processed.values())) == ["100", "7"]
        assert [*values(snapshot, "driftgate.record.dropped").values()] == [7, 2]


def test_exemplars_can_be_left_out() -> None:
    with measured_desk() as at:
        at.answer([0.001])
        for exemplars in (True, False):
            measures = measure.Measures(at.series, at.statistics, at.figures, STARTED_AT_SECONDS, exemplars=exemplars)
            (point,) = measures.snapshot()["rpc.server.call.duration"].points
            assert bool(histogram(point).exemplars) is exemplars


def test_an_unknown_source_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = instruments()[0].model_copy(update={"source": "nowhere"})
    monkeypatch.setattr(measure, "instruments", lambda: (wrong,))
    with measured_desk() as at, pytest.raises(MetricsInvalid, match="nowhere"):
        at.measures()


@given(st.lists(st.tuples(st.floats(1e-7, 100), st.booleans()), max_size=30))
def test_counts_are_the_sum_of_the_buckets_and_two_workers_are_one(latencies: list[tuple[float, bool]]) -> None:
    with measured_desk() as left, measured_desk() as right, measured_desk() as both:
        for seconds, goes_left in latencies:
            (left if goes_left else right).answer([seconds])
        both.answer([seconds for seconds, _ in latencies])
        pages = SeriesReader([left.desk.page_segment, right.desk.page_segment])
        merged = measure.Measures(pages, both.statistics, both.figures, STARTED_AT_SECONDS).snapshot()
        whole = both.measures().snapshot()
        if not latencies:
            with pytest.raises(KeyError):
                whole["rpc.server.call.duration"]
            return
        for name in ("rpc.server.call.duration", "driftgate.queue.duration", "driftgate.batch.rows"):
            (ours,), (theirs,) = (map(histogram, each[name].points) for each in (merged, whole))
            assert ours.count == theirs.count == ours.zero + int(ours.counts.sum()) == len(latencies)
            assert ours.counts.tolist() == theirs.counts.tolist()
            assert ours.total == pytest.approx(theirs.total)
            assert (ours.minimum, ours.maximum) == (theirs.minimum, theirs.maximum)


@given(st.lists(st.floats(1e-7, 5000), max_size=50), st.integers(-22, 13))
def test_counts_at_powers_of_two_are_exact(latencies: list[float], exponent: int) -> None:
    recorder = DurationRecorder()
    for seconds in [*latencies, 1.0]:
        recorder.record(seconds, "m")
    distribution = recorder.distributions()["m"]
    below = sum(seconds <= 2.0**exponent for seconds in [*latencies, 1.0])
    if -20 <= exponent < 12:  # beyond the last bound the histogram tells no values apart
        assert distribution.at_or_below(exponent) == below
    offset, counts = distribution.trimmed()
    restored = np.zeros(TIME_BUCKETS, np.uint64)
    restored[offset - TIME_OFFSET : offset - TIME_OFFSET + len(counts)] = counts
    assert restored.tolist() == distribution.counts.tolist()


def test_a_difference_holds_what_came_between_and_a_new_beginning_is_all_new() -> None:
    with measured_desk() as at:
        at.answer([0.001, 0.002])
        (first,) = map(histogram, at.measures().snapshot()["rpc.server.call.duration"].points)
        at.answer([0.004])
        (second,) = map(histogram, at.measures().snapshot()["rpc.server.call.duration"].points)
        between = second.since(first, first.exemplars[-1].unix_ns)
        assert (between.count, between.total) == (1, pytest.approx(0.004))
        assert (between.minimum, between.maximum) == (None, None)
        assert between.classic is not None
        assert int(between.classic.sum()) == 1
        assert [exemplar.duration_seconds for exemplar in between.exemplars] == [pytest.approx(0.004)]
        assert first.since(second, 0) is first


def test_durations_are_recorded_from_many_threads_and_of_a_bounded_number_of_models(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(durations, "MAX_MODELS", 3)
    recorder = DurationRecorder()

    def record(thread: int) -> None:
        for model in range(5):
            recorder.record(0.25 * (thread + 1), f"m{model}")

    threads = [threading.Thread(target=record, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = recorder.distributions()
    assert set(found) == {"m0", "m1", "m2", durations.OVERFLOW}
    assert [found[name].count for name in ("m0", "m1", "m2", durations.OVERFLOW)] == [8, 8, 8, 16]
    assert (found["m0"].minimum, found["m0"].maximum, found["m0"].total) == (0.25, 2.0, 9.0)
    assert (found["m0"].offset, found["m0"].scale) == (TIME_OFFSET, SCALE)


def test_durations_beyond_the_bounds_are_kept_in_the_outermost_buckets() -> None:
    recorder = DurationRecorder()
    for seconds in (-1.0, 0.0, 1e9):
        recorder.record(seconds, "m")
    found = recorder.distributions()["m"]
    assert (found.zero, int(found.counts[-1]), found.count, found.minimum) == (2, 1, 3, 0.0)


def test_overflow_of_models_has_its_one_attribute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durations, "MAX_MODELS", 1)
    with measured_desk() as at:
        for model in ("iris", "wine"):
            at.figures.loads.record(1.0, model)
        loads = values(at.measures().snapshot(), "driftgate.model.load.duration")
        assert set(loads) == {(("driftgate.model.name", "iris"),), (("otel.metric.overflow", True),)}


@pytest.mark.parametrize(("code", "name"), [(0, "OK"), (16, "UNAUTHENTICATED"), (17, "17"), (255, "255")])
def test_codes_have_their_names(code: int, name: str) -> None:
    assert measure.code_name(code) == name
