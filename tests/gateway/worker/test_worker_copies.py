"""Which runs a worker copies for which shadow, and that copying never harms an answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from worker_parts import Asked, Worker, ordered

from gateway.messages import ModelOrder, VersionOrder
from gateway.wire.pb.inference import grpc_service_pb2 as pb
from gateway.worker.copies import Copier, Copies, ShadowPair, shadow_pairs
from runtime.batching.request import Request
from runtime.batching.runner import RunTimes
from runtime.routing.document import to_json
from runtime.routing.route import Route, Shadow
from runtime.shadow.copied_pair import CopiedPair
from runtime.shadow.pair import PairKey, PairSettings
from runtime.shadow.ring_layout import Status, create_copy_ring
from runtime.shadow.ring_map import CopyCounter, map_copy_ring
from runtime.shadow.ring_reader import CopyReader
from runtime.shadow.ring_writer import CopyWriter, Forms
from runtime.shm.segment import Segment

PAIR = CopiedPair(PairKey("m", 1, "", 2, ""), PairSettings(), (("x", "FP32"),), (("y", "FP32"),), True)


@pytest.fixture
def ring() -> Iterator[Segment]:
    segment = create_copy_ring("copies", 1024 * 1024)
    yield segment
    segment.close()


def number(version: int) -> VersionOrder:
    return VersionOrder(
        version=version,
        digest=f"sha256:{version}",
        generation=1,
        folder="",
        model_filename="",
        file_bytes=1,
        manifest={},
    )


def pairs(route: Route, *, available: tuple[int, ...] = (1, 2, 3), **order: Any) -> list[tuple[int, int]]:
    """(primary, shadow) of a model that is ordered in versions 1 to 3, with 2 called canary."""
    model = ModelOrder(model="m", serve=tuple(map(number, (1, 2, 3))), labels={"canary": 2}, **order)
    found = shadow_pairs(model, route, {version: f"sha256:{version}" for version in available})
    assert all(pair.key.shadow_digest == f"sha256:{pair.key.shadow}" for pair in found)
    return [(pair.key.primary, pair.key.shadow) for pair in found]


@pytest.mark.parametrize(
    ("shadow", "expected"),
    [
        (Shadow("3"), [(1, 3), (2, 3)]),
        (Shadow("canary"), [(1, 2), (3, 2)]),
        (Shadow("3", of="canary"), [(2, 3)]),
        (Shadow("canary", of="1"), [(1, 2)]),
        (Shadow("2", of="canary"), []),
        (Shadow("9"), []),
        (Shadow("unheard-of"), []),
        (Shadow("3", of="unheard-of"), []),
    ],
)
def test_all_versions_but_the_shadow_itself_are_copied_or_the_one_that_is_named(
    shadow: Shadow, expected: list[tuple[int, int]]
) -> None:
    assert pairs(Route(shadows=(shadow,))) == expected


def test_only_versions_that_answer_here_are_copied_and_a_shadow_may_be_in_preparation() -> None:
    assert pairs(Route(shadows=(Shadow("3"),)), available=(2,)) == [(2, 3)]
    assert pairs(Route(shadows=(Shadow("4"),)), available=(1,), prepare=(number(4),)) == [(1, 4)]


def test_several_shadows_have_settings_of_their_own() -> None:
    route = Route(shadows=(Shadow("2", 0.5, "1", absolute=0.1, worst=3), Shadow("3", 1.0, "1", redact=("age",))))
    model = ModelOrder(model="m", serve=tuple(map(number, (1, 2, 3))))
    one, two = shadow_pairs(model, route, {1: "sha256:1"})
    assert (one.share, one.settings) == (0.5, PairSettings(absolute=0.1, worst=3))
    assert (two.share, two.settings) == (1.0, PairSettings(redact=("age",)))


def test_two_shadows_that_are_one_version_copy_no_run_twice() -> None:
    route = Route(shadows=(Shadow("canary", 0.5, redact=("age",)), Shadow("2", 0.75, of="1", redact=("x", "age"))))
    model = ModelOrder(model="m", serve=tuple(map(number, (1, 2, 3))), labels={"canary": 2})
    one, other = shadow_pairs(model, route, {1: "sha256:1", 3: "sha256:3"})
    assert (one.key.primary, one.share, one.settings) == (1, 0.75, PairSettings(redact=("age", "x")))
    assert (other.key.primary, other.share, other.settings) == (3, 0.5, PairSettings(redact=("age",)))


class Desk:
    """A copier of PAIR at one end of a ring, and the ring's reader at the other."""

    def __init__(self, segment: Segment, share: float = 1.0, draw: Callable[[], float] | None = None) -> None:
        self.writer = CopyWriter(segment)
        place = self.writer.place(PAIR.to_json())
        assert place is not None
        self.reader = CopyReader(map_copy_ring(segment), 0)
        (slot,) = self.reader.slots()
        self.reader.set_status(slot, Status.READY)
        forms = Forms(["FP32"], ["FP32"], batched=True)
        self.copier = Copier(self.writer, place, forms, share, *([draw] if draw is not None else []))
        self.counter = CopyCounter([map_copy_ring(segment)])

    def offer(self, rows: int = 1, requests: int = 1) -> None:
        total = rows * requests
        x, y = np.ones((total, 2), np.float32), np.zeros((total, 1), np.float32)
        asked = [Request([b""], [(rows, 2)], (0,), rows, None) for _ in range(requests)]
        self.copier.offer(asked, [y], RunTimes(0, 100, 350, {"x": x}))

    @property
    def chosen(self) -> int:
        return self.counter.counts()[PAIR.key].chosen


