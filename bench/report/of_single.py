"""Sections of the matrix that measure one thing at a time, as tables of the common form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from bench.report.results import Column, Row, Table
from bench.sample import Measurement

MIB = 1 << 20


class AnyStart(Protocol):
    """One start of a gateway that then idles."""

    @property
    def models(self) -> int: ...
    @property
    def cold(self) -> bool: ...
    @property
    def ready_seconds(self) -> float: ...
    @property
    def cpu_us_per_second(self) -> float: ...
    @property
    def pss_bytes(self) -> Mapping[str, int]: ...


def idle_tables(starts: Sequence[AnyStart], roles: Sequence[str]) -> tuple[Table, ...]:
    """`idle` and `start-up`; `roles`: the processes, each with a column of its memory."""
    counts = sorted({start.models for start in starts})
    warm = {count: [start for start in starts if start.models == count and not start.cold] for count in counts}
    idle = tuple(
        Row(
            str(count),
            _models(count),
            {
                "cpu": tuple(start.cpu_us_per_second for start in warm[count]),
                "memory": tuple(sum(start.pss_bytes.values()) / MIB for start in warm[count]),
                **{role: tuple(start.pss_bytes.get(role, 0) / MIB for start in warm[count]) for role in roles},
            },
        )
        for count in counts
        if warm[count]
    )
    ready = tuple(
        Row(
            f"{count}{'-cold' * cold}",
            f"{_models(count)}, {'no compiled kernels yet' if cold else 'kernels compiled'}",
            {"ready": tuple(start.ready_seconds for start in starts if (start.models, start.cold) == (count, cold))},
        )
        for cold in (False, True)
        for count in counts
        if any((start.models, start.cold) == (count, cold) for start in starts)
    )
    memory = (Column("memory", "memory", "MiB"), *(Column(role, f"of it {role}", "MiB") for role in roles))
    return (
        Table("idle", "an idle gateway", (Column("cpu", "CPU a second", "µs"), *memory), idle, "loaded"),
        Table("start-up", "time to ready", (Column("ready", "ready after", "s", ".2f", spread=True),), ready, "start"),
    )


def _models(count: int) -> str:
    return "1 model" if count == 1 else f"{count} models"


def tail_table(
    minutes: float, capacity: float, measured: Measurement, slow: int, memory: Sequence[float], slope: float
) -> Table:
    """One row. `slow`: requests over 100 ms; `memory`: bytes, look by look; `slope`: bytes a minute."""
    burst = measured.burst
    figures = {
        Column("minutes", "minutes"): minutes,
        Column("capacity", "closed loop", "requests/s"): capacity,
        Column("offered", "requests that were due"): float(burst.offered),
        Column("failed", "failed"): float(measured.errors),
        Column("p50", "p50", "ms", ".3f"): burst.p50_ms,
        Column("p99", "p99", "ms", ".3f"): burst.p99_ms,
        Column("p999", "p99.9", "ms", ".2f"): burst.p999_ms,
        Column("longest", "longest", "ms", ".1f"): burst.longest_ms,
        Column("slow", "over 100 ms"): float(slow),
        Column("late", "the load's own lateness, p99", "ms", ".3f"): burst.late_p99_ms,
        Column("memory_first", "memory, first", "MiB", ",.1f"): memory[0] / MIB,
        Column("memory_last", "memory, last", "MiB", ",.1f"): memory[-1] / MIB,
        Column("slope", "memory, slope", "MiB/minute", "+.3f"): slope / MIB,
    }
    row = Row("all", "driftgate, all on", {column.key: (value,) for column, value in figures.items()})
    return Table("tail", "a long open loop at half of the capacity", tuple(figures), (row,), "server")
