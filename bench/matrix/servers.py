"""The servers of the matrix: driftgate with this and that on, and what it is held against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from bench.catalogue import AIO_ONNX, ALL_ON, DRIFTGATE, EXPORT_METRICS_OFTEN, POLLED_ECHO, QUEUE, ServerSpec, Site

__all__ = ["AIO_ONNX", "ALL_ON", "DRIFTGATE", "QUEUE_ECHO", "SETTINGS", "driftgate", "with_workers"]

QUEUE_ECHO = replace(POLLED_ECHO, title="completion-queue echo")
"""With the workers' own setting of gRPC, which is quicker for such a server than gRPC's default."""

TELEMETRY_OFF = {"DRIFTGATE_TELEMETRY__ENABLED": "false"}
STATISTICS_OFF = {"DRIFTGATE_STATISTICS__ENABLED": "false"}
SHADOW_OFF = {"DRIFTGATE_SHADOW__ENABLED": "false"}
ALL_OFF = TELEMETRY_OFF | STATISTICS_OFF | SHADOW_OFF

SPLIT = "split: {stable: {to: 1, weight: 90}, canary: {to: 2, weight: 10}}"
CANARY = f"versions: all\nroute: {{{SPLIT}}}\n"
SHADOW = "versions: all\ndefault: 1\nroute: {shadows: [{to: 2, percent: 10}]}\n"
CANARY_AND_SHADOW = f"versions: all\nroute: {{{SPLIT}, shadows: [{{to: 3, percent: 10}}]}}\n"
"""Requests have no key: each is drawn. A tenth of the runs is copied."""

PLAIN = ""

SETTINGS: tuple[tuple[str, str, str, dict[str, str], bool], ...] = (
    ("off", "all off", PLAIN, ALL_OFF, False),
    ("telemetry", "requests recorded", PLAIN, STATISTICS_OFF | SHADOW_OFF, False),
    ("exported", "requests recorded, all exported", PLAIN, STATISTICS_OFF | SHADOW_OFF, True),
    ("statistics", "statistics and drift", PLAIN, TELEMETRY_OFF | SHADOW_OFF, False),
    ("canary", "a 90/10 canary", CANARY, ALL_OFF, False),
    ("shadow", "10 % copied to a shadow", SHADOW, TELEMETRY_OFF | STATISTICS_OFF, False),
    ("defaults", "the defaults: recorded, statistics", PLAIN, {}, False),
    ("all", "all on: exported, statistics, canary", CANARY, {}, True),
    ("all-shadow", "all on, and a shadow", CANARY_AND_SHADOW, {}, True),
)
"""Key, title, model.yaml, environment, whether it exports. The first is what the others are held against."""

VERSIONS = {PLAIN: 1, CANARY: 2, SHADOW: 2, CANARY_AND_SHADOW: 3}
"""How many versions a repository with such a model.yaml needs."""


def driftgate(key: str, title: str, environment: dict[str, str], *, exports: bool) -> ServerSpec:
    if exports:
        environment = environment | EXPORT_METRICS_OFTEN
    return replace(
        DRIFTGATE,
        key=key,
        title=title,
        environment=QUEUE | environment,
        exports=exports,
        counts_drops=exports,
        exports_logs=exports,
    )


def with_workers(spec: ServerSpec, workers: int) -> ServerSpec:
    return replace(spec, key=f"{spec.key}-{workers}", command=_with_workers(spec.command, workers))


def _with_workers(command: Callable[[Site], list[str]], workers: int) -> Callable[[Site], list[str]]:
    def changed(site: Site) -> list[str]:
        words = command(site)
        words[words.index("--workers") + 1] = str(workers)
        return words

    return changed
