"""Comparisons of shadows: what became of copies, each output, which classes flipped, the worst disagreements. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gateway.cli.columns import Column, fitted
from gateway.cli.console import table
from gateway.cli.text import NOTHING, one_line
from gateway.report.text import age, at, clean, counted, moment, number, share
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

OUTPUTS = (
    Column("OUTPUT", least=12), Column("ROWS"), Column("SAME CLASS"), Column("EQUAL", rank=2), Column("CLOSE"),
    Column("|A-B| P50", rank=4), Column("P99", rank=3), Column("MAX", rank=1), Column("REL P99", rank=5),
    Column("REL MAX", rank=6), Column("NOT FINITE", rank=8), Column("INCOMPARABLE", rank=7),
)  # fmt: skip
WORST = (
    Column("TIME", rank=2), Column("REQUEST", rank=1, least=8), Column("ROW"), Column("OUTPUT", rank=3, least=6),
    Column("SEVERITY"), Column("PRIMARY", least=12), Column("SHADOW", least=12),
)  # fmt: skip

MATRIX_CLASSES = 8
"""With more of them, or less room, the flips are listed instead."""

FLIPS, DISAGREEMENTS = 10, 5
"""Without --all."""

CLASS_CHARACTERS = 24
INDENT = 2


def shadow_screen(response: pb.GetComparisonsResponse, width: int | None, *, everything: bool = False) -> Group:
    """`width`: of the window, None where it does not matter."""
    parts: list[RenderableType] = []
    for comparison in response.comparisons:
        parts += [Text(), *_pair(comparison, width, everything=everything)]
    notes = [Text(f"note: {one_line(note)}", "yellow") for note in response.notes]
    return Group(*parts[1:], *([Text()] if parts and notes else []), *notes)


def _pair(comparison: pb.Comparison, width: int | None, *, everything: bool) -> Iterator[RenderableType]:
    inner = width - INDENT if width is not None else None
    yield _heading(comparison)
    yield _indented(_facts(comparison))
    if comparison.outputs:
        yield Text()
        yield _indented(fitted(OUTPUTS, [_output(each) for each in comparison.outputs], inner))
    for names, output in _matrices(comparison.outputs):
        yield Text()
        yield _indented(_confusion(names, output, inner, everything=everything))
    if comparison.worst:
        yield Text()
        yield _indented(_worst(comparison.worst, inner, everything=everything))


def _indented(part: RenderableType) -> Padding:
    return Padding(part, (0, 0, 0, INDENT), expand=False)


def _heading(comparison: pb.Comparison) -> Text:
    name = (f"{one_line(comparison.model)}/{comparison.primary} and shadow {comparison.shadow}", "bold")
    if not comparison.compared:
        return Text.assemble(name, "  ", ("nothing compared yet", "yellow"))
    agreed = comparison.agreed == comparison.compared
    told = f"{share(comparison.agreed, comparison.compared)} of {counted(comparison.compared, 'request')} agree"
    return Text.assemble(name, "  ", (told, "green" if agreed else "bold"))


def _facts(comparison: pb.Comparison) -> Table:
    facts: list[tuple[str, Text]] = [
        ("copies", _copies(comparison)),
        *(("shed", Text(text)) for text in [_shed(comparison)] if text),
        *(("failure", Text(clean(text, 300), "red")) for text in [comparison.last_failure] if text),
    ]
    if comparison.compared:
        facts.append(
            ("rows", Text(f"{comparison.rows:,}, of which {share(comparison.agreed_rows, comparison.rows)} agree"))
        )
        facts.append(("run", Text(_run(comparison))))
    seconds = comparison.end.ToNanoseconds() / 1e9 - comparison.begin.ToNanoseconds() / 1e9
    facts.append(("since", Text(f"{moment(comparison.begin, None)}, {age(seconds)}")))
    drawn = Table.grid(padding=(0, 2, 0, 0))
    drawn.add_column(no_wrap=True)
    drawn.add_column(overflow="fold")
    for label, text in facts:
        drawn.add_row(Text(label, "dim"), text)
    return drawn


def _copies(comparison: pb.Comparison) -> Text:
    shed = sum(comparison.shed.values())
    parts = [f"{counted(comparison.chosen, 'request')}: {comparison.compared:,} compared"]
    text = Text(parts[0])
    for count, word, style in ((comparison.failed, "failed", "bold red"), (shed, "shed", "yellow")):
        text.append(", ").append(f"{count:,} {word}", style if count else "")
    return text.append(f", {comparison.waiting:,} waiting")


def _shed(comparison: pb.Comparison) -> str:
    ordered = sorted(comparison.shed.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {one_line(reason).replace('_', ' ')}" for reason, count in ordered if count)


def _run(comparison: pb.Comparison) -> str:
    primary, shadow = (
        f"{milliseconds(_at(quantiles, 0.5))} (p99 {milliseconds(_at(quantiles, 0.99))})"
        for quantiles in (comparison.primary_seconds, comparison.shadow_seconds)
    )
    ratio = f"{number(comparison.latency_ratio, 3)} times as long in all"
    return f"p50 {primary}, shadow {shadow}: {ratio}"


def milliseconds(value: float | None) -> str:
    return NOTHING if value is None else f"{number(value * 1e3, 3)} ms"


def _at(quantiles: Iterable[pb.Quantile], wanted: float) -> float | None:
    return next((quantile.value for quantile in quantiles if quantile.q == wanted), None)


def _output(output: pb.OutputComparison) -> Sequence[Text]:
    absolute = output.absolute if output.HasField("absolute") else None
    relative = output.relative if output.HasField("relative") else None
    texts = [
        f"{output.rows:,}",
        share(output.predicted_equal_rows, output.predicted_rows),
        share(output.equal_rows, output.rows),
        share(output.close_rows, output.rows),
        number(_at(absolute.quantiles, 0.5) if absolute is not None else None, 3),
        number(_at(absolute.quantiles, 0.99) if absolute is not None else None, 3),
        number(absolute.greatest if absolute is not None else None, 3),
        number(_at(relative.quantiles, 0.99) if relative is not None else None, 3),
        number(relative.greatest if relative is not None else None, 3),
        f"{output.not_finite:,}" if output.not_finite else NOTHING,
        f"{output.incomparable_rows:,}" if output.incomparable_rows else NOTHING,
    ]
    return [Text(one_line(output.output) or NOTHING), *(Text(text.replace("–", NOTHING)) for text in texts)]


Matrix = pb.OutputComparison


def _matrices(outputs: Iterable[Matrix]) -> Iterator[tuple[str, Matrix]]:
    """Outputs that have one; those whose matrices are equal together."""
    seen: dict[bytes, tuple[list[str], Matrix]] = {}
    for output in outputs:
        if output.confusion or output.confusion_other:
            only = pb.OutputComparison(confusion=output.confusion, confusion_other=output.confusion_other)
            seen.setdefault(only.SerializeToString(deterministic=True), ([], output))[0].append(one_line(output.output))
    for names, output in seen.values():
        yield ", ".join(names), output


def _confusion(names: str, output: Matrix, width: int | None, *, everything: bool) -> Group:
    flips = sorted((cell for cell in output.confusion if cell.primary != cell.shadow), key=lambda cell: -cell.rows)
    classes = _classes(output.confusion)
    parts: list[RenderableType] = []
    if not flips:
        known = counted(len(classes), "class", "classes")
        parts.append(Text(f"classes of {names}: none of {known} flipped", "bold"))
    elif len(classes) <= MATRIX_CLASSES and (width is None or _matrix_width(output.confusion, classes) <= width):
        parts += [Text(f"classes of {names} (down: primary, across: shadow)", "bold")]
        parts.append(_matrix(output.confusion, classes))
    else:
        parts += [
            Text(f"classes of {names} that flipped", "bold"),
            _flips(flips, output.confusion, everything=everything),
        ]
        if len(flips) > FLIPS and not everything:
            hidden = sum(cell.rows for cell in flips[FLIPS:])
            parts.append(Text(f"{len(flips) - FLIPS:,} more flips, of {counted(hidden, 'row')} (--all)", "dim"))
    if output.confusion_other:
        parts.append(Text(f"{counted(output.confusion_other, 'row')} of other classes", "dim"))
    return Group(*parts)


def _classes(cells: Iterable[pb.ConfusionCell]) -> list[str]:
    """Those with the most flips first; both sides together."""
    flips: Counter[str] = Counter()
    for cell in cells:
        flipped = cell.rows if cell.primary != cell.shadow else 0
        flips[cell.primary] += flipped
        flips[cell.shadow] += flipped
    return sorted(flips, key=lambda name: (-flips[name], name))


def _named(name: str) -> str:
    return clean(name, CLASS_CHARACTERS) or NOTHING


def _matrix_width(cells: Sequence[pb.ConfusionCell], classes: Sequence[str]) -> int:
    names = [len(_named(name)) for name in classes]
    numbers = max(len(f"{cell.rows:,}") for cell in cells)
    return max(*names, len("PRIMARY")) + sum(2 + max(name, numbers) for name in names) + 2 + len("FLIPPED")


def _matrix(cells: Iterable[pb.ConfusionCell], classes: Sequence[str]) -> Table:
    rows = {(cell.primary, cell.shadow): cell.rows for cell in cells}
    names = [_named(name) for name in classes]
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    drawn.add_column("PRIMARY", no_wrap=True)
    for name in names:
        drawn.add_column(name, justify="right", no_wrap=True)
    drawn.add_column("FLIPPED", justify="right", no_wrap=True)
    for primary, name in zip(classes, names, strict=True):
        total = sum(rows.get((primary, shadow), 0) for shadow in classes)
        figures = [
            Text(f"{count:,}" if (count := rows.get((primary, shadow), 0)) else NOTHING, _style(primary, shadow, count))
            for shadow in classes
        ]
        flipped = total - rows.get((primary, primary), 0)
        drawn.add_row(Text(name), *figures, Text(share(flipped, total).replace("–", NOTHING)))
    return drawn


def _style(primary: str, shadow: str, count: int) -> str:
    if primary == shadow:
        return "green" if count else "dim"
    return "red" if count else "dim"


def _flips(flips: Sequence[pb.ConfusionCell], cells: Iterable[pb.ConfusionCell], *, everything: bool) -> Table:
    totals: Counter[str] = Counter()
    for cell in cells:
        totals[cell.primary] += cell.rows
    drawn = table("PRIMARY", "SHADOW", "ROWS", "OF THE PRIMARY'S", right=frozenset({"ROWS", "OF THE PRIMARY'S"}))
    for cell in flips if everything else flips[:FLIPS]:
        told = share(cell.rows, totals[cell.primary])
        drawn.add_row(_named(cell.primary), _named(cell.shadow), f"{cell.rows:,}", told)
    return drawn


def _worst(worst: Sequence[pb.Disagreement], width: int | None, *, everything: bool) -> Group:
    shown = list(worst) if everything else list(worst[:DISAGREEMENTS])
    drawn = fitted(WORST, [_disagreement(each) for each in shown], width)
    parts: list[RenderableType] = [Text("worst disagreements", "bold"), drawn]
    if everything:
        for each in shown:
            if each.inputs:
                where = f"{one_line(each.request_id) or NOTHING} row {each.row}: "
                parts.append(Text.assemble((where, "bold"), one_line(each.inputs)))
    kept = len(worst) - len(shown)
    if kept or (not everything and any(each.inputs for each in shown)):
        what = [f"{kept:,} more"] * bool(kept) + ["inputs"] * any(each.inputs for each in worst)
        parts.append(Text(f"{' and '.join(what)}: --all", "dim"))
    return Group(*parts)


def _disagreement(each: pb.Disagreement) -> Sequence[Text]:
    texts = [
        at(each.time, None).strftime("%H:%M:%S"), one_line(each.request_id) or NOTHING, f"{each.row:,}",
        one_line(each.output), number(each.severity, 3), one_line(each.primary_value), one_line(each.shadow_value),
    ]  # fmt: skip
    return [Text(text) for text in texts]
