"""Other servers: what they are started with, what is said where they cannot be had, and how they compare."""

import dataclasses
import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from test_ratio_table import sample

from bench.catalogue import ALL_ON, SYNC_ECHO, ServerSpec, Site
from bench.inprocess import Limit
from bench.peers import install, mlserver, triton
from bench.peers.against import Spread, against, in_process, spans_lost
from bench.peers.choice import KEYS, NAMES, TRIED, set_up
from bench.peers.install import Home, NotInstalled, installed, last_line, requirements_of, versions_of
from bench.peers.report import HEADINGS, limit_rows, markdown, rows_of
from bench.rounds import Results
from bench.sample import Exported, Sample

HOME = Home(Path("/peers/one"))


def site(folder: Path) -> Site:
    return Site(1001, 1002, 1003, Path("/models"), Path("/models/tabular/1/model.onnx"), folder, 1004, 1005)


def at_one(rate: float, p50_ms: float) -> Sample:
    measured = sample(rate)
    burst = dataclasses.replace(measured.one.burst, p50_ms=p50_ms)
    return dataclasses.replace(measured, one=dataclasses.replace(measured.one, burst=burst))


def exported(recorded: int, server_spans: int, run_spans: int) -> Exported:
    return Exported(recorded, server_spans, recorded - server_spans, 1.0, run_spans, 0, 0, 1, 1)


def test_ratios_are_of_one_round_and_above_one_where_driftgate_is_the_faster() -> None:
    rounds = [
        {ALL_ON.key: at_one(20_000, 0.2), SYNC_ECHO.key: at_one(5_000, 0.4)},
        {ALL_ON.key: at_one(9_000, 0.4), SYNC_ECHO.key: at_one(3_000, 0.4)},
        {ALL_ON.key: at_one(10_000, 0.3)},
        {ALL_ON.key: at_one(10_000, 0.1), SYNC_ECHO.key: at_one(5_000, 0.3)},
    ]

    row = against(rounds, SYNC_ECHO)

    assert row is not None
    assert row.rate_ratio == Spread(3.0, 2.0, 4.0)
    assert row.latency_ratio is not None
    assert row.latency_ratio.middle == pytest.approx(2.0)
    assert row.requests_per_second_64 == Spread(5_000, 3_000, 5_000)


def test_driftgate_is_not_compared_with_itself_nor_with_who_was_not_measured() -> None:
    rounds = [{ALL_ON.key: sample(20_000)}]

    own = against(rounds, ALL_ON)

    assert own is not None
    assert own.rate_ratio is None
    assert against(rounds, SYNC_ECHO) is None


def test_the_share_of_lost_spans_is_of_all_that_requests_give() -> None:
    """Three spans a request: one whose request's span has arrived may have lost the others."""
    traced = triton.spec(HOME, "traced", "Triton, traced", triton.Settings(), traced=True)
    samples = [dataclasses.replace(sample(1), exported=exported(100, 90, 150))]

    assert spans_lost(samples, traced) == pytest.approx(0.2)
    assert spans_lost(samples, ALL_ON) == pytest.approx(0.1)
    assert spans_lost([sample(1)], SYNC_ECHO) is None


def test_what_driftgate_answers_is_held_against_inference_in_a_loop() -> None:
    limits = [{1: Limit(1, 100_000, 9.0)}, {1: Limit(1, 200_000, 5.0)}]
    rounds = [{ALL_ON.key: sample(20_000)}, {}]

    found = in_process(limits, rounds, 1)

    assert found is not None
    assert found.rows_per_second == Spread(150_000, 100_000, 200_000)
    assert found.of_limit == Spread(0.2, 0.2, 0.2)
    assert in_process(limits, rounds, 64) is None
    assert limit_rows(Results(rounds, {}), limits) == [["1 row a call", "150,000", "100,000-200,000", "7.0", "0.200"]]


def test_the_markdown_has_a_cell_for_each_heading_and_says_who_failed() -> None:
    results = Results(rounds=[{ALL_ON.key: sample(20_000)}], failures={SYNC_ECHO.key: "ended with 1"})

    lines = markdown(HEADINGS, rows_of(results, (SYNC_ECHO, ALL_ON))).splitlines()

    assert {line.count("|") for line in lines} == {len(HEADINGS) + 1}
    assert "| failed |" in lines[2]
    assert "20,000" in lines[3]


@pytest.mark.parametrize("name", NAMES)
def test_a_peers_packages_are_pinned_and_come_from_no_address(name: str) -> None:
    text = requirements_of(name).read_text()

    assert "://" not in text
    assert versions_of(name)["onnxruntime"]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in text.splitlines() if not line.startswith("#"))


