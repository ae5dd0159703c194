"""`python -m bench.matrix`: driftgate over models, loads, settings and sizes, section by section."""

from __future__ import annotations

import signal
import sys
import tempfile
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape

from bench import cores
from bench.__main__ import WARM_UP_SHARE, terminated
from bench.matrix.case import Outcome, Section, Setting
from bench.matrix.sections import SECTIONS as INTERLEAVED
from bench.matrix.single import SINGLE
from bench.report.setting import results_of

SECTIONS: tuple[Section, ...] = (*INTERLEAVED, *SINGLE)
TABLE_WIDTH = 200
PROGRESS = Console(stderr=True, width=None if sys.stderr.isatty() else TABLE_WIDTH)
NAMES = [section.name for section in SECTIONS]


def _tell(line: str) -> None:
    PROGRESS.print(escape(line), highlight=False)


def _write(file: Path, outcomes: dict[str, Outcome], setting: Setting) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    results = results_of(
        "bench.matrix",
        tuple(table for outcome in outcomes.values() for table in outcome.report),
        cores=setting.cores,
        rounds=setting.rounds,
        seconds=setting.seconds,
        warm_up_seconds=setting.warm_up_seconds,
        generator="wire",
        failures={f"{name}, {case}": why for name, outcome in outcomes.items() for case, why in _failures(outcome)},
    )
    file.write_text(results.to_json())


def _failures(outcome: Outcome) -> list[tuple[str, str]]:
    failures = outcome.document.get("failures", {})
    return list(failures.items()) if isinstance(failures, dict) else []


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(NAMES), metavar="[SECTION]...")
@click.option("--seconds", default=2.0, show_default=True, help="Length of each load.", type=click.FloatRange(0.1))
@click.option("--rounds", default=5, show_default=True, help="Times each case is measured.", type=click.IntRange(1))
@click.option("--minutes", default=10.0, show_default=True, help="Of the section tail.", type=click.FloatRange(0.05))
@click.option("--cases", default="*", show_default=True, help="Some of the cases, as images-*,linear-*.")
@click.option("--smoke", is_flag=True, help="One short round: shows that everything runs; its figures mean nothing.")
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the figures of all rounds there.",
)
def main(
    *,
    names: tuple[str, ...],
    seconds: float,
    rounds: int,
    minutes: float,
    cases: str,
    smoke: bool,
    json_file: Path | None,
) -> None:
    """Measure sections of the matrix, all of them where none is named, and print their tables."""
    signal.signal(signal.SIGTERM, terminated)
    if smoke:
        seconds, rounds, minutes = 0.25, 1, 0.1
    console = Console(width=None if sys.stdout.isatty() else TABLE_WIDTH)
    outcomes: dict[str, Outcome] = {}
    pair = cores.choose()
    with cores.pinned(pair.load), tempfile.TemporaryDirectory(prefix="bench-matrix-") as folder:
        setting = Setting(
            Path(folder), pair, rounds, seconds, seconds * WARM_UP_SHARE, minutes, _tell, tuple(cases.split(","))
        )
        for section in SECTIONS:
            if names and section.name not in names:
                continue
            _tell(f"{section.name}: {section.title}")
            outcomes[section.name] = section.run(setting)
            for table in outcomes[section.name].tables:
                console.print(table)
            if json_file is not None:
                _write(json_file, outcomes, setting)  # after each: what a later one breaks is not lost
    if any(outcome.failed for outcome in outcomes.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main(prog_name="python -m bench.matrix")
