"""What every store promises. To run it on another database, add a line to IMPLEMENTATIONS."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from gateway.store.contract import (
    AuditEntry,
    AuditRecord,
    DesiredModel,
    DesiredVersion,
    Store,
    StoreConflict,
    StoreUnavailable,
    StoreVersionError,
)
from gateway.store.sql import open_store

ROOT = Path(__file__).parents[2]
WRITER = ROOT / "tests" / "gateway" / "store" / "writer.py"

StartWriter = Callable[..., subprocess.Popen[str]]

# Folder for the test's files → the URL of a database that is empty.
IMPLEMENTATIONS = [
    pytest.param(lambda folder: f"sqlite:///{folder}/state/driftgate.db", id="sqlite"),
]

DIGEST = "sha256:" + "ab" * 32
ENTRY = AuditEntry("alice", "ipv4:10.0.0.7:4711", "load", "iris", 3, DIGEST, "done", "two workers", "ticket 12")
IRIS = DesiredModel(
    name="iris",
    served=True,
    versions=(DesiredVersion(2, DIGEST, 1), DesiredVersion(3, "", 7)),
    labels={"stable": 2, "canary": 3},
    default_target="stable",
    pinned_versions=(2, 3),
)


@pytest.fixture(params=IMPLEMENTATIONS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(request.param(tmp_path))


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = open_store(url)
    yield opened
    opened.close()


def execute(url: str, *statements: str) -> None:
    """What another program with access to the database could do, in one transaction."""
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))
    finally:
        engine.dispose()


def test_a_new_store_is_empty(store: Store) -> None:
    assert store.load_models() == {}
    assert store.list_audit() == []


def test_what_was_put_is_there_after_reopening(url: str) -> None:
    first = open_store(url)
    put = first.put_model(IRIS, expected_revision=0, audit=ENTRY)
    unloaded = DesiredModel("wine", served=False)
    refused = first.append_audit(replace(ENTRY, outcome="refused", model=""))
    put_wine = first.put_model(unloaded, expected_revision=0, audit=replace(ENTRY, model="wine"))
    first.close()

    second = open_store(url)
    assert second.load_models() == {"iris": replace(IRIS, revision=1), "wine": replace(unloaded, revision=1)}
    assert second.list_audit() == [put_wine, refused, put]
    second.close()


def test_a_record_is_its_entry_with_an_id_and_the_time(store: Store) -> None:
    before = datetime.now(UTC)
    first = store.append_audit(ENTRY)
    second = store.put_model(IRIS, expected_revision=0, audit=ENTRY)
    after = datetime.now(UTC)

    assert first == AuditRecord(**asdict(ENTRY), id=first.id, time=first.time)
    assert first.time.tzinfo is UTC
    assert before <= first.time <= second.time <= after
    assert 0 < first.id < second.id


def test_a_put_replaces_the_model_whole_and_counts_its_revision(store: Store) -> None:
    store.put_model(IRIS, expected_revision=0, audit=ENTRY)
    bare = DesiredModel("iris", served=False, revision=99)
    store.put_model(bare, expected_revision=1, audit=ENTRY)
    assert store.load_models() == {"iris": replace(bare, revision=2)}


@pytest.mark.parametrize(("stored", "expected"), [(0, 1), (1, 0), (2, 1), (2, 3)])
def test_a_put_with_the_wrong_revision_writes_nothing(store: Store, stored: int, expected: int) -> None:
    for revision in range(stored):
        store.put_model(IRIS, expected_revision=revision, audit=ENTRY)
    before = store.load_models(), store.list_audit()

    with pytest.raises(StoreConflict) as caught:
        store.put_model(replace(IRIS, served=False), expected_revision=expected, audit=ENTRY)

    assert (caught.value.model, caught.value.expected_revision, caught.value.found_revision) == (
        "iris",
        expected,
        stored,
    )
    assert (store.load_models(), store.list_audit()) == before


@pytest.mark.parametrize("name", ["", "a\0", "\ud800"])
def test_a_model_without_a_proper_name_is_not_stored_but_its_refusal_is(store: Store, name: str) -> None:
    nameless = replace(IRIS, name=name)
    with pytest.raises(ValueError, match="name: expected"):
        store.put_model(nameless, expected_revision=0, audit=ENTRY)
    refused = store.append_audit(replace(ENTRY, model=nameless.name, version=-(2**63), outcome="refused"))
    assert (store.load_models(), store.list_audit()) == ({}, [refused])
    assert refused.version == -(2**63)


def test_a_deleted_model_is_gone_but_its_audit_stays(store: Store) -> None:
    store.put_model(IRIS, expected_revision=0, audit=ENTRY)
    store.put_model(replace(IRIS, name="wine"), expected_revision=0, audit=replace(ENTRY, model="wine"))
    deleted = store.delete_model("iris", expected_revision=1, audit=replace(ENTRY, action="forget"))

    assert list(store.load_models()) == ["wine"]
    assert [record.action for record in store.list_audit("iris")] == ["forget", "load"]
    assert store.list_audit()[0] == deleted
    store.put_model(IRIS, expected_revision=0, audit=ENTRY)
    assert store.load_models()["iris"].revision == 1


@pytest.mark.parametrize(("name", "expected"), [("iris", 2), ("unknown", 1)])
def test_a_delete_with_the_wrong_revision_writes_nothing(store: Store, name: str, expected: int) -> None:
    store.put_model(IRIS, expected_revision=0, audit=ENTRY)
    before = store.load_models(), store.list_audit()
    with pytest.raises(StoreConflict):
        store.delete_model(name, expected_revision=expected, audit=ENTRY)
    assert (store.load_models(), store.list_audit()) == before


def test_deleting_what_is_not_expected_to_exist_is_the_callers_error(store: Store) -> None:
    with pytest.raises(ValueError, match="expected_revision"):
        store.delete_model("iris", expected_revision=0, audit=ENTRY)
    assert store.list_audit() == []


def test_pages_of_the_audit_cover_it_newest_first_without_overlap(store: Store) -> None:
    models = ["iris", "wine", ""]
    records = [store.append_audit(replace(ENTRY, model=models[n % 3], detail=str(n))) for n in range(25)]
    newest_first = records[::-1]

    assert store.list_audit() == newest_first
    assert store.list_audit(limit=7) == newest_first[:7]
    assert store.list_audit(limit=7, before_id=newest_first[6].id) == newest_first[7:14]
    assert store.list_audit(before_id=records[0].id) == []
    wine = [record for record in newest_first if record.model == "wine"]
    assert store.list_audit("wine") == wine
    assert store.list_audit("wine", limit=3, before_id=wine[2].id) == wine[3:6]
    assert store.list_audit("unknown") == []


def test_a_page_has_100_records_unless_told_otherwise(store: Store) -> None:
    records = [store.append_audit(ENTRY) for _ in range(101)]
    assert store.list_audit() == records[:0:-1]


@pytest.mark.parametrize(("limit", "before_id"), [(0, 0), (-1, 0), (2**63, 0), (1, -1), (1, 2**63)])
def test_a_page_without_meaning_is_refused(store: Store, limit: int, before_id: int) -> None:
    store.append_audit(ENTRY)
    with pytest.raises(ValueError, match="limit"):
        store.list_audit(limit=limit, before_id=before_id)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET actor = 'mallory'",
        "DELETE FROM audit",
        "DELETE FROM audit WHERE id = 1",
    ],
)
def test_the_audit_cannot_be_rewritten_by_who_has_the_database(url: str, store: Store, statement: str) -> None:
    record = store.append_audit(ENTRY)
    with pytest.raises(DBAPIError, match="append-only"):
        execute(url, statement)
    assert store.list_audit() == [record]


AWKWARD_TEXTS = {
    "unicode": "Größe 模型 🦀 e\u0301 \u202e\u2028",
    "quotes": "'; DROP TABLE audit; -- \" % ? :name {}",
    "lines": "a\r\n\tb\x01 ",
    "long": "é" * 1_000_000,
}


@pytest.mark.parametrize("awkward", AWKWARD_TEXTS.values(), ids=AWKWARD_TEXTS)
def test_texts_come_back_as_they_were(url: str, awkward: str) -> None:
    # Names stand in indexes, whose rows other databases bound; nobody names a model with a megabyte.
    name = awkward[:200]
    model = DesiredModel(name, True, (DesiredVersion(1, awkward, 1),), {awkward: 1}, awkward)
    entry = AuditEntry(awkward, awkward, awkward, name, 1, awkward, "failed", awkward, awkward)
    first = open_store(url)
    record = first.put_model(model, expected_revision=0, audit=entry)
    first.close()

    second = open_store(url)
    assert second.load_models() == {name: replace(model, revision=1)}
    assert second.list_audit(name) == [record]
    second.close()
    assert record == AuditRecord(**asdict(entry), id=record.id, time=record.time)


def test_the_widest_integers_and_many_versions_come_back(store: Store) -> None:
    widest = 2**63 - 1
    model = replace(
        IRIS,
        versions=tuple(DesiredVersion(widest - n, DIGEST, widest) for n in range(1_000)),
        labels={f"label-{n}": widest - n for n in range(1_000)},
        pinned_versions=tuple(range(1_000)),
    )
    store.put_model(model, expected_revision=0, audit=replace(ENTRY, version=widest))
    assert store.load_models() == {"iris": replace(model, revision=1)}
    assert store.list_audit()[0].version == widest


def test_models_are_ordered_by_name(store: Store) -> None:
    for name in ("b", "c", "a"):
        store.put_model(DesiredModel(name, served=True), expected_revision=0, audit=ENTRY)
    assert list(store.load_models()) == ["a", "b", "c"]


def test_a_closed_store_says_so_and_may_be_closed_again(url: str) -> None:
    store = open_store(url)
    store.close()
    store.close()
    calls: list[Callable[[], object]] = [
        store.load_models,
        store.list_audit,
        lambda: store.append_audit(ENTRY),
        lambda: store.put_model(IRIS, expected_revision=0, audit=ENTRY),
        lambda: store.delete_model("iris", expected_revision=1, audit=ENTRY),
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable, match="closed"):
            call()


def test_a_schema_from_the_future_is_refused_and_left_alone(url: str) -> None:
    open_store(url).close()
    execute(url, "INSERT INTO schema_version (version) VALUES (999)")
    with pytest.raises(StoreVersionError, match=r"found 999; run that driftgate"):
        open_store(url)
    execute(url, "DELETE FROM schema_version WHERE version = 999")
    open_store(url).close()


@pytest.mark.parametrize("shared", [True, False], ids=["one-store", "two-stores"])
def test_of_threads_that_change_one_revision_exactly_one_wins(url: str, shared: bool) -> None:
    first = open_store(url)
    second = first if shared else open_store(url)
    rounds, threads = 25, 4
    # With a timeout, so that a thread that fails fails the test instead of leaving the others waiting.
    barrier = threading.Barrier(threads, timeout=20)

    def contend(index: int) -> tuple[list[int], list[int]]:
        won, lost_to = [], []
        mine = (first, second)[index % 2]
        for revision in range(rounds):
            barrier.wait()
            try:
                mine.put_model(
                    replace(IRIS, default_target=str(index)),
                    expected_revision=revision,
                    audit=replace(ENTRY, actor=str(index), detail=str(revision + 1)),
                )
                won.append(revision + 1)
            except StoreConflict as conflict:
                lost_to.append(conflict.found_revision)
        return won, lost_to

    with ThreadPoolExecutor(threads) as pool:
        wins, losses = zip(*pool.map(contend, range(threads)), strict=True)

    assert sorted(revision for won in wins for revision in won) == list(range(1, rounds + 1))
    for won, lost_to in zip(wins, losses, strict=True):
        assert sorted(won + lost_to) == list(range(1, rounds + 1)), "who loses is told the winner's revision"
    audit = first.list_audit()
    assert [record.detail for record in audit] == [str(revision) for revision in range(rounds, 0, -1)]
    assert {(int(record.actor), int(record.detail)) for record in audit} == {
        (index, revision) for index, won in enumerate(wins) for revision in won
    }
    assert first.load_models()["iris"].default_target == audit[0].actor
    first.close()
    second.close()


def next_line(writer: subprocess.Popen[str]) -> str:
    assert writer.stdout is not None
    return writer.stdout.readline()


@pytest.fixture
def start_writer() -> Iterator[StartWriter]:
    writers = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        writer = subprocess.Popen(
            [sys.executable, WRITER, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        writers.append(writer)
        return writer

    yield start
    for writer in writers:
        with writer:
            writer.kill()


def test_of_processes_that_change_one_revision_exactly_one_wins(url: str, start_writer: StartWriter) -> None:
    attempts = 60
    writers = [start_writer("race", url, "iris", str(attempts)) for _ in range(2)]
    assert [next_line(writer) for writer in writers] == ["ready\n"] * 2
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    wins = [[int(line) for line in writer.communicate()[0].split()] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]

    assert sorted(wins[0] + wins[1]) == list(range(1, attempts + 1))
    store = open_store(url)
    assert store.load_models()["iris"].revision == attempts
    assert [record.version for record in store.list_audit()] == list(range(attempts, 0, -1))
    store.close()


def test_stores_opened_at_once_on_a_new_database_all_work(url: str, start_writer: StartWriter) -> None:
    writers = [start_writer("race", url, f"model-{n}", "1") for n in range(4)]
    assert [writer.communicate("go\n")[0].split() for writer in writers] == [["ready", "1"]] * 4
    store = open_store(url)
    assert sorted(store.load_models()) == [f"model-{n}" for n in range(4)]
    store.close()


def test_a_writer_killed_at_any_moment_loses_nothing_it_reported(url: str, start_writer: StartWriter) -> None:
    revision = 0
    # Different counts, so that the kills fall on different moments of the write-ahead log.
    for reports in (1, 23, 60):
        writer = start_writer("loop", url, "iris")
        reported = [int(next_line(writer)) for _ in range(reports)]
        writer.send_signal(signal.SIGKILL)
        reported += [int(line) for line in writer.communicate()[0].splitlines()]
        assert writer.returncode == -signal.SIGKILL
        assert reported == list(range(revision + 1, revision + 1 + len(reported)))

        store = open_store(url)
        model = store.load_models()["iris"]
        assert reported[-1] <= model.revision <= reported[-1] + 1
        revision = model.revision
        assert model.versions == (DesiredVersion(revision, f"sha256:{revision - 1:064x}", 1),)
        # One record for each revision: a model and its audit are written together.
        assert [record.version for record in store.list_audit(limit=100_000)] == list(range(revision, 0, -1))
        store.close()
