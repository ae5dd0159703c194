"""Receivers that fail, under load: clients notice nothing, memory stays, and every span is received or counted.

The ring is the smallest there is, so that it is full many times over.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from dataplane.dataplane_certificates import Authority
from support.calls import Ask, Caller
from support.export_counts import ExportCounts, export_counts, until_known
from support.gateway import Gateway
from support.received import OK, UNAVAILABLE, Fault, Received
from support.receiver import OtlpReceiver, ServerTls
from support.spans import requests_and_runs
from support.traffic import answered, write_models

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]

RING_RECORDS = 1024
EXPORT_SECONDS = 2.0
CALLS = 4 * RING_RECORDS
"""Under each fault, by two workers."""
MEBIBYTE = 2**20
GROWTH_BYTES = 30 * MEBIBYTE
CONFIG = {"telemetry": {"ring_records": RING_RECORDS}}


def environment(endpoint: str, **more: str) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_TIMEOUT": str(int(EXPORT_SECONDS * 1000)),
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        **more,
    }


def endless(seed: int = 5) -> Iterator[Ask]:
    draw = random.Random(seed)
    while True:
        yield answered(draw)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("faults") / "models")


@dataclass
class Watched:
    """A gateway with its receiver, and its processes' memory when it had warmed up."""

    gateway: Gateway
    receiver: OtlpReceiver
    resident: dict[psutil.Process, int]

    def growth_bytes(self) -> dict[str, int]:
        return {str(child.pid): child.memory_info().rss - before for child, before in self.resident.items()}


