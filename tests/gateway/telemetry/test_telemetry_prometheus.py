"""/metrics: what Prometheus' own parser and checker, and OpenMetrics', read out of it. Tools that are not installed are
not asked."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from measured_desk import PINNED, UNKNOWN, MeasuredDesk, measured_desk
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from gateway.control.web import WebServer
from gateway.telemetry.instruments import Kind, instruments
from gateway.telemetry.prometheus import exposition, family_name, sample_name
from runtime.shm.series_layout import CLASSIC_SECONDS

OPENMETRICS = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,*/*;q=0.1"
RESOURCE = {"service.name": "driftgate", "service.instance.id": "1f2e"}
START_SECONDS = 60.0


@pytest.fixture
def at() -> Iterator[MeasuredDesk]:
    """A worker that has counted something of everything."""
    with measured_desk() as desk:
        desk.with_exporters()
        desk.answer([0.00005, 0.0003, 0.004, 0.004, 30.0])
        desk.answer([0.01], PINNED, sampled=False)
        desk.refuse([1.0])
        desk.refuse([0.0001], UNKNOWN)
        desk.figures.loads.record(0.8, "iris")
        desk.figures.swaps.record(1.8, "iris")
        yield desk


def page(at: MeasuredDesk, accept: str = "") -> str:
    return exposition(at.measures().snapshot(), RESOURCE, accept)[0].decode()


def families(at: MeasuredDesk) -> dict[str, Metric]:
    return {family.name: family for family in parse_openmetrics(page(at, OPENMETRICS))}


def test_the_scrapers_accept_header_chooses_the_format(at: MeasuredDesk) -> None:
    snapshot = at.measures().snapshot()
    assert exposition(snapshot, RESOURCE, "")[1] == "text/plain; version=0.0.4; charset=utf-8"
    assert exposition(snapshot, RESOURCE, "text/html, */*")[1] == "text/plain; version=0.0.4; charset=utf-8"
    text, content_type = exposition(snapshot, RESOURCE, OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
    assert text.endswith(b"# EOF\n")


def test_names_follow_opentelemetrys_mapping() -> None:
    names = {instrument.name: sample_name(instrument) for instrument in instruments()}
    assert names["rpc.server.call.duration"] == "rpc_server_call_duration_seconds"
    assert names["driftgate.requests"] == "driftgate_requests_total"
    assert names["driftgate.request.size"] == "driftgate_request_size_bytes_total"
    assert names["process.memory.usage"] == "process_memory_usage_bytes"
    assert names["driftgate.batch.rows"] == "driftgate_batch_rows"


def test_both_formats_have_every_metric_with_the_same_samples(at: MeasuredDesk) -> None:
    openmetrics = families(at)
    text = {family.name: family for family in parse_text(page(at))}
    shown = [instrument for instrument in instruments() if instrument.in_prometheus]
    assert {family_name(instrument) for instrument in shown} <= set(openmetrics)
    assert not {family_name(instrument) for instrument in instruments() if not instrument.in_prometheus} & set(text)
    for instrument in shown:
        name = family_name(instrument)
        kind = {Kind.COUNTER: "counter", Kind.EXPONENTIAL_HISTOGRAM: "histogram"}.get(instrument.kind, "gauge")
        assert openmetrics[name].type == text[name].type == kind
        ours, theirs = (
            sorted((s.name, sorted(s.labels.items()), s.value) for s in each[name].samples)
            for each in (openmetrics, text)
        )
        assert ours == theirs
    (target,) = text["target_info"].samples
    assert target.labels == {"service_name": "driftgate", "service_instance_id": "1f2e"}


UTF8 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8"


@pytest.mark.parametrize("accept", ["", OPENMETRICS, UTF8])
def test_resource_keys_that_become_one_label_share_it(at: MeasuredDesk, accept: str) -> None:
    """A label that is there twice would make Prometheus drop the whole page."""
    resource = {"my.key": 2, "my-key": "1", "2nd": True, "größe": "x", "my_key": 'a"\n'}
    text = exposition(at.measures().snapshot(), resource, accept)[0].decode()
    parse = parse_openmetrics if accept else parse_text
    (target,) = [each for family in parse(text) for each in family.samples if each.name == "target_info"]
    assert target.labels == {"my_key": '1;2;a"\n', "key_2nd": "true", "gr__e": "x"}


@pytest.mark.parametrize("version", ["abc", "1.x", ""])
def test_an_accept_header_with_a_version_that_is_none_gets_a_page(at: MeasuredDesk, version: str) -> None:
    text, _ = exposition(at.measures().snapshot(), RESOURCE, f"application/openmetrics-text; version={version}")
    assert b"driftgate_requests_total" in text


def buckets(family: Metric, **labels: str) -> dict[float, float]:
    found = [s for s in family.samples if s.name.endswith("_bucket") and labels.items() <= s.labels.items()]
    return {float(sample.labels["le"]): sample.value for sample in found}


def test_durations_have_the_classic_buckets_that_were_counted(at: MeasuredDesk) -> None:
    found = buckets(
        families(at)["rpc_server_call_duration_seconds"],
        driftgate_route_variant="default",
        rpc_response_status_code="OK",
    )
    assert tuple(found) == (*CLASSIC_SECONDS, float("inf"))
    latencies = [0.00005, 0.0003, 0.004, 0.004, 30.0]
    assert found == {bound: sum(value <= bound for value in latencies) for bound in found}


def test_other_histograms_have_buckets_at_powers_of_two(at: MeasuredDesk) -> None:
    loads = buckets(families(at)["driftgate_model_load_duration_seconds"])
    assert loads == {bound: float(bound >= 1) for bound in (*(2.0**e for e in range(-7, 9)), float("inf"))}
    rows = buckets(families(at)["driftgate_batch_rows"])
    assert (rows[1], rows[2], rows[4096], rows[float("inf")]) == (0, 6, 6, 6)
    queue = buckets(families(at)["driftgate_queue_duration_seconds"], driftgate_route_variant="default")
    assert queue == {bound: sum(v / 2 <= bound for v in [0.00005, 0.0003, 0.004, 0.004, 30.0]) for bound in queue}


def test_count_is_the_last_bucket_and_the_sum_is_that_of_the_values(at: MeasuredDesk) -> None:
    family = families(at)["rpc_server_call_duration_seconds"]
    for sample in family.samples:
        if sample.name.endswith("_count"):
            (last,) = buckets(family, le="+Inf", **sample.labels).values()
            assert sample.value == last
    total = sum(sample.value for sample in family.samples if sample.name.endswith("_sum"))
    assert total == pytest.approx(0.00005 + 0.0003 + 2 * 0.004 + 30 + 0.01 + 1 + 0.0001)


def test_exemplars_are_of_sampled_requests_and_only_in_openmetrics(at: MeasuredDesk) -> None:
    family = families(at)["rpc_server_call_duration_seconds"]
    exemplars = {float(s.labels["le"]): s.exemplar for s in family.samples if s.exemplar is not None}
    assert sorted(exemplars) == [0.0001, 0.0005, 0.005, float("inf")]
    newest = exemplars[0.005]
    assert newest.labels == {"trace_id": "00000000000000000000000000000001", "span_id": "0000000000000004"}
    assert newest.value == pytest.approx(0.004)
    assert "trace_id" not in page(at)


def test_shadows_are_counted_by_outcome_and_pair(at: MeasuredDesk) -> None:
    found = families(at)
    samples = [s for s in found["driftgate_shadow_requests"].samples if s.name.endswith("_total")]
    pair = {"driftgate_model_name": "iris", "driftgate_model_version": "3", "driftgate_shadow_version": "4"}
    assert all(pair.items() <= sample.labels.items() for sample in samples)
    counts = {
        (s.labels["driftgate_shadow_outcome"], s.labels.get("driftgate_shadow_shed_reason")): s.value for s in samples
    }
    assert counts == {("agreed", None): 95, ("disagreed", None): 4, ("failed", None): 1, ("shed", "late"): 7}
    for name, value in (("agreement_ratio", 0.96), ("slowdown_ratio", 1.25), ("waiting", 2)):
        (sample,) = found[f"driftgate_shadow_{name}"].samples
        assert (sample.labels, sample.value) == (pair, value)


def test_drift_is_gauges_by_subject(at: MeasuredDesk) -> None:
    found = families(at)
    effects = {s.labels["driftgate_drift_subject"]: s.value for s in found["driftgate_drift_effect"].samples}
    assert effects == {"petal length": 2.5, "species": 0.25}
    (alarm,) = [s for s in found["driftgate_drift_alarm"].samples if s.value]
    assert alarm.labels == {
        "driftgate_model_name": "iris", "driftgate_model_version": "3",
        "driftgate_drift_subject": "petal length", "driftgate_drift_role": "feature",
    }  # fmt: skip
    measures = {s.labels["driftgate_drift_measure"]: s.value for s in found["driftgate_drift_distance"].samples}
    assert measures == {"PSI": 0.3, "KS": 0.01}
    (missing,) = found["driftgate_feature_missing_ratio"].samples
    assert missing.value == 0.125
    (rows,) = [s for s in found["driftgate_statistics_rows"].samples if s.name.endswith("_total")]
    assert rows.value == 100
    assert "driftgate_feature_value" not in page(at)


def test_label_values_are_escaped(at: MeasuredDesk) -> None:
    name = 'a "quoted"\\name\nof two lines'
    at.figures.loads.record(1.0, name)
    for family in (families(at), {each.name: each for each in parse_text(page(at))}):
        labels = [
            sample.labels["driftgate_model_name"] for sample in family["driftgate_model_load_duration_seconds"].samples
        ]
        assert name in labels


@contextmanager
def web(at: MeasuredDesk) -> Iterator[str]:
    """The gateway's own HTTP server; answers its host and port."""
    server = WebServer(at.measures(), RESOURCE, lambda: "")
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(listener)))
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.stop()
        thread.join()


