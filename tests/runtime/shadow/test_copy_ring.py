"""The ring of copies: what is written is read as it was, or counted as shed, and pairs' places change hands safely."""

from __future__ import annotations

import numpy as np
import pytest
from copy_rings import ROOM, copy_desk, pair_of
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.onnx.dtypes import BY_NAME
from runtime.shadow.copied_pair import CopiedPair
from runtime.shadow.pair import PairKey, PairSettings
from runtime.shadow.ring_layout import (
    COPY,
    OUTCOME_AT,
    PAIRS,
    SHED_AT,
    TEXT_BYTES,
    Shed,
    Status,
    create_copy_ring,
)
from runtime.shadow.ring_map import CopyCounter, CopyRingMismatch, map_copy_ring
from runtime.shadow.ring_writer import CopyHead, Forms

FIXED = [name for name, datatype in BY_NAME.items() if datatype.size_bytes]


def test_a_copy_is_read_as_it_was_written() -> None:
    with copy_desk() as at:
        place, _ = at.begin(pair_of())
        at.write(place, 7, rows=(1, 3, 2))
        assert at.take_all(pair_of()) == [7]
        assert at.reader.look() is None


@given(
    st.lists(st.sampled_from(FIXED), min_size=1, max_size=4),
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.lists(st.integers(0, 3), max_size=2),
    st.lists(st.text(max_size=20), min_size=1, max_size=4),
    st.booleans(),
)
def test_every_datatype_and_shape_comes_back(
    datatypes: list[str], rows: list[int], axes: list[int], words: list[str], batched: bool
) -> None:
    inputs = tuple((f"in {at}", datatype) for at, datatype in enumerate(datatypes))
    pair = CopiedPair(PairKey("m", 1, "", 2, ""), PairSettings(redact=("a",)), inputs, (("out", "BYTES"),), batched)
    shape = (sum(rows), *axes)
    arrays = [
        np.arange(np.prod(shape), dtype=np.int64).astype(BY_NAME[datatype].numpy).reshape(shape)
        for datatype in datatypes
    ]
    answers = np.empty(len(words), object)
    answers[:] = words
    ids = [f"ü{at}" for at in range(len(rows))]
    with copy_desk() as at:
        place, _ = at.begin(pair)
        form, contents = Forms(datatypes, ["BYTES"], batched=batched).of(len(rows), arrays, (0,), [answers])
        at.writer.write(place, form, CopyHead(rows, ids, 5, 6), contents)
        assert at.reader.look() is not None
        copy = at.reader.take(pair)
    assert (copy.rows, copy.request_ids, copy.batched) == (tuple(rows), tuple(ids), batched)
    assert list(copy.inputs) == [name for name, _ in inputs]
    for array, read in zip(arrays, copy.inputs.values(), strict=True):
        assert (array.dtype, array.shape) == (read.dtype, read.shape)
        assert array.tobytes() == read.tobytes()
    assert copy.outputs["out"].tolist() == words


def test_the_outputs_that_were_asked_for_are_the_ones_that_are_named() -> None:
    pair = CopiedPair(
        PairKey("m", 1, "", 2, ""), PairSettings(), (("x", "FP32"),), (("a", "INT64"), ("b", "FP32")), True
    )
    with copy_desk() as at:
        place, _ = at.begin(pair)
        x, b = np.ones((1, 2), np.float32), np.ones((1, 3), np.float32)
        form, contents = Forms(["FP32"], ["INT64", "FP32"], batched=True).of(1, [x], (1,), [b])
        at.writer.write(place, form, CopyHead([1], [""], 1, 1), contents)
        at.reader.look()
        assert list(at.reader.take(pair).outputs) == ["b"]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 12), st.integers(1, 400)), max_size=80))
def test_every_run_is_taken_once_and_in_order_or_counted_as_shed(steps: list[tuple[int, int, int]]) -> None:
    """Of each step: how many are taken first, the requests of a run, and its columns."""
    pair = pair_of()
    with copy_desk(room=4096) as at:
        place, slot = at.begin(pair)
        seen: list[int] = []
        requests: dict[int, int] = {}
        for number, (taken, count, columns) in enumerate(steps):
            for _ in range(taken):
                found = at.take(pair)
                seen += [found] if found is not None else []
            requests[number] = count
            at.write(place, number, rows=(1,) * count, columns=columns)
        seen += at.take_all(pair)
        assert seen == sorted(set(seen))
        counts = at.counts(pair)
        assert counts.chosen == sum(requests.values())
        assert counts.chosen - sum(counts.shed.values()) == sum(requests[number] for number in seen)
        assert counts.waiting == at.reader.untold(slot) == sum(requests[number] for number in seen)


