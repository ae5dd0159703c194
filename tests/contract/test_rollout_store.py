"""What every store promises of rollouts and their decisions. Databases: those of test_store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rollout_writer import MOVES_EVERY
from test_store import ENTRY, IMPLEMENTATIONS, ROOT, next_line

from gateway.store.contract import MAX_INT64, RolloutConflict, StoreUnavailable
from gateway.store.rollouts import MAX_TEXT_BYTES, NewDecision, NewRollout, RolloutChange, StoredDecision, StoredRollout
from gateway.store.sql import SqlStore, open_store
from runtime.errors import NotFound

IRIS = NewRollout("iris", 2, 3, '{"plan": "Größe 🦀"}', '{"step": -1}', '{"default": ""}')
WINE = replace(IRIS, model="wine", baseline=1, candidate=2)
STARTED = replace(ENTRY, action="start rollout")
MOVED = replace(ENTRY, action="rollout", detail="it moved")


@pytest.fixture(params=IMPLEMENTATIONS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(request.param(tmp_path))


@pytest.fixture
def store(url: str) -> Iterator[SqlStore]:
    opened = open_store(url)
    yield opened
    opened.close()


def look(data: str, at_seconds: float = 1.0) -> NewDecision:
    return NewDecision(at_seconds, moved=False, data=data)


def move(data: str, at_seconds: float = 1.0) -> NewDecision:
    return NewDecision(at_seconds, moved=True, data=data, audit=replace(MOVED, detail=data))


def start(store: SqlStore, rollout: NewRollout = IRIS) -> StoredRollout:
    return store.rollouts.create(rollout, audit=STARTED)[0]


def end(store: SqlStore, rollout: StoredRollout) -> None:
    store.rollouts.save(rollout.id, RolloutChange("{}", ended=True, settled=True))


def said(decisions: list[StoredDecision]) -> list[tuple[int, str]]:
    return [(decision.number, decision.data) for decision in decisions]


def test_a_new_store_has_no_rollouts(store: SqlStore) -> None:
    rollouts = store.rollouts
    assert (rollouts.under_way(), rollouts.listed(), rollouts.get(1), rollouts.newest()) == ([], [], None, {})
    assert (rollouts.decisions(1), rollouts.last_decisions([1])) == ([], {})


def test_what_was_created_and_saved_is_there_after_reopening(url: str) -> None:
    first = open_store(url)
    before = datetime.now(UTC)
    created, record = first.rollouts.create(IRIS, audit=STARTED)
    after = datetime.now(UTC)
    assert before <= created.created_at <= after
    assert created.created_at == record.time
    assert (created.model, created.ended_at, created.settled) == ("iris", None, False)
    stored = first.rollouts.save(created.id, RolloutChange('{"step": 0}', [move("begun", 12.345678)], before="{}"))
    first.close()

    second = open_store(url)
    assert second.rollouts.get(created.id) == replace(created, state='{"step": 0}', before="{}")
    assert second.rollouts.under_way() == [second.rollouts.get(created.id)]
    (audit,) = second.list_audit(limit=1)
    assert (audit.action, audit.detail) == ("rollout", "begun")
    assert stored == [StoredDecision(1, 12.345678, moved=True, data="begun", audit_id=audit.id)]
    assert second.rollouts.decisions(created.id) == stored
    assert [entry.action for entry in second.list_audit()] == ["rollout", "start rollout"]
    second.close()


def test_of_looks_that_moved_nothing_the_last_is_kept_and_numbers_never_come_twice(store: SqlStore) -> None:
    rollout = start(store)
    save = store.rollouts.save
    for data in ("a", "b", "c"):
        save(rollout.id, RolloutChange("{}", [look(data)]))
    assert said(store.rollouts.decisions(rollout.id)) == [(3, "c")]
    save(rollout.id, RolloutChange("{}", [move("d")]))
    assert said(store.rollouts.decisions(rollout.id)) == [(4, "d")]
    save(rollout.id, RolloutChange("{}", [look("e")]))
    save(rollout.id, RolloutChange("{}", [look("f")]))
    assert said(store.rollouts.decisions(rollout.id)) == [(4, "d"), (6, "f")]
    both = save(rollout.id, RolloutChange("{}", [move("g"), move("h")]))
    assert said(both) == [(7, "g"), (8, "h")]
    assert said(store.rollouts.decisions(rollout.id)) == [(4, "d"), (7, "g"), (8, "h")]
    assert said(store.rollouts.decisions(rollout.id, limit=1, after=4)) == [(7, "g")]


def test_a_change_without_decisions_keeps_them_all(store: SqlStore) -> None:
    rollout = start(store)
    store.rollouts.save(rollout.id, RolloutChange("{}", [move("a")]))
    store.rollouts.save(rollout.id, RolloutChange("{}", [look("b")]))
    store.rollouts.save(rollout.id, RolloutChange('{"settled": 1}', settled=True))
    assert said(store.rollouts.decisions(rollout.id)) == [(1, "a"), (2, "b")]


def test_last_decisions_are_those_of_the_rollouts_that_are_asked_for(store: SqlStore) -> None:
    iris, wine = start(store), start(store, WINE)
    for rollout, data in ((iris, "a"), (iris, "b"), (wine, "c")):
        store.rollouts.save(rollout.id, RolloutChange("{}", [move(data)]))
    found = store.rollouts.last_decisions([iris.id, wine.id, 99])
    assert {key: each.data for key, each in found.items()} == {iris.id: "b", wine.id: "c"}
    assert store.rollouts.last_decisions([]) == {}


def test_a_model_has_one_rollout_at_a_time_until_its_end_is_settled(store: SqlStore) -> None:
    first = start(store)
    start(store, WINE)
    entries = len(store.list_audit())
    for change in (RolloutChange("{}"), RolloutChange("{}", ended=True)):
        store.rollouts.save(first.id, change)
        with pytest.raises(RolloutConflict, match=f"rollout {first.id} of model 'iris' is under way") as caught:
            start(store)
        assert caught.value.rollout_id == first.id
    assert len(store.list_audit()) == entries, "what was refused wrote nothing"
    assert [each.id for each in store.rollouts.under_way()] == [first.id, first.id + 1]
    end(store, first)
    second = start(store)
    assert second.id > first.id
    assert [each.model for each in store.rollouts.under_way()] == ["wine", "iris"]


def test_an_end_is_noted_once(store: SqlStore) -> None:
    rollout = start(store)
    store.rollouts.save(rollout.id, RolloutChange("{}", ended=True))
    first = store.rollouts.get(rollout.id)
    assert first is not None
    assert first.ended_at is not None
    assert not first.settled
    store.rollouts.save(rollout.id, RolloutChange("{}", ended=True, settled=True))
    store.rollouts.save(rollout.id, RolloutChange("{}"))
    assert store.rollouts.get(rollout.id) == replace(first, settled=True)


def test_rollouts_are_listed_newest_first_a_page_at_a_time(store: SqlStore) -> None:
    made = []
    for model in ("iris", "wine", "iris", "iris"):
        rollout = start(store, replace(IRIS, model=model))
        made.append(rollout.id)
        end(store, rollout)
    ids = [rollout.id for rollout in store.rollouts.listed()]
    assert ids == made[::-1]
    assert [each.id for each in store.rollouts.listed("iris", limit=2)] == [made[3], made[2]]
    assert [each.id for each in store.rollouts.listed("iris", limit=2, before_id=made[2])] == [made[0]]
    assert store.rollouts.newest() == {"wine": made[1], "iris": made[3]}


def test_an_unknown_rollout_is_not_saved(store: SqlStore) -> None:
    with pytest.raises(NotFound, match="no rollout 7"):
        store.rollouts.save(7, RolloutChange("{}", [move("a")]))
    assert store.rollouts.decisions(7) == []
    assert store.list_audit() == []
    assert store.rollouts.get(MAX_INT64 + 1) is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda store: store.rollouts.listed(limit=0), "expected limit >= 1 and before_id >= 0"),
        (lambda store: store.rollouts.listed(before_id=-1), "got 100 and -1"),
        (lambda store: store.rollouts.decisions(1, after=MAX_INT64 + 1), "expected limit >= 1 and after >= 0"),
    ],
)
def test_a_page_that_cannot_be_is_refused(store: SqlStore, call: Callable[[SqlStore], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(store)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: replace(IRIS, model=""), "name: expected the name of a model"),
        (lambda: replace(IRIS, candidate=-1), "candidate: expected an integer"),
        (lambda: replace(IRIS, plan="\0"), "plan: expected text"),
        (lambda: RolloutChange("x" * (MAX_TEXT_BYTES + 1)), "state: expected .* bytes or less"),
        (lambda: RolloutChange("{}", before="\ud800"), "before: expected text"),
        (lambda: NewDecision(1.0, moved=True, data="{}"), "expected an audit entry"),
        (lambda: NewDecision(1.0, moved=False, data="{}", audit=MOVED), "expected an audit entry"),
        (lambda: look("\0"), "data: expected text"),
    ],
)
def test_a_row_that_could_not_be_stored_cannot_be_made(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_the_widest_decision_comes_back(store: SqlStore) -> None:
    rollout, data = start(store), "é" * (MAX_TEXT_BYTES // 2)
    store.rollouts.save(rollout.id, RolloutChange(data, [look(data)]))
    assert store.rollouts.decisions(rollout.id)[0].data == data


def test_closing_the_store_closes_its_rollouts(url: str) -> None:
    store = open_store(url)
    rollouts = store.rollouts
    store.close()
    calls: list[Callable[[], object]] = [
        lambda: rollouts.create(IRIS, audit=STARTED),
        lambda: rollouts.save(1, RolloutChange("{}")),
        rollouts.under_way,
        lambda: rollouts.get(1),
        rollouts.newest,
        rollouts.listed,
        lambda: rollouts.decisions(1),
        lambda: rollouts.last_decisions([1]),
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable, match="closed"):
            call()


# Against a list in memory

SAVES = st.lists(
    st.tuples(st.integers(0, 1), st.lists(st.tuples(st.booleans(), st.text("ab{}é", max_size=5)), max_size=3)),
    max_size=12,
)


@pytest.mark.parametrize("url_in", IMPLEMENTATIONS)
@settings(max_examples=25, deadline=None)
@given(saves=SAVES)
def test_a_store_behaves_as_lists_do(
    url_in: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory, saves: list
) -> None:
    with closing(open_store(url_in(tmp_path_factory.mktemp("rollouts")))) as store:
        rollouts = [start(store), start(store, WINE)]
        kept: list[list[tuple[int, bool, str]]] = [[], []]
        last, states = [0, 0], ["", ""]
        for number, (which, decisions) in enumerate(saves):
            states[which] = str(number)
            new = [move(data) if moved else look(data) for moved, data in decisions]
            store.rollouts.save(rollouts[which].id, RolloutChange(states[which], new))
            if decisions:
                made = [(last[which] + n, moved, data) for n, (moved, data) in enumerate(decisions, 1)]
                last[which] += len(made)
                kept[which] = [each for each in kept[which] if each[1]]
                kept[which] += [each for each in made if each[1] or each is made[-1]]
            for at, rollout in enumerate(rollouts):
                found = store.rollouts.decisions(rollout.id)
                assert [(each.number, each.moved, each.data) for each in found] == kept[at]
                stored = store.rollouts.get(rollout.id)
                assert stored is not None
                assert stored.state == (states[at] or IRIS.state)


# Restarts


def test_a_writer_killed_at_any_moment_leaves_a_state_and_the_decision_that_led_to_it(url: str) -> None:
    stored = 0
    # Different counts, so that the kills fall on different moments of the write-ahead log.
    for reports in (1, 40, 97, 5):
        writer = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("rollout_writer.py"), url],
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

        with closing(open_store(url)) as store:
            (rollout,) = store.rollouts.under_way()
            stored = int(rollout.state)
            assert reported[-1] <= stored <= reported[-1] + 1
            decisions = store.rollouts.decisions(rollout.id)
            assert decisions[-1].number == stored, "state and decision are of one transaction"
            assert [int(each.data) for each in decisions] == [each.number for each in decisions]
            moved = [each.number for each in decisions if each.moved]
            assert moved == list(range(MOVES_EVERY, stored + 1, MOVES_EVERY))
            audits = [entry for entry in store.list_audit(limit=1_000) if entry.id in {d.audit_id for d in decisions}]
            assert len(audits) == len(moved)
