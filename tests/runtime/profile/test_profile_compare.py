"""A reference and a window, compared: what has moved comes first, and what cannot be compared is told with why."""

from __future__ import annotations

import numpy as np
import pytest
from drift_traffic import NAMES, SCHEMA, Traffic, at, reference, schema, shift

from runtime.drift.evaluate import JOINT, DriftReport, Parameters, evaluate
from runtime.drift.verdict import Aspect, Decision, Role
from runtime.profile.compare import PreparedReference
from runtime.profile.matching import match
from runtime.profile.of_signature import schema_of
from runtime.profile.schema import REJECTED
from runtime.profile.summary import Summary
from runtime.repository.statistics_settings import StatisticsSettings
from runtime.types import Signature, TensorSpec


def looked(prepared: PreparedReference, live: Summary, *, together: bool = True) -> DriftReport:
    compared = prepared.compare(live, 0.0, 600.0, together=together)
    return evaluate(compared.reference, compared.live, Parameters())


def test_two_shifted_features_of_real_data_are_ranked_first() -> None:
    live = Traffic(2).summary(4000, shift("mean texture", 0.6), shift("worst symmetry", -0.5))
    report = looked(reference(), live)
    assert {verdict.subject for verdict in report.verdicts[:2]} == {"mean texture", "worst symmetry"}
    features = {verdict.subject for verdict in report.verdicts if verdict.role is Role.FEATURE}
    assert set(report.drifted) & features == {"mean texture", "worst symmetry"}
    assert report.reference == reference().source


def test_the_same_distribution_is_no_drift_in_any_subject() -> None:
    report = looked(reference(), Traffic(3).summary(4000))
    assert report.drifted == ()
    roles = {role: [v.subject for v in report.verdicts if v.role is role] for role in Role}
    assert set(roles[Role.FEATURE]) == set(NAMES)
    assert "prediction.confidence" in roles[Role.OUTPUT]
    assert len(roles[Role.PROJECTION]) == 16
    assert roles[Role.JOINT] == [JOINT]
    for verdict in report.verdicts:
        if verdict.role is Role.FEATURE:
            assert Aspect.CORRELATION in {finding.aspect for finding in verdict.findings}


def test_the_classifier_is_asked_where_it_is_wanted_and_does_not_see_the_prediction() -> None:
    compared = reference().compare(Traffic(4).summary(1000), 0, 60)
    assert compared.live.columns == compared.reference.columns == NAMES
    assert compared.live.rows is not None
    assert compared.live.rows.shape == (min(1000, SCHEMA.sample.rows), len(NAMES))
    apart = reference().compare(Traffic(4).summary(1000), 0, 60, together=False)
    assert apart.live.rows is None
    assert "projection 0" in apart.live.subjects


def test_a_correlation_that_turns_is_seen_though_no_feature_has_changed() -> None:
    def turned(rows: np.ndarray) -> None:
        rows[:, at("worst area")] = np.random.default_rng(5).permutation(rows[:, at("worst area")])

    report = looked(reference(), Traffic(5).summary(4000, turned))
    verdict = report.of("worst area")
    assert (verdict.decision, verdict.finding.aspect) == (Decision.DRIFTED, Aspect.CORRELATION)
    assert report.of(JOINT).decision is Decision.DRIFTED


def test_too_few_rows_for_projections_leave_the_features() -> None:
    report = looked(reference(), Traffic(6).summary(30))
    assert {verdict.role for verdict in report.verdicts} == {Role.FEATURE, Role.OUTPUT}
    assert report.decision is Decision.NOT_ENOUGH_DATA


SIGNATURE = Signature(
    inputs=(TensorSpec("x", "FP32", (-1, 3)), TensorSpec("city", "BYTES", (-1, 1)), TensorSpec("on", "BOOL", (-1, 1))),
    outputs=(TensorSpec("probabilities", "FP32", (-1, 3)), TensorSpec("label", "INT64", (-1,))),
)