def test_a_copy_that_is_too_large_is_shed_and_others_are_not() -> None:
    with copy_desk() as at:
        place, _ = at.begin(pair_of())
        at.write(place, 1, columns=ROOM)
        at.write(place, 2)
        assert at.take_all(pair_of()) == [2]
        assert at.counts(pair_of()).shed["too_large"] == 1


def test_the_largest_copy_fits_wherever_the_ring_stands() -> None:
    with copy_desk(room=8192) as at:
        place, _ = at.begin(pair_of())
        for number in range(200):
            at.write(place, number, columns=900)
            assert at.take(pair_of()) == number
            at.write(place, number, columns=1 + number % 30)
            assert at.take(pair_of()) == number


def test_a_full_ring_sheds_the_newest() -> None:
    with copy_desk() as at:
        place, _ = at.begin(pair_of())
        for number in range(1000):
            at.write(place, number)
        taken = at.take_all(pair_of())
        assert taken == list(range(len(taken)))
        assert at.counts(pair_of()).shed["queue_full"] == 1000 - len(taken)


@pytest.mark.parametrize(
    ("status", "why"), [(Status.ABSENT, Shed.NO_SHADOW), (Status.READY, None), (Status.INCOMPATIBLE, Shed.INCOMPATIBLE)]
)
def test_the_writer_knows_what_the_reader_can_use(status: Status, why: Shed | None) -> None:
    with copy_desk() as at:
        place = at.place(pair_of())
        assert place.why_not() is Shed.NO_SHADOW, "until the reader has said a word"
        at.reader.set_status(at.slot(pair_of()), status)
        assert place.why_not() is why
        at.restart_reader()
        assert place.why_not() is Shed.NO_SHADOW, "a new reader holds nothing yet"


def test_what_a_reader_had_taken_and_not_told_is_lost_with_it() -> None:
    pair = pair_of()
    with copy_desk() as at:
        place, slot = at.begin(pair)
        for number in range(6):
            at.write(place, number, rows=(1, 1))
        assert [at.take(pair) for _ in range(4)] == [0, 1, 2, 3]
        at.reader.tell(slot, {"compared": 4, "late": 2})
        at.restart_reader()
        slot = at.slot(pair)
        assert at.reader.untold(slot) == 2
        at.reader.tell(slot, {"lost": 2})
        assert at.take_all(pair) == [4, 5]
        counts = at.counts(pair)
        assert (counts.chosen, counts.waiting) == (12, 4)
        assert {name: count for name, count in counts.outcomes.items() if count} == {
            "compared": 4,
            "late": 2,
            "lost": 2,
        }


def test_a_pair_keeps_its_place_and_counts_over_a_restart_of_the_writer() -> None:
    with copy_desk() as at:
        place, slot = at.begin(pair_of())
        at.write(place, 1)
        at.restart_writer()
        again = at.place(pair_of())
        assert (again.pair, again.serial, again.why_not()) == (place.pair, place.serial, None)
        at.write(again, 2)
        assert at.take_all(pair_of()) == [1, 2]
        assert at.reader.untold(slot) == 2


def test_a_place_that_nobody_uses_becomes_another_pairs_when_nothing_of_it_waits() -> None:
    with copy_desk() as at:
        places = [at.begin(pair_of(shadow=number))[0] for number in range(2, PAIRS + 2)]
        late = pair_of(shadow=1000)
        assert at.writer.place(late.to_json()) is None, "all are used"
        gone = pair_of(shadow=2)
        at.write(places[0], 1)
        at.writer.give_back(places[0])
        assert at.writer.place(late.to_json()) is None, "a copy of it waits"
        assert at.take_all(gone) == [1]
        assert at.writer.place(late.to_json()) is None, "nobody has said what became of it"
        counter = CopyCounter([map_copy_ring(at.segment)])
        at.reader.tell(at.slot(gone), {"compared": 1})
        assert counter.counts()[gone.key].chosen == 1
        place, _ = at.begin(late)
        assert place.pair == places[0].pair
        assert places[0].serial != place.serial
        assert place.why_not() is None
        at.write(place, 9)
        at.write(place, 10)
        assert at.take_all(late) == [9, 10]
        assert (counter.counts()[late.key].chosen, counter.counts()[gone.key].chosen) == (2, 1)


