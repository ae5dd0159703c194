"""The stream of state changes: every step of every version on every worker, in order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.admin import Admin, Refused, admin_of
from support.gateway import Gateway
from zoo import versioned, write_version

from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

pytestmark = pytest.mark.process

WORKERS = 2
BORN = [pb.VERSION_STATE_LOADING, pb.VERSION_STATE_WARMING_UP, pb.VERSION_STATE_AVAILABLE]
GONE = [pb.VERSION_STATE_DRAINING, pb.VERSION_STATE_UNLOADED]


@dataclass(frozen=True, slots=True)
class Served:
    models: Path
    admin: Admin


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("watch")
    write_version(folder / "models", "m", 1, versioned(1.0))
    write_version(folder / "models", "m", 2, versioned(2.0))
    (folder / "models" / "m" / "model.yaml").write_text("versions: {specific: [1]}\n")
    with Gateway(folder / "models", folder / "state", workers=WORKERS) as gateway, admin_of(gateway.admin) as admin:
        yield Served(folder / "models", admin)


class Ends:
    """True of the event that is the last of `count` of a version's `state`."""

    def __init__(self, version: int, state: int, count: int = WORKERS) -> None:
        self._wanted = (version, state)
        self._left = count

    def __call__(self, event: pb.ModelEvent) -> bool:
        self._left -= (event.version, event.state) == self._wanted
        return self._left == 0


def by_worker(events: Iterable[pb.ModelEvent]) -> dict[int, list[tuple[int, int]]]:
    """Worker → (version, state) in the order of arrival."""
    steps: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for event in events:
        steps[event.worker].append((event.version, event.state))
    return steps


def test_a_swap_is_seen_step_by_step_on_every_worker(served: Served) -> None:
    """The new version is available everywhere before the old one drains anywhere."""
    with served.admin.watch() as watch:
        served.admin.load("m", 2)
        events = watch.until(Ends(1, pb.VERSION_STATE_UNLOADED))
    born, gone = [(2, state) for state in BORN], [(1, state) for state in GONE]
    assert by_worker(events) == {worker: [*born, *gone] for worker in range(WORKERS)}
    order = [event.state for event in events]
    last_available = max(i for i, state in enumerate(order) if state == pb.VERSION_STATE_AVAILABLE)
    assert last_available < order.index(pb.VERSION_STATE_DRAINING)
    assert [event.time.ToNanoseconds() for event in events] == sorted(event.time.ToNanoseconds() for event in events)
    assert all(event.digest.startswith("sha256:") for event in events)
    assert all(event.dropped == 0 for event in events)


def test_a_load_that_fails_is_seen_with_its_reason_on_the_one_worker_that_tried(served: Served) -> None:
    (served.models / "m" / "model.yaml").write_text("batching: {max_batch_size: 8}\n")
    folder = write_version(served.models, "m", 3, versioned(3.0))
    (folder / "warmup.npz").write_bytes(b"no archive")
    with served.admin.watch() as watch:
        with pytest.raises(Refused, match="is not a readable"):
            served.admin.load("m", 3)
        events = watch.until(Ends(3, pb.VERSION_STATE_FAILED, 1))
        served.admin.load("m", 1)
        rest = watch.until(Ends(2, pb.VERSION_STATE_UNLOADED))
    steps = [event.state for event in events if event.version == 3]
    assert steps == [*BORN[:2], pb.VERSION_STATE_FAILED]
    assert "warmup.npz is not a readable" in events[-1].reason
    assert {event.version for event in rest} == {1, 2}, "nothing of the failed version was left to undo"


def test_a_watch_begins_with_what_is_so_now(served: Served) -> None:
    present = {(v.version, v.state) for v in served.admin.model("m").versions if v.workers_available}
    call = served.admin.watch_call("m")
    first = [next(call) for _ in range(WORKERS * len(present))]
    call.cancel()
    assert all(event.initial for event in first)
    assert {(event.version, event.state) for event in first} == present
    assert {event.worker for event in first} == set(range(WORKERS))
