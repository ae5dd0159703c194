"""`python -m bench.stages`: where the processor time of a request goes, stage by stage."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from collections import Counter
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
from bench.process import free_ports, running
from bench.receiver import receiving
from bench.sample import MANY_IN_FLIGHT, ONE_IN_FLIGHT, Generator, Load
from bench.stages.attribution import Profile, attribute
from bench.stages.mapping import STAGES
from bench.stages.sampling import START_SECONDS, Sampling, SamplingRefused, read_clocks, thread_names, worker_of

TABLE_WIDTH = 140
WARM_UP_SECONDS = 1.0

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
class Stand:
    workload: model.Workload
    generator: Generator
    pair: cores.Cores
    seconds: float
    sampled_seconds: float


def profile_server(stand: Stand, spec: ServerSpec) -> dict[str, Profile]:
    """By load. Raises ServerFailed, LoadFailed, SamplingRefused."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-stages-")))
        receiver = stack.enter_context(receiving()) if spec.exports else None
        workload = stand.workload
        repository = workload.canary_repository if spec.routes else workload.repository
        otlp_port = receiver.port if receiver is not None else 0
        site = Site(*free_ports(3), repository, workload.model_file, folder, otlp_port)
        with running(spec, site, stand.pair.server) as server:
            worker = worker_of(server.tree())
            stand.generator(site.port, MANY_IN_FLIGHT, WARM_UP_SECONDS)
            return {name: profile_load(stand, site.port, load, worker, server.tree(), folder) for name, load in LOADS.items()}


def profile_load(stand: Stand, port: int, load: Load, worker: int, tree: list, folder: Path) -> Profile:
    """Processor time from a load without samples, shares from one with them: to sample costs time."""
    names = thread_names(worker)
    stand.generator(port, load, WARM_UP_SECONDS / 2)
    before = read_clocks(tree, worker, names)
    burst = stand.generator(port, load, stand.seconds)
    spent = read_clocks(tree, worker, names).since(before)
    sampling = Sampling(worker, stand.sampled_seconds, folder)
    stand.generator(port, load, stand.sampled_seconds + START_SECONDS)
    return attribute(sampling.stacks(), spent, burst.requests, burst.requests_per_second)


def render(rounds: list[dict[Case, Profile]]) -> Table:
    table = Table(title="Processor time of a request, µs", box=box.SIMPLE_HEAD)
    table.add_column("stage", no_wrap=True)
    for case in CASES:
        table.add_column(case.title, justify="right", no_wrap=True)
    taken = {case: [profiles[case] for profiles in rounds] for case in CASES}

    def add(title: str, figure, *, end: bool = False) -> None:
        cells = []
        for case in CASES:
            values = [figure(profile) for profile in taken[case]]
            cells.append(f"{median(values):,.1f}")
        table.add_row(title, *cells, end_section=end)

    for stage in STAGES:
        add(stage, lambda profile, stage=stage: profile.stages_us[stage], end=stage is STAGES[-1])
    add("request threads together", lambda profile: profile.request_threads_us)
    add("of it in the kernel", lambda profile: profile.kernel_us, end=True)
    add("the worker's other threads", lambda profile: profile.other_threads_us)
    for name in sorted({name for profiles in rounds for profile in profiles.values() for name in profile.processes_us}):
        add(f"process {name}", lambda profile, name=name: profile.processes_us.get(name, 0.0))
    add("all of the server", lambda profile: profile.total_us, end=True)
    add("requests/s", lambda profile: profile.requests_per_second)
    table.add_row("samples", *(f"{sum(profile.samples for profile in taken[case]):,}" for case in CASES))
    return table


def render_functions(rounds: list[dict[Case, Profile]], count: int) -> Table:
    table = Table(title="Share of samples that ended in a function", box=box.SIMPLE_HEAD)
    table.add_column("function", no_wrap=True)
    sums = {case: sum((Counter(profiles[case].functions) for profiles in rounds), Counter()) for case in CASES}
    shares = {
        case: {name: number / max(sum(found.values()), 1) for name, number in found.items()}
        for case, found in sums.items()
    }
    for case in CASES:
        table.add_column(case.title, justify="right", no_wrap=True)
    names = {name for found in shares.values() for name in found}
    for name in sorted(names, key=lambda name: -max(found.get(name, 0.0) for found in shares.values()))[:count]:
        table.add_row(name, *(f"{shares[case].get(name, 0.0):.1%}" for case in CASES))
    return table


def _terminated(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)


@click.command()
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--seconds", default=2.0, show_default=True, help="Of each load that gives the processor time.")
@click.option("--sampled-seconds", default=4.0, show_default=True, help="Of each load that gives the shares.")
@click.option("--functions", default=0, help="Also the so many functions that most samples ended in.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path))
def main(rounds: int, seconds: float, sampled_seconds: float, functions: int, json_file: Path | None) -> None:
    """Sample a worker under load, everything off and everything on, with 1 and with 64 requests in flight."""
    signal.signal(signal.SIGTERM, _terminated)
    pair = cores.choose()
    console = Console(width=None if sys.stdout.isatty() else TABLE_WIDTH)
    taken: list[dict[Case, Profile]] = []
    with cores.pinned(pair.load), tempfile.TemporaryDirectory(prefix="bench-") as folder:
        workload = model.build(Path(folder))
        stand = Stand(workload, H2Load(workload.request, Path(folder)), pair, seconds, sampled_seconds)
        try:
            for _ in range(rounds):
                taken.append(
                    {
                        Case(server, load): profile
                        for server, spec in SERVERS.items()
                        for load, profile in profile_server(stand, spec).items()
                    }
                )
        except SamplingRefused as error:
            raise click.ClickException(str(error)) from error
    console.print(render(taken))
    if functions:
        console.print(render_functions(taken, functions))
    if json_file is not None:
        json_file.write_text(json.dumps([{case.title: asdict(p) for case, p in r.items()} for r in taken], indent=1))


if __name__ == "__main__":
    main(prog_name="python -m bench.stages")
