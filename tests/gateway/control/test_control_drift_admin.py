"""What was seen, as the admin API tells it: exact counts, bounded answers, and errors that say what there is."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from drift_traffic import NAMES, Traffic, shift
from observed_models import NOW_SECONDS, ObservedModels, profile_of

from gateway.control import drift_admin
from gateway.control.admin import AdminService
from gateway.control.audit import Actor
from gateway.control.drift_admin import DriftAdmin
from gateway.control.feature_answers import MAX_BINS, MAX_VALUES, OTHER, FeatureAnswers, numeric_bins
from gateway.control.observatory import Observatory
from gateway.errors import Precondition
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from runtime.errors import InvalidRequest, NotFound, RepositoryUnavailable
from runtime.profile.of_signature import schema_of
from runtime.profile.schema import Schema
from runtime.profile.summary import Summary
from runtime.repository.statistics_settings import StatisticsSettings
from runtime.sketch.exponential import ExponentialHistogram
from runtime.types import Signature, TensorSpec

OLGA = Actor("loopback:olga", "ipv4:127.0.0.1:1", "a test")


@pytest.fixture
def models() -> ObservedModels:
    found = ObservedModels()
    found.add("cancer", 2, is_default=False)
    found.serve(found.add("cancer", 3), 3000)
    return found


@pytest.fixture
def admin(models: ObservedModels) -> DriftAdmin:
    observatory: Observatory = models
    service = DriftAdmin()
    service.observe(observatory)
    return service


def newest(models: ObservedModels) -> Any:
    return next(key for key in models.versions if key.version == 3)


def features(admin: DriftAdmin, **request: Any) -> pb.GetFeaturesResponse:
    return asyncio.run(admin.GetFeatures(pb.GetFeaturesRequest(**request), OLGA))


def drift(admin: DriftAdmin, **request: Any) -> pb.GetDriftResponse:
    return asyncio.run(admin.GetDrift(pb.GetDriftRequest(**request), OLGA))


def set_reference(admin: DriftAdmin, **request: Any) -> pb.SetReferenceResponse:
    return asyncio.run(admin.SetReference(pb.SetReferenceRequest(**request), OLGA))


def test_the_default_versions_drift_window_is_what_is_told_first(admin: DriftAdmin) -> None:
    found = features(admin, model="cancer")
    assert (found.model, found.version, found.memory_bytes) == ("cancer", 3, 1234)
    assert found.digest == f"sha256:{3:064x}"
    assert (found.window.seconds, found.window.rows) == (600, 3000)
    assert found.window.end.seconds == NOW_SECONDS
    assert not found.HasField("reference")
    assert [feature.name for feature in found.features][: len(NAMES)] == list(NAMES)
    assert "a note" in found.notes
    assert features(admin, model="cancer", version=2).window.rows == 0
    assert features(admin, model="cancer", window_seconds=60).window.seconds == 60


def test_counts_of_bins_add_up_to_the_rows_of_either_sample(models: ObservedModels, admin: DriftAdmin) -> None:
    models.profiles[newest(models)] = profile_of(5000)
    set_reference(admin, model="cancer", kind="profile")
    for feature in features(admin, model="cancer").features:
        assert sum(each.live for each in feature.bins) == feature.live.rows == 3000
        assert sum(each.reference for each in feature.bins) == feature.reference.rows == 5000
        assert 1 < len(feature.bins) <= MAX_BINS
        for before, after in zip(feature.bins, feature.bins[1:], strict=False):
            assert before.high == after.low or feature.kind == "categorical"


def test_a_feature_is_told_as_numpy_tells_it(admin: DriftAdmin) -> None:
    (feature,) = features(admin, model="cancer", feature="mean texture").features
    values = Traffic(1).rows(3000)[:, NAMES.index("mean texture")]  # other draws of the same rows
    live = feature.live
    assert (feature.role, feature.kind, live.zero, live.missing, live.nan) == ("input", "numeric", 0, 0, 0)
    assert live.mean == pytest.approx(values.mean(), rel=0.02)
    assert live.deviation == pytest.approx(values.std(), rel=0.05)
    assert abs(live.correlation) <= 1
    assert live.distinct == pytest.approx(len(np.unique(values)), rel=0.1)
    assert [quantile.q for quantile in live.quantiles][4] == 0.5
    assert live.quantiles[4].value == pytest.approx(np.median(values), rel=0.05)
    assert live.least == feature.bins[0].low
    assert live.greatest == feature.bins[-1].high
    assert live.relative_error == pytest.approx(0.0108, rel=0.01)


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(1).normal(size=20_000),
        np.random.default_rng(2).lognormal(0, 3, 20_000),
        -np.random.default_rng(3).lognormal(0, 1, 20_000),
        np.random.default_rng(4).standard_cauchy(20_000),
        np.random.default_rng(5).integers(-3, 8, 20_000).astype(float),
        np.full(100, 7.5),
        np.zeros(10),
    ],
    ids=["normal", "lognormal", "negative", "cauchy", "integers", "constant", "zeros"],
)
def test_bins_of_any_distribution_are_few_and_exact(values: np.ndarray) -> None:
    other = values[: len(values) // 3] * 1.5
    bins = numeric_bins(ExponentialHistogram.of(values), ExponentialHistogram.of(other))
    assert 1 <= len(bins) <= MAX_BINS
    together = np.concatenate([values, other])
    assert (bins[0].low, bins[-1].high) == (together.min(), together.max())
    assert sum(each.live for each in bins) == len(values)
    assert sum(each.reference for each in bins) == len(other)
    for each in bins[:-1]:
        assert each.low <= each.high
        # A bucket of negative values holds its lower bound, one of positive ones its upper.
        exact = np.count_nonzero(values <= each.high) if each.high > 0 else np.count_nonzero(values < each.high)
        if each.high != 0:
            assert sum(b.live for b in bins if b.high <= each.high) == exact
    if len(values) == 20_000 and len(bins) > 20:
        shares = np.array([each.live for each in bins[1:-1]]) / len(values)
        assert shares.max() < 0.35, "the bulk of the values is spread over several bins"


def test_categories_come_by_frequency_and_the_rest_together() -> None:
    signature = Signature(
        inputs=(TensorSpec("city", "BYTES", (-1, 1)),), outputs=(TensorSpec("probabilities", "FP32", (-1, 2)),)
    )
    found = schema_of(signature, StatisticsSettings.model_validate({"reject_below": 0.7}))

    def summary(rows: int, seed: int) -> Summary:
        random = np.random.default_rng(seed)
        names = np.array([f"c{int(at)}".encode() for at in random.geometric(0.05, rows)], object).reshape(-1, 1)
        scores = random.dirichlet([1, 1], rows).astype(np.float32)
        one = Summary.create(found, seed=seed)
        one.observe({"city": names}, {"probabilities": scores}, rows)
        return one

    answers = FeatureAnswers(summary(4000, 1), summary(9000, 2))
    bins = answers.bins("city")
    assert len(bins) == MAX_VALUES + 1
    assert bins[-1].category == OTHER
    assert (sum(each.live for each in bins), sum(each.reference for each in bins)) == (4000, 9000)
    assert bins[0].category == "c1"
    told = answers.summary("city").live
    assert [each.count for each in told.values] == sorted((each.count for each in told.values), reverse=True)
    assert sum(each.count for each in told.values) + told.other == told.rows == 4000
    rejected = answers.bins("prediction.rejected")
    assert {each.category for each in rejected} == {"yes", "no"}
    assert sum(each.live for each in rejected) == 4000


def wide(columns: int) -> Schema:
    signature = Signature(
        inputs=(TensorSpec("x", "FP32", (-1, columns)),), outputs=(TensorSpec("score", "FP32", (-1, 1)),)
    )
    names = [f"a feature of a rather long name, number {at}" for at in range(columns)]
    settings = {"names": {"x": names}, "max_features": 16_384, "sample_rows": 0}
    return schema_of(signature, StatisticsSettings.model_validate(settings))


def test_an_answer_of_ten_thousand_features_is_bounded_and_says_what_it_lacks() -> None:
    models = ObservedModels()
    of = wide(10_000)
    key = models.add("wide", 1, of)
    summary = Summary.create(of, seed=1)
    rows = np.random.default_rng(1).normal(size=(300, 10_000)).astype(np.float32)
    summary.observe({"x": rows}, {"score": rows[:, :1]}, len(rows))
    models.windows[key].add(NOW_SECONDS - 10, NOW_SECONDS, summary, NOW_SECONDS)
    admin = DriftAdmin()
    admin.observe(models)
    answer = features(admin, model="wide")
    assert 3_000_000 < answer.ByteSize() < 4 << 20
    assert len(answer.features) == 10_001
    assert "features find no room in this answer: ask for one by its name" in answer.notes[-1]
    (one,) = features(admin, model="wide", feature=of.features[-2].name).features
    assert sum(each.live for each in one.bins) == 300


def test_sketches_are_whole_and_can_be_merged(admin: DriftAdmin) -> None:
    answer = asyncio.run(admin.GetSketches(pb.GetSketchesRequest(model="cancer", window_seconds=60), OLGA))
    found = Schema.from_json(answer.schema)
    summary = Summary.decode(found, answer.summary)
    assert summary.rows == answer.window.rows == 3000
    summary.merge(Summary.decode(found, answer.summary))
    assert summary.rows == 6000


def test_drift_tells_why_there_is_none_to_tell(models: ObservedModels, admin: DriftAdmin) -> None:
    key = newest(models)
    (report,) = drift(admin, model="cancer", version=3).reports
    assert report.problem.startswith("no reference: set one by SetReference")
    assert report.decision == "not enough data"
    set_reference(admin, model="cancer", kind="live", live_rows=5000)
    (report,) = drift(admin, model="cancer", version=3).reports
    assert report.problem == "0 of the 5,000 rows that are to be the reference are gathered"
    assert report.reference.rows_wanted == 5000
    models.profiles[key] = profile_of(2000)
    set_reference(admin, model="cancer", kind="profile")
    (report,) = drift(admin, model="cancer", version=3).reports
    assert report.problem == "no look yet: no rows have come since the reference was set"
    models.versions[key] = replace(models.versions[key], watch=None)
    (report,) = drift(admin, model="cancer", version=3).reports
    assert "drift.enabled is false" in report.problem


def test_a_shift_is_told_with_everything_that_is_known_of_it(models: ObservedModels, admin: DriftAdmin) -> None:
    key = newest(models)
    models.profiles[key] = profile_of(20_000)
    set_reference(admin, model="cancer", kind="profile")
    models.serve(key, 6000, shift("mean texture", 1.5), shift("worst area", 1.2), seed=4)
    models.look(key)
    (report,) = drift(admin, model="cancer", version=3, history=10).reports
    assert report.decision == "drifted"
    assert {verdict.subject for verdict in report.verdicts[:2]} == {"mean texture", "worst area"}
    first = next(verdict for verdict in report.verdicts if verdict.subject == "mean texture")
    assert first.alarmed
    assert first.since.seconds == report.window.start.seconds
    assert first.compared_with == report.reference.digest == models.profiles[key].digest
    assert first.findings[0].decision == "drifted"
    assert {effect.measure for effect in first.findings[0].effects} >= {"PSI", "KS", "Wasserstein distance"}
    assert first.text.startswith("mean texture: drifted; ")
    assert first.alarmed_by_evidence
    assert first.log_evidence > 10
    assert (report.window.rows, report.hypotheses > 30, report.looks) == (9000, True, 8640)
    assert len(report.history) == 1
    place = list(report.history_subjects).index("mean texture")
    assert report.history[0].effects[place] == pytest.approx(first.effect, rel=1e-5)
    (short,) = drift(admin, model="cancer", version=3, subjects=3).reports
    assert len(short.verdicts) == 3
    assert not short.history
    assert {each.version for each in drift(admin).reports} == {2, 3}


def test_a_report_is_bounded(models: ObservedModels, admin: DriftAdmin, monkeypatch: pytest.MonkeyPatch) -> None:
    key = newest(models)
    models.profiles[key] = profile_of(2000)
    set_reference(admin, model="cancer", kind="profile")
    models.look(key)
    monkeypatch.setattr(drift_admin, "MAX_ANSWER_BYTES", 20_000)
    answer = drift(admin, model="cancer", version=3)
    (report,) = answer.reports
    assert 10_000 < answer.ByteSize() < 21_000
    assert "find no room in this answer" in report.notes[-1]
    assert len(report.verdicts) > 5


@pytest.mark.parametrize(
    ("request_", "error", "said"),
    [
        ({}, InvalidRequest, "expected a model's name, got nothing"),
        ({"model": "nope"}, NotFound, "no model 'nope'; known models: cancer, unmeasured"),
        ({"model": "unmeasured"}, NotFound, "it is not served, or statistics.enabled is false in model.yaml"),
        (
            {"model": "cancer", "version": 7},
            NotFound,
            "nothing was seen of version 7 of model 'cancer'; of its versions: 2, 3",
        ),
        ({"model": "cancer", "version": -1}, InvalidRequest, "expected a version of 1 or more"),
        ({"model": "cancer", "window_seconds": 61}, InvalidRequest, "expected a window of 60, 600 seconds, got 61"),
        (
            {"model": "cancer", "feature": "x"},
            NotFound,
            "no feature 'x' in version 3 of model 'cancer'; it has mean radius",
        ),
    ],
)
def test_errors_of_questions_say_what_there_is(
    admin: DriftAdmin, request_: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        features(admin, **request_)


def test_errors_of_drift_say_what_was_expected(admin: DriftAdmin) -> None:
    for request, said in (
        ({"history": 9999}, "expected a history of 0 to 720, got 9999"),
        ({"subjects": -1}, "expected subjects of 0"),
        ({"version": 3}, "expected the model that the version is of"),
    ):
        with pytest.raises(InvalidRequest, match=said):
            drift(admin, **request)
    with pytest.raises(NotFound, match="no model 'nope'"):
        drift(admin, model="nope")


def test_without_statistics_every_question_says_so() -> None:
    admin = DriftAdmin()
    for call in (
        lambda: features(admin, model="m"),
        lambda: drift(admin),
        lambda: set_reference(admin, model="m", kind="none"),
        lambda: asyncio.run(admin.GetSketches(pb.GetSketchesRequest(model="m"), OLGA)),
    ):
        with pytest.raises(Precondition, match=r"statistics\.enabled is false in the gateway's configuration"):
            call()
    assert issubclass(AdminService, DriftAdmin)


def test_a_reference_is_set_audited_and_left_alone_where_it_is_set_already(
    models: ObservedModels, admin: DriftAdmin
) -> None:
    key = newest(models)
    profile = models.profiles[key] = profile_of(2000)
    answer = set_reference(admin, model="cancer", kind="profile", reason="a test")
    assert (answer.changed, answer.audit_id) == (True, 1)
    assert (answer.reference.kind, answer.reference.rows) == ("profile", 2000)
    assert answer.reference.digest == profile.digest
    assert answer.reference.about == {"data": "train.csv"}
    again = set_reference(admin, model="cancer", kind="profile")
    assert (again.changed, again.audit_id) == (False, 2)
    assert again.reference.digest == profile.digest
    live = set_reference(admin, model="cancer", kind="live", live_rows=1000)
    assert live.changed
    assert (live.reference.digest, live.reference.rows_wanted) == (profile.digest, 1000), "until the rows are there"
    assert not set_reference(admin, model="cancer", kind="live", live_rows=1000).changed
    assert set_reference(admin, model="cancer", kind="none").changed
    none = set_reference(admin, model="cancer", kind="none")
    assert not none.changed
    assert not none.HasField("reference")
    assert [(entry.action, entry.outcome) for entry in models.audit] == [
        ("set reference profile", "done"),
        ("set reference profile", "unchanged"),
        ("set reference live", "done"),
        ("set reference live", "unchanged"),
        ("set reference none", "done"),
        ("set reference none", "unchanged"),
    ]
    assert {(entry.actor, entry.version, entry.digest, entry.reason) for entry in models.audit} == {
        ("loopback:olga", 3, key.digest, "a test")
    }


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"kind": "best"}, "expected a kind of profile, live, none, got 'best'"),
        ({"kind": "live"}, "expected live_rows of 1000 to 100000000, got 0"),
        ({"kind": "profile", "live_rows": 5}, "live_rows belong to kind live"),
    ],
)
def test_a_reference_that_cannot_be_is_refused(admin: DriftAdmin, request_: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        set_reference(admin, model="cancer", **request_)


def test_a_reference_that_is_not_there_is_refused_and_audited(models: ObservedModels, admin: DriftAdmin) -> None:
    with pytest.raises(NotFound, match="has no profile in the repository: build one with `driftgate profile build"):
        set_reference(admin, model="cancer", kind="profile")
    models.profiles[newest(models)] = RepositoryUnavailable("the root cannot be read")
    with pytest.raises(RepositoryUnavailable):
        set_reference(admin, model="cancer", kind="profile")
    assert [entry.outcome for entry in models.audit] == ["refused", "failed"]
    assert models.audit[1].detail == "the root cannot be read"
