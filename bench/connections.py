"""`python -m bench.connections`: what is left of several workers' capacity where the kernel deals out connections.

Computed, not measured. Each connection falls on any worker with the same chance, as SO_REUSEPORT deals them out, and
brings the same load. The load that all of them may bring is at its greatest when the busiest worker has no more to
give: with C connections on W workers, of which the busiest has M, that is C / (W M) of the capacity. Expectations.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from scipy.stats import poisson

from bench import cores
from bench.report.markdown import table_text
from bench.report.results import Column, Row, Table
from bench.report.setting import results_of

CONNECTIONS = (1, 2, 4, 8, 16, 64, 256)
WORKERS = (2, 4, 8)


def share(connections: int, workers: int) -> float:
    """Of the workers' capacity together, 0 to 1."""
    up_to = [_chance_up_to(connections, workers, most) for most in range(connections + 1)]
    chances = np.diff(up_to)
    return float(sum(chances / np.arange(1, connections + 1)) * connections / workers)


def _chance_up_to(connections: int, workers: int, most: int) -> float:
    """That no worker has more than `most`: of independent Poisson counts, given that they add up to `connections`."""
    counts = np.arange(connections + 1)
    one = poisson.pmf(counts, connections / workers)
    one[most + 1 :] = 0.0
    together = np.ones(1)
    for _ in range(workers):
        together = np.convolve(together, one)[: connections + 1]
    return float(together[connections] / poisson.pmf(connections, connections))


def table() -> Table:
    columns = tuple(Column(f"workers_{count}", f"{count} workers", "", ".0%") for count in WORKERS)
    rows = tuple(
        Row(
            f"connections-{count}",
            f"{count} connection{'s' * (count > 1)}",
            {f"workers_{workers}": (share(count, workers),) for workers in WORKERS},
        )
        for count in CONNECTIONS
    )
    return Table("connections", "Of the workers' capacity", columns, rows, "of the workers' capacity")


@click.command(help=__doc__)
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path))
def main(json_file: Path | None) -> None:
    computed = table()
    click.echo(table_text(computed))
    if json_file is not None:
        results = results_of(
            "bench.connections",
            (computed,),
            cores=cores.choose(),
            rounds=1,
            seconds=0.0,
            warm_up_seconds=0.0,
            generator="none: it is computed",
        )
        json_file.write_text(results.to_json())


if __name__ == "__main__":
    main(prog_name="python -m bench.connections")
