"""`python -m bench.generator`: what the load generator itself takes, against a peer that costs next to nothing."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from statistics import median

import click
from rich import box
from rich.console import Console
from rich.table import Table

from bench import cores
from bench.catalogue import ServerSpec, Site, module_command
from bench.generator import WireGenerator
from bench.process import free_ports, running
from bench.sample import Burst, Load

NOTHING = ServerSpec("nothing", "next to nothing", module_command("nothing"), echoes=True)
LOADS = (
    Load(4, 16),
    Load(64, 16),
    Load(1, 1),
    Load(4, 16, rate=1_000),
    Load(4, 16, rate=10_000),
    Load(4, 16, rate=50_000),
)
REQUEST_BYTES = 146
POOL = 256
TABLE_WIDTH = 120


def _cells(load: Load, bursts: list[Burst], cpu_us: list[float]) -> list[str]:
    def middle(name: str) -> float:
        return float(median(getattr(burst, name) for burst in bursts))

    return [
        f"{load.connections} x {load.streams}",
        "-" if load.rate is None else f"{load.rate:,.0f}",
        f"{middle('requests_per_second'):,.0f}",
        f"{median(cpu_us):.2f}",
        f"{middle('p50_ms') * 1e3:.0f}",
        f"{middle('p99_ms') * 1e3:.0f}",
        "-" if load.rate is None else f"{middle('late_p99_ms') * 1e3:.0f}",
        str(sum(burst.failed for burst in bursts)),
    ]


@click.command(help=__doc__)
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--seconds", default=0.5, show_default=True, help="Of each load.", type=click.FloatRange(0.05))
def main(rounds: int, seconds: float) -> None:
    requests = tuple(number.to_bytes(2, "big") * (REQUEST_BYTES // 2) for number in range(POOL))
    generator = WireGenerator(requests, lambda index, reply: None if reply == requests[index] else "not the request")
    pair = cores.choose()
    taken: dict[Load, list[Burst]] = {load: [] for load in LOADS}
    cpu_us: dict[Load, list[float]] = {load: [] for load in LOADS}
    port, http_port, admin_port = free_ports(3)
    with cores.pinned(pair.load), tempfile.TemporaryDirectory(prefix="bench-generator-") as name:
        folder = Path(name)
        with running(NOTHING, Site(port, http_port, admin_port, folder, folder, folder), pair.server):
            generator(port, LOADS[0], seconds / 3)
            for _ in range(rounds):
                for load in LOADS:
                    before = cores.own_seconds()
                    burst = generator(port, load, seconds)
                    cpu_us[load].append((cores.own_seconds() - before) / burst.offered * 1e6)
                    taken[load].append(burst)
    table = Table(title=f"{REQUEST_BYTES}-byte requests, medians of {rounds} rounds", box=box.SIMPLE_HEAD)
    for heading in (
        "in flight",
        "due/s",
        "requests/s",
        "CPU µs",
        "p50 µs",
        "p99 µs",
        "late p99 µs",
        "failed",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for load in LOADS:
        table.add_row(*_cells(load, taken[load], cpu_us[load]))
    table.caption = "CPU µs: of the generator, a request; late: how long after it was due a request was noticed"
    Console(width=None if sys.stdout.isatty() else TABLE_WIDTH).print(table)


if __name__ == "__main__":
    main(prog_name="python -m bench.generator")
