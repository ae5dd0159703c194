"""`python -m bench.stages`: where the processor time of a request goes, stage by stage."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click
import psutil  # type: ignore[import-untyped]

from bench import cores, model
from bench.catalogue import ALL_ON, UNOBSERVED, ServerSpec, Site
from bench.generators import generator_of
from bench.process import REPOSITORY_ROOT, ServerFailed, free_ports, running
from bench.receiver import receiving
from bench.report.markdown import report_text
from bench.report.results import Column, Row, Table
from bench.report.setting import results_of
from bench.sample import MANY_IN_FLIGHT, ONE_IN_FLIGHT, Generator, LoadFailed
from bench.stages.attribution import Profile, attribute
from bench.stages.clocks import DUMP_FILE
from bench.stages.mapping import STAGES
from bench.stages.usage import reading_of, usage_of, worker_of

WARM_UP_SECONDS = 1.0
HOOK = Path(__file__).with_name("hook")

SERVERS = {"all off": UNOBSERVED, "all on": ALL_ON}
LOADS = {"1": ONE_IN_FLIGHT, "64": MANY_IN_FLIGHT}


@dataclass(frozen=True, slots=True)
class Case:
    server: str
    load: str

    @property
    def title(self) -> str:
        return f"{self.server}, {self.load} in flight"

    @property
    def key(self) -> str:
        return f"{self.server.removeprefix('all ')}_{self.load}"


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


def _started(stack: ExitStack, stand: Stand, spec: ServerSpec, folder: Path) -> tuple[int, list[psutil.Process]]:
    """Its port and its processes."""
    receiver = stack.enter_context(receiving()) if spec.exports else None
    workload = stand.workload
    repository = workload.canary_repository if spec.routes else workload.repository
    otlp_port = receiver.port if receiver is not None else 0
    port, http_port, admin_port = free_ports(3)
    site = Site(
        port=port,
        http_port=http_port,
        admin_port=admin_port,
        repository=repository,
        model_file=workload.model_file,
        folder=folder,
        otlp_port=otlp_port,
    )
    server = stack.enter_context(running(spec, site, stand.pair.server))
    stand.generator(site.port, MANY_IN_FLIGHT, WARM_UP_SECONDS)
    return site.port, server.tree()


def _environment(file: Path) -> dict[str, str]:
    path = [str(HOOK), str(REPOSITORY_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(path), DUMP_FILE: str(file)}


def stages_table(rounds: list[dict[Case, Outcome]]) -> Table:
    """A row for each stage, and what they add up to; a column for each case. µs of processor time a request."""

    def row(key: str, title: str, figure: Callable[[Outcome], float]) -> Row:
        values = {case.key: tuple(figure(outcomes[case]) for outcomes in rounds) for case in CASES}
        return Row(key, title, values)

    def of_stage(stage: str) -> Callable[[Outcome], float]:
        return lambda outcome: outcome.profile.stages_us[stage]

    rows = [row(stage.partition(":")[0], stage, of_stage(stage)) for stage in STAGES]
    rows += [
        row("threads", "the worker's other threads", lambda outcome: outcome.profile.other_threads_us),
        row("processes", "supervisor, control, shadows", lambda outcome: sum(outcome.profile.processes_us.values())),
        row("all", "all of the server", lambda outcome: outcome.profile.total_us),
        row("plain", "the same, of a server without stage clocks", lambda outcome: outcome.plain_us),
        row("clocks", "what the stage clocks took, not in the above", lambda outcome: outcome.profile.clocks_us),
    ]
    columns = tuple(Column(case.key, case.title, "µs", ".1f") for case in CASES)
    return Table("stages", "Processor time of a request, by stage", columns, tuple(rows), "stage")


def rates_table(rounds: list[dict[Case, Outcome]]) -> Table:
    rates = {case: tuple(outcomes[case].plain_requests_per_second for outcomes in rounds) for case in CASES}
    column = Column("rate", "without stage clocks", "requests/s", spread=True)
    rows = tuple(Row(case.key, case.title, {"rate": values}) for case, values in rates.items())
    return Table("stages_rates", "The loads of the stages", (column,), rows, "driftgate")


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
    with cores.pinned(pair.load), tempfile.TemporaryDirectory(prefix="bench-") as folder:
        workload = model.build(Path(folder))
        generator = generator_of("wire", workload, Path(folder)).for_models
        stand = Stand(workload, generator, pair, seconds)
        try:
            taken = [measure_all(stand) for _ in range(rounds)]
        except (ServerFailed, LoadFailed) as error:
            raise click.ClickException(str(error)) from error
    results = results_of(
        "bench.stages",
        (stages_table(taken), rates_table(taken)),
        cores=pair,
        rounds=rounds,
        seconds=seconds,
        warm_up_seconds=WARM_UP_SECONDS,
        generator=generator.name,
    )
    click.echo(report_text(results))
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(results.to_json())


def measure_all(stand: Stand) -> dict[Case, Outcome]:
    return {
        Case(server, load): outcome
        for server, spec in SERVERS.items()
        for load, outcome in measure(stand, spec).items()
    }


if __name__ == "__main__":
    main(prog_name="python -m bench.stages")
