"""Results as JSON become tables, figures within documents, and pictures; nothing else stands there."""

import xml.etree.ElementTree as ET

import pytest
from bench_tables import TABLES, cases, results, row, servers
from click.testing import CliRunner

from bench.report.__main__ import main
from bench.report.figures import Figure, figure, written
from bench.report.markdown import report_text, table_text
from bench.report.of_matrix import RATIO
from bench.report.pictures import ALL, drawn
from bench.report.plots import DARK, drawn_by
from bench.report.publish import NOT_PUBLISHED, Published, Unpublishable, filled
from bench.report.results import Column, Results, Row, Table, Unreadable
from bench.report.setting import without_files


def publish(*tables):
    return Published(dict.fromkeys((table.name for table in tables), results(*tables)), {t.name: t for t in tables})


def fill(text, *tables):
    absent = []
    return filled(text, publish(*tables), absent.append), absent


def between(text):
    """What stands between the marks."""
    return text.partition(" -->")[2].rpartition("<!-- /bench -->")[0]


def test_results_survive_json():
    """Whatever a run gives is read back as it was."""
    given = results(*TABLES)
    assert Results.from_json(given.to_json()) == given


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 2}', '{"schema": 1, "tables": []}'])
def test_other_files_are_no_results(text):
    """They are refused with one kind of error."""
    with pytest.raises(Unreadable):
        Results.from_json(text)


def test_a_figure_is_the_median_of_the_rounds_that_have_it():
    """With the least and the greatest, and how many they are."""
    column = Column("rate", "rate")
    table = Table(
        "t", "t", (column,), (Row("a", "a", {"rate": (3.0, None, 1.0, 2.0)}), Row("b", "b", {"rate": (None,)}))
    )
    assert figure(table, table.rows[0], column) == Figure(2.0, 1.0, 3.0, 3)
    assert figure(table, table.rows[1], column) is None


@pytest.mark.parametrize(
    ("how", "values"), [("ratio", (2.0, 4.0)), ("inverse", (0.5, 0.25)), ("difference", (10.0, 30.0))]
)
def test_a_derived_column_is_made_round_by_round(how, values):
    """Of the values of one round each, not of medians; rounds without both have none."""
    derived = Column("d", "d", of="rate", to="base", how=how)
    rows = (Row("base", "base", {"rate": (10.0, 10.0, 7.0)}), Row("own", "own", {"rate": (20.0, 40.0, None)}))
    table = Table("t", "t", (Column("rate", "rate"), derived), rows)
    assert figure(table, rows[1], derived) == Figure(sum(values) / 2, min(values), max(values), 2)
    assert figure(table, rows[0], derived) is None


def test_a_row_may_name_what_it_is_held_against():
    """Where the column does not."""
    table = cases("c", row("base/64", 100.0), row("own/64", 250.0, "base/64"))
    found = figure(table, table.rows[1], RATIO)
    assert found is not None
    assert found.median == pytest.approx(2.5)
    assert figure(table, table.rows[0], RATIO) is None


def test_a_cell_has_the_spread_where_there_is_one():
    """In brackets; one round has none."""
    column = Column("rate", "rate", format=",.0f")
    assert written(Figure(1500.0, 1000.0, 2000.0, 3), column, spread=True) == "1,500 (1,000 to 2,000)"
    assert written(Figure(1500.0, 1500.0, 1500.0, 1), column, spread=True) == "1,500"
    assert written(None, column, spread=True) == "-"


def test_a_table_shows_the_rows_and_columns_asked_for():
    """In the order asked for, with units in the head, and rows that stand out."""
    assert table_text(servers("s"), ["to_echo", "rate_64"], ["drift*", "echo"], ["driftgate"]) == (
        "| server | to the echo | 64 in flight, requests/s |\n"
        "| --- | ---: | ---: |\n"
        "| **the driftgate** | **2.40** | **24,000 (21,600 to 27,600)** |\n"
        "| the echo | - | 10,000 (9,000 to 11,500) |\n"
    )


def test_a_report_says_what_it_is_of():
    """Command, date, commit, machine, versions, and what failed."""
    text = report_text(results(servers("servers")))
    for part in (
        "## Servers",
        "slow failed: it ended",
        "`python -m bench`",
        "2026-01-02",
        "commit 012345678",
        "grpcio 1.85.1",
    ):
        assert part in text


