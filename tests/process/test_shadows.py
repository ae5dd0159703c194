"""Shadows of a running gateway: each copy is compared or counted, and no client notices, whatever is killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from rollout_models import crash_row, crashing_on_demand, everyday, failing, good
from support.admin import admin_of, until
from support.copies import CopiesOf, copies_of
from support.gateway import Gateway
from support.load import Load, infer_request
from support.predict import client_of
from zoo import versioned, versioned_big, write_version

from runtime.shadow.ring_map import CopyCounts

pytestmark = pytest.mark.process

MODEL = "served"
CONSTANTS = {1: 10.0, 2: 10.0}


def settings_of(percent: float = 100) -> str:
    return f"versions: all\ndefault: 1\nroute: {{shadows: [{{to: 2, percent: {percent}}}]}}\n"


def repository(root: Path, one: bytes, two: bytes, percent: float = 100) -> Path:
    write_version(root, MODEL, 1, one)
    write_version(root, MODEL, 2, two)
    (root / MODEL / "model.yaml").write_text(settings_of(percent))
    return root


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Two versions of the same answers, the second not the same file."""
    return repository(tmp_path / "models", versioned(10.0), versioned_big(10.0, 8))


@contextmanager
def running(models: Path, tmp_path: Path, workers: int = 2, **shadow: Any) -> Iterator[tuple[Gateway, CopiesOf]]:
    """Ready; the shadow may be loading still."""
    gateway = Gateway(models, tmp_path / "state", workers=workers, config={"shadow": shadow})
    with gateway, copies_of(gateway, MODEL) as copies:
        yield gateway, copies


def until_used(gateway: Gateway, copies: CopiesOf) -> int:
    """The shadow is loaded, and some copies have been compared; answers how many requests were sent for it."""
    x = np.ones((1, 4), np.float32)
    sent, before = 0, copies.compared

    def compared() -> bool:
        nonlocal sent
        with client_of(gateway.grpc) as client:
            client.ask("ModelInfer", infer_request(MODEL, x, "1"))
        sent += 1
        return copies.compared > before

    until(compared, "the shadow is loaded")
    return sent


def total(counts: CopyCounts) -> int:
    return sum(counts.shed.values()) + sum(counts.outcomes.values()) + counts.waiting


def shadow_of(gateway: Gateway) -> psutil.Process:
    until(lambda: len(gateway.children("shadow")) == 1, "the shadow process is there")
    return gateway.children("shadow")[0]


def test_every_answered_request_is_copied_once_and_compared(models: Path, tmp_path: Path) -> None:
    with running(models, tmp_path) as (gateway, copies):
        sent = until_used(gateway, copies)
        before = copies.settled(sent)
        with Load(gateway.grpc, MODEL, CONSTANTS, model_version="1", in_flight=8, channels=4) as load:
            load.wait_for(2_000)
        counts = copies.settled(sent + len(load.answers))
        assert not load.failures
        assert not load.wrong
        assert counts.chosen - before.chosen == len(load.answers)
        assert counts.outcomes["compared"] - before.outcomes["compared"] == len(load.answers), "there was room for all"
        until(lambda: copies.comparison().compared == counts.outcomes["compared"], "control has heard of all")
        comparison = copies.comparison()
        assert (comparison.primary, comparison.shadow) == (1, 2)
        assert (comparison.agreed, comparison.failed, comparison.waiting) == (comparison.compared, 0, 0)
        assert comparison.chosen == counts.chosen


def test_a_share_of_the_runs_is_copied(tmp_path: Path) -> None:
    models = repository(tmp_path / "models", versioned(10.0), versioned_big(20.0, 8), percent=25)
    with running(models, tmp_path, workers=1) as (gateway, copies):
        until_used(gateway, copies)
        before = copies.settled().chosen
        with Load(gateway.grpc, MODEL, CONSTANTS, model_version="1", in_flight=1, channels=1) as load:
            load.wait_for(2_000)
        counts = copies.settled()
        share = (counts.chosen - before) / len(load.answers)
        assert 0.25 - 6 * 0.0097 < share < 0.25 + 6 * 0.0097, "within six deviations of the binomial"
        until(lambda: copies.comparison().compared == copies.compared, "control has heard of all")
        assert copies.comparison().agreed == 0, "the shadow's answers are others"


def test_what_the_shadow_itself_answers_is_not_copied_to_it(models: Path, tmp_path: Path) -> None:
    with running(models, tmp_path, workers=1) as (gateway, copies):
        before = copies.settled(until_used(gateway, copies)).chosen
        with Load(gateway.grpc, MODEL, CONSTANTS, model_version="2", in_flight=4, channels=1) as load:
            load.wait_for(200)
        assert copies.settled().chosen == before


