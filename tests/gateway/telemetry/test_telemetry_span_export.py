"""From rings to a receiver: everything arrives or is counted, whatever the receiver does, and no ring stays full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from shm_records import Desk, desk, records_of
from support.received import Fault
from support.receiver import OtlpReceiver

from gateway.telemetry.events import EventLog
from gateway.telemetry.exporting import ExportCounts
from gateway.telemetry.fates import COUNTS, Fate, Signal, place
from gateway.telemetry.losses import LossSummary
from gateway.telemetry.otlp.client import OtlpClient
from gateway.telemetry.settings import BatchProcessorSettings
from gateway.telemetry.signal_settings import SignalSettings
from gateway.telemetry.span_export import EXPORTS_AT_ONCE, SpanExport
from gateway.telemetry.spans import SpanEncoder
from runtime.shm.publish import KEEP_ALL
from runtime.shm.record import Records
from runtime.shm.ring import RingReader
from runtime.shm.tally import Tally, create_tally

AT_ONCE = BatchProcessorSettings(schedule_delay_seconds=0.0)
LATER = BatchProcessorSettings(schedule_delay_seconds=3600.0)


class KeptLog:
    """Stands where the access log does: keeps the rows of the records that it is told."""

    def __init__(self) -> None:
        self.told: list[int] = []

    def write(self, _worker: int, records: Records, _names: Any) -> int:
        self.told += records["rows"].tolist()
        return len(records)


@dataclass
class Scene:
    """The test calls `turn`, not the exporter's thread."""

    desk: Desk
    receiver: OtlpReceiver
    batch: BatchProcessorSettings
    timeout_seconds: float = 10.0
    log: KeptLog = field(default_factory=KeptLog)
    written: int = 0

    def __post_init__(self) -> None:
        self.tally = Tally(create_tally("exported", COUNTS))
        self.export = self.follow()

    def follow(self) -> SpanExport:
        settings = SignalSettings(self.receiver.grpc, "grpc", timeout_seconds=self.timeout_seconds)
        encoder = SpanEncoder(Resource().SerializeToString())
        client = OtlpClient(settings, "traces")
        self.reader = RingReader(self.desk.ring)
        counts = ExportCounts(self.tally, Signal.SPANS)
        return SpanExport([self.reader], encoder, client, self.log, self.batch, counts)  # type: ignore[arg-type]

    def write(self, count: int, flags: int = 1) -> None:
        numbers = range(self.written, self.written + count)
        rows = [
            {"rows": n, "trace_flags": flags, "trace_id": n.to_bytes(16), "span_id": (n + 1).to_bytes(8)}
            for n in numbers
        ]
        self.desk.publish(records_of(rows), KEEP_ALL)
        self.written += count

    def count(self, fate: Fate) -> int:
        return self.tally.value(place(Signal.SPANS, fate))

    def accounted(self) -> int:
        """Spans that arrived, or that some count says did not."""
        return sum(self.count(fate) for fate in Fate) + self.reader.dropped[0]

    def end(self, flush_seconds: float = 5.0) -> None:
        self.export.start()
        self.export.stop(flush_seconds)


@contextmanager
def scene(
    capacity: int = 64, batch: BatchProcessorSettings = AT_ONCE, timeout_seconds: float = 10.0
) -> Iterator[Scene]:
    with desk(capacity) as at, OtlpReceiver() as receiver:
        yield Scene(at, receiver, batch, timeout_seconds)


def test_every_span_arrives_once_and_the_ring_is_free_again() -> None:
    with scene() as at:
        for _ in range(20):
            at.write(13)
            at.export.turn()
            at.receiver.wait_for(lambda: at.receiver.counts["traces"] == at.written)
            at.export.turn()
        at.end()
        numbers = [int.from_bytes(span.trace_id) for span in at.receiver.spans]
        assert sorted(numbers) == list(range(260))
        assert (at.count(Fate.EXPORTED), at.accounted()) == (260, 260)
        assert at.reader.held == 0


def test_it_waits_for_a_batch_or_the_delay_and_not_longer() -> None:
    with scene(batch=LATER) as at:
        at.write(15)
        at.export.turn()
        assert at.reader.waiting == 15
        at.write(1)  # a quarter of the ring: as much as an export may take
        at.export.turn()
        assert at.reader.waiting == 0
        at.write(3)
        at.end()
        assert at.receiver.counts["traces"] == 19


def test_what_is_not_sampled_is_logged_and_not_exported() -> None:
    with scene() as at:
        at.write(5, flags=0)
        at.write(2)
        at.end()
        assert at.log.told == [0, 1, 2, 3, 4, 5, 6]
        assert [int.from_bytes(span.trace_id) for span in at.receiver.spans] == [5, 6]
        assert at.accounted() == 2