def test_a_copy_whose_reader_was_killed_before_it_freed_it_is_not_its_places_next_pairs() -> None:
    gone, late = pair_of(shadow=2), pair_of(shadow=1000)
    with copy_desk() as at:
        places = [at.begin(pair_of(shadow=number))[0] for number in range(2, PAIRS + 2)]
        for number in range(3):
            at.write(places[0], number)
        for _ in range(2):
            at.take(gone)
        at.reader.look()
        at.reader._take()  # and no more: it is killed
        at.restart_reader()
        at.reader.tell(at.slot(gone), {"lost": 3})
        at.writer.give_back(places[0])
        place, _ = at.begin(late)
        assert place.pair == places[0].pair
        at.write(place, 9)
        at.write(place, 10)
        assert at.take_all(late) == [9, 10]


def test_the_place_that_was_given_back_longest_ago_is_the_next_to_be_another_pairs() -> None:
    with copy_desk() as at:
        places = [at.place(pair_of(shadow=number)) for number in range(2, PAIRS + 2)]
        for number in (5, 3, 9, 3):
            at.writer.give_back(places[number])
        at.place(pair_of(shadow=5 + 2))  # used again
        at.writer.give_back(places[5])
        found = [at.place(pair_of(shadow=number)).pair for number in (1000, 1001, 1002)]
        assert found == [places[number].pair for number in (3, 9, 5)]


def test_what_is_told_of_a_pair_that_is_gone_counts_for_nobody() -> None:
    with copy_desk() as at:
        place, slot = at.begin(pair_of())
        at.writer.give_back(place)
        for number in range(3, PAIRS + 3):
            at.place(pair_of(shadow=number))
        at.reader.tell(slot, {"lost": 3})
        assert all(
            not sum(counts.outcomes.values()) for counts in CopyCounter([map_copy_ring(at.segment)]).counts().values()
        )


def test_the_same_pair_with_other_settings_is_counted_together() -> None:
    one, two = pair_of(), pair_of(absolute=0.5)
    with copy_desk() as at:
        for pair in (one, two):
            place, _ = at.begin(pair)
            at.write(place, 1)
        assert at.counts(one).chosen == 2


def test_names_that_have_no_room_give_no_place(caplog: pytest.LogCaptureFixture) -> None:
    pair = CopiedPair(PairKey("m", 1, "", 2, ""), PairSettings(), (("n" * TEXT_BYTES, "FP32"),), (), True)
    with copy_desk() as at:
        assert at.writer.place(pair.to_json()) is None
        at.writer.unplaced(3)
        assert CopyCounter([map_copy_ring(at.segment)]).unplaced() == 3
    assert "more than the 262144 that copies have room for" in caplog.text


def test_a_ring_of_another_layout_is_refused() -> None:
    segment = create_copy_ring("copies", ROOM)
    segment.buffer[8] = 99
    with pytest.raises(
        CopyRingMismatch, match=r"expected a ring of copies of layout 1 with 64 pairs, got .* layout 99"
    ):
        map_copy_ring(segment)
    segment.close()


def test_words_of_a_pair_do_not_overlap() -> None:
    words = [*SHED_AT.values(), *OUTCOME_AT.values()]
    assert len(set(words)) == len(words)
    assert COPY.size % 64 == 0


def test_copies_of_two_pairs_take_turns() -> None:
    one, two = pair_of(), pair_of(shadow=3)
    with copy_desk() as at:
        (first, _), (second, _) = at.begin(one), at.begin(two)
        for number in range(10):
            at.write(first if number % 2 else second, number)
        found = []
        while (taken := at.reader.look()) is not None:
            found.append(at.take(one if taken.serial == first.serial else two))
        assert found == list(range(10))