def test_marks_are_filled_and_filling_again_changes_nothing():
    """Tables and methods on lines of their own, figures within a line."""
    text = (
        "a <!-- bench:servers[driftgate].rate_64 -->?<!-- /bench -->, of "
        "<!-- bench:servers[driftgate].rate_64/spread --><!-- /bench -->\n"
        "<!-- bench:servers columns=rate_64 rows=echo --><!-- /bench -->\n"
        "<!-- bench:servers/method --><!-- /bench --> end"
    )
    once, absent = fill(text, servers("servers"))
    assert not absent
    assert "a <!-- bench:servers[driftgate].rate_64 -->24,000<!-- /bench -->, of " in once
    assert "-->21,600 to 27,600<!--" in once
    assert "\n| the echo | 10,000 (9,000 to 11,500) |\n<!-- /bench -->" in once
    assert "`python -m bench`" in once
    assert once.endswith(" end")
    assert fill(once, servers("servers"))[0] == once


def test_what_is_not_published_is_said():
    """In the document, and to who asked."""
    text, absent = fill("<!-- bench:nothing -->old<!-- /bench --> <!-- bench:no[a].b -->1<!-- /bench -->")
    assert NOT_PUBLISHED in text
    assert "old" not in text
    assert absent == ["nothing", "no"]


@pytest.mark.parametrize(
    "what",
    [
        "servers columns=nothing",
        "servers rows=nothing",
        "servers[nothing].rate_64",
        "servers?",
        "servers sort=a",
        "picture no",
    ],
)
def test_a_mark_that_asks_for_what_is_not_there_is_an_error(what):
    """A slip in a document must not leave its figures as they were."""
    with pytest.raises(Unpublishable):
        fill(f"<!-- bench:{what} -->1<!-- /bench -->", servers("servers"))


def test_examples_in_code_are_left_alone():
    """A document may show what marks look like."""
    text = "```\n<!-- bench:servers -->x<!-- /bench -->\n```\n"
    assert fill(text, servers("servers")) == (text, [])


def test_pictures_are_linked_from_where_the_document_is():
    """With a text for who cannot see them."""
    published = publish(*TABLES)
    from bench.report.publish import ROOT

    text = filled("<!-- bench:picture performance-load --><!-- /bench -->", published, print, ROOT / "docs" / "how-to")
    assert (
        between(text)
        == f"\n![{next(p.text for p in ALL if p.name == 'performance-load')}](../pictures/performance-load.svg)\n"
    )


def test_every_picture_is_drawn_the_same_each_time():
    """As SVG that says what it shows, without a date, and with colours for pages that are dark."""
    tables = {table.name: table for table in TABLES}
    pictures = drawn(tables)
    assert set(pictures) == {f"{picture.name}.svg" for picture in ALL}
    assert drawn(tables) == pictures
    for name, picture in pictures.items():
        root = ET.fromstring(picture)
        text = " ".join(filter(None, root.itertext()))
        assert next(each.text for each in ALL if each.name == name.removesuffix(".svg")) in text
        assert drawn_by(picture)
        assert "<dc:date>" not in picture
        assert all(dark in picture for dark in DARK.values())


def test_pictures_without_their_tables_are_left_out():
    """The others are drawn."""
    assert set(drawn({"servers": servers("servers")})) == {"performance-servers.svg"}


def test_a_table_in_two_files_is_refused(tmp_path):
    """Which of them would a document quote?"""
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text(results(servers("servers")).to_json())
    with pytest.raises(Unpublishable, match=r"b\.json"):
        Published.read(tmp_path)


def test_the_command_says_nothing_of_where_figures_were_written():
    """What was typed, without it."""
    assert without_files(["--rounds", "3", "--json", "out.json", "--markdown=x", "tail"]) == ["--rounds", "3", "tail"]


def test_files_are_printed_as_markdown(tmp_path):
    """`python -m bench.report FILE`."""
    (tmp_path / "a.json").write_text(results(servers("servers")).to_json())
    ran = CliRunner().invoke(main, [str(tmp_path / "a.json")])
    assert ran.exit_code == 0
    assert "| the driftgate |" in ran.output


def test_documents_quote_what_was_published():
    """`python -m bench.report --check`, over all of them, as they are."""
    ran = CliRunner().invoke(main, ["--check"])
    assert ran.exit_code == 0, ran.output
