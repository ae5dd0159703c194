"""GetComparisons: figures as they were counted, bounded answers, and errors that say what there is."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shadow_samples import BEGAN_NS, KEY, OTHER_KEY, copy_of, iris_comparison, outputs_of, signature, spec

from gateway.control.audit import Actor
from gateway.control.comparison_admin import ComparisonAdmin
from gateway.control.comparison_answers import MAX_ANSWER_BYTES, MAX_CELLS
from gateway.control.comparisons import Comparisons
from gateway.messages import ComparisonReport, PairReport
from gateway.store.sql import open_store
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from runtime.errors import InvalidRequest, NotFound, NotReady
from runtime.profile.levels import Levels
from runtime.shadow.comparison import PairComparison
from runtime.shadow.pair import PairKey, PairSettings

BEGAN = BEGAN_NS / 1e9
OLGA = Actor("loopback:olga", "ipv4:127.0.0.1:1", "a test")


@pytest.fixture
def comparisons(tmp_path: Path) -> Iterator[Comparisons]:
    store = open_store(tmp_path / "state.db")
    yield Comparisons(
        store.comparisons, Levels(10, (60, 600)), started_seconds=BEGAN - 5, drift_window_seconds=600,
        copies=lambda: {KEY: (1000, {"queue_full": 2})}, clock=lambda: BEGAN + 30,
    )  # fmt: skip
    store.close()


@pytest.fixture
def admin(comparisons: Comparisons) -> ComparisonAdmin:
    service = ComparisonAdmin()
    service.use_comparisons(comparisons, lambda: ["iris", "price"])
    return service


def take(comparisons: Comparisons, part: PairComparison) -> None:
    key = part.key
    pair = PairReport(
        model=key.model, primary=key.primary, primary_digest=key.primary_digest, shadow=key.shadow,
        shadow_digest=key.shadow_digest, delta=part.to_bytes(),
    )  # fmt: skip
    comparisons.take(ComparisonReport(counters="a", pairs=(pair,)))


def ask(admin: ComparisonAdmin, **request: Any) -> pb.GetComparisonsResponse:
    response = asyncio.run(admin.GetComparisons(pb.GetComparisonsRequest(**request), OLGA))
    return pb.GetComparisonsResponse.FromString(response.SerializeToString())


def test_it_tells_what_was_counted(comparisons: Comparisons, admin: ComparisonAdmin) -> None:
    part = iris_comparison(inputs=True)
    take(comparisons, part)
    response = ask(admin, model="iris")
    [found] = response.comparisons
    assert list(response.notes) == []
    assert (found.model, found.primary, found.shadow) == ("iris", 1, 2)
    assert (found.primary_digest, found.shadow_digest) == (KEY.primary_digest, KEY.shadow_digest)
    assert (found.compared, found.agreed, found.failed) == (part.compared, part.agreed, part.failed)
    assert dict(found.shed) == {"late": 3, "queue_full": 2}
    assert found.chosen == 1000 == found.compared + found.failed + sum(found.shed.values()) + found.waiting
    assert (found.rows, found.agreed_rows) == (part.compared_rows, part.agreed_rows)
    assert found.latency_ratio == pytest.approx(part.latency_ratio)
    assert (found.begin.seconds, found.end.seconds) == (BEGAN - 5, BEGAN + 30)
    assert found.last_failure.startswith("RunError: version 2 failed")
    assert {quantile.q: quantile.value for quantile in found.primary_seconds}[1.0] == pytest.approx(100e-6)
    assert [each.inputs != "" for each in found.worst] == [True] * len(found.worst)
    assert [each.severity for each in found.worst] == [each.severity for each in part.disagreements]
    outputs = {output.output: output for output in found.outputs}
    assert sorted(outputs) == ["label", "probabilities"]
    label, scores = outputs["label"], outputs["probabilities"]
    assert not label.HasField("absolute")
    assert scores.absolute.count == 3 * part.compared_rows
    assert scores.absolute.relative_error == pytest.approx(0.0108, abs=1e-3)
    flips = [cell for cell in label.confusion if cell.primary != cell.shadow]
    assert list(label.confusion[: len(flips)]) == flips
    assert [cell.rows for cell in flips] == sorted((cell.rows for cell in flips), reverse=True)
    assert sum(cell.rows for cell in label.confusion) == label.predicted_rows == part.compared_rows


def test_a_window_and_a_pair_can_be_asked_for(comparisons: Comparisons, admin: ComparisonAdmin) -> None:
    take(comparisons, iris_comparison())
    take(comparisons, iris_comparison(key=OTHER_KEY))
    assert [each.shadow for each in ask(admin).comparisons] == [2, 3]
    assert [each.shadow for each in ask(admin, model="iris", shadow=3).comparisons] == [3]
    [found] = ask(admin, model="iris", shadow=2, window_seconds=60).comparisons
    assert (found.begin.seconds, found.end.seconds) == (BEGAN - 30, BEGAN + 30)


def test_where_nothing_is_copied_it_says_what_would_be(admin: ComparisonAdmin, comparisons: Comparisons) -> None:
    response = ask(admin, model="price", primary=2, shadow=3)
    assert list(response.comparisons) == []
    [note] = response.notes
    assert note.startswith("no copies were made of requests for model 'price' that version 2 answered to version 3: ")


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        ({"model": "rose"}, NotFound, "no model 'rose'; known models: iris, price"),
        (
            {"model": "iris", "shadow": -1},
            InvalidRequest,
            "expected a shadow version of 1 or more, or 0: any, got -1",
        ),
        ({"primary": 1}, InvalidRequest, "expected the model that the version is of, got nothing"),
        (
            {"window_seconds": 7},
            InvalidRequest,
            "expected a window of 60, 600 seconds, or 0 for all since the gateway started, got 7",
        ),
    ],
)
def test_wrong_requests_are_told_what_there_is(
    admin: ComparisonAdmin, request_: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as raised:
        ask(admin, **request_)
    assert str(raised.value) == message


def test_before_control_has_started_it_is_not_ready() -> None:
    with pytest.raises(NotReady, match="retry"):
        ask(ComparisonAdmin())


def test_a_change_of_tolerance_is_noted(comparisons: Comparisons, admin: ComparisonAdmin) -> None:
    take(comparisons, iris_comparison())
    take(comparisons, iris_comparison(absolute=0.5))
    [note] = ask(admin).notes
    assert note == "iris 1 and 2 were compared within several tolerances: 1e-06 + 0.0001 |x|; 0.5 + 0.0001 |x|"


def many_classes(key: PairKey, classes: int, worst: int) -> PairComparison:
    outputs = outputs_of(signature(spec("label", "BYTES"), inputs=[spec("text", "BYTES", 1)]))
    made = PairComparison(key, PairSettings(worst=worst, inputs=True), outputs)
    first = np.array([f"{at:04d}" + "é" * 60 for at in range(classes)], object)
    inputs = {"text": np.array([["x" * 200]] * classes, object)}
    made.compare(copy_of({"label": first}, inputs=inputs), {"label": first[::-1]}, 1)
    return made


def test_classes_beyond_the_bound_are_counted_together(comparisons: Comparisons, admin: ComparisonAdmin) -> None:
    take(comparisons, many_classes(KEY, 2 * MAX_CELLS, 1))
    [output] = ask(admin).comparisons[0].outputs
    assert len(output.confusion) == MAX_CELLS
    assert output.confusion_other == MAX_CELLS


def test_an_answer_that_is_too_large_leaves_out_the_least_needed(
    comparisons: Comparisons, admin: ComparisonAdmin
) -> None:
    for at in range(40):
        take(comparisons, many_classes(PairKey("iris", 1, "a", at + 2, "b"), 1000, 500))
    response = ask(admin, model="iris")
    assert response.ByteSize() < MAX_ANSWER_BYTES + 10_000
    told = "are left out, for the answer would be too large: ask for one model and one pair"
    assert list(response.notes)[:2] == [f"inputs {told}", f"disagreements {told}"]
    assert len(response.comparisons) == 41


def test_texts_that_are_no_characters_are_spelled_out(comparisons: Comparisons, admin: ComparisonAdmin) -> None:
    made = PairComparison(KEY, PairSettings(), outputs_of(signature(spec("label", "BYTES"))))
    first, second = np.array(["a\udcff"], object), np.array(["b"], object)
    made.compare(copy_of({"label": first}), {"label": second}, 1)
    take(comparisons, made)
    [found] = ask(admin).comparisons
    assert found.outputs[0].confusion[0].primary == "a\\udcff"
    assert found.worst[0].primary_value == "a\\udcff"


def test_infinite_differences_are_told(comparisons: Comparisons, admin: ComparisonAdmin) -> None:
    made = PairComparison(KEY, PairSettings(), outputs_of(signature(spec("y", "FP32", 1))))
    made.compare(copy_of({"y": [[0.0], [math.inf]]}), {"y": np.ones((2, 1), np.float32)}, 1)
    take(comparisons, made)
    [output] = ask(admin).comparisons[0].outputs
    assert (output.relative.greatest, output.absolute.greatest, output.not_finite) == (math.inf, 1.0, 1)
    assert (output.relative.count, output.absolute.count) == (0, 1)
