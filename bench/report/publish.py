"""Figures in documents: what stands between `<!-- bench:... -->` and `<!-- /bench -->` follows from published results.

<!-- bench:servers -->                                    a table, whole
<!-- bench:servers columns=rate_64,p50_1 rows=a,b bold=b -->   some of it
<!-- bench:servers/method -->                             what it is of, in words
<!-- bench:servers[driftgate].rate_64 -->                 one figure, within a line: its median
<!-- bench:servers[driftgate].rate_64/spread -->          least and greatest: "18,000 to 21,000"
<!-- bench:picture performance-servers -->                a picture, of those in bench/report/pictures.py
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.report.figures import figure
from bench.report.markdown import method_text, table_text
from bench.report.pictures import ALL
from bench.report.results import Results, Table, Unreadable

ROOT = Path(__file__).resolve().parent.parent.parent
PUBLISHED = ROOT / "bench" / "results" / "published"
PICTURES = ROOT / "docs" / "pictures"
NOT_PUBLISHED = "*not published yet*"

_MARK = re.compile(r"(?P<open><!-- bench:(?P<what>[^>]*?) -->)(?P<text>.*?)(?P<close><!-- /bench -->)", re.DOTALL)
_FIGURE = re.compile(r"(?P<table>[\w-]+)\[(?P<row>[^\]]+)\]\.(?P<column>\w+)(?P<spread>/spread)?")
_TABLE = re.compile(r"(?P<table>[\w-]+)(?P<method>/method)?(?P<options>( \w+=[^\s]+)*)")


class Unpublishable(Exception):
    """A mark asks for what is not there; results contradict each other."""


@dataclass(frozen=True, slots=True)
class Published:
    """All committed results: of each table the run that it is of."""

    runs: dict[str, Results]
    tables: dict[str, Table]

    @classmethod
    def read(cls, folder: Path = PUBLISHED) -> Published:
        """Raises Unpublishable."""
        runs: dict[str, Results] = {}
        tables: dict[str, Table] = {}
        for file in sorted(folder.glob("*.json")):
            try:
                results = Results.from_json(file.read_text())
            except Unreadable as error:
                raise Unpublishable(f"{file.name}: {error}") from error
            for table in results.tables:
                if table.name in tables:
                    raise Unpublishable(f"{file.name}: table {table.name} is in another file too")
                runs[table.name], tables[table.name] = results, table
        return cls(runs, tables)


def documents(root: Path = ROOT) -> list[Path]:
    """Those that have marks, or may."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md")), root / "bench" / "README.md"]


def filled(text: str, published: Published, missing: Callable[[str], None], folder: Path = ROOT) -> str:
    """`text`, of a document in `folder`, with what its marks ask for. Raises Unpublishable.

    `missing` hears of tables that are not published.
    """

    def fill(found: re.Match[str]) -> str:
        what = found["what"].strip()
        if what.startswith("picture "):
            text = _picture(what.removeprefix("picture "), published, missing, folder)
        else:
            text = _asked_for(what, published, missing)
        return f"{found['open']}{text}{found['close']}"

    return "".join(
        part if in_code else _MARK.sub(fill, part) for part, in_code in _parts(text)
    )  # what is shown as an example is left alone


def _parts(text: str) -> Iterable[tuple[str, bool]]:
    """The text in its order; whether a part is a fenced block of code."""
    for index, part in enumerate(re.split(r"(^```.*?^```$)", text, flags=re.DOTALL | re.MULTILINE)):
        yield part, bool(index % 2)


def _asked_for(what: str, published: Published, missing: Callable[[str], None]) -> str:
    inline, whole = _FIGURE.fullmatch(what), _TABLE.fullmatch(what)
    asked = inline or whole
    if asked is None:
        raise Unpublishable(f"a mark that nothing is known of: bench:{what}")
    table = published.tables.get(asked["table"])
    if table is None:
        missing(asked["table"])
        return NOT_PUBLISHED if inline else f"\n{NOT_PUBLISHED}\n"
    try:
        if inline:
            return _one(table, inline)
        if asked["method"]:
            return f"\n{method_text(published.runs[table.name])}"
        options = dict(option.split("=", 1) for option in asked["options"].split())
        if unknown := set(options) - {"columns", "rows", "bold"}:
            raise Unpublishable(f"bench:{what}: options are columns, rows and bold, not {sorted(unknown)}")
        return "\n" + table_text(table, **{name: value.split(",") for name, value in options.items()})
    except KeyError as error:
        raise Unpublishable(f"bench:{what}: {error.args[0]}") from error


def _picture(name: str, published: Published, missing: Callable[[str], None], folder: Path) -> str:
    picture = next((each for each in ALL if each.name == name), None)
    if picture is None:
        raise Unpublishable(f"bench:picture {name}: there is no such picture")
    if absent := [table for table in picture.tables if table not in published.tables]:
        for table in absent:
            missing(table)
        return f"\n{NOT_PUBLISHED}\n"
    path = os.path.relpath(PICTURES / f"{name}.svg", folder)
    return f"\n![{picture.text}]({path})\n"


def _one(table: Table, asked: re.Match[str]) -> str:
    column = table.column(asked["column"])
    found = figure(table, table.row(asked["row"]), column)
    if found is None:
        raise Unpublishable(f"bench:{asked[0]}: no round has it")
    if asked["spread"]:
        return f"{format(found.least, column.format)} to {format(found.greatest, column.format)}"
    return format(found.median, column.format)