def test_a_run_is_copied_with_all_its_requests(ring: Segment) -> None:
    desk = Desk(ring)
    desk.offer(rows=2, requests=3)
    assert desk.reader.look() is not None
    copy = desk.reader.take(PAIR)
    assert (copy.rows, copy.run_ns, copy.batched) == ((2, 2, 2), 250, True)
    assert copy.inputs["x"].shape == (6, 2)
    assert desk.chosen == 3


def test_a_run_without_rows_or_without_a_run_is_not_copied(ring: Segment) -> None:
    desk = Desk(ring)
    desk.offer(rows=0)
    desk.copier.offer([Request([b""], [(1, 2)], (0,), 1, None)], [np.zeros(1)], RunTimes(0, 0, 0))
    assert desk.chosen == 0


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9, 1.0])
def test_each_run_is_chosen_with_the_probability_that_the_route_states(ring: Segment, share: float) -> None:
    desk = Desk(ring, share, np.random.default_rng(4).random)
    runs = 20_000
    for _ in range(runs):
        desk.offer()
        if desk.reader.look() is not None:
            desk.reader.drop()
    deviation = (share * (1 - share) / runs) ** 0.5
    assert abs(desk.chosen / runs - share) <= 5 * deviation


def test_another_share_holds_from_the_next_run_on(ring: Segment) -> None:
    desk = Desk(ring, 1e-9)
    desk.offer()
    desk.copier.share = 1.0
    desk.offer()
    assert desk.chosen == 1


def test_a_copy_that_cannot_be_written_is_told_once_and_raises_nothing(
    ring: Segment, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk(ring)
    for _ in range(2):
        desk.copier.offer([Request([b""], [(1, 2)], (0,), 1, None)], ["no array"], RunTimes(0, 0, 1, {"x": np.ones(2)}))  # type: ignore[list-item]
    assert caplog.text.count("this is told once") == 1


def test_a_pair_without_a_place_is_counted(ring: Segment) -> None:
    writer = CopyWriter(ring)
    copier = Copier(writer, None, Forms(["FP32"], ["FP32"], batched=True), 1.0)
    copier.offer([Request([b""], [(1, 2)], (0,), 1, None)], [np.zeros(1)], RunTimes(0, 0, 1, {"x": np.ones(2)}))
    assert CopyCounter([map_copy_ring(ring)]).unplaced() == 1


def shadowed(*shadows: Shadow) -> str:
    return to_json(Route(shadows=shadows))


def infer(version: str) -> bytes:
    request = pb.ModelInferRequest(model_name="m", model_version=version)
    request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    request.raw_input_contents.append(bytes(16))
    return request.SerializeToString()


def test_the_catalog_gives_targets_their_copiers_and_takes_them_back(ring: Segment, tmp_path: Path) -> None:
    worker = Worker(copies=Copies(CopyWriter(ring)))
    one, two = ordered(tmp_path, 1), ordered(tmp_path, 2)
    worker.order(ModelOrder(model="m", serve=(one, two), route=shadowed(Shadow("2"))))
    reader = CopyReader(map_copy_ring(ring), 0)
    (slot,) = reader.slots()
    reader.set_status(slot, Status.READY)
    for version in ("1", "2", "1"):
        worker.pipeline.infer([(Asked(), infer(version))])
    assert (slot.described.key.primary, slot.described.key.shadow) == (1, 2)
    seen = reader.look()
    assert seen is not None
    copy = reader.take(slot.described)
    assert copy.inputs["x"].tolist() == [[0.0] * 4]
    assert [array.tolist() for array in copy.outputs.values()] == [[[1.0] * 4]], "what version 1 answers"
    assert reader.look() is not None
    reader.drop()
    assert reader.look() is None, "what the shadow itself answered is not copied to it"
    target = worker.table.find("m", "1")
    assert target is not None
    (copier,) = target.copiers
    worker.order(ModelOrder(model="m", serve=(one, two), route=shadowed(Shadow("2", 0.5))))
    assert target.copiers == (copier,)
    assert copier.share == 0.5
    worker.order(ModelOrder(model="m", serve=(one, two)))
    assert target.copiers == ()
    reader.tell(slot, {"compared": 2})
    worker.order(ModelOrder(model="m", serve=(one, two), route=shadowed(Shadow("1"))))
    assert {each.described.key.primary for each in reader.slots()} >= {2}
    worker.close()


def test_pairs_of_one_version_are_apart(ring: Segment) -> None:
    pair = ShadowPair(PairKey("m", 1, "", 2, ""), PairSettings(), 1.0)
    other = ShadowPair(PairKey("m", 1, "", 3, ""), PairSettings(), 1.0)

    class Loaded:
        signature = type("S", (), {"inputs": (), "outputs": ()})
        max_rows = 1

    version: Any = Loaded()
    copies = Copies(CopyWriter(ring))
    copiers = copies.copiers([(pair, version), (other, version)])[id(version)]
    places = [copier.place.pair for copier in copiers if copier.place is not None]
    assert len(set(places)) == 2
