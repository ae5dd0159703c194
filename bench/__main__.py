"""`python -m bench`: every server under the same load, one table, and one each of what observing and a canary cost."""

from __future__ import annotations

import platform
import signal
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import NoReturn, get_args

import click
from rich.console import Console
from rich.markup import escape

from bench import cores, model
from bench.canary import canary_cost, render_canary
from bench.catalogue import SERVERS, ServerSpec
from bench.costs import is_of_interest, render_costs
from bench.generators import Choice, generator_of
from bench.report.of_rounds import of_rounds
from bench.rounds import Bench, Plan
from bench.sample import MANY_IN_FLIGHT, Sample
from bench.table import render

WARM_UP_SHARE = 1 / 3
"""Of a load's seconds, before it and not counted: time for lazy imports, allocators and the CPU's clock."""

TABLE_WIDTH = 160
"""Where the output is no terminal, rich would fold the table to 80 columns."""

PROGRESS = Console(stderr=True, width=None if sys.stderr.isatty() else TABLE_WIDTH)


def _choose(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[ServerSpec, ...]:
    if value is None:
        return SERVERS
    wanted = {name.strip() for name in value.split(",")}
    if unknown := wanted - {spec.key for spec in SERVERS}:
        raise click.BadParameter(f"{sorted(unknown)}: choose from {[spec.key for spec in SERVERS]}")
    return tuple(spec for spec in SERVERS if spec.key in wanted)


def report(round_index: int, spec: ServerSpec, outcome: Sample | str) -> None:
    if isinstance(outcome, Sample):
        rates = " and ".join(f"{each.burst.requests_per_second:,.0f}/s" for each in (outcome.many, outcome.one))
        PROGRESS.print(f"round {round_index + 1}  {spec.title}: {rates}, {outcome.errors} errors", highlight=False)
        for note in outcome.many.burst.notes + outcome.one.burst.notes:
            PROGRESS.print(f"  [bold red]{escape(note)}[/]", highlight=False)
    else:
        PROGRESS.print(f"[bold red]{spec.title} failed:[/] {escape(outcome)}", highlight=False)


def caption_of(bench: Bench) -> str:
    plan, pair = bench.plan, bench.cores
    where = f"server on core {pair.server}, load on core {pair.load}"
    if pair.shared:
        where = f"SERVER AND LOAD SHARE core {pair.server}: rates are of both together"
    packages = ", ".join(f"{name} {version(name)}" for name in ("grpcio", "onnxruntime"))
    return (
        f"load by {bench.generator.name}: {MANY_IN_FLIGHT.connections} connections x {MANY_IN_FLIGHT.streams} streams,"
        f" then 1 x 1; {len(bench.workload.request)}-byte requests"
        f" of {len(bench.workload.requests)} rows; {where}\n"
        f"medians of {plan.rounds} rounds of {plan.seconds:g} s, ratios too; "
        f"!: others took a core's time, or the load core was the limit\n"
        f"Python {platform.python_version()}, {packages}"
    )


def terminated(_signal: int, _frame: FrameType | None) -> NoReturn:
    # Leaves through the context managers, which end the server and remove its folder.
    raise SystemExit(128 + signal.SIGTERM)


@click.command()
@click.option("--seconds", default=1.5, show_default=True, help="Length of each load.", type=click.FloatRange(0.1))
@click.option("--rounds", default=5, show_default=True, help="Times each server is measured.", type=click.IntRange(1))
@click.option("--servers", callback=_choose, help=f"Some of: {','.join(spec.key for spec in SERVERS)}.")
@click.option("--load", type=click.Choice(get_args(Choice)), default="wire", show_default=True)
@click.option("--smoke", is_flag=True, help="One short round: shows that everything runs; its figures mean nothing.")
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the figures of all rounds there.",
)
def main(
    *, seconds: float, rounds: int, servers: tuple[ServerSpec, ...], load: Choice, smoke: bool, json_file: Path | None
) -> None:
    """Measure all servers in one run and print its tables.

    Fails if any server failed, answered wrongly, or lost telemetry that it has not counted.
    """
    signal.signal(signal.SIGTERM, terminated)
    if smoke:
        seconds, rounds = 0.25, 1
    pair = cores.choose()
    with cores.pinned(pair.load), tempfile.TemporaryDirectory(prefix="bench-") as folder:
        workload = model.build(Path(folder))
        plan = Plan(servers, rounds, seconds, warm_up_seconds=seconds * WARM_UP_SHARE)
        bench = Bench(workload, generator_of(load, workload, Path(folder)), pair, plan)
        results = bench.run(report)
    console = Console(width=None if sys.stdout.isatty() else TABLE_WIDTH)
    console.print(render(results, servers, caption_of(bench)))
    if is_of_interest(servers):
        console.print(render_costs(results, servers))
    if canary_cost(results.rounds) is not None:
        console.print(render_canary(results))
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(of_rounds(bench, results).to_json())
    if results.failures or any(sample.errors for samples in results.rounds for sample in samples.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main(prog_name="python -m bench")
