"""The matrix has what it claims to have."""

from pathlib import Path

import pytest

from bench.catalogue import Site
from bench.matrix.__main__ import SECTIONS
from bench.matrix.case import Case
from bench.matrix.interleaved import Interleaved
from bench.matrix.sections import SECTIONS as INTERLEAVED
from bench.matrix.sections import load, number_of_features, number_of_models, number_of_versions, observing
from bench.matrix.servers import ALL_ON, SETTINGS, VERSIONS, with_workers

SITE = Site(1, 2, 3, Path("repository"), Path("graph"), Path("folder"))


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Case, ...]]:
    """Of each section, built once."""
    return {section.name: section.cases(tmp_path_factory.mktemp(section.name)) for section in INTERLEAVED}


def test_every_section_has_a_name_of_its_own() -> None:
    names = [section.name for section in SECTIONS]

    assert len(set(names)) == len(names)
    assert set(names) == {
        "models",
        "load",
        "observing",
        "latency",
        "model-count",
        "version-count",
        "feature-count",
        "worker-count",
        "tail",
        "idle",
    }


@pytest.mark.parametrize("section", INTERLEAVED, ids=lambda section: section.name)
def test_cases_are_told_apart_and_held_against_cases_that_are_there(
    section: Interleaved, cases: dict[str, tuple[Case, ...]]
) -> None:
    keys = [case.key for case in cases[section.name]]

    assert len(set(keys)) == len(keys)
    assert {case.against for case in cases[section.name]} <= {"", *keys}
    for case in cases[section.name]:
        assert len({step.key for step in case.steps}) == len(case.steps)
        assert case.graph.is_file()
        # An open loop's rate is a part of what the first step reached.
        assert case.steps[0].share is None


def test_models_are_measured_with_1_and_32_rows_beside_the_limit(cases: dict[str, tuple[Case, ...]]) -> None:
    by_model: dict[str, set[int]] = {}
    for case in cases["models"]:
        for step in case.steps:
            by_model.setdefault(case.key, set()).add(step.workload.rows)

    assert set(map(frozenset, by_model.values())) == {frozenset((1, 32))}
    models = {"linear", "forest", "strings", "digits", "images", "embedding"}
    assert by_model.keys() == {f"{name}-{kind}" for name in models for kind in ("driftgate", "aio", "limit")}


def test_loads_go_from_1_to_1024_in_flight_and_1_to_64_connections_unary_and_streaming(tmp_path: Path) -> None:
    loads = [step.load for case in load(tmp_path) if case.key == "all" for step in case.steps]

    for streaming in (False, True):
        alike = [each for each in loads if each.streaming is streaming]
        assert {each.in_flight for each in alike} == {1, 16, 64, 256, 1024}
        assert {1, 64} <= {each.connections for each in alike}


def test_each_thing_that_observes_is_on_alone_and_together(tmp_path: Path) -> None:
    by_key = {case.key: case for case in observing(tmp_path)}

    assert by_key.keys() == {key for key, *_ in SETTINGS}
    off = by_key["off"].spec
    assert off is not None
    for switch in ("TELEMETRY", "STATISTICS", "SHADOW"):
        assert off.environment[f"DRIFTGATE_{switch}__ENABLED"] == "false"
    everything = by_key["all"].spec
    assert everything is not None
    assert everything.exports
    assert everything.counts_drops
    assert not any("ENABLED" in name for name in everything.environment)
    assert "canary" in (by_key["all"].repository / "linear" / "model.yaml").read_text()


def test_a_repository_has_the_versions_that_its_route_leads_to() -> None:
    for settings, versions in VERSIONS.items():
        for version in range(2, versions + 1):
            assert f"to: {version}" in settings


def test_growth_goes_from_one_to_many(tmp_path: Path) -> None:
    models = {case.key: len(list(case.repository.iterdir())) for case in number_of_models(tmp_path / "models")}
    versions = {
        case.key: len(list((case.repository / "linear" / "profiles").iterdir()))
        for case in number_of_versions(tmp_path / "versions")
    }
    features = {step.key for case in number_of_features(tmp_path / "features") for step in case.steps}

    assert models == {"models-1": 1, "models-10": 10, "models-100": 100}
    assert versions == {"versions-1": 1, "versions-5": 5, "versions-20": 20}
    assert features == {"30", "1000", "10000"}


def test_workers_are_set_by_the_command() -> None:
    words = with_workers(ALL_ON, 2).command(SITE)

    assert words[words.index("--workers") + 1] == "2"
    assert words.count("--workers") == 1


def test_only_two_workers_may_use_the_loads_core(cases: dict[str, tuple[Case, ...]]) -> None:
    for name, made in cases.items():
        for case in made:
            assert case.both_cores == (name == "worker-count" and case.key.endswith("-2"))
