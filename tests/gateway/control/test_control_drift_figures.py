"""What metrics and events tell of a version: bounded, exact, and all of what alarms."""

from __future__ import annotations

import numpy as np
from drift_traffic import Traffic, shift
from observed_models import NOW_SECONDS, key_of

from gateway.control.drift_events import announce_drift
from gateway.control.drift_figures import MAX_SUBJECTS, MAX_VALUES, VersionFigures
from gateway.control.drift_watch import DriftWatch
from gateway.telemetry.events import EventLog
from gateway.telemetry.signed import SignedDistribution
from runtime.profile.compare import PreparedReference
from runtime.profile.of_signature import schema_of
from runtime.profile.schema import Schema
from runtime.profile.summary import Summary
from runtime.profile.windows import Window
from runtime.repository.statistics_settings import DriftSettings, StatisticsSettings
from runtime.types import Signature, TensorSpec

KEY = key_of("wide", 1)
WIDE = 120


def wide() -> Schema:
    signature = Signature(
        inputs=(TensorSpec("x", "FP32", (-1, WIDE)),), outputs=(TensorSpec("probabilities", "FP32", (-1, 3)),)
    )
    return schema_of(signature, StatisticsSettings.model_validate({"sample_rows": 0}))


SCHEMA = wide()


def pane(rows: int, seed: int, moved: int = 0) -> Summary:
    """The last `moved` features are far from where they were."""
    random = np.random.default_rng(seed)
    summary = Summary.create(SCHEMA, seed=seed)
    values = random.normal(size=(rows, WIDE)).astype(np.float32)
    if moved:
        values[:, -moved:] += 2.0
        values[0, -1] = np.nan
    summary.observe({"x": values}, {"probabilities": random.dirichlet([1, 1, 1], rows).astype(np.float32)}, rows)
    return summary


def watched(moved: int) -> tuple[DriftWatch, Summary]:
    reference = PreparedReference(pane(20_000, 1), "sha256:r")
    watch = DriftWatch(KEY, DriftSettings(raise_looks=1), 10, reference)
    live = pane(2000, 2, moved)
    watch.offer(live)
    watch.look(NOW_SECONDS, Window(NOW_SECONDS - 10, float(NOW_SECONDS), live))
    return watch, live


def test_the_subjects_of_the_largest_effects_are_shown_and_the_others_counted() -> None:
    watch, live = watched(moved=3)
    figures = VersionFigures(KEY, SCHEMA, watch)
    figures.add(live)
    found = figures.figures()
    assert (found.model, found.version, found.rows, found.looks) == ("wide", 1, 2000, 1)
    assert len(found.subjects) == MAX_SUBJECTS
    assert watch.report is not None
    assert found.unshown == len(watch.report.report.verdicts) - MAX_SUBJECTS
    assert {each.subject for each in found.subjects if each.alarmed} == {f"x[{WIDE - at}]" for at in (1, 2, 3)}
    first = found.subjects[0]
    assert first.alarmed
    assert ("distribution", "KS") in {(aspect, measure) for aspect, measure, _ in first.distances}
    assert found.missing[f"x[{WIDE - 1}]"] == 1 / 2000


def test_all_that_alarm_are_shown_up_to_a_bound() -> None:
    watch, _ = watched(moved=80)
    found = VersionFigures(KEY, SCHEMA, watch).figures()
    assert len([each for each in found.subjects if each.alarmed]) == len(found.subjects) == 80
    watch, _ = watched(moved=WIDE)
    assert len(VersionFigures(KEY, SCHEMA, watch).figures().subjects) == 2 * MAX_SUBJECTS


