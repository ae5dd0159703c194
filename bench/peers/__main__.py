"""`python -m bench.peers`: driftgate with all on, beside other servers and the limits of what it is built of."""

from __future__ import annotations

import signal
import sys
import tempfile
from pathlib import Path
from typing import get_args

import click
from rich.console import Console

from bench import cores, inprocess, model
from bench.__main__ import TABLE_WIDTH, WARM_UP_SHARE, caption_of, report, terminated
from bench.catalogue import (
    AIO_ECHO,
    AIO_ONNX,
    ALL_ON,
    POLLED_ECHO,
    QUEUE_ECHO,
    SYNC_ECHO,
    SYNC_ONNX,
    UNOBSERVED,
    ServerSpec,
)
from bench.generators import Choice, generator_of
from bench.peers.choice import KEYS, NAMES, TRIED, set_up
from bench.peers.install import versions_of
from bench.peers.report import HEADINGS, LIMIT_HEADINGS, limit_rows, markdown, rows_of, table
from bench.report.of_peers import of_peers
from bench.rounds import Bench, Plan, Results

OWN = (AIO_ECHO, SYNC_ECHO, AIO_ONNX, SYNC_ONNX, QUEUE_ECHO, POLLED_ECHO, UNOBSERVED, ALL_ON)
DEFAULT = (*KEYS, *(spec.key for spec in OWN))
PACKAGES_SHOWN = {"mlserver": ("mlserver",), "triton": ("nvidia-pytriton",)}
SERVERS_HELP = f"Some of: {','.join(DEFAULT)}; of the settings that were tried: {','.join(TRIED)}."


def _choose(_context: click.Context, _parameter: click.Parameter, value: str | None) -> frozenset[str]:
    if value is None:
        return frozenset(DEFAULT)
    wanted = frozenset(name.strip() for name in value.split(","))
    if unknown := wanted - {*DEFAULT, *TRIED}:
        raise click.BadParameter(f"{sorted(unknown)}: choose from {[*DEFAULT, *TRIED]}")
    return wanted


def _servers(wanted: frozenset[str]) -> tuple[tuple[ServerSpec, ...], dict[str, str]]:
    """What is to be measured, and why peers that were asked for cannot be."""
    peers, missing = set_up(wanted)
    specs = *peers, *(spec for spec in OWN if spec.key in wanted)
    if not specs:
        raise click.ClickException("none of the servers can be had: " + "; ".join(missing.values()))
    return specs, missing


def _measure(bench: Bench) -> tuple[Results, list[dict[int, inprocess.Limit]]]:
    results, limits = Results(rounds=[], failures={}), []
    workload, core = bench.workload, bench.cores.server
    for round_index in range(bench.plan.rounds):
        loops = (inprocess.measure(workload.model_file, rows, bench.plan.seconds, core) for rows in inprocess.ROWS)
        limits.append({limit.rows: limit for limit in loops})
        bench.round(round_index, results, report)
    return results, limits


def _caption(bench: Bench, missing: dict[str, str]) -> str:
    shown = [f"{package} {number}" for name in NAMES if name not in missing for package, number in _shown(name)]
    return (
        f"{caption_of(bench)}, {', '.join(shown)}\n"
        "all on to it: driftgate's rate with all on to the server's; its to all on's: the server's p50 to driftgate's; "
        "above 1 driftgate is the faster\n"
        "ratios: medians, least and greatest of the rounds' own"
    )


def _shown(name: str) -> list[tuple[str, str]]:
    """Packages of a peer and their versions."""
    return [(package, versions_of(name)[package]) for package in PACKAGES_SHOWN[name]]


@click.command()
@click.option("--seconds", default=1.5, show_default=True, help="Length of each load.", type=click.FloatRange(0.1))
@click.option("--rounds", default=5, show_default=True, help="Times each server is measured.", type=click.IntRange(1))
@click.option("--servers", callback=_choose, help=SERVERS_HELP)
@click.option("--load", type=click.Choice(get_args(Choice)), default="wire", show_default=True)
@click.option("--settings", is_flag=True, help="The peers alone, with all settings that were tried, not --servers.")
@click.option("--strict", is_flag=True, help="Fail too where a peer cannot be set up.")
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the figures of all rounds.",
)
@click.option("--markdown", "markdown_file", type=click.Path(dir_okay=False, path_type=Path), help="And the tables.")
def main(
    *,
    seconds: float,
    rounds: int,
    servers: frozenset[str],
    load: Choice,
    settings: bool,
    strict: bool,
    json_file: Path | None,
    markdown_file: Path | None,
) -> None:
    """Set other servers up, measure them and driftgate in one run, and print how they compare.

    Fails if any server failed or answered wrongly. A peer that cannot be set up is said and left out.
    """
    signal.signal(signal.SIGTERM, terminated)
    specs, missing = _servers(frozenset((*KEYS, *TRIED)) if settings else servers)
    for name, reason in missing.items():
        click.echo(f"{name} cannot be set up and is left out: {reason}", err=True)
    pair = cores.choose()
    with cores.pinned(pair.load), tempfile.TemporaryDirectory(prefix="bench-") as folder:
        workload = model.build(Path(folder))
        plan = Plan(specs, rounds, seconds, warm_up_seconds=seconds * WARM_UP_SHARE)
        bench = Bench(workload, generator_of(load, workload, Path(folder)), pair, plan)
        results, limits = _measure(bench)
    caption, loops = _caption(bench, missing), limit_rows(results, limits)
    console = Console(width=None if sys.stdout.isatty() else TABLE_WIDTH)
    console.print(table("driftgate with all on, beside others", HEADINGS, rows_of(results, specs), caption))
    console.print(table(None, LIMIT_HEADINGS, loops))
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        peers = {package: number for name in NAMES if name not in missing for package, number in _shown(name)}
        json_file.write_text(of_peers(bench, results, limits, peers).to_json())
    if markdown_file is not None:
        markdown_file.parent.mkdir(parents=True, exist_ok=True)
        tables = (markdown(HEADINGS, rows_of(results, specs)), markdown(LIMIT_HEADINGS, loops))
        markdown_file.write_text(f"{tables[0]}\n{tables[1]}\n{caption}\n")
    failed = results.failures or any(sample.errors for samples in results.rounds for sample in samples.values())
    if failed or (strict and missing):
        raise SystemExit(1)


if __name__ == "__main__":
    main(prog_name="python -m bench.peers")
