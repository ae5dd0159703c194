"""`python -m bench.report`: results as markdown, and what documents quote of the published ones."""

from __future__ import annotations

from pathlib import Path

import click

from bench.report.markdown import report_text
from bench.report.pictures import drawn
from bench.report.plots import drawn_by
from bench.report.publish import PICTURES, ROOT, Published, Unpublishable, documents, filled
from bench.report.results import Results, Unreadable


@click.command()
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--publish", is_flag=True, help="Write tables and pictures of bench/results/published into documents.")
@click.option("--check", is_flag=True, help="Fail if a document or picture differs from what --publish would write.")
@click.option("--complete", is_flag=True, help="Fail too if a document asks for a table that is not published.")
def main(*, files: tuple[Path, ...], publish: bool, check: bool, complete: bool) -> None:
    """Print the tables of FILES, results of a benchmark as JSON; or bring what documents quote up to date."""
    if bool(files) + publish + check != 1:
        raise click.UsageError("give FILES, or --publish, or --check")
    try:
        for file in files:
            click.echo(report_text(Results.from_json(file.read_text())))
        if not files:
            _documents(write=publish, complete=complete)
    except (Unreadable, Unpublishable) as error:
        raise click.ClickException(str(error)) from error


def _documents(*, write: bool, complete: bool) -> None:
    published = Published.read()
    absent: set[str] = set()
    stale: list[str] = []
    for file in documents():
        text = file.read_text()
        _compare(file, text, filled(text, published, absent.add, file.parent), stale, write=write)
    for name, picture in drawn(published.tables).items():
        file = PICTURES / name
        now = file.read_text() if file.exists() else ""
        if not write and now and (other := drawn_by(now)) != drawn_by(picture):
            click.echo(f"{name} was drawn by {other}: not compared", err=True)
            continue
        _compare(file, now, picture, stale, write=write)
    if absent:
        click.echo(f"not published: {', '.join(sorted(absent))}", err=True)
    if stale and not write:
        raise click.ClickException(f"{', '.join(stale)}: not what the results give; python -m bench.report --publish")
    if absent and complete:
        raise SystemExit(1)


def _compare(file: Path, now: str, wanted: str, stale: list[str], *, write: bool) -> None:
    if now == wanted:
        return
    stale.append(str(file.relative_to(ROOT)))
    if write:
        file.write_text(wanted)
        click.echo(f"wrote {stale[-1]}")


if __name__ == "__main__":
    main(prog_name="python -m bench.report")
