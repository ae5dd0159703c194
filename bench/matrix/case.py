"""What a section measures: cases, each a server under loads of its own, and what is claimed of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rich.table import Table

from bench.catalogue import ServerSpec
from bench.cores import Cores
from bench.matrix.workload import Workload
from bench.report.results import Table as Figures
from bench.sample import Load, Measurement

Round = Mapping[str, Mapping[str, Measurement]]
"""What one round gave: by case, by step."""


@dataclass(frozen=True, slots=True)
class Step:
    """One load in a server's turn. `share`: an open loop, at this part of the rate that the first step reached.

    `times_longer`: than the setting's length, where a request is so much work that few would be counted.
    """

    key: str
    title: str
    workload: Workload
    load: Load
    share: float | None = None
    times_longer: float = 1.0


@dataclass(frozen=True, slots=True)
class Case:
    """`spec`: None for ONNX Runtime in a loop, in a process without a server. `against`: the case of which ratios are.

    `both_cores`: the server may use the load's core too; else it has one of its own. `rests`: what a server does once
    after it is ready, such as reading the profiles of all versions, is over before the first load.
    """

    key: str
    title: str
    spec: ServerSpec | None
    repository: Path
    graph: Path
    steps: tuple[Step, ...]
    against: str = ""
    both_cores: bool = False
    rests: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """`figure`: of one round, KeyError where it lacks a case; `bound`: what the rounds' median must keep to."""

    title: str
    figure: Callable[[Round], float]
    bound: float
    at_least: bool = True

    def holds(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound


@dataclass(frozen=True, slots=True)
class Setting:
    """How all is measured. `tell`: a line for whoever watches; `minutes`: of the long run.

    `only`: patterns as in a shell, of which a case's key must match one.
    """

    folder: Path
    cores: Cores
    rounds: int
    seconds: float
    warm_up_seconds: float
    minutes: float
    tell: Callable[[str], None]
    only: tuple[str, ...] = ("*",)


@dataclass(frozen=True, slots=True)
class Outcome:
    """`report`: what is written of it, in the form of all benchmarks; `document`: more, as JSON takes it.

    `failed`: a server failed, answered wrongly, or lost telemetry.
    """

    tables: tuple[Table, ...]
    document: dict[str, object]
    failed: bool
    report: tuple[Figures, ...] = ()


class Section(Protocol):
    """A part of the matrix, by its name."""

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    def run(self, setting: Setting) -> Outcome: ...


def rate(case: str, step: str) -> Callable[[Round], float]:
    return lambda samples: samples[case][step].burst.requests_per_second


def ratio(over: tuple[str, str], under: tuple[str, str]) -> Callable[[Round], float]:
    """Of two rates in one round, each of (case, step)."""
    return lambda samples: rate(*over)(samples) / rate(*under)(samples)
