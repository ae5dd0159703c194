"""What every store promises of panes, marks, drift's state and references. Databases: those of test_store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pane_writer import BEGAN, LEVELS, SLOT, VERSIONS, time_of
from test_store import ENTRY, IMPLEMENTATIONS, ROOT, next_line
from window_payloads import Numbers

from gateway.store import panes_sql
from gateway.store.contract import StoreUnavailable
from gateway.store.panes import (
    MAX_DRIFT_STATE_BYTES,
    MAX_REFERENCE_BYTES,
    MAX_SLOT_BYTES,
    Reference,
    StoredReference,
    Tick,
    VersionKey,
    load_windows,
)
from gateway.store.sql import SqlStore, open_store
from runtime.errors import InvalidRequest
from runtime.profile.pane import Pane, PaneChanges, PaneKey

IRIS, WINE = VERSIONS
DAY = LEVELS.retain_seconds
PANE = Pane(PaneKey(10, BEGAN), 7, b"\x00one\xff")
REFERENCE = Reference(IRIS, "profile", "sha256:ab", b"\x00\xff" * 100, {"data": "Größe 🦀.csv", "rows": "150"})


@pytest.fixture(params=IMPLEMENTATIONS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(request.param(tmp_path))


@pytest.fixture
def store(url: str) -> Iterator[SqlStore]:
    opened = open_store(url)
    yield opened
    opened.close()


def put(store: SqlStore, *panes: Pane, delete: tuple[PaneKey, ...] = (), now: int = BEGAN, version: VersionKey = IRIS):
    store.panes.put_tick(Tick(now, DAY, panes={version: PaneChanges(panes, delete)}))


def at(length: int, start: int, rows: int = 1) -> Pane:
    return Pane(PaneKey(length, BEGAN + start), rows, bytes([length % 256, start % 256, rows]))


def test_a_new_store_has_measured_nothing(store: SqlStore) -> None:
    panes = store.panes
    assert (panes.load_panes(IRIS), panes.load_collected(), panes.load_drift(IRIS)) == ([], {}, "")
    assert (panes.get_reference(IRIS), panes.list_references()) == (None, [])


def test_a_tick_is_there_after_reopening(url: str) -> None:
    tick = Tick(
        BEGAN,
        DAY,
        panes={IRIS: PaneChanges((PANE, at(60, 0))), WINE: PaneChanges((at(10, 10),))},
        collected={"worker-0/1": 3, "worker-1/9": 2**63 - 1},
        drift={IRIS: '{"alarm": "模型"}'},
    )
    first = open_store(url)
    for _ in range(2):  # again is nothing more
        first.panes.put_tick(tick)
    first.close()
    with_panes = open_store(url)
    panes = with_panes.panes
    assert panes.load_panes(IRIS) == [PANE, at(60, 0)]
    assert panes.load_panes(WINE) == [at(10, 10)]
    assert panes.load_collected() == {"worker-0/1": 3, "worker-1/9": 2**63 - 1}
    assert (panes.load_drift(IRIS), panes.load_drift(WINE)) == ('{"alarm": "模型"}', "")
    with_panes.close()


def test_versions_that_differ_in_anything_have_panes_of_their_own(store: SqlStore) -> None:
    versions = [IRIS, replace(IRIS, model="iris2"), replace(IRIS, version=2), replace(IRIS, digest="sha256:2")]
    for n, version in enumerate(versions):
        put(store, at(10, 0, n), version=version)
    assert [store.panes.load_panes(version) for version in versions] == [[at(10, 0, n)] for n in range(4)]


def test_a_pane_is_replaced_and_deleted_by_its_time(store: SqlStore) -> None:
    put(store, at(10, 0), at(10, 10), at(60, 0))
    put(store, at(10, 0, 5), delete=(at(10, 10).key, at(10, 990).key))
    assert store.panes.load_panes(IRIS) == [at(10, 0, 5), at(60, 0)]


def test_marks_of_forgotten_slots_are_gone_and_the_others_stay(store: SqlStore) -> None:
    store.panes.put_tick(Tick(BEGAN, DAY, collected={"a": 1, "b": 2, "c": 3}))
    store.panes.put_tick(Tick(BEGAN, DAY, collected={"a": 4}, forgotten=("b", "never-seen")))
    assert store.panes.load_collected() == {"a": 4, "c": 3}


def test_what_no_version_needs_any_more_is_removed_with_time(store: SqlStore) -> None:
    put(store, at(10, 0), at(60, 0), version=WINE)
    store.panes.put_tick(Tick(BEGAN, DAY, drift={IRIS: "1", WINE: "2"}))
    store.panes.put_tick(Tick(BEGAN + DAY, DAY, drift={IRIS: "3"}))
    assert [pane.key.length_seconds for pane in store.panes.load_panes(WINE)] == [10, 60]
    assert store.panes.load_drift(WINE) == "2"
    put(store, now=BEGAN + DAY + 11)
    assert [pane.key.length_seconds for pane in store.panes.load_panes(WINE)] == [60]
    assert (store.panes.load_drift(IRIS), store.panes.load_drift(WINE)) == ("3", "")
    put(store, now=BEGAN + DAY + 61)
    assert store.panes.load_panes(WINE) == []


PANES = st.builds(at, st.sampled_from([10, 60]), st.integers(0, 4).map(lambda n: n * 60), st.integers(0, 9))
CHANGES = st.tuples(st.lists(PANES, max_size=3, unique_by=lambda pane: pane.key), st.lists(PANES, max_size=2))
TICKS = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from(VERSIONS), CHANGES),
        st.dictionaries(st.sampled_from("abc"), st.integers(0, 9)),
        st.sets(st.sampled_from("xyab")),
    ),
    max_size=8,
)


@pytest.mark.parametrize("url_in", IMPLEMENTATIONS)
@settings(max_examples=25, deadline=None)
@given(ticks=TICKS)
def test_a_store_behaves_as_dictionaries_do(
    url_in: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory, ticks: list
) -> None:
    store = open_store(url_in(tmp_path_factory.mktemp("ticks")))
    panes: dict[VersionKey, dict[PaneKey, Pane]] = {version: {} for version in VERSIONS}
    marks: dict[str, int] = {}
    for changes, collected, forgotten in ticks:
        changed = {}
        for version, (added, removed) in changes.items():
            delete = {pane.key for pane in removed} - {pane.key for pane in added}
            changed[version] = PaneChanges(tuple(added), tuple(delete))
            panes[version] = {key: pane for key, pane in panes[version].items() if key not in delete}
            panes[version].update({pane.key: pane for pane in added})
        marks = {slot: serial for slot, serial in marks.items() if slot not in forgotten} | collected
        store.panes.put_tick(Tick(BEGAN, DAY, panes=changed, collected=collected, forgotten=forgotten))
        for version in VERSIONS:
            assert store.panes.load_panes(version) == [pane for _, pane in sorted(panes[version].items())]
        assert store.panes.load_collected() == marks
    store.close()


# References


def test_a_reference_is_there_after_reopening_with_its_audit(url: str) -> None:
    first = open_store(url)
    record = first.panes.put_reference(REFERENCE, audit=ENTRY)
    first.panes.put_reference(replace(REFERENCE, version=WINE, about={}), audit=ENTRY)
    first.close()
    second = open_store(url)
    found = second.panes.get_reference(IRIS)
    assert found == StoredReference(IRIS, "profile", "sha256:ab", b"\x00\xff" * 100, found.about, set_at=record.time)
    assert found.about == REFERENCE.about
    assert second.panes.list_references() == [IRIS, WINE]
    assert [each.id for each in second.list_audit()] == [record.id + 1, record.id]
    second.close()


def test_a_reference_is_replaced_and_forgotten_each_with_an_audit_record(store: SqlStore) -> None:
    store.panes.put_reference(REFERENCE, audit=ENTRY)
    store.panes.put_reference(replace(REFERENCE, kind="live", payload=b""), audit=replace(ENTRY, detail="2"))
    found = store.panes.get_reference(IRIS)
    assert found is not None
    assert (found.kind, found.payload) == ("live", b"")
    assert store.panes.get_reference(replace(IRIS, digest="sha256:other")) is None
    for detail in ("3", "4"):
        store.panes.delete_reference(IRIS, audit=replace(ENTRY, detail=detail))
        assert store.panes.get_reference(IRIS) is None
    assert [record.detail for record in store.list_audit()] == ["4", "3", "2", ENTRY.detail]


def test_the_largest_reference_comes_back_and_a_larger_one_is_refused_without_an_audit(store: SqlStore) -> None:
    payload = os.urandom(1 << 20) * (MAX_REFERENCE_BYTES >> 20)
    store.panes.put_reference(replace(REFERENCE, payload=payload), audit=ENTRY)
    found = store.panes.get_reference(IRIS)
    assert found is not None
    assert found.payload == payload
    with pytest.raises(InvalidRequest, match=f"expected a reference of {MAX_REFERENCE_BYTES} bytes or less, got"):
        store.panes.put_reference(replace(REFERENCE, payload=payload + b"x"), audit=ENTRY)
    assert len(store.list_audit()) == 1


def test_more_references_than_a_store_keeps_are_refused_and_nothing_is_written(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(panes_sql, "MAX_REFERENCES", 2)
    versions = [replace(IRIS, version=n) for n in range(3)]
    for version in versions[:2]:
        store.panes.put_reference(replace(REFERENCE, version=version), audit=ENTRY)
    before = store.list_audit()
    with pytest.raises(InvalidRequest, match="expected 2 versions with a reference or fewer; remove those"):
        store.panes.put_reference(replace(REFERENCE, version=versions[2]), audit=ENTRY)
    assert (store.panes.list_references(), store.list_audit()) == (versions[:2], before)
    store.panes.put_reference(replace(REFERENCE, version=versions[1], kind="live"), audit=ENTRY)


# What cannot be


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VersionKey("\0", 1, ""), "model: expected text"),
        (lambda: VersionKey("iris", -1, ""), "version: expected an integer"),
        (lambda: replace(REFERENCE, digest="\ud800"), "digest: expected text"),
        (lambda: Tick(BEGAN, 0), "retain_seconds: expected 1 or more, got 0"),
        (lambda: Tick(BEGAN, 1, collected={"": 1}), "collected: expected slots of 1 to"),
        (lambda: Tick(BEGAN, 1, collected={"é" * MAX_SLOT_BYTES: 1}), "collected: expected slots of 1 to"),
        (lambda: Tick(BEGAN, 1, collected={"a": -1}), "collected"),
        (lambda: Tick(BEGAN, 1, drift={IRIS: "x" * (MAX_DRIFT_STATE_BYTES + 1)}), "drift of .* bytes or less"),
    ],
)
def test_a_row_that_could_not_be_stored_cannot_be_made(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_the_widest_drift_state_comes_back(store: SqlStore) -> None:
    state = "é" * (MAX_DRIFT_STATE_BYTES // 2)
    store.panes.put_tick(Tick(BEGAN, DAY, drift={IRIS: state}))
    assert store.panes.load_drift(IRIS) == state


def test_closing_the_store_closes_its_panes(url: str) -> None:
    store = open_store(url)
    panes = store.panes
    store.close()
    calls: list[Callable[[], object]] = [
        lambda: panes.put_tick(Tick(BEGAN, DAY)),
        lambda: panes.load_panes(IRIS),
        panes.load_collected,
        lambda: panes.load_drift(IRIS),
        lambda: panes.get_reference(IRIS),
        panes.list_references,
        lambda: panes.put_reference(REFERENCE, audit=ENTRY),
        lambda: panes.delete_reference(IRIS, audit=ENTRY),
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable, match="closed"):
            call()


# Restarts


def test_windows_go_on_after_a_restart_where_the_last_tick_left_them(url: str) -> None:
    def run(ticks: range) -> None:
        store = open_store(url)
        windows = load_windows(store.panes, IRIS, LEVELS, Numbers.decode, time_of(ticks.start))
        for tick in ticks:
            windows.add(time_of(tick) - 10, time_of(tick), Numbers.of([tick % 40]), time_of(tick))
            changes = windows.changes()
            store.panes.put_tick(Tick(time_of(tick), DAY, panes={IRIS: changes}))
            windows.saved(changes)
            assert len(store.panes.load_panes(IRIS)) == windows.panes
        store.close()

    run(range(100))
    run(range(100, 250))
    store = open_store(url)
    windows = load_windows(store.panes, IRIS, LEVELS, Numbers.decode, time_of(249))
    for seconds in (60, 600, 3600):
        window = windows.window(seconds, time_of(249))
        seen = [tick % 40 for tick in range(250) if time_of(tick) - 5 >= window.start_seconds]
        assert window.summary is not None
        assert window.summary.encode() == Numbers.of(seen).encode()
    store.close()


def test_a_writer_killed_at_any_moment_counts_every_row_once(url: str) -> None:
    stored = 0
    # Different counts, so that the kills fall on different moments of the write-ahead log, and of panes moving up.
    for reports in (1, 40, 97, 5):
        writer = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("pane_writer.py"), url],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        )
        with writer:
            try:
                reported = [int(next_line(writer)) for _ in range(reports)]
            finally:
                writer.send_signal(signal.SIGKILL)
            reported += [int(line) for line in writer.communicate()[0].splitlines()]
        assert writer.returncode == -signal.SIGKILL
        assert reported == list(range(stored + 1, stored + 1 + len(reported)))

        store = open_store(url)
        stored = store.panes.load_collected()[SLOT]
        assert reported[-1] <= stored <= reported[-1] + 1
        expected = Numbers.of([serial % 40 for serial in range(1, stored + 1)]).encode()
        for version in VERSIONS:
            windows = load_windows(store.panes, version, LEVELS, Numbers.decode, time_of(stored))
            summary = windows.window(86_400, time_of(stored)).summary
            assert summary is not None
            assert summary.encode() == expected, "panes and marks are of one tick"
            assert store.panes.load_drift(version) == str(stored)
        store.close()
