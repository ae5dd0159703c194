"""Rows that control asks to replay, through real versions: what is told of them, and that nothing counts as a copy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rollout_models import FAILS_FROM, SLICE, differing, everyday, failing, good
from shadow_desk import ShadowDesk, shadow_desk
from zoo import versioned

from gateway.messages import BlockReport, ReplayOrder, ReplayReport, TensorRows
from gateway.shadow.replays import MAX_WAITING

DIGEST = "sha256:0"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[ShadowDesk]:
    with shadow_desk(tmp_path) as there:
        yield there


def order_of(
    x: np.ndarray, block_rows: int = 16, name: str = "x", datatype: str = "FP32", **changed: Any
) -> ReplayOrder:
    rows = TensorRows(name=name, datatype=datatype, shape=x.shape, data=x.tobytes())
    order = ReplayOrder(
        id="1", model="m", baseline=1, baseline_digest=DIGEST, candidate=2, candidate_digest=DIGEST, rows=len(x),
        block_rows=block_rows, inputs=(rows,),
    )  # fmt: skip
    return order.model_copy(update=changed)


def replayed(desk: ShadowDesk, order: ReplayOrder) -> ReplayReport:
    desk.replays.take(order)
    desk.work()
    (report,) = desk.told
    desk.told.clear()
    assert isinstance(report, ReplayReport)
    assert report.id == order.id
    return report


def total(report: ReplayReport, of: str) -> int:
    return sum(getattr(block, of) for block in report.blocks)


def test_rows_that_both_answer_alike_agree_block_by_block(desk: ShadowDesk) -> None:
    desk.hold((1, good()), (2, good("better")))
    report = replayed(desk, order_of(everyday(np.random.default_rng(1), 40)))
    alike = [
        BlockReport(rows=rows, candidate_failed=0, baseline_failed=0, compared=rows, agreed=rows)
        for rows in (16, 16, 8)
    ]
    assert (list(report.blocks), report.problem) == (alike, "")
    desk.report()
    assert desk.heard == {}, "nothing of it is told as a copy"


def test_each_row_that_is_answered_otherwise_is_counted_and_no_other(desk: ShadowDesk) -> None:
    desk.hold((1, good()), (2, differing()))
    x = everyday(np.random.default_rng(2), 200)
    wrong = int(((x[:, 3] >= SLICE[0]) & (x[:, 3] < SLICE[1])).sum())
    report = replayed(desk, order_of(x))
    assert wrong
    assert (total(report, "compared"), total(report, "agreed")) == (200, 200 - wrong)


def test_a_row_that_fails_fails_no_other_of_its_block_and_either_version_may(desk: ShadowDesk) -> None:
    x = everyday(np.random.default_rng(3), 200)
    wrong = int((x[:, 3] >= FAILS_FROM).sum())
    assert wrong
    desk.hold((1, good()), (2, failing()))
    report = replayed(desk, order_of(x))
    figures = [total(report, of) for of in ("candidate_failed", "baseline_failed", "compared", "agreed")]
    assert figures == [wrong, 0, 200 - wrong, 200 - wrong]
    desk.hold()
    desk.hold((1, failing()), (2, good()))
    report = replayed(desk, order_of(x))
    assert [total(report, of) for of in ("candidate_failed", "baseline_failed")] == [0, wrong]


def test_what_cannot_be_run_is_told_with_the_reason(desk: ShadowDesk) -> None:
    x = everyday(np.random.default_rng(4), 4)
    assert replayed(desk, order_of(x)).problem == "version 1 is not loaded in the shadow process"
    desk.hold((1, good()), (2, versioned(3.0)))
    assert "expected output 'label'" in replayed(desk, order_of(x)).problem
    desk.hold()
    desk.hold((1, good()), (2, good("better")))
    wide = np.zeros((4, 5), np.float32)
    assert "expected shape" in replayed(desk, order_of(wide)).problem
    assert "expected input" in replayed(desk, order_of(x.astype(np.float64), datatype="FP64")).problem
    short = order_of(x).inputs[0].model_copy(update={"shape": (9, 4)})
    assert "cannot be read" in replayed(desk, order_of(x, inputs=(short,))).problem
    other = order_of(x, candidate_digest="sha256:9")
    assert replayed(desk, other).problem == "version 2 is not loaded in the shadow process"


def test_a_version_that_is_let_go_in_the_middle_ends_it_with_the_reason(desk: ShadowDesk) -> None:
    desk.hold((1, good()), (2, good("better")))
    desk.replays.take(order_of(everyday(np.random.default_rng(5), 64)))
    desk.runs.step()
    desk.hold((1, good()))
    desk.work()
    (report,) = desk.told
    assert report.blocks == ()
    assert "unloaded" in report.problem


def test_orders_run_one_after_the_other_and_too_many_are_refused(desk: ShadowDesk) -> None:
    desk.hold((1, good()), (2, good("better")))
    x = everyday(np.random.default_rng(6), 8)
    for number in range(MAX_WAITING + 1):
        desk.replays.take(order_of(x, id=str(number)))
    desk.work()
    assert [(report.id, bool(report.problem)) for report in desk.told] == [
        (str(MAX_WAITING), True), *((str(number), False) for number in range(MAX_WAITING))
    ]  # fmt: skip
