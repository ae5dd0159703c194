"""What was seen of features: a table of all, and one feature with quantiles, frequent values and a histogram."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gateway.cli.bars import marks
from gateway.cli.columns import Column, fitted
from gateway.cli.console import table
from gateway.cli.drift_table import reference_text
from gateway.cli.text import NOTHING, byte_count, one_line, short_digest
from gateway.report.cards import integer_pairs
from gateway.report.counts import fitting_axis, in_steps, numeric_counts
from gateway.report.histogram import axis_note
from gateway.report.paired_bars import Pair, category_pairs
from gateway.report.text import counted, moment, number, share, window_name
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

COLUMNS = (
    Column("FEATURE", least=14), Column("KIND", rank=6, least=7), Column("ROWS", rank=8), Column("MISSING", rank=3),
    Column("NAN", rank=4), Column("OUTSIDE", rank=7), Column("MEAN"), Column("REF MEAN", rank=1), Column("SD", rank=5),
    Column("MIN", rank=11), Column("P01", rank=9), Column("P50"), Column("REF P50", rank=2), Column("P99", rank=9),
    Column("MAX", rank=11), Column("DISTINCT", rank=12), Column("CORR", rank=10),
)  # fmt: skip
STEPS = 16
MARK = "|"
LABEL_CHARACTERS = 22
NARROW, WIDE = 20, 60
"""Cells of a bar; a window decides between them."""


def features_screen(response: pb.GetFeaturesResponse, width: int | None) -> Group:
    parts: list[RenderableType] = list(_heading(response))
    if response.features:
        parts.append(fitted(COLUMNS, [_row(feature) for feature in response.features], width))
    else:
        parts.append(Text("nothing was measured in this window"))
    return Group(*parts, *(Text(f"note: {one_line(note)}", style="yellow") for note in response.notes))


def feature_screen(response: pb.GetFeaturesResponse, width: int | None) -> Group:
    parts: list[RenderableType] = list(_heading(response))
    for feature in response.features:
        name = Text.assemble((one_line(feature.name), "bold"), f"  {one_line(feature.role)}, {one_line(feature.kind)}")
        parts += [name, Padding(_figures(feature), (0, 0, 0, 2), expand=False)]
        parts += _histogram(feature, width)
        if feature.live.values or feature.reference.values:
            parts += [Text(), Text("frequent values", style="bold"), _frequent(feature)]
    return Group(*parts)


def _heading(response: pb.GetFeaturesResponse) -> Iterator[Text]:
    window = response.window
    yield Text.assemble(
        (f"{one_line(response.model)}/{response.version}", "bold"),
        f"  {short_digest(response.digest)}  {counted(window.rows, 'row')} in {window_name(window.seconds)}"
        f" to {moment(window.end, None)}",
    )
    compared = reference_text(response.reference) if response.HasField("reference") else "none"
    yield Text(f"  reference  {compared}")
    if response.memory_bytes:
        yield Text(f"  memory     {byte_count(response.memory_bytes)}")
    yield Text()


def _row(feature: pb.Feature) -> list[Text]:
    live, reference = feature.live, feature.reference
    kind = one_line(feature.kind)
    texts = [
        f"{live.rows:,}", *(share(getattr(live, field), live.rows) for field in ("missing", "nan", "out_of_range")),
        _told(live, "mean"), _told(reference, "mean"), _told(live, "deviation"), _told(live, "least"),
        _quantile(live, 0.01), _quantile(live, 0.5), _quantile(reference, 0.5), _quantile(live, 0.99),
        _told(live, "greatest"), number(live.distinct, 3) if live.distinct else NOTHING,
        _told(live, "correlation", 2),
    ]  # fmt: skip
    named = [Text(one_line(feature.name) or NOTHING), Text(f"{kind} out" if feature.role == "output" else kind)]
    return [*named, *(Text(text.replace("–", NOTHING)) for text in texts)]


def _figures(feature: pb.Feature) -> Table:
    live, reference = feature.live, feature.reference
    drawn = table("", "LIVE", "REFERENCE", right=frozenset({"LIVE", "REFERENCE"}))
    rows = [("rows", *(f"{side.rows:,}" for side in (live, reference)))]
    for field in ("missing", "nan", "infinite", "out_of_range", "zero"):
        if getattr(live, field) or getattr(reference, field):
            ours, theirs = (share(getattr(side, field), side.rows) for side in (live, reference))
            rows.append((field.replace("_", " "), ours, theirs))
    told = ("mean", "deviation", "correlation", "least")
    rows += [(label, _told(live, label), _told(reference, label)) for label in told]
    shares = sorted({found.q for side in (live, reference) for found in side.quantiles})
    rows += [(f"{100 * q:g} %", _quantile(live, q), _quantile(reference, q)) for q in shares]
    rows.append(("greatest", _told(live, "greatest"), _told(reference, "greatest")))
    rows.append(("distinct", *(number(side.distinct, 3) if side.distinct else NOTHING for side in (live, reference))))
    for label, ours, theirs in rows:
        if ours != NOTHING or theirs != NOTHING:
            drawn.add_row(Text(label, "dim"), ours, theirs if feature.HasField("reference") else NOTHING)
    return drawn


def _histogram(feature: pb.Feature, width: int | None) -> list[RenderableType]:
    """A bar for live rows, a mark where the reference's would end."""
    labelled, note = _pairs(feature)
    if not labelled:
        return []
    compared = any(pair.reference is not None for pair in labelled)
    bar = marks().full
    legend = f"{bar} live" + (f"  {MARK} reference" if compared else "") + (f"  {note}" if note else "")
    drawn = table("", "", "", right=frozenset())
    drawn.show_header = False
    cells = WIDE if width is None else max(min(width - LABEL_CHARACTERS - 22, WIDE), NARROW)
    most = max(max(pair.live, pair.reference or 0.0) for pair in labelled) or 1.0
    for pair in labelled:
        shares = share(round(pair.live, 4), 1)
        if pair.reference is not None:
            shares += f" ({share(round(pair.reference, 4), 1)})"
        drawn.add_row(
            Text(one_line(pair.label)[:LABEL_CHARACTERS], justify="right"), _bar(pair, cells, most, bar), Text(shares)
        )
    return [Text(), Text(legend, style="dim"), drawn]


