"""The access log: which requests it shows, and that a stream nobody reads costs lines and never time or memory."""

from __future__ import annotations

import io
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pytest
from shm_records import desk, records_of

from gateway.telemetry import access_log as module
from gateway.telemetry.access_log import AccessLog, in_sample
from runtime.shm.publish import KEEP_ALL
from runtime.shm.record import Records
from runtime.shm.ring import NameWriter, RingReader
from runtime.shm.series import SeriesKey

NAMES = [""]
WAIT_SECONDS = 30.0


def requests(count: int, *, codes: tuple[int, ...] = (0,), seed: int = 1) -> Records:
    """With trace ids of their own; the codes take turns."""
    records = records_of([{"code": codes[number % len(codes)], "rows": number} for number in range(count)])
    records["trace_id"] = np.random.default_rng(seed).integers(0, 256, (count, 16), np.uint8)
    records["span_id"] = 1
    return records


def until(condition: Any) -> None:
    """What another thread does, which nothing tells."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def shown(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_all(path: Path, mode: Any, ratio: float, *parts: Records) -> list[dict[str, Any]]:
    with path.open("w") as stream:
        log = AccessLog(mode, ratio, stream, "json")
        taken = [log.write(0, part, NAMES) for part in parts]
        log.close(WAIT_SECONDS)
    lines = shown(path)
    assert (log.written, log.dropped) == (sum(taken), 0) == (len(lines), 0)
    return lines


@contextmanager
def pipe() -> Iterator[tuple[io.FileIO, TextIO]]:
    """The end to read and the end to write; a test may close either."""
    reading, writing = os.pipe()
    with io.FileIO(reading) as reader, os.fdopen(writing, "w") as stream:
        yield reader, stream


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert [thread for thread in threading.enumerate() if thread.name == "access log"] == []


def test_off_shows_nothing_and_starts_nothing(tmp_path: Path) -> None:
    assert write_all(tmp_path / "log", "off", 1.0, requests(100, codes=(0, 5))) == []


def test_all_shows_every_request_in_its_order(tmp_path: Path) -> None:
    lines = write_all(tmp_path / "log", "all", 0.0, requests(1000), requests(500))
    assert [line["rows"] for line in lines] == [*range(1000), *range(500)]


def test_errors_are_the_requests_that_got_one(tmp_path: Path) -> None:
    lines = write_all(tmp_path / "log", "errors", 1.0, requests(1000, codes=(0, 0, 5, 14)))
    assert [line["rows"] for line in lines] == [number for number in range(1000) if number % 4 >= 2]


def test_a_sample_holds_every_error_and_its_share_of_the_rest(tmp_path: Path) -> None:
    records = requests(20_000, codes=(0, 0, 0, 3))
    codes = [line["code"] for line in write_all(tmp_path / "log", "sampled", 0.1, records)]
    assert codes.count("INVALID_ARGUMENT") == 5000
    assert 1300 < codes.count("OK") < 1700, "of 15,000, one in ten"


@pytest.mark.parametrize(("ratio", "share"), [(0.0, 0), (1.0, 10_000)])
def test_the_ends_of_the_ratio_are_exact(ratio: float, share: int) -> None:
    assert in_sample(requests(10_000), ratio).sum() == share


def test_the_sample_is_the_same_whoever_looks_and_grows_with_the_ratio() -> None:
    records = requests(10_000)
    small, large = in_sample(records, 0.05), in_sample(records, 0.2)
    assert np.array_equal(small, np.concatenate([in_sample(part, 0.05) for part in np.split(records, 10)]))
    assert not (small & ~large).any()


def test_a_trace_is_shown_as_a_whole() -> None:
    records = requests(1000)
    records["trace_id"] = records["trace_id"][np.arange(1000) // 10]
    records["received_unix_ns"] = np.arange(1000)
    assert set(in_sample(records, 0.3).reshape(100, 10).sum(axis=1)) == {0, 10}


def test_ids_that_are_counted_up_are_sampled_as_evenly() -> None:
    records = requests(20_000)
    records["trace_id"] = 0
    records["trace_id"][:, 14] = np.arange(20_000) >> 8
    records["trace_id"][:, 15] = np.arange(20_000) & 0xFF
    records["trace_id"][:, 0] = 1
    assert 1700 < in_sample(records, 0.1).sum() < 2300


def test_requests_without_a_trace_are_sampled_one_by_one() -> None:
    records = requests(20_000)
    records["trace_id"] = 0
    records["received_unix_ns"] = np.uint64(1_750_000_000_000_000_000) + np.arange(20_000, dtype=np.uint64) * np.uint64(
        1000
    )
    assert 1700 < in_sample(records, 0.1).sum() < 2300


def test_records_may_be_overwritten_once_they_are_written(tmp_path: Path) -> None:
    records = requests(100)
    with (tmp_path / "log").open("w") as stream:
        log = AccessLog("all", 1.0, stream, "json")
        log.write(0, records, NAMES)
        records["rows"] = 999
        log.close(WAIT_SECONDS)
    assert [line["rows"] for line in shown(tmp_path / "log")] == list(range(100))


def test_records_come_from_a_ring_with_its_names(tmp_path: Path) -> None:
    with desk() as made, (tmp_path / "log").open("w") as stream:
        target = NameWriter(made.ring).number("target", "diabetes", "2", "sha256:a")
        series = made.series.number(SeriesKey("diabetes", 2, "default", 0, ""))
        made.publish(records_of([{"target": target, "series": series, "rows": n} for n in range(5)]), KEEP_ALL)
        reader = RingReader(made.ring)
        log = AccessLog("all", 1.0, stream, "json")
        for part in reader.take(100):
            log.write(4, part, reader.names.names)
        reader.release(5)
        log.close(WAIT_SECONDS)
        del reader, part
    lines = shown(tmp_path / "log")
    assert {(line["worker"], line["model"], line["version"]) for line in lines} == {(4, "diabetes", 2)}
    assert [line["rows"] for line in lines] == list(range(5))


def test_a_blocked_stream_takes_no_time_of_the_writer_and_every_lost_line_is_counted() -> None:
    """Nobody reads while far more is written than the pipe and the queue hold; then somebody reads what is left."""
    with pipe() as (reading, stream):
        log = AccessLog("all", 1.0, stream, "json")
        taken = sum(log.write(0, requests(1000), NAMES) for _ in range(60))
        assert taken < 60_000
        assert log.dropped == 60_000 - taken > 0
        assert taken <= module.MAX_WAITING + 2000, "what the pipe has taken has made room"
        found: list[bytes] = []
        reader = threading.Thread(target=lambda: found.append(reading.readall()))
        reader.start()
        log.close(WAIT_SECONDS)
        stream.close()
        reader.join()
    lines = [json.loads(line) for line in found[0].splitlines()]
    assert len(lines) == log.written == taken
    assert log.written + log.dropped == 60_000


def test_closing_before_a_blocked_stream_drops_what_waits_and_ends() -> None:
    with pipe() as (reading, stream):
        log = AccessLog("all", 1.0, stream, "json")
        taken = log.write(0, requests(5000), NAMES)
        log.close(0.1)
        stream.close()
        lines = reading.readall().splitlines()
    assert taken == 5000 == log.written + log.dropped
    assert len(lines) == log.written > 0
    assert log.dropped > 0
    assert all(json.loads(line)["code"] == "OK" for line in lines), "no line is cut"
    assert log.write(0, requests(10), NAMES) == 0
    assert log.written + log.dropped == 5010


def test_a_reader_that_goes_away_is_told_of_once_and_costs_only_lines(caplog: pytest.LogCaptureFixture) -> None:
    with pipe() as (reading, stream), caplog.at_level(logging.WARNING):
        log = AccessLog("all", 1.0, stream, "json")
        log.write(0, requests(3), NAMES)
        until(lambda: log.written == 3)
        reading.close()
        for number in range(2, 5):
            log.write(0, requests(100), NAMES)
            until(lambda number=number: log.dropped == 100 * (number - 1))
        log.close(WAIT_SECONDS)
    assert (log.written, log.dropped) == (3, 300)
    assert len(caplog.records) == 1
    assert "Broken pipe" in caplog.text


def test_a_reader_that_comes_back_is_written_to_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    first = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    with fifo.open("w") as stream:
        log = AccessLog("all", 1.0, stream, "json")
        os.close(first)
        log.write(0, requests(5), NAMES)
        until(lambda: log.dropped == 5)
        second = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        log.write(0, requests(7), NAMES)
        log.close(WAIT_SECONDS)
    with io.FileIO(second) as reader:
        lines = reader.readall().splitlines()
    assert (len(lines), log.written, log.dropped) == (7, 7, 5)


def test_a_stream_that_does_not_block_is_waited_for_too() -> None:
    """Another process may have set O_NONBLOCK on the standard output that all of them share."""
    with pipe() as (reading, stream):
        os.set_blocking(stream.fileno(), False)
        log = AccessLog("all", 1.0, stream, "json")
        log.write(0, requests(3000), NAMES)
        found: list[bytes] = []
        reader = threading.Thread(target=lambda: found.append(reading.readall()))
        reader.start()
        log.close(WAIT_SECONDS)
        stream.close()
        reader.join()
    assert [json.loads(line)["rows"] for line in found[0].splitlines()] == list(range(3000))


def test_lines_of_two_writers_on_one_pipe_do_not_mix() -> None:
    with pipe() as (reading, stream):
        logs = [AccessLog("all", 1.0, stream, "json") for _ in range(2)]
        found: list[bytes] = []
        reader = threading.Thread(target=lambda: found.append(reading.readall()))
        reader.start()
        for number, log in enumerate(logs):
            log.write(number, requests(4000), NAMES)
        for log in logs:
            log.close(WAIT_SECONDS)
        stream.close()
        reader.join()
    workers = [json.loads(line)["worker"] for line in found[0].splitlines()]
    assert (workers.count(0), workers.count(1)) == (4000, 4000)


def test_records_that_cannot_be_shown_are_dropped_and_the_next_are_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = requests(3)
    broken["received_unix_ns"] = 2**64 - 1
    with (tmp_path / "log").open("w") as stream:
        log = AccessLog("all", 1.0, stream, "json")
        log.write(0, broken, None)  # type: ignore[arg-type]  # names that are none
        log.write(0, requests(4), NAMES)
        log.close(WAIT_SECONDS)
    assert (log.written, log.dropped) == (4, 3)
    assert "could not be made" in caplog.text


def test_without_a_standard_output_nothing_is_shown() -> None:
    log = AccessLog("all", 1.0, None, "auto")
    assert log.write(0, requests(5), NAMES) == 0
    log.close()
    assert (log.written, log.dropped) == (0, 0)
