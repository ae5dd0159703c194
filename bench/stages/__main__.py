"""`python -m bench.stages`: where the processor time of a request goes, stage by stage."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from types import FrameType
from typing import NoReturn

import click
from rich import box
from rich.console import Console
from rich.table import Table

from bench import cores, model
from bench.catalogue import EXPORTING, UNOBSERVED, ServerSpec, Site
from bench.load import H2Load
from bench.process import REPOSITORY_ROOT, ServerFailed, free_ports, running
from bench.receiver import receiving
from bench.sample import MANY_IN_FLIGHT, ONE_IN_FLIGHT, Generator, Load
from bench.stages.attribution import Profile, attribute
from bench.stages.clocks import DUMP_FILE
from bench.stages.mapping import STAGES
from bench.stages.usage import WORKER, reading_of, usage_of, worker_of

TABLE_WIDTH = 140
WARM_UP_SECONDS = 1.0
HOOK = Path(__file__).with_name("hook")

ALL_ON = replace(EXPORTING, key="driftgate-all", title="driftgate, all on", routes=True)
"""Traces of every request, metrics and logs exported, every value measured, a canary."""

SERVERS = {"all off": UNOBSERVED, "all on": ALL_ON}
LOADS = {"1": ONE_IN_FLIGHT, "64": MANY_IN_FLIGHT}


@dataclass(frozen=True, slots=True)
class Case:
    server: str
    load: str

    @property
    def title(self) -> str:
        return f"{self.server},\n{self.load} in flight"


CASES = tuple(Case(server, load) for server in SERVERS for load in LOADS)


@dataclass(frozen=True, slots=True)
class Outcome:
    """`plain_us`: processor time of a request, of a server without stage clocks; and its rate."""

    profile: Profile
    plain_us: float
    plain_requests_per_second: float


@dataclass(frozen=True, slots=True)
class Stand:
    workload: model.Workload
    generator: Generator
    pair: cores.Cores
    seconds: float


def measure(stand: Stand, spec: ServerSpec) -> dict[str, Outcome]:
    """By load. Raises ServerFailed, LoadFailed."""
    plain = _plain(stand, spec)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-stages-")))
        file = folder / "stages.json"
        clocked = replace(spec, environment=spec.environment | _environment(file))
        port, tree = _started(stack, stand, clocked, folder)
        worker = worker_of(tree)
        outcomes = {}
        for name, load in LOADS.items():
            stand.generator(port, load, WARM_UP_SECONDS)
            usage, reading = usage_of(tree), reading_of(worker, file)
            burst = stand.generator(port, load, stand.seconds)
            spent, after = usage_of(tree).since(usage), reading_of(worker, file)
            profile = attribute(reading, after, spent, burst.requests, burst.requests_per_second)
            outcomes[name] = Outcome(profile, *plain[name])
        return outcomes


def _plain(stand: Stand, spec: ServerSpec) -> dict[str, tuple[float, float]]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-stages-")))
        port, tree = _started(stack, stand, spec, folder)
        plain = {}
        for name, load in LOADS.items():
            stand.generator(port, load, WARM_UP_SECONDS)
            usage = usage_of(tree)
            burst = stand.generator(port, load, stand.seconds)
            spent = usage_of(tree).since(usage)
            plain[name] = (sum(spent.processes.values()) * 1e6 / burst.requests, burst.requests_per_second)
        return plain


def _started(stack: ExitStack, stand: Stand, spec: ServerSpec, folder: Path) -> tuple[int, list]:
    """Its port and its processes."""
    receiver = stack.enter_context(receiving()) if spec.exports else None
    workload = stand.workload
    repository = workload.canary_repository if spec.routes else workload.repository
    otlp_port = receiver.port if receiver is not None else 0
    site = Site(*free_ports(3), repository, workload.model_file, folder, otlp_port)
    server = stack.enter_context(running(spec, site, stand.pair.server))
    stand.generator(site.port, MANY_IN_FLIGHT, WARM_UP_SECONDS)
    return site.port, server.tree()


def _environment(file: Path) -> dict[str, str]:
    path = [str(HOOK), str(REPOSITORY_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(path), DUMP_FILE: str(file)}


def render(rounds: list[dict[Case, Outcome]]) -> Table:
    table = Table(title="Processor time of a request, µs", box=box.SIMPLE_HEAD)
    table.add_column("stage", no_wrap=True)
    for case in CASES:
        table.add_column(case.title, justify="right", no_wrap=True)
    taken = {case: [outcomes[case] for outcomes in rounds] for case in CASES}

    def add(title: str, figure: Callable[[Outcome], float], *, end: bool = False) -> None:
        cells = (f"{median(map(figure, taken[case])):,.1f}" for case in CASES)
        table.add_row(title, *cells, end_section=end)

    for stage in STAGES:
        add(stage, lambda outcome, stage=stage: outcome.profile.stages_us[stage], end=stage is STAGES[-1])
    add("the worker's other threads", lambda outcome: outcome.profile.other_threads_us)
    names = {name for outcomes in rounds for outcome in outcomes.values() for name in outcome.profile.processes_us}
    for name in sorted(names):
        add(f"process {name}", lambda outcome, name=name: outcome.profile.processes_us.get(name, 0.0))
    add("all of the server", lambda outcome: outcome.profile.total_us)
    add("the same, measured without stage clocks", lambda outcome: outcome.plain_us)
    add("what the stage clocks took, not in the above", lambda outcome: outcome.profile.clocks_us, end=True)
    add("requests/s without stage clocks", lambda outcome: outcome.plain_requests_per_second)
    return table


def _terminated(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)


@click.command()
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--seconds", default=2.0, show_default=True, help="Of each load.", type=click.FloatRange(0.1))
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path))
def main(rounds: int, seconds: float, json_file: Path | None) -> None:
    """Time the stages of a worker under load, everything off and everything on, 1 and 64 requests in flight."""
    signal.signal(signal.SIGTERM, _terminated)
    pair = cores.choose()
    console = Console(width=None if sys.stdout.isatty() else TABLE_WIDTH)
    taken: list[dict[Case, Outcome]] = []
    with cores.pinned(pair.load), tempfile.TemporaryDirectory(prefix="bench-") as folder:
        workload = model.build(Path(folder))
        stand = Stand(workload, H2Load(workload.request, Path(folder)), pair, seconds)
        for _ in range(rounds):
            outcomes = {}
            for server, spec in SERVERS.items():
                for load, outcome in measure(stand, spec).items():
                    outcomes[Case(server, load)] = outcome
            taken.append(outcomes)
    console.print(render(taken))
    if json_file is not None:
        json_file.write_text(json.dumps([{case.title: asdict(p) for case, p in r.items()} for r in taken], indent=1))


if __name__ == "__main__":
    main(prog_name="python -m bench.stages")