def test_metrics_are_served_in_the_format_that_is_asked_for(at: MeasuredDesk) -> None:
    with web(at) as address:
        for accept, expected in (("", "text/plain; version=0.0.4"), (OPENMETRICS, "application/openmetrics-text")):
            request = urllib.request.Request(f"http://{address}/metrics", headers={"Accept": accept})
            with urllib.request.urlopen(request, timeout=20) as response:
                assert response.headers["Content-Type"].startswith(expected)
                assert b"driftgate_requests_total" in response.read()


PROMTOOL, PROMETHEUS = shutil.which("promtool"), shutil.which("prometheus")

if PROMTOOL is not None:

    def test_promtool_finds_nothing_to_say(at: MeasuredDesk) -> None:
        found = subprocess.run(
            [str(PROMTOOL), "check", "metrics"], input=page(at), capture_output=True, text=True, timeout=60
        )
        assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def ask(address: str, path: str, **query: str) -> Any:
    """`data` of an answer of Prometheus' API; None while it does not answer."""
    url = f"http://{address}/api/v1/{path}?{urllib.parse.urlencode(query)}"
    try:
        with urllib.request.urlopen(url, timeout=20) as response:
            return json.load(response)["data"]
    except OSError:
        return None


@contextmanager
def prometheus(target: str, folder: Path) -> Iterator[str]:
    """A Prometheus that scrapes `target` each second; answers its address once it has."""
    (folder / "prometheus.yml").write_text(
        "scrape_configs: [{job_name: driftgate, scrape_interval: 1s, scrape_timeout: 1s, "
        f"static_configs: [{{targets: ['{target}']}}]}}]"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        str(PROMETHEUS), f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}", "--enable-feature=exemplar-storage", "--log.level=warn",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + START_SECONDS
            while not (ask(address, "query", query="driftgate_requests_total") or {}).get("result"):
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, "Prometheus has scraped nothing"
                time.sleep(0.05)
            yield address
        finally:
            process.terminate()
            process.wait(START_SECONDS)


if PROMETHEUS is not None:

    def test_prometheus_scrapes_values_and_exemplars(at: MeasuredDesk, tmp_path: Path) -> None:
        with web(at) as target, prometheus(target, tmp_path) as address:
            (up,) = ask(address, "query", query="up")["result"]
            assert up["value"][1] == "1"
            (requests,) = ask(address, "query", query="sum(driftgate_requests_total)")["result"]
            assert requests["value"][1] == "8"
            quantile = "histogram_quantile(0.5, sum by (le) (rpc_server_call_duration_seconds_bucket))"
            (median,) = ask(address, "query", query=quantile)["result"]
            assert 0.002 <= float(median["value"][1]) <= 0.005
            end = time.time() + 3600
            found = ask(
                address, "query_exemplars", query="rpc_server_call_duration_seconds_bucket",
                start=str(end - 10**9), end=str(end),
            )  # fmt: skip
            ids = {exemplar["labels"]["span_id"] for series in found for exemplar in series["exemplars"]}
            assert "0000000000000004" in ids