@pytest.fixture(scope="module")
def watched(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with (
        OtlpReceiver() as receiver,
        Gateway(
            models,
            tmp_path_factory.mktemp("watched") / "state",
            workers=2,
            config=CONFIG,
            environment=environment(f"http://{receiver.grpc}"),
        ) as gateway,
    ):
        with Caller(gateway.grpc, labelled()) as caller:
            caller.wait_for(4 * RING_RECORDS)
        until_known(gateway, len(caller.told))
        yield Watched(gateway, receiver, {child: child.memory_info().rss for child in gateway.children()})


def labelled() -> Iterator[Ask]:
    """Without labels, which nobody has set here."""
    return (ask for ask in endless() if ask.version in ("", "1", "2"))


@dataclass(frozen=True)
class Aftermath:
    """What came of the load during a fault. `missing`: spans of answered requests that the receiver has not got."""

    counts: ExportCounts
    attempts: list[Received]
    received_spans: int
    rejected: int
    missing: int


def load_while(watched: Watched, begin: Callable[[], None], heal: Callable[[], None]) -> Aftermath:
    """Checks what holds for every fault."""
    gateway, receiver = watched.gateway, watched.receiver
    before, attempts_before = export_counts(gateway), len(receiver.attempts)
    with Caller(gateway.grpc, labelled(), in_flight=32, channels=8) as caller:
        caller.wait_for(CALLS // 4)
        begin()
        caller.wait_for(CALLS)
        heal()
        caller.wait_for(CALLS // 4)
    assert {told.code for told in caller.told} == {"OK"}
    sent = {told.span_id for told in caller.told}
    assert len(sent) == len(caller.told)
    counts = until_known(gateway, len(sent), before)
    assert counts.known == len(sent), counts
    attempts = [attempt for attempt in receiver.attempts[attempts_before:] if attempt.signal == "traces"]
    taken = [attempt for attempt in attempts if attempt.taken]
    spans, _ = requests_and_runs(span for attempt in taken for span in attempt.items)
    received = {span.span_id for span in spans} & sent
    growth = watched.growth_bytes()
    print(f"\n{len(sent)} requests: {counts}; MiB grown: {[f'{each / MEBIBYTE:.1f}' for each in growth.values()]}")
    assert max(growth.values()) < GROWTH_BYTES
    return Aftermath(
        counts,
        attempts,
        sum(attempt.count - min(attempt.count, attempt.fault.rejected) for attempt in taken),
        sum(min(attempt.count, attempt.fault.rejected) for attempt in taken),
        len(sent - received),
    )


def answering(watched: Watched, fault: Fault) -> Aftermath:
    receiver = watched.receiver

    def heal() -> None:
        receiver.wait_for(lambda: any(attempt.fault is fault for attempt in receiver.attempts) or receiver.waiting > 0)
        receiver.answer_always(OK)

    return load_while(watched, lambda: receiver.answer_always(fault), heal)


def test_what_a_receiver_rejects_is_counted_and_never_sent_again(watched: Watched) -> None:
    after = answering(watched, Fault(rejected=10, message="ten are too old"))
    assert after.counts.rejected > 0
    assert after.counts.failed == 0
    assert after.missing == after.counts.queue_full
    assert after.received_spans == after.counts.exported + after.counts.run_spans
    assert set(Counter(attempt.payload for attempt in after.attempts).values()) == {1}
    assert after.rejected >= after.counts.rejected


def test_spans_refused_for_want_of_room_are_lost_at_once_when_no_time_to_retry_is_told(watched: Watched) -> None:
    after = answering(watched, Fault(code="RESOURCE_EXHAUSTED", status=413, message="no room"))
    assert after.counts.failed > 0
    assert after.missing == after.counts.failed + after.counts.queue_full
    assert after.received_spans == after.counts.exported + after.counts.run_spans
    assert set(Counter(attempt.payload for attempt in after.attempts).values()) == {1}


def test_spans_refused_until_later_are_sent_again(watched: Watched) -> None:
    after = answering(watched, Fault(code="RESOURCE_EXHAUSTED", status=429, message="later", told_seconds=0.3))
    assert after.missing == after.counts.failed + after.counts.queue_full
    assert after.received_spans == after.counts.exported + after.counts.run_spans
    assert max(Counter(attempt.payload for attempt in after.attempts).values()) > 1


def test_spans_are_sent_again_to_a_receiver_that_is_unavailable(watched: Watched) -> None:
    after = answering(watched, UNAVAILABLE)
    assert after.counts.queue_full > 0, "the ring was full"
    assert after.missing == after.counts.failed + after.counts.queue_full
    assert after.received_spans == after.counts.exported + after.counts.run_spans
    assert max(Counter(attempt.payload for attempt in after.attempts).values()) > 1


def test_answers_that_take_longer_than_an_export_may_are_failures(watched: Watched) -> None:
    after = answering(watched, Fault(seconds=10.0))
    assert after.counts.failed + after.counts.queue_full > 0
    assert after.missing == after.counts.failed + after.counts.queue_full
    assert after.received_spans == after.counts.exported + after.counts.run_spans


def test_a_receiver_that_is_killed_and_comes_back_is_found_again(watched: Watched) -> None:
    """What it had taken when it died may come twice, or have been counted as failed."""
    after = load_while(watched, watched.receiver.stop_listening, watched.receiver.listen)
    assert after.missing <= after.counts.failed + after.counts.queue_full
    assert after.received_spans >= after.counts.exported + after.counts.run_spans
    assert after.counts.queue_full > 0


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_certificates(tmp_path_factory.mktemp("trusted"))


def write_certificates(folder: Path) -> dict[str, Path]:
    authority = Authority("an authority of the tests")
    signed = authority.sign("localhost")
    contents = {"ca": authority.certificate, "certificate": signed.certificate, "key": signed.key}
    files = {name: folder / f"{name}.pem" for name in contents}
    for name, file in files.items():
        file.write_bytes(contents[name])
    return files


def test_through_tls_every_span_arrives(models: Path, trusted: dict[str, Path], tmp_path: Path) -> None:
    with OtlpReceiver(tls=ServerTls(trusted["certificate"], trusted["key"])) as receiver:
        settings = environment(f"https://{receiver.grpc}", OTEL_EXPORTER_OTLP_CERTIFICATE=str(trusted["ca"]))
        with (
            Gateway(models, tmp_path / "state", environment=settings) as gateway,
            Caller(gateway.grpc, labelled()) as caller,
        ):
            caller.wait_for(CALLS)
            caller.__exit__()
            sent = {told.span_id for told in caller.told}
            counts = until_known(gateway, len(sent))
        assert counts.exported == counts.known == len(sent)
        spans, _ = requests_and_runs(receiver.spans)
        assert {span.span_id for span in spans} == sent


def test_to_a_receiver_with_a_wrong_certificate_nothing_goes_and_all_is_counted(
    models: Path, trusted: dict[str, Path], tmp_path: Path
) -> None:
    stranger = write_certificates(tmp_path)
    with OtlpReceiver(tls=ServerTls(stranger["certificate"], stranger["key"])) as receiver:
        trust = {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(trusted["ca"]), "OTEL_EXPORTER_OTLP_TIMEOUT": "500"}
        settings = environment(f"https://{receiver.grpc}", **trust)
        with Gateway(models, tmp_path / "state", config=CONFIG, environment=settings) as gateway:
            with Caller(gateway.grpc, labelled()) as caller:
                caller.wait_for(CALLS)
            assert {told.code for told in caller.told} == {"OK"}
            counts = until_known(gateway, len(caller.told))
            assert counts.known == len(caller.told)
            assert counts.exported == 0
            assert counts.failed > 0
            gateway.logged("certificate")
        assert receiver.counts["requests"] == receiver.counts["refused"] == 0