def mixed(rows: int, seed: int, cities: str, **settings: object) -> Summary:
    settings = {"names": {"x": ["a", "b", "c"]}, "reject_below": 0.5, **settings}
    summary = Summary.create(schema_of(SIGNATURE, StatisticsSettings.model_validate(settings)), seed=seed)
    random = np.random.default_rng(seed)
    scores = random.dirichlet([1.0, 1.0, 1.0], rows).astype(np.float32)
    city = np.array([name.encode() for name in random.choice(list(cities), rows)], object).reshape(-1, 1)
    inputs = {
        "x": random.normal(size=(rows, 3)).astype(np.float32),
        "city": city,
        "on": random.random((rows, 1)) < 0.3,
    }
    summary.observe(inputs, {"probabilities": scores, "label": scores.argmax(1).astype(np.int64)}, rows)
    return summary


def test_features_of_every_kind_are_compared() -> None:
    prepared = PreparedReference(mixed(20_000, 1, "aabbc"), "p")
    report = looked(prepared, mixed(5000, 2, "aabbc"))
    assert report.drifted == ()
    assert {"a", "city", "on", "label", "probabilities[0]", REJECTED} <= {v.subject for v in report.verdicts}
    assert report.of(REJECTED).finding.aspect is Aspect.RATE
    assert report.of(REJECTED).role is Role.OUTPUT
    moved = looked(prepared, mixed(5000, 3, "aabbcd"))
    assert {finding.aspect for finding in moved.of("city").findings} >= {Aspect.SHAPE, Aspect.NEW_CATEGORY}
    assert moved.drifted == ("city",)


def test_what_is_measured_otherwise_than_in_the_reference_is_left_out_and_told() -> None:
    changed = {
        "names": {"x": ["a", "b", "d"]},
        "features": {"a": {"range": [-9, 9]}, "city": {"kind": "text"}, "on": {"kind": "ignored"}},
        "reject_below": 0.6,
    }
    prepared = PreparedReference(mixed(2000, 1, "abc"), "p")
    live = mixed(2000, 2, "abc", **changed)
    compared = prepared.compare(live, 0, 60)
    told = dict(line.split(": ", 1) for line in compared.left_out)
    assert set(told) == {"a", "c", "d", "city", "on", REJECTED}
    assert told["a"] == "its range or missing value is other than in the reference; build the profile anew"
    assert told["city"] == "text now, categorical in the reference"
    assert told["d"] == "the reference does not have it"
    assert told["c"] == told["on"] == "only the reference has it"
    assert "confidence" in told[REJECTED]
    assert not set(told) & compared.live.subjects.keys()
    assert "b" in compared.live.subjects


def test_other_declared_categories_are_compared_by_those_that_both_have() -> None:
    settings = {"features": {"city": {"categories": ["a", "b", "c"]}}}
    fewer = {"features": {"city": {"categories": ["b", "a"]}}}
    prepared = PreparedReference(mixed(20_000, 1, "aabbc", **settings), "p")
    live = mixed(5000, 2, "aabbc", **fewer)
    assert looked(prepared, live).of("city").decision is Decision.STABLE
    assert "city" not in prepared.evidence(live.schema).detectors, "panes and reference would be counted in other cells"
    assert "city" in prepared.evidence(prepared.summary.schema).detectors


def test_evidence_of_panes_finds_what_is_too_small_for_a_look() -> None:
    traffic, evidence = Traffic(7), reference().evidence(SCHEMA)
    for _ in range(20):
        evidence = evidence.after(reference().pane(traffic.summary(2000)))
    assert evidence.alarms(1000.0) == ()
    for _ in range(20):
        evidence = evidence.after(reference().pane(traffic.summary(2000, shift("mean texture", 0.3))))
    assert evidence.alarms(172_800.0) == ("mean texture",)


@pytest.mark.parametrize("notes", [{}, {"max_features": 8}])
def test_a_schema_matches_itself(notes: dict[str, int]) -> None:
    found = match(schema(**notes), schema(**notes))
    assert found.left_out == ()
    assert list(found.features) == [feature.name for feature in schema(**notes).features]