def test_a_shadow_process_that_is_killed_costs_copies_and_no_answers(models: Path, tmp_path: Path) -> None:
    with running(models, tmp_path) as (gateway, copies):
        sent = until_used(gateway, copies)
        with Load(gateway.grpc, MODEL, CONSTANTS, model_version="1", in_flight=8, channels=4) as load:
            for _ in range(3):
                copies.until_compared(500)
                shadow = shadow_of(gateway)
                shadow.kill()
                until(lambda gone=shadow: not gone.is_running(), "it is gone")
                load.wait_for(200)
        sent += len(load.answers)
        counts = copies.settled(sent)
        assert not load.failures
        assert not load.wrong
        assert counts.chosen == total(counts) == sent
        settled = copies.settled(sent + until_used(gateway, copies))
        until(lambda: copies.comparison().chosen == settled.chosen, "control counts the same")
        comparison = copies.comparison()
        shed = sum(comparison.shed.values())
        assert comparison.compared + comparison.failed + shed + comparison.waiting == comparison.chosen
        gateway.logged("the shadow process is there again")


def test_killed_workers_and_control_leave_the_counts_whole(models: Path, tmp_path: Path) -> None:
    with running(models, tmp_path) as (gateway, copies):
        until_used(gateway, copies)
        with Load(gateway.grpc, MODEL, CONSTANTS, model_version="1", in_flight=8, channels=4) as load:
            for kind in ("worker", "control", "worker"):
                copies.until_compared(300)
                gateway.children(kind)[0].kill()
                load.wait_for(100)
                gateway.wait_ready()
            copies.until_compared(300)
        counts = copies.settled()
        assert counts.chosen == total(counts)
        assert not load.wrong


def test_a_shadow_that_fails_is_told_of_and_only_where_it_fails(tmp_path: Path) -> None:
    models = repository(tmp_path / "models", good(), failing())
    random = np.random.default_rng(5)
    with running(models, tmp_path, workers=1) as (gateway, copies), client_of(gateway.grpc) as client:
        x = everyday(random)
        x[0, 3] = 0.0  # of no interest to any version
        sent = 0

        def compared() -> bool:
            nonlocal sent
            client.ask("ModelInfer", infer_request(MODEL, x, "1"))
            sent += 1
            return copies.compared > 0

        until(compared, "the shadow is loaded")
        before = copies.settled(sent)
        asked = [everyday(random) for _ in range(400)]
        wrong = sum(bool(rows[0, 3] >= 198) for rows in asked)
        for rows in asked:
            client.ask("ModelInfer", infer_request(MODEL, rows, "1"))
        counts = copies.settled(sent + len(asked))
        assert wrong
        assert counts.outcomes["failed"] == wrong
        assert counts.outcomes["compared"] - before.outcomes["compared"] == len(asked) - wrong


def test_a_shadow_that_crashes_its_process_harms_nobody_and_is_named(tmp_path: Path) -> None:
    models = repository(tmp_path / "models", good(), crashing_on_demand())
    rows = everyday(np.random.default_rng(6))
    with running(models, tmp_path, workers=1) as (gateway, copies), client_of(gateway.grpc) as client:

        def compared() -> bool:
            client.ask("ModelInfer", infer_request(MODEL, rows, "1"))
            return copies.compared > 0

        until(compared, "the shadow is loaded")
        pid = shadow_of(gateway).pid
        client.ask("ModelInfer", infer_request(MODEL, crash_row(), "1"))
        gateway.logged(f"shadow (pid {pid}) died in {MODEL}/2")
        before = copies.compared

        def goes_on() -> bool:
            client.ask("ModelInfer", infer_request(MODEL, rows, "1"))
            return copies.compared > before

        until(goes_on, "the shadow is there again, and the copy that killed it is not run again")
        counts = copies.settled()
        assert counts.outcomes["lost"] >= 1
        assert counts.chosen == total(counts)
        assert "worker 0 (pid" not in gateway.log, "no worker has ended"


def test_without_shadows_the_process_imports_nothing_that_runs_models(tmp_path: Path) -> None:
    write_version(tmp_path / "models", MODEL, 1, versioned(10.0))
    with running(tmp_path / "models", tmp_path, workers=1) as (gateway, _):
        mapped = {Path(region.path).name for region in shadow_of(gateway).memory_maps()}
        assert not [name for name in mapped if "onnxruntime" in name or "llvmlite" in name or "numpy" in name.lower()]


def test_with_shadows_off_there_is_no_such_process(tmp_path: Path) -> None:
    write_version(tmp_path / "models", MODEL, 1, versioned(10.0))
    with running(tmp_path / "models", tmp_path, workers=1, enabled=False) as (gateway, _):
        assert gateway.children("shadow") == []
        with client_of(gateway.grpc) as client, admin_of(gateway.admin) as admin:
            assert client.predict(MODEL) == (1, 10.0)
            assert admin.available(MODEL) == {1}
