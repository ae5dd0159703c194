"""Versions of different sizes are swapped under 64 requests in flight, and no client can tell but by the answers.

DRIFTGATE_SWAPS sets how many swaps by load there are. The figures are printed: see them with -s. How long requests take
meanwhile is measured by `python -m bench.swaps`.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from support.admin import Admin, admin_of
from support.gateway import Gateway
from support.load import Answer, Load, quantile_ms
from zoo import versioned, versioned_big, write_version

pytestmark = [pytest.mark.process, pytest.mark.timeout(600)]

SWAPS = int(os.environ.get("DRIFTGATE_SWAPS", "25"))
MODEL = "swapped"
CONSTANTS = {1: 10.0, 2: 20.0, 3: 30.0, 4: 40.0}
MEGABYTES = {1: 0, 2: 2, 3: 20, 4: 8}
STEADY_SECONDS = 1.5


@dataclass(frozen=True, slots=True)
class Served:
    gateway: Gateway
    admin: Admin


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("swaps")
    models = folder / "models"
    for version, k in CONSTANTS.items():
        size = MEGABYTES[version]
        write_version(models, MODEL, version, versioned_big(k, size) if size else versioned(k))
    with Gateway(models, folder / "state", workers=2) as gateway, admin_of(gateway.admin) as admin:
        yield Served(gateway, admin)


def swap_under_load(served: Served, change: Callable[[int], object], swaps: int, model_version: str = "") -> None:
    """Calls `change(version)` for one version after another, and proves what every request of that time got.

    Once a change has returned, every request that begins is answered by the new version, on every worker.
    """
    settled: list[tuple[int, float, float]] = []
    with Load(served.gateway.grpc, MODEL, CONSTANTS, model_version=model_version) as load:
        load.wait_for(500)
        steady_from = time.monotonic()
        load.wait_for(100)
        time.sleep(STEADY_SECONDS)
        steady_to = time.monotonic()
        durations = []
        for number in range(swaps):
            version = 1 + (number + 1) % len(CONSTANTS)
            began = time.monotonic()
            change(version)
            durations.append(time.monotonic() - began)
            done = time.monotonic()
            load.wait_for(64)
            settled.append((version, done, time.monotonic()))
        swaps_to = time.monotonic()
    assert [(a.status, a.message) for a in load.failures] == []
    assert load.wrong == []
    for version, start, end in settled:
        assert {a.version for a in load.between(start, end)} <= {version}
    assert {a.version for a in load.answers} == set(CONSTANTS)
    steady, swapping = load.between(steady_from, steady_to), load.between(steady_to, swaps_to)
    show(served, load, steady, swapping, durations)


def show(served: Served, load: Load, steady: list[Answer], swapping: list[Answer], durations: list[float]) -> None:
    p50, p99 = (quantile_ms(swapping, q) / quantile_ms(steady, q) for q in (0.5, 0.99))
    print(f"\n{len(durations)} swaps, {len(load.answers)} requests, {len(load.failures)} failures")
    print(f"  versions {dict(sorted(Counter(a.version for a in load.answers).items()))}")
    for name, answers in (("steady", steady), ("swapping", swapping)):
        figures = [quantile_ms(answers, q) for q in (0.5, 0.99, 1.0)]
        print(f"  {name:8} p50 {figures[0]:.1f} ms, p99 {figures[1]:.1f} ms, longest {figures[2]:.1f} ms")
    print(f"  ratios: p50 {p50:.2f}, p99 {p99:.2f}; a swap takes {sorted(durations)[len(durations) // 2]:.3f} s")
    memory = [worker.memory_info().rss // 2**20 for worker in served.gateway.children("worker")]
    print(f"  memory of the workers afterwards: {memory} MiB")


def test_loading_another_version_replaces_the_served_one_without_a_failed_request(served: Served) -> None:
    swap_under_load(served, lambda version: served.admin.load(MODEL, version), SWAPS)


def test_moving_a_label_moves_its_traffic_without_a_failed_request(served: Served) -> None:
    served.admin.load(MODEL, *CONSTANTS)
    served.admin.label(MODEL, "live", 1)
    try:
        swap_under_load(served, lambda version: served.admin.label(MODEL, "live", version), 12, "live")
    finally:
        served.admin.delete_label(MODEL, "live")


def test_moving_the_default_moves_its_traffic_without_a_failed_request(served: Served) -> None:
    served.admin.load(MODEL, *CONSTANTS)
    served.admin.default(MODEL, "1")
    try:
        swap_under_load(served, lambda version: served.admin.default(MODEL, str(version)), 12)
    finally:
        served.admin.default(MODEL, "")


def test_reloading_what_is_served_under_load_fails_no_request(served: Served) -> None:
    """The same version again, as after a change of its settings: two of it are in memory for a moment."""
    served.admin.load(MODEL, 3)
    with Load(served.gateway.grpc, MODEL, CONSTANTS) as load:
        load.wait_for(200)
        for _ in range(5):
            assert served.admin.load(MODEL, 3, force=True).changed
        load.wait_for(200)
    assert load.failures == []
    assert load.wrong == []
    assert {answer.version for answer in load.answers} == {3}