def test_a_peer_that_cannot_be_installed_says_why_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """pip asks an index that is not there, and nothing that looks installed is left."""
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    requirements = tmp_path / "none.txt"
    requirements.write_text("a-package-that-is-nowhere==1.0\n")
    monkeypatch.setattr(install, "requirements_of", lambda _name: requirements)

    with pytest.raises(NotInstalled) as caught:
        installed("none", cache=tmp_path / "cache", pip=("--isolated", "--no-index"))

    assert "a-package-that-is-nowhere" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "cache" / "none" / install.COMPLETE).exists()


def test_a_peer_is_installed_once_and_again_when_its_packages_change(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    requirements = tmp_path / "empty.txt"
    requirements.write_text("# nothing\n")
    monkeypatch.setattr(install, "requirements_of", lambda _name: requirements)
    finished: list[Home] = []

    for _ in range(2):
        home = installed("empty", finished.append, cache=tmp_path)
    assert len(finished) == 1
    assert (home.programs / "python").exists()

    requirements.write_text("# nothing yet\n")
    installed("empty", finished.append, cache=tmp_path)
    assert len(finished) == 2


def test_pips_complaint_is_its_last_line() -> None:
    assert last_line("looking\nERROR: No matching distribution found\n\n") == "No matching distribution found"
    assert last_line("") == ""


def test_triton_is_given_one_python_model_that_batches(tmp_path: Path) -> None:
    spec = triton.spec(HOME, "triton", "Triton", triton.Settings(instances=2, delay_us=100, preferred=(8, 16)))

    _set_up(spec, tmp_path)

    folder = tmp_path / "repository" / "tabular"
    text = (folder / "config.pbtxt").read_text()
    assert "dynamic_batching { preferred_batch_size: [8, 16] max_queue_delay_microseconds: 100 }" in text
    assert "count: 2" in text
    assert 'string_value: "/models/tabular/1/model.onnx"' in text
    assert "TritonPythonModel" in (folder / "1" / "model.py").read_text()
    assert "--trace-config" not in spec.command(site(tmp_path))
    assert spec.environment["PATH"].startswith("/peers/one/bin:")
    assert not spec.exports


def test_triton_without_batching_has_no_batcher() -> None:
    assert "dynamic_batching" not in triton.config(triton.Settings(batching=False), Path("m.onnx"))


def test_traced_triton_sends_every_request_to_the_receivers_http_end(tmp_path: Path) -> None:
    spec = triton.spec(HOME, "traced", "Triton, traced", triton.Settings(queue=65_536), traced=True)

    words = spec.command(site(tmp_path))

    given = [word for before, word in pairwise(words) if before == "--trace-config"]
    assert "opentelemetry,url=http://127.0.0.1:1005/v1/traces" in given
    assert "opentelemetry,bsp_max_queue_size=65536" in given
    assert {"mode=opentelemetry", "rate=1", "level=TIMESTAMPS"} <= set(given)
    assert spec.exports
    assert not spec.exports_metrics


def test_triton_is_not_set_up_where_it_has_no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")

    with pytest.raises(NotInstalled, match="no wheel for linux on aarch64"):
        triton.home()


def test_mlserver_is_given_one_process_and_its_own_runtime(tmp_path: Path) -> None:
    spec = mlserver.spec(HOME, "mlserver", "MLServer", mlserver.Settings(max_batch=64, max_batch_seconds=0.001))

    _set_up(spec, tmp_path)

    settings = json.loads((tmp_path / "settings.json").read_text())
    own = json.loads((tmp_path / "model-settings.json").read_text())
    assert (settings["grpc_port"], settings["http_port"], settings["parallel_workers"]) == (1001, 1002, 0)
    assert (own["name"], own["max_batch_size"], own["max_batch_time"]) == ("tabular", 64, 0.001)
    assert own["parameters"]["uri"] == "/models/tabular/1/model.onnx"
    assert "class OnnxRuntime" in (tmp_path / "bench_runtime.py").read_text()


def _set_up(spec: ServerSpec, folder: Path) -> None:
    assert spec.set_up is not None
    spec.set_up(site(folder))


def test_a_run_goes_on_without_a_peer_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Home:
        raise NotInstalled("no wheel for this machine")

    monkeypatch.setattr(triton, "home", nowhere)
    monkeypatch.setattr(mlserver, "home", lambda: HOME)

    specs, missing = set_up(frozenset(KEYS))

    assert [spec.key for spec in specs] == ["mlserver"]
    assert missing == {"triton": "no wheel for this machine"}


def test_only_the_peers_that_are_asked_for_are_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "home", lambda: HOME)
    monkeypatch.setattr(mlserver, "home", lambda: pytest.fail("nobody asked for it"))

    specs, missing = set_up(frozenset({"triton-traced", "triton-two", "driftgate-all"}))

    assert {spec.key for spec in specs} == {"triton-traced", "triton-two"}
    assert missing == {}
    assert {spec.key for spec in set_up(frozenset(key for key in TRIED if key.startswith("triton")))[0]} <= set(TRIED)
