"""A store behaves as a dict and a list do, whatever the order of calls, conflicts and reopenings."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from test_store import IMPLEMENTATIONS

from gateway.store.contract import AuditEntry, AuditRecord, DesiredModel, DesiredVersion, StoreConflict
from gateway.store.sql import open_store

NAMES = st.sampled_from(["iris", "wine", "模型"])
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
INTEGERS = st.integers(0, 2**63 - 1)
MODELS = st.builds(
    DesiredModel,
    name=NAMES,
    served=st.booleans(),
    versions=st.lists(st.builds(DesiredVersion, INTEGERS, TEXTS, INTEGERS), max_size=3).map(tuple),
    labels=st.dictionaries(TEXTS, INTEGERS, max_size=3),
    default_target=TEXTS,
    pinned_versions=st.lists(INTEGERS, max_size=3).map(tuple),
    revision=INTEGERS,
)
ENTRIES = st.builds(
    AuditEntry,
    actor=TEXTS,
    peer=TEXTS,
    action=TEXTS,
    model=NAMES | st.just(""),
    version=INTEGERS,
    digest=TEXTS,
    outcome=st.sampled_from(["done", "failed", "refused", "unchanged"]),
    detail=TEXTS,
    reason=TEXTS,
)
# How far the caller's revision is from the stored one: mostly right.
OFFSETS = st.sampled_from([0, 0, 0, -1, 1])


class StoreMachine(RuleBasedStateMachine):
    url_in: Callable[[Path], str]

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.url = type(self).url_in(self.folder)
        self.store = open_store(self.url)
        self.models: dict[str, DesiredModel] = {}
        self.audit: list[AuditRecord] = []

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)

    def expect(self, record: AuditRecord, entry: AuditEntry) -> None:
        assert record == AuditRecord(**asdict(entry), id=record.id, time=record.time)
        assert record.id > max((earlier.id for earlier in self.audit), default=0)
        self.audit.append(record)

    def revision_of(self, name: str) -> int:
        return self.models[name].revision if name in self.models else 0

    @rule(desired=MODELS, entry=ENTRIES, offset=OFFSETS)
    def put(self, desired: DesiredModel, entry: AuditEntry, offset: int) -> None:
        current = self.revision_of(desired.name)
        expected = max(0, current + offset)
        if expected != current:
            with pytest.raises(StoreConflict) as caught:
                self.store.put_model(desired, expected_revision=expected, audit=entry)
            assert caught.value.found_revision == current
            return
        self.expect(self.store.put_model(desired, expected_revision=expected, audit=entry), entry)
        self.models[desired.name] = replace(desired, revision=current + 1)

    @rule(name=NAMES, entry=ENTRIES, offset=OFFSETS)
    def delete(self, name: str, entry: AuditEntry, offset: int) -> None:
        current = self.revision_of(name)
        expected = max(1, current + offset)
        if expected != current:
            with pytest.raises(StoreConflict) as caught:
                self.store.delete_model(name, expected_revision=expected, audit=entry)
            assert caught.value.found_revision == current
            return
        self.expect(self.store.delete_model(name, expected_revision=expected, audit=entry), entry)
        del self.models[name]

    @rule(entry=ENTRIES)
    def append(self, entry: AuditEntry) -> None:
        self.expect(self.store.append_audit(entry), entry)

    @rule(model=NAMES | st.just(""), limit=st.integers(1, 5), data=st.data())
    def page(self, model: str, limit: int, data: st.DataObject) -> None:
        before_id = data.draw(st.sampled_from([0, *(record.id for record in self.audit)]))
        matching = [
            record
            for record in reversed(self.audit)
            if model in ("", record.model) and (before_id == 0 or record.id < before_id)
        ]
        assert self.store.list_audit(model, limit, before_id) == matching[:limit]

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = open_store(self.url)

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        assert self.store.load_models() == self.models
        assert self.store.list_audit(limit=1_000) == self.audit[::-1]


@pytest.mark.parametrize("url_in", IMPLEMENTATIONS)
def test_a_store_behaves_as_its_model(url_in: Callable[[Path], str]) -> None:
    machine = type("Machine", (StoreMachine,), {"url_in": staticmethod(url_in)})
    run_state_machine_as_test(machine, settings=settings(max_examples=25, stateful_step_count=20, deadline=None))