def _bar(pair: Pair, cells: int, most: float, character: str) -> Text:
    drawn = [character] * round(cells * pair.live / most)
    if pair.reference is not None:
        place = min(round(cells * pair.reference / most), cells - 1)
        drawn += [" "] * (place + 1 - len(drawn))
        drawn[place] = MARK
    return Text("".join(drawn).ljust(cells))


def _pairs(feature: pb.Feature) -> tuple[list[Pair], str]:
    """Of a numeric feature one for each step, with where it begins; and what to know of them."""
    counts = numeric_counts(feature.bins)
    if counts is None:
        return category_pairs(feature), ""
    if few := integer_pairs(feature, counts):
        return few, ""
    axis = fitting_axis(counts)
    live, reference = (in_steps(counts, side, axis, STEPS).tolist() for side in (counts.live, counts.reference))
    compared = bool(counts.reference.sum())
    pairs = [
        Pair(f"from {number(axis.value(at / STEPS), 3)}", ours, theirs if compared else None)
        for at, (ours, theirs) in enumerate(zip(live, reference, strict=True))
    ]
    return pairs, axis_note(counts)


def _frequent(feature: pb.Feature) -> Table:
    live, reference = feature.live, feature.reference
    theirs = {found.value: found.count for found in reference.values}
    drawn = table("VALUE", "LIVE", "SHARE", "REFERENCE", right=frozenset({"LIVE", "SHARE", "REFERENCE"}))
    for found in live.values:
        expected = share(theirs.get(found.value, 0), reference.rows) if reference.rows else NOTHING
        drawn.add_row(Text(one_line(found.value)[:60]), f"{found.count:,}", share(found.count, live.rows), expected)
    if live.other:
        drawn.add_row(Text("all others", "dim"), f"{live.other:,}", share(live.other, live.rows), "")
    return drawn


def _told(summary: pb.FeatureSummary, field: str, digits: int = 4) -> str:
    return number(getattr(summary, field), digits) if summary.HasField(field) else NOTHING


def _quantile(summary: pb.FeatureSummary, q: float) -> str:
    return next((number(found.value) for found in summary.quantiles if abs(found.q - q) < 1e-9), NOTHING)
