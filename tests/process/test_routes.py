"""Routes in the whole process: a key keeps its variant on every worker and over restarts, shares are the weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from rollout_models import everyday, write_pair
from support.admin import until
from support.arrivals import Arrivals, Ask
from support.gateway import Gateway
from support.rollouts import rollouts_of

pytestmark = pytest.mark.process

MODEL = "m"
RATE = 400.0
STANDARD_ERRORS = 4.5  # a false alarm in 150,000 runs
KEY = "user"


@contextmanager
def serving(models: Path, state: Path, addresses: dict[str, str] | None = None) -> Iterator[Gateway]:
    gateway = Gateway(models, state, workers=2, addresses=addresses)
    gateway.start()
    try:
        yield gateway
    finally:
        if gateway.process is not None:
            gateway.stop()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    root = write_pair(tmp_path / "models", MODEL, "good")
    (root / MODEL / "model.yaml").write_text("versions: all\ndefault: 1\n")
    return root


def split(canary_percent: float, *, sticky: bool = True) -> dict[str, Any]:
    shares = {
        "stable": {"to": 1, "weight": 100 - canary_percent},
        "canary": {"to": 2, "weight": canary_percent},
    }
    return {"split": shares} | ({"sticky": {"metadata": KEY}} if sticky else {})


def set_route(gateway: Gateway, route: dict[str, Any]) -> None:
    with rollouts_of(gateway.admin) as desk:
        desk.set_route(MODEL, route)


def variants_of(gateway: Gateway, keys: Sequence[str]) -> dict[str, str]:
    """Each key is asked for over several connections, so by both workers."""
    rows = everyday(np.random.default_rng(1))
    with Arrivals(gateway.grpc, MODEL, 0.0, lambda: Ask(rows)) as clients:
        for key in keys:
            clients.put(Ask(rows, ((KEY, key),)))
        until(lambda: len(clients.got) == len(keys), "every key has its answer")
    assert {got.status for got in clients.got} == {grpc.StatusCode.OK}
    assert {(got.variant, got.version) for got in clients.got} <= {("stable", 1), ("canary", 2)}
    assert {got.reason for got in clients.got} == {"sticky"}
    return {got.ask.metadata[0][1]: got.variant for got in clients.got}


def test_a_key_keeps_its_variant_on_both_workers_and_over_the_end_of_everything(models: Path, tmp_path: Path) -> None:
    keys = [f"user-{number}" for number in range(500)]
    unshared = dict.fromkeys(("grpc", "http", "admin"), "127.7.6.1:0")  # where no client of another test takes a port
    with serving(models, tmp_path / "state", unshared) as gateway:
        set_route(gateway, split(30))
        first = variants_of(gateway, keys)
        assert set(first.values()) == {"stable", "canary"}
        for _ in range(3):  # other connections, other workers
            assert variants_of(gateway, keys) == first
        gateway.children("worker")[0].kill()
        gateway.logged("was ended by signal 9")
        gateway.wait_ready()
        assert variants_of(gateway, keys) == first
        assert gateway.process is not None
        gateway.process.kill()  # its children follow it
        gateway.process.wait()
        gateway.process = None
    with serving(models, tmp_path / "state") as gateway:
        assert variants_of(gateway, keys) == first
        with rollouts_of(gateway.admin) as desk:
            shares = {share.variant: share.share for share in desk.route(MODEL).shares}
        assert shares == pytest.approx({"stable": 0.7, "canary": 0.3})


def test_raising_a_weight_moves_only_the_keys_that_must(models: Path, tmp_path: Path) -> None:
    keys = [f"user-{number}" for number in range(3000)]
    with serving(models, tmp_path / "state") as gateway:
        set_route(gateway, split(5))
        before = variants_of(gateway, keys)
        set_route(gateway, split(20))
        after = variants_of(gateway, keys)
    moved = {key for key in keys if before[key] != after[key]}
    assert {(before[key], after[key]) for key in moved} == {("stable", "canary")}, "nobody leaves the canary"
    for found, share in ((before, 0.05), (after, 0.20)):
        in_canary = sum(variant == "canary" for variant in found.values()) / len(keys)
        assert abs(in_canary - share) < STANDARD_ERRORS * (share * (1 - share) / len(keys)) ** 0.5
    must = 0.15
    assert abs(len(moved) / len(keys) - must) < STANDARD_ERRORS * (must * (1 - must) / len(keys)) ** 0.5


def test_a_90_10_split_is_drawn_within_the_binomial_error(models: Path, tmp_path: Path) -> None:
    rows = everyday(np.random.default_rng(1))
    with serving(models, tmp_path / "state") as gateway:
        set_route(gateway, split(10, sticky=False))
        with Arrivals(gateway.grpc, MODEL, RATE, lambda: Ask(rows)) as clients:
            until(lambda: len(clients.got) >= 3000, "3,000 requests are answered")
    assert clients.failures() == []
    assert {got.reason for got in clients.got} == {"drawn"}
    share = clients.share(2)
    assert abs(share - 0.1) < STANDARD_ERRORS * (0.09 / len(clients.got)) ** 0.5