def test_a_receiver_that_hangs_costs_the_oldest_and_the_access_log_goes_on() -> None:
    with scene(timeout_seconds=60) as at:
        at.receiver.answer_always(Fault(seconds=60))
        for _ in range(60):
            at.write(10)
            at.export.turn()
        assert at.log.told == list(range(600))
        assert at.reader.dropped == (0, 0), "the worker never met a full ring"
        assert at.reader.held <= at.reader.capacity
        at.receiver.wait_for(lambda: at.receiver.waiting == EXPORTS_AT_ONCE)
        at.end(flush_seconds=0.2)
        assert at.count(Fate.QUEUE_FULL) > 400
        assert at.count(Fate.FAILED) > 0
        assert at.accounted() == 600


@pytest.mark.parametrize("fault", [Fault(code="INVALID_ARGUMENT"), Fault(code="RESOURCE_EXHAUSTED")])
def test_what_a_receiver_refuses_for_good_is_counted_as_failed(fault: Fault) -> None:
    with scene() as at:
        at.receiver.answer_with(fault)
        at.write(10)
        at.export.turn()
        at.receiver.wait_for(lambda: at.receiver.counts["refused"] == 1)
        at.write(7)
        at.end()
        assert (at.count(Fate.FAILED), at.count(Fate.EXPORTED)) == (10, 7)


def test_what_a_receiver_rejects_is_counted_and_not_sent_again() -> None:
    with scene() as at:
        at.receiver.answer_with(Fault(rejected=4))
        at.write(10)
        at.end()
        assert (at.count(Fate.REJECTED), at.count(Fate.EXPORTED)) == (4, 6)
        assert len(at.receiver.attempts) == 1


def test_what_a_killed_exporter_held_is_exported_by_the_next() -> None:
    with scene(timeout_seconds=60) as at:
        at.receiver.answer_with(Fault(seconds=60))
        at.write(12)
        at.export.turn()
        at.receiver.wait_for(lambda: at.receiver.waiting == 1)
        first, at.export = at.export, at.follow()  # as after kill -9: nothing of the first is released
        at.write(3)
        at.end()
        assert sorted(int.from_bytes(span.trace_id) for span in at.receiver.spans) == list(range(15))
        assert at.log.told == list(range(15)), "and nothing is logged twice"
        at.receiver.stop_listening()
        first.start()
        first.stop(0.0)
        at.receiver.listen()


def test_a_run_longer_than_an_export_goes_whole() -> None:
    with scene() as at:
        rows = [{"run_id": b"12345678", "run_requests": 40, "trace_flags": 1, "ran_ns": 5, "span_id": b"x"}] * 40
        at.desk.publish(records_of(rows), KEEP_ALL)
        at.end()
        assert len(at.receiver.attempts) == 1
        assert at.receiver.counts["traces"] == 41
        assert at.tally.value(place(Signal.RUN_SPANS, Fate.EXPORTED)) == 1


def test_losses_are_told_together_and_not_too_often() -> None:
    events = EventLog()
    losses = LossSummary({("spans", "why"): 5}, 0.0)
    losses.tell({("spans", "why"): 5}, 1.0, events)
    assert events.waiting == 0
    losses.tell({("spans", "why"): 8}, 3.0, events)
    for second in range(4, 13):
        losses.tell({("spans", "why"): 8 + second}, float(second), events)
    losses.tell({("spans", "why"): 30}, 13.5, events)
    told = events.take(10)
    assert [event.attributes["driftgate.event.count"] for event in told] == [3, 22]
    assert told[0].attributes["driftgate.event.window"] == pytest.approx(2.0)


def test_a_receiver_that_hangs_holds_exports_of_every_worker_alike() -> None:
    with desk(64) as one, desk(64) as other, OtlpReceiver() as receiver:
        receiver.answer_always(Fault(seconds=60.0))
        readers = [RingReader(at.ring) for at in (one, other)]
        client = OtlpClient(SignalSettings(receiver.grpc, "grpc"), "traces")
        counts = ExportCounts(Tally(create_tally("fates", COUNTS)), Signal.SPANS)
        export = SpanExport(readers, SpanEncoder(b""), client, None, AT_ONCE, counts)
        for at in (one, other):
            at.publish(records_of([{"trace_flags": 1, "rows": n} for n in range(48)]), KEEP_ALL)
        export.turn()
        assert [reader.waiting for reader in readers] == [16, 16], "two exports of 16 records each are under way"
        export.start()
        export.stop(0.0)


def test_an_encoder_that_fails_at_the_end_costs_its_spans_and_nothing_else() -> None:
    class Failing:
        def encode(self, *_: object) -> list[Any]:
            raise MemoryError("no room")

    with scene(batch=LATER) as at:
        at.export = at.follow()
        at.export._encoder = Failing()  # type: ignore[assignment]
        at.write(5)
        at.end()
        assert (at.count(Fate.FAILED), at.accounted(), at.reader.held) == (5, 5, 0)
