"""What sliding windows hold: exactly the rows of their time, whatever comes late and however long nobody looks."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from window_payloads import Colours, Numbers, together

from runtime.profile.levels import Levels
from runtime.profile.pane import Pane, PaneKey
from runtime.profile.windows import Windows

USUAL = Levels(10, (60, 600, 3600, 86400))
SMALL = Levels(1, (3, 6, 24))
NOON = 1_700_006_400.0
"""A multiple of a day, so that offsets from it read as times of day."""


def numbers(levels: Levels = USUAL) -> Windows[Numbers]:
    return Windows(levels, Numbers.decode)


def add(windows: Windows[Numbers], end: float, values: Sequence[int] = (1,), now: float | None = None) -> bool:
    """A pane of 10 s, that ends at this second after noon and is added a little later."""
    now = NOON + end + 0.1 if now is None else NOON + now
    return windows.add(NOON + end - 10, NOON + end, Numbers.of(values), now)


def rows(windows: Windows[Numbers], now: float) -> list[int]:
    return [windows.window(level.window_seconds, NOON + now).rows for level in windows.levels]


# What a window is


class Naive:
    """All that was ever added, and the definition of a window."""

    def __init__(self, levels: Levels) -> None:
        self.levels = levels
        self.now = -math.inf
        self.added: list[tuple[float, Sequence[int]]] = []
        self.late_rows = 0

    def start(self, place: int) -> float:
        level = self.levels[place]
        return self.now - self.now % level.pane_seconds - level.window_seconds

    def add(self, start: float, end: float, values: Sequence[int]) -> None:
        end = min(end, self.now)
        begin = max(min(start, end), end - self.levels[0].pane_seconds)
        moment = (begin + end) / 2
        if moment < self.start(-1):
            self.late_rows += len(values)
        else:
            self.added.append((moment, values))

    def window(self, place: int) -> list[Sequence[int]]:
        return [values for moment, values in self.added if moment >= self.start(place)]


VALUES = st.lists(st.integers(-40, 40), max_size=3)
# In quarters of a second, which floats add up exactly.
SLEEPS = st.sampled_from([0, 1, 2, 3, 4, 4, 4, 4, 5, 8, 13, 40, 100, 400])
LATENESS = st.sampled_from([0, 0, 0, 0, 1, 3, 6, 11, 25, 47, 90, 101, 130, -3])
LENGTHS = st.sampled_from([4, 4, 4, 1, 0, 3, 9, 50, -2])
ASKED = st.sets(st.sampled_from(range(3)))
STEPS = st.lists(st.tuples(SLEEPS, st.lists(st.tuples(LATENESS, LENGTHS, VALUES), max_size=3), ASKED), max_size=60)


@pytest.mark.parametrize("payload", [Numbers, Colours])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_window_is_byte_for_byte_what_was_added_in_its_time(
    payload: type[Numbers | Colours], data: st.DataObject
) -> None:
    windows: Windows[Numbers] | Windows[Colours] = Windows(SMALL, payload.decode)  # type: ignore[arg-type]
    naive = Naive(SMALL)
    now = 1_000_000.0
    for sleep, summaries, asked in data.draw(STEPS):
        now += sleep / 4
        naive.now = now
        for lateness, length, values in summaries:
            end = now - lateness / 4
            windows.add(end - length / 4, end, payload.of(values), now)  # type: ignore[arg-type]
            naive.add(end - length / 4, end, values)
        for place in asked:
            found = windows.window(SMALL[place].window_seconds, now)
            expected = naive.window(place)
            assert (found.summary.encode() if found.summary else None) == together(payload, expected)
            assert found.rows == sum(map(len, expected))
            assert (found.start_seconds, found.end_seconds) == (naive.start(place), now)
        assert windows.late_rows == naive.late_rows
        assert windows.panes <= SMALL.panes + len(SMALL)


def test_a_window_has_its_seconds_and_less_than_a_pane_of_its_level_more() -> None:
    windows = numbers()
    for now in (0, 3.5, 59.9, 3_599, 86_399.9):
        for level in USUAL:
            window = windows.window(level.window_seconds, NOON + now)
            assert window.start_seconds % level.pane_seconds == 0
            assert 0 <= window.end_seconds - window.start_seconds - level.window_seconds < level.pane_seconds
            assert (window.summary, window.rows) == (None, 0)


def test_a_row_leaves_one_window_after_the_other() -> None:
    windows = numbers()
    add(windows, 10)
    assert rows(windows, 10.1) == [1, 1, 1, 1]
    assert rows(windows, 69.9) == [1, 1, 1, 1]
    assert rows(windows, 70.1) == [0, 1, 1, 1]
    assert rows(windows, 659.9) == [0, 1, 1, 1], "windows of panes of a minute begin with a minute"
    assert rows(windows, 660.1) == [0, 0, 1, 1]
    assert rows(windows, 4_199.9) == [0, 0, 1, 1]
    assert rows(windows, 4_200.1) == [0, 0, 0, 1]
    assert rows(windows, 89_999.9) == [0, 0, 0, 1]
    assert rows(windows, 90_000.1) == [0, 0, 0, 0]
    assert windows.panes == 0
    assert windows.late_rows == 0, "growing old is not being late"


def test_panes_grow_old_also_where_nobody_asks() -> None:
    windows = numbers()
    add(windows, 10)
    windows.advance(NOON + 700)
    assert [pane.key.length_seconds for pane in windows.changes().put] == [600]
    windows.advance(NOON + 100_000)
    assert windows.panes == 0


def test_after_two_days_no_more_panes_are_held_than_stated() -> None:
    windows = numbers()
    most = 0
    for n in range(2 * 8_640):
        add(windows, 10 * n)
        most = max(most, windows.panes)
    assert USUAL.panes == 46
    assert most <= 46
    end = 10 * (2 * 8_640 - 1)
    assert rows(windows, end + 0.1) == [6, 65, 419, 8_999], "seconds and the part of a pane that has passed, by tens"


def test_panes_of_two_workers_and_of_one_time_are_one_pane() -> None:
    windows = numbers()
    for values in ((1, 2), (3,), (-4, 2)):
        add(windows, 10, values)
    assert windows.panes == 1
    found = windows.window(60, NOON + 10.1).summary
    assert found is not None
    assert found.encode() == Numbers.of((1, 2, 3, -4, 2)).encode()


@pytest.mark.parametrize("jitter", [-4.9, -0.2, 0.0, 0.2, 4.9])
def test_a_pane_that_is_closed_some_seconds_off_is_still_of_its_time(jitter: float) -> None:
    windows = numbers()
    windows.add(NOON + jitter, NOON + 10 + jitter, Numbers.of([1]), NOON + 15)
    assert [pane.key for pane in windows.changes().put] == [PaneKey(10, int(NOON))]


def test_a_short_pane_is_of_its_own_time_and_a_long_one_of_its_end() -> None:
    windows = numbers()
    windows.add(NOON + 42, NOON + 43, Numbers.of([1]), NOON + 200)
    windows.add(NOON, NOON + 190, Numbers.of([1]), NOON + 200)
    assert [pane.key for pane in windows.changes().put] == [PaneKey(10, int(NOON) + 180), PaneKey(60, int(NOON))]


def test_a_late_pane_goes_to_the_level_that_covers_its_time_by_then() -> None:
    windows = numbers()
    for age, length in ((0, 10), (50, 10), (70, 60), (590, 60), (700, 600), (3_700, 3_600), (80_000, 3_600)):
        windows.saved(windows.changes())
        assert add(windows, 90_000 - age, now=90_000)
        assert [pane.key.length_seconds for pane in windows.changes().put] == [length]
    assert rows(windows, 90_000) == [2, 4, 5, 7]


def test_what_is_older_than_all_windows_is_dropped_and_its_rows_are_counted() -> None:
    windows = numbers()
    assert not add(windows, 0, (1, 2, 3), now=90_001)
    assert not add(windows, 10, (1,), now=172_900)
    assert (windows.late_rows, windows.panes) == (4, 0)


def test_a_summary_without_rows_takes_no_pane() -> None:
    windows = numbers()
    assert add(windows, 10, ())
    assert (windows.panes, windows.changes().put) == (0, ())


def test_a_summary_stays_the_callers_and_a_window_is_the_callers() -> None:
    windows = numbers()
    summary = Numbers.of([1])
    windows.window(60, NOON)
    windows.add(NOON, NOON + 10, summary, NOON + 10)
    summary.merge(Numbers.of([2]))
    found = windows.window(60, NOON + 10).summary
    assert found is not None
    assert found.encode() == Numbers.of([1]).encode()
    found.merge(Numbers.of([3]))
    assert rows(windows, 10) == [1, 1, 1, 1]


# Clocks


def test_a_clock_that_is_set_back_a_little_loses_and_hides_nothing() -> None:
    windows = numbers()
    for end in range(10, 110, 10):
        add(windows, end)
    before = rows(windows, 100.1)
    assert rows(windows, 60) == before, "time stands still"
    add(windows, 70, now=70.1)
    assert rows(windows, 100.1) == [7, 11, 11, 11]
    assert windows.ahead_rows == 0


def test_a_clock_that_is_set_back_far_drops_what_is_in_the_future_and_counts_it() -> None:
    windows = numbers()
    for end in range(10, 7_210, 10):
        add(windows, end)
    assert rows(windows, 3_800) == [0, 0, 60, 420], "what is left of the hour before is in its long panes"
    assert windows.ahead_rows == 300
    for end in range(3_810, 3_910, 10):
        add(windows, end)
    assert rows(windows, 3_900.1) == [6, 10, 70, 430]


def test_a_clock_that_was_a_year_ahead_leaves_nothing_behind() -> None:
    windows = numbers()
    year = 365 * 86_400
    add(windows, 10)
    add(windows, year, (1, 2))
    assert rows(windows, year + 1) == [2, 2, 2, 2], "what was there has grown old"
    add(windows, 20)
    assert rows(windows, 21) == [1, 1, 1, 1]
    assert (windows.ahead_rows, windows.panes) == (2, 1)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(-(10**12), 10**12) | st.integers(-500, 500), st.integers(0, 50)), max_size=80))
def test_whatever_the_clock_does_panes_are_few_and_each_row_is_held_or_counted(steps: list[tuple[int, int]]) -> None:
    windows = Windows(SMALL, Numbers.decode)
    now, added = 0.0, 0
    for step, lateness in steps:
        now += step / 4
        windows.add(now - lateness - 1, now - lateness, Numbers.of([1, 2]), now)
        added += 2
        for level in SMALL:
            windows.window(level.window_seconds, now)
        assert windows.panes <= SMALL.panes + len(SMALL)
    held = sum(pane.rows for pane in windows.changes().put)
    assert held + windows.late_rows + windows.ahead_rows <= added
    now += 10**6
    assert rows_of(windows, now) == [0, 0, 0]
    assert windows.panes == 0


def rows_of(windows: Windows[Numbers], now: float) -> list[int]:
    return [windows.window(level.window_seconds, now).rows for level in windows.levels]


# What a tick costs


def counted() -> tuple[Windows[Numbers], list[int]]:
    decodes = [0]

    def decode(data: bytes) -> Numbers:
        decodes[0] += 1
        return Numbers.decode(data)

    return Windows(USUAL, decode), decodes


def test_a_window_that_is_looked_at_every_tick_is_put_together_once_for_each_pane_of_its_level() -> None:
    windows, decodes = counted()
    asked = []
    for tick in range(2_000):
        add(windows, 10 * tick)
        moved = decodes[0]
        windows.window(600, NOON + 10 * tick + 0.2)
        asked.append(decodes[0] - moved)
    settled = asked[1_000:]
    assert max(settled) <= 16
    assert sum(map(bool, settled)) <= len(settled) / 6 + 1
    assert sum(settled) / len(settled) < 3


def test_moving_panes_up_decodes_two_for_each_level_that_moves() -> None:
    windows, decodes = counted()
    per_tick = []
    for tick in range(20_000):
        before = decodes[0]
        add(windows, 10 * tick)
        per_tick.append(decodes[0] - before)
    assert max(per_tick) <= 6
    assert sum(per_tick) / len(per_tick) < 2.5


def test_a_longer_window_takes_what_it_can_from_a_shorter_one() -> None:
    windows, decodes = counted()
    for tick in range(500):
        add(windows, 10 * tick)
    now = NOON + 10 * 499 + 0.2
    windows.window(600, now)
    before = decodes[0]
    windows.window(3600, now)
    assert decodes[0] - before <= 6


def test_a_window_that_nobody_asks_for_is_forgotten() -> None:
    windows = numbers()
    windows.window(3600, NOON)
    add(windows, 29)
    assert len(windows._decoded) == 1
    add(windows, 40)
    assert len(windows._decoded) == 0


# What a store does with it


def saved_into(store: dict[PaneKey, Pane], windows: Windows[Numbers]) -> None:
    changes = windows.changes()
    for key in changes.delete:
        del store[key]
    store.update({pane.key: pane for pane in changes.put})
    windows.saved(changes)


def test_a_store_that_does_as_changes_say_holds_the_panes_and_gives_them_back() -> None:
    windows = numbers()
    store: dict[PaneKey, Pane] = {}
    for tick in range(1_000):
        add(windows, 10 * tick, (tick % 30,))
        if tick % 7 == 0:
            saved_into(store, windows)
            assert len(store) == windows.panes
    saved_into(store, windows)
    assert windows.changes() == type(windows.changes())()

    again = numbers()
    again.restore(store.values(), NOON + 9_990.1)
    assert again.changes() == windows.changes()
    for level in USUAL:
        first, second = (each.window(level.window_seconds, NOON + 9_990.1).summary for each in (windows, again))
        assert first is not None
        assert second is not None
        assert first.encode() == second.encode()


def test_a_tick_changes_few_rows_of_the_store() -> None:
    windows = numbers()
    store: dict[PaneKey, Pane] = {}
    put = []
    for tick in range(1_000):
        add(windows, 10 * tick)
        changes = windows.changes()
        put.append(len(changes.put))
        saved_into(store, windows)
    assert max(put) <= 4
    assert sum(put) / len(put) < 2.2


def test_changes_stay_until_they_are_saved_and_what_came_since_stays_too() -> None:
    windows = numbers()
    add(windows, 10, (1,))
    first = windows.changes()
    add(windows, 10, (2,))
    windows.saved(first)
    assert [pane.rows for pane in windows.changes().put] == [2], "the pane has changed since"
    windows.saved(windows.changes())
    rows(windows, 100)
    unsaved = windows.changes()
    assert unsaved.delete == (PaneKey(10, int(NOON)),)
    assert windows.changes() == unsaved, "a store that failed is told the same again"


def test_after_days_of_a_store_that_fails_changes_are_no_more_than_the_panes() -> None:
    windows = numbers()
    add(windows, 10)
    windows.saved(windows.changes())
    for tick in range(20_000):
        add(windows, 10 * tick)
    changes = windows.changes()
    assert len(changes.put) <= USUAL.panes
    assert len(changes.delete) <= USUAL.panes


def test_panes_that_grew_old_while_nothing_ran_are_moved_and_deleted_at_the_start() -> None:
    windows = numbers()
    store: dict[PaneKey, Pane] = {}
    for tick in range(1, 100):
        add(windows, 10 * tick)
    saved_into(store, windows)
    later = numbers()
    later.restore(store.values(), NOON + 50_000)
    assert rows(later, 50_000) == [0, 0, 0, 99]
    saved_into(store, later)
    assert {key.length_seconds for key in store} == {3_600}
    gone = numbers()
    gone.restore(store.values(), NOON + 10**6)
    saved_into(store, gone)
    assert store == {}


def test_stored_panes_from_the_future_are_dropped_and_counted() -> None:
    windows = numbers()
    add(windows, 100_000)
    store: dict[PaneKey, Pane] = {}
    saved_into(store, windows)
    early = numbers()
    early.restore(store.values(), NOON)
    assert (early.panes, early.ahead_rows) == (0, 1)
    saved_into(store, early)
    assert store == {}


@pytest.mark.parametrize("after", [Levels(5, (60, 300)), Levels(20, (120, 7200)), Levels(60, (600, 1200)), USUAL])
def test_panes_of_other_settings_are_taken_over_row_for_row(after: Levels) -> None:
    windows = numbers()
    for tick in range(1, 61):
        add(windows, 10 * tick, (tick,))
    store: dict[PaneKey, Pane] = {}
    saved_into(store, windows)
    again = Windows(after, Numbers.decode)
    again.restore(store.values(), NOON + 601)
    saved_into(store, again)
    lengths = {level.pane_seconds for level in after}
    assert {key.length_seconds for key in store} <= lengths
    assert all(key.start_seconds % key.length_seconds == 0 for key in store)
    longest = again.window(after[-1].window_seconds, NOON + 601)
    assert longest.rows + again.ahead_rows >= min(60, after[-1].window_seconds // 10)


@pytest.mark.parametrize(
    "data",
    [b"", b"no zlib", zlib.compress(b"no sketch"), zlib.compress(Colours.of([1]).encode())[:-3]],
    ids=["empty", "not-compressed", "not-encoded", "cut"],
)
def test_a_pane_that_cannot_be_read_is_dropped_counted_and_deleted(data: bytes) -> None:
    windows = numbers()
    good = Pane.of(PaneKey(10, int(NOON) + 10), Numbers.of([1]))
    bad = Pane(PaneKey(10, int(NOON)), 5, data)
    windows.restore([bad, good], NOON + 20)
    for _ in range(2):
        assert rows(windows, 20) == [1, 1, 1, 1]
        assert windows.unreadable_rows == 5
    assert windows.changes().delete == (bad.key,)


def test_a_pane_that_cannot_be_read_does_not_keep_its_time_from_new_rows() -> None:
    windows = numbers()
    windows.restore([Pane(PaneKey(10, int(NOON)), 5, b"damaged")], NOON + 10)
    add(windows, 10)
    assert rows(windows, 10.1) == [1, 1, 1, 1]
    assert windows.unreadable_rows == 5


# Settings


@pytest.mark.parametrize(
    ("pane", "given", "message"),
    [
        (0, (60,), "pane_seconds: expected 1 or more, got 0"),
        (10, (), r"windows_seconds: expected one window or more"),
        (10, (65,), r"windows_seconds\[0\]: expected a multiple of pane_seconds, greater than its 10, got 65"),
        (10, (60, 90), r"windows_seconds\[1\]: expected a multiple of windows_seconds\[0\], greater than its 60"),
        (10, (10,), r"windows_seconds\[0\]"),
        (10, (60, 60), r"windows_seconds\[1\]"),
        (10, (600, 60), r"windows_seconds\[1\]"),
        (10, (0,), r"windows_seconds\[0\]"),
        (10, (60, -60), r"windows_seconds\[1\]"),
        (1, (60, 86_400), r"windows_seconds\[1\]: .* at most, which is 60000, got 86400; put a window between"),
    ],
)
def test_windows_that_do_not_fit_each_other_are_refused_by_name(
    pane: int, given: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Levels(pane, given)


def test_a_window_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match="expected one of 60, 600, 3600, 86400, got 61"):
        numbers().window(61, NOON)
