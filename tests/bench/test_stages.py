"""Stage clocks: what they are put on is there, they nest, and what they say adds up to the kernel's clocks."""

import importlib
import time

import pytest

from bench import cores, model
from bench.catalogue import UNOBSERVED
from bench.generators import generator_of
from bench.stages.__main__ import CASES, LOADS, Stand, measure, stages_table
from bench.stages.attribution import attribute
from bench.stages.clocks import _LOCAL, Cost, Reading, calibrate, opening, read
from bench.stages.mapping import BATCH, DECODE, OPENED_BY, POLL, REPLY, RUN, STAGES
from bench.stages.usage import ThreadTime, Usage


@pytest.mark.parametrize("place", OPENED_BY)
def test_the_table_names_functions_that_are_there(place):
    """A function that has moved would count as its caller's stage, unseen."""
    module, _, path = place.partition(":")
    owner, _, name = path.rpartition(".")
    assert callable(getattr(importlib.import_module(module), owner).__dict__[name])


def test_stages_are_told_apart_by_their_titles():
    """Rows of the table are called by what stands before the colon."""
    assert len({stage.partition(":")[0] for stage in STAGES}) == len(STAGES)
    assert STAGES[0] == POLL


def test_time_belongs_to_the_stage_opened_last():
    """Nested stages, and one that ends by an error, leave the outer one open."""

    def fail():
        raise ValueError

    book = _LOCAL.book
    decode, batch = STAGES.index(DECODE), STAGES.index(BATCH)
    inner = opening(decode, fail)

    def outer(call):
        assert book.stage == batch
        with pytest.raises(ValueError):
            call()
        assert book.stage == batch
        return "done"

    before = list(book.opened), list(book.within), list(book.ns)
    began_ns = time.monotonic_ns()
    assert opening(batch, outer)(inner) == "done"
    passed_ns = time.monotonic_ns() - began_ns
    assert book.stage == 0
    assert book.opened[batch] - before[0][batch] == book.opened[decode] - before[0][decode] == 1
    assert book.within[batch] - before[1][batch] == book.within[0] - before[1][0] == 1
    spent = [book.ns[at] - before[2][at] for at in (batch, decode)]
    assert all(ns > 0 for ns in spent)
    assert sum(spent) <= passed_ns


def test_calibration_leaves_no_trace():
    """It finds that clocks cost something, and its own calls are not counted."""
    cost = calibrate()
    assert cost.inner_ns + cost.outer_ns > 0
    assert not any(_LOCAL.book.opened)


def figures(**by_stage):
    return [by_stage.get(stage.partition(":")[0], 0) for stage in STAGES]


def test_stages_add_up_to_the_processor_time_of_their_thread():
    """`poll` is the rest; waiting for the processor is nobody's; the clocks' own cost is apart."""
    none = Reading(Cost(10.0, 5.0), {}, {}, {})
    after = Reading(
        Cost(10.0, 5.0),
        {"7": figures(batch=30_000, run=50_000, poll=900_000), "8": figures(measure=1_000)},
        {"7": figures(batch=100, run=100), "8": figures(measure=1)},
        {"7": figures(poll=100, batch=100), "8": figures()},
    )
    spent = Usage(
        {"7": ThreadTime(200_000, 50_000), "8": ThreadTime(3_000, 0), "9": ThreadTime(2_000, 0)},
        {"gateway.worker": 1.0, "gateway.control": 10e-6},
    )
    profile = attribute(none, after, spent, requests=10, requests_per_second=1.0)
    ran = 0.8
    assert profile.stages_us[BATCH] == pytest.approx((30_000 - 100 * 15) * ran / 1e4)
    assert profile.stages_us[RUN] == pytest.approx((50_000 - 100 * 10) * ran / 1e4)
    assert profile.clocks_us == pytest.approx(100 * 30 * ran / 1e4)
    assert sum(profile.stages_us.values()) + profile.clocks_us == pytest.approx(200_000 / 1e4)
    assert profile.other_threads_us == pytest.approx(5_000 / 1e4)
    assert profile.processes_us == {"gateway.control": pytest.approx(1.0)}
    assert profile.total_us == pytest.approx(sum(profile.stages_us.values()) + 0.5 + 1.0)


def test_a_reading_survives_json():
    """It crosses from the worker to the bench in a file."""
    import json
    from dataclasses import asdict

    reading = Reading(Cost(1.0, 2.0), {"1": [1]}, {"1": [2]}, {"1": [3]})
    assert read(json.dumps(asdict(reading))) == reading


def test_a_worker_under_load_says_what_its_stages_took(tmp_path):
    """The real worker, with clocks put into it as it starts: requests are run, decoded and answered in their stages."""
    pair = cores.choose()
    with cores.pinned(pair.load):
        workload = model.build(tmp_path)
        generator = generator_of("wire", workload, tmp_path).for_models
        outcomes = measure(Stand(workload, generator, pair, seconds=0.2), UNOBSERVED)
    assert set(outcomes) == set(LOADS)
    for outcome in outcomes.values():
        assert all(outcome.profile.stages_us[stage] > 0 for stage in (POLL, DECODE, BATCH, RUN, REPLY))
        assert outcome.plain_us > 0
    table = stages_table([{case: outcomes[case.load] for case in CASES}])
    assert {"poll", "run", "all", "plain"} <= {row.key for row in table.rows}
