"""The shadow process's runs: what is compared, what is shed and why, and what control hears of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from rollout_models import everyday, failing, good
from shadow_desk import ShadowDesk, pair_of, shadow_desk
from zoo import graph, slow, versioned

from runtime.shadow.comparison import PairComparison
from runtime.shadow.ring_layout import Shed
from runtime.shm.statistics import StatisticsReader

X = np.arange(24, dtype=np.float32).reshape(6, 4)
SAME = versioned(1.0)
SCORED = {"inputs": (("x", "FP32"),), "outputs": (("scores", "FP32"),)}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[ShadowDesk]:
    with shadow_desk(tmp_path) as made:
        yield made


def test_a_run_of_the_primary_is_one_run_of_the_shadow_and_is_compared(desk: ShadowDesk) -> None:
    pair = pair_of()
    desk.hold((2, SAME))
    place = desk.place(pair)
    desk.write(place, pair, X, X + 1, (1, 2, 3))
    desk.write(place, pair, X, X + 2, (6,))
    desk.work()
    assert desk.outcomes(pair) == {}, "nothing is told before it is reported"
    assert desk.counts(pair).waiting == 4
    desk.report()
    assert desk.outcomes(pair) == {"compared": 4}
    heard = desk.heard[pair.key]
    assert (heard.compared, heard.agreed, heard.compared_rows, heard.agreed_rows) == (4, 3, 12, 6)
    (counts,) = StatisticsReader([desk.page]).totals()
    assert (counts.version, counts.successes, counts.runs, counts.rows) == (2, 4, 2, 12)


def test_a_version_that_is_not_held_sheds_and_one_that_comes_is_used(desk: ShadowDesk) -> None:
    pair = pair_of()
    place = desk.place(pair)
    assert place.why_not() is Shed.NO_SHADOW
    desk.write(place, pair, X, X, (6,))  # the writer saw it a moment ago
    desk.work()
    desk.hold((2, SAME))
    assert place.why_not() is None
    desk.write(place, pair, X, X + 1, (6,))
    desk.work()
    desk.report()
    assert desk.outcomes(pair) == {"compared": 1, "no_shadow": 1}
    assert (desk.heard[pair.key].compared, desk.heard[pair.key].sheds) == (1, {"no_shadow": 1})
    desk.hold()
    assert place.why_not() is Shed.NO_SHADOW


def test_a_version_that_takes_something_else_is_incompatible_and_the_log_says_what(
    desk: ShadowDesk, caplog: pytest.LogCaptureFixture
) -> None:
    pair = pair_of(inputs=(("amount", "FP64"),))
    desk.hold((2, SAME))
    place = desk.place(pair)
    assert place.why_not() is Shed.INCOMPATIBLE
    desk.write(place, pair, X.astype(np.float64), X, (6,))
    desk.work()
    desk.report()
    assert desk.outcomes(pair) == {"incompatible": 1}
    assert "it takes input 'x', which the other does not" in caplog.text
    assert "expected input 'amount' of FP64, its own is not there" in caplog.text


def test_copies_of_another_shape_are_incompatible(desk: ShadowDesk, caplog: pytest.LogCaptureFixture) -> None:
    pair = pair_of()
    desk.hold((2, SAME))
    place = desk.place(pair)
    for _ in range(2):
        desk.write(place, pair, X.reshape(4, 6), X, (4,))
    desk.work()
    desk.report()
    assert desk.outcomes(pair) == {"incompatible": 2}
    assert caplog.text.count("input 'x': expected shape [-1,4], the copy has [4,6]") == 1


def test_what_has_waited_too_long_is_thrown_away(desk: ShadowDesk) -> None:
    pair = pair_of()
    desk.hold((2, SAME))
    place = desk.place(pair)
    for _ in range(600):
        desk.write(place, pair, X[:1], X[:1], (1,))
    desk.start(late_seconds=0.0)
    desk.work()
    desk.report()
    counts = desk.counts(pair)
    assert counts.outcomes["late"] == 600
    assert counts.waiting == 0


def test_one_request_that_fails_fails_no_other_of_its_run(desk: ShadowDesk) -> None:
    pair = pair_of(**SCORED)
    desk.hold((2, failing()))
    place = desk.place(pair)
    x = everyday(np.random.default_rng(3), 4)
    x[:, 3] = [100, 199, 110, 199.5]
    desk.write(place, pair, x, np.zeros((4, 3), np.float32), (1, 1, 2))
    desk.work()
    desk.report()
    assert desk.outcomes(pair) == {"compared": 1, "failed": 2}
    assert "Gather" in desk.heard[pair.key].failure[1]


def test_a_copy_that_cannot_be_compared_at_all_is_lost_and_counted_and_the_next_is_compared(
    desk: ShadowDesk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pair = pair_of()
    desk.hold((2, SAME))
    place = desk.place(pair)
    with monkeypatch.context() as patch:
        patch.setattr(PairComparison, "compare", lambda *_: 1 / 0)
        for _ in range(2):
            desk.write(place, pair, X, X + 1, (1, 2, 3))
        desk.work()
    assert caplog.text.count("could not be compared; this is told once") == 1
    desk.write(place, pair, X, X + 1, (6,))
    desk.work()
    desk.report()
    assert desk.outcomes(pair) == {"compared": 1, "lost": 6}
    assert desk.counts(pair).waiting == 0


def test_a_version_whose_rows_must_not_share_a_run_gets_one_request_at_a_time(desk: ShadowDesk) -> None:
    """It answers each row with the sum of the whole run: a primary without such a fault gave each request its own."""
    pair = pair_of()
    mixing = graph("mixing (float[N,4] x) => (float[N,4] y) { s = ReduceSum(x) y = Add(x, s) }")()
    desk.hold((2, mixing))
    place = desk.place(pair)
    answers = np.concatenate([X[:2] + X[:2].sum(), X[2:] + X[2:].sum()])
    desk.write(place, pair, X, answers, (2, 4))
    desk.work()
    desk.report()
    assert (desk.heard[pair.key].agreed, desk.outcomes(pair)) == (2, {"compared": 2})


def test_a_run_that_takes_too_long_is_stopped_and_late(desk: ShadowDesk) -> None:
    pair = pair_of()
    desk.hold((2, slow(10_000)))
    place = desk.place(pair)
    x = np.ones((1000, 64), np.float32)  # takes seconds; a row, as at warm-up, some ms
    desk.write(place, pair, x, x, (1000,))
    desk.start(late_seconds=0.2)
    ending = threading.Event()

    def look() -> None:
        while not ending.wait(0.02):
            desk.runs.look_after()

    looking = threading.Thread(target=look)
    looking.start()
    try:
        desk.work()
    finally:
        ending.set()
        looking.join()
    desk.report()
    assert desk.outcomes(pair) == {"late": 1}


def test_nothing_is_told_before_control_has_it_and_nothing_is_lost_while_control_is_away(desk: ShadowDesk) -> None:
    pair = pair_of()
    desk.hold((2, SAME))
    place = desk.place(pair)
    desk.listening = False
    for _ in range(3):
        desk.write(place, pair, X, X + 1, (6,))
        desk.work()
        desk.report()
    assert (desk.outcomes(pair), desk.counts(pair).waiting) == ({}, 3)
    desk.listening = True
    desk.report()
    assert (desk.outcomes(pair), desk.heard[pair.key].compared) == ({"compared": 3}, 3)


def test_one_report_is_under_way_at_a_time(desk: ShadowDesk) -> None:
    pair = pair_of()
    desk.hold((2, SAME))
    place = desk.place(pair)
    desk.holding = []
    for _ in range(3):
        desk.write(place, pair, X, X + 1, (6,))
        desk.work()
        desk.report()
    assert len(desk.holding) == 1
    desk.holding.pop()(True)
    assert desk.outcomes(pair) == {"compared": 1}
    desk.report()
    desk.holding.pop()(True)
    assert (desk.outcomes(pair), desk.heard[pair.key].compared) == ({"compared": 3}, 3)


def test_what_was_run_and_not_reported_is_lost_with_the_process(desk: ShadowDesk) -> None:
    pair = pair_of()
    desk.hold((2, SAME))
    place = desk.place(pair)
    for _ in range(5):
        desk.write(place, pair, X, X + 1, (3, 3))
    desk.work()
    desk.write(place, pair, X, X + 1, (6,))
    desk.start()
    desk.follow()
    desk.work()
    desk.report()
    assert desk.outcomes(pair) == {"compared": 1, "lost": 10}
    assert desk.heard[pair.key].sheds == {"lost": 10}


def test_copies_wait_while_a_version_is_loading(desk: ShadowDesk) -> None:
    pair = pair_of()
    desk.hold((2, SAME))
    place = desk.place(pair)
    desk.loading = True
    desk.write(place, pair, X, X + 1, (6,))
    assert not desk.runs.step()
    desk.loading = False
    assert desk.runs.step()


def test_copies_wait_after_the_containers_quota_was_used_up(desk: ShadowDesk) -> None:
    pair = pair_of()
    desk.hold((2, SAME))
    place = desk.place(pair)
    desk.write(place, pair, X, X + 1, (6,))
    desk.stat.write_text("nr_throttled 1\n")
    desk.follow()
    assert not desk.runs.step()
    desk.runs._pause_until = 0.0
    assert desk.runs.step()


def test_a_class_decides_where_the_shadow_predicts_one(desk: ShadowDesk) -> None:
    pair = pair_of(outputs=(("label", "INT64"),))
    desk.hold((2, good()))
    place = desk.place(pair)
    x = everyday(np.random.default_rng(3), 5)
    desk.write(place, pair, x, np.full(5, 9, np.int64), (5,))
    desk.work()
    desk.report()
    assert (desk.heard[pair.key].agreed, desk.heard[pair.key].compared) == (0, 1)