def test_values_are_those_of_all_panes_of_the_first_features_some_outputs_and_what_alarms() -> None:
    watch, live = watched(moved=2)
    figures = VersionFigures(KEY, SCHEMA, watch)
    panes = [live, pane(500, 3), pane(300, 4)]
    for each in panes:
        figures.add(each)
    values = figures.figures().values
    alarmed = {f"x[{WIDE - 1}]", f"x[{WIDE - 2}]"}
    assert alarmed < set(values)
    assert "prediction.confidence" in values
    assert len(values) == MAX_VALUES + 2
    merged = panes[0].copy()
    for each in panes[1:]:
        merged.merge(each)
    for name in ("x[0]", "prediction.margin", *alarmed):
        ours, sketch = values[name][1], SignedDistribution.of(merged.histograms()[name])
        assert (ours.scale, ours.zero, ours.count) == (sketch.scale, sketch.zero, sketch.count)
        assert ours.positive.counts.tolist() == sketch.positive.counts.tolist()
        assert ours.negative.counts.tolist() == sketch.negative.counts.tolist()
        assert (ours.minimum, ours.maximum) == (sketch.minimum, sketch.maximum)


def test_without_a_watch_rows_and_values_are_told() -> None:
    figures = VersionFigures(KEY, SCHEMA)
    assert figures.figures().values == {}
    figures.add(pane(100, 5))
    found = figures.figures()
    assert (found.rows, found.looks, found.subjects) == (100, 0, ())
    assert found.values["x[0]"][1].count == 100


def test_an_alarm_that_is_raised_and_its_end_are_events() -> None:
    traffic = Traffic(7)
    reference = PreparedReference(traffic.summary(10_000), "sha256:reference")
    watch = DriftWatch(
        key_of("cancer", 3), DriftSettings(raise_looks=1, clear_looks=1, classifier=False), 10, reference
    )
    events = EventLog()
    for at, changes in enumerate(([shift("mean texture", 2.0)], [])):
        live = traffic.summary(800, *changes)
        start = NOW_SECONDS + 10 * at
        for change in watch.look(start + 10, Window(start, start + 10.0, live)):
            announce_drift(events, change)
    raised, cleared = events.take(10)
    assert (raised.name, raised.level, cleared.name, cleared.level) == (
        "driftgate.drift.detected", 30, "driftgate.drift.cleared", 20,
    )  # fmt: skip
    told = dict(raised.attributes)
    assert told["driftgate.drift.p"] < 0.05
    assert told["driftgate.drift.value"] > told["driftgate.drift.threshold"]
    assert told | {"driftgate.drift.p": 0, "driftgate.drift.value": 0, "driftgate.drift.verdict": ""} == {
        "driftgate.model.name": "cancer", "driftgate.model.version": 3, "driftgate.model.digest": f"sha256:{3:064x}",
        "driftgate.drift.subject": "mean texture", "driftgate.drift.role": "feature",
        "driftgate.drift.aspect": "distribution", "driftgate.drift.measure": told["driftgate.drift.measure"],
        "driftgate.drift.value": 0, "driftgate.drift.threshold": told["driftgate.drift.threshold"],
        "driftgate.drift.p": 0, "driftgate.drift.by": "window", "driftgate.drift.since": NOW_SECONDS,
        "driftgate.drift.window": 10.0, "driftgate.drift.rows": 800, "driftgate.drift.reference": "sha256:reference",
        "driftgate.drift.verdict": "",
    }  # fmt: skip
    assert raised.body.startswith("version 3 of 'cancer' has drifted, by window: mean texture: drifted; distribution, ")
    assert "against 10,000 of sha256:reference" in raised.body
    assert cleared.body.startswith("the alarm of mean texture in version 3 of 'cancer', by window, has ended: ")
    assert "driftgate.drift.since" not in cleared.attributes


def test_alarms_that_end_with_their_reference_are_events() -> None:
    watch, _ = watched(moved=1)
    events = EventLog()
    for change in watch.set_reference(None):
        announce_drift(events, change)
    found = events.take(10)
    assert [(event.name, event.attributes["driftgate.drift.by"]) for event in found] == [
        ("driftgate.drift.cleared", "window"), ("driftgate.drift.cleared", "evidence"),
    ]  # fmt: skip
    assert {event.attributes["driftgate.drift.subject"] for event in found} == {f"x[{WIDE - 1}]"}
