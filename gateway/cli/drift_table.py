"""Drift reports as tables: the facts above, then a row for each subject, as the gateway ranks them.

breast_cancer/3  drifted
  window     10 min, 2025-06-15 15:55 to 16:05 UTC, 3,000 rows
  reference  profile fedcba987654, 20,000 rows
  decision   3 drifted, 30 stable, 0 not enough data
SUBJECT        ROLE     DECISION        MEASURE  VALUE  THRESHOLD        P  SINCE     AGE
worst texture  feature  alarm, drifted  PSI       1.16        0.1  < 1e-12  15:34  31 min
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gateway.cli.columns import Column, fitted
from gateway.cli.text import NOTHING, one_line, short_digest
from gateway.report.effects import (
    NOT_ENOUGH,
    STABLE,
    bracket_text,
    chance_text,
    deciding,
    deciding_effect,
    threshold_text,
    value_text,
    wants_attention,
)
from gateway.report.text import age, at, counted, moment, p_value, seconds_of, window_name
from gateway.report.words import tally
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

CALM_ROWS = 10
"""Without --all: so many subjects beside those that have drifted."""
FACTS = 3
"""And of notes so many."""
INDENT = 2
COLUMNS = (
    Column("SUBJECT", least=16), Column("ROLE", rank=6, least=7), Column("DECISION", least=15),
    Column("MEASURE", least=14), Column("VALUE"), Column("BRACKET", rank=7), Column("THRESHOLD", rank=3),
    Column("CHANCE", rank=5), Column("P", rank=2), Column("SINCE", rank=4), Column("AGE", rank=1),
    Column("LIVE", rank=8), Column("REFERENCE", rank=8),
)  # fmt: skip
STYLES = {"loud": "bold red", "calm": "green", "unknown": "yellow"}


def drift_screen(response: pb.GetDriftResponse, width: int | None, now: float, *, everything: bool = False) -> Group:
    """`width`: of the window, None where it does not matter; `now`: seconds since the epoch."""
    if not response.reports:
        return Group(Text("no version is served, so there is nothing to compare"))
    parts: list[RenderableType] = []
    for report in response.reports:
        parts += [Text(), *_report(report, width, now, everything=everything)]
    return Group(*parts[1:])


def reference_text(reference: pb.Reference) -> str:
    """As "profile fedcba987654, 20,000 rows"; of one that is being gathered, how far it is."""
    kind = {"live": "live rows"}.get(reference.kind, one_line(reference.kind))
    gathered = f"{reference.rows_gathered:,} of {reference.rows_wanted:,} gathered"
    if reference.rows_wanted and not reference.digest:
        return f"live rows, {gathered}"
    digest = f" {short_digest(reference.digest)}" if reference.digest else ""
    made = f", set {_local(reference.set_at)}" if reference.HasField("set_at") else ""
    instead = f"; live rows instead: {gathered}" if reference.rows_wanted else ""
    return f"{kind}{digest}, {counted(reference.rows, 'row')}{made}{instead}"


def _report(report: pb.DriftReport, width: int | None, now: float, *, everything: bool) -> list[RenderableType]:
    heading = Text.assemble(
        (f"{one_line(report.model)}/{report.version}", "bold"),
        "  ",
        _coloured(report.decision if report.verdicts else ""),
    )
    parts: list[RenderableType] = [
        heading,
        Padding(_facts(report, everything=everything), (0, 0, 0, INDENT), expand=False),
    ]
    if not report.verdicts:
        return [*parts, *_how_to(report)]
    loud = [v for v in report.verdicts if wants_attention(v)]
    calm = [v for v in report.verdicts if not wants_attention(v)]
    shown = list(report.verdicts) if everything else loud + calm[:CALM_ROWS]
    parts += [Text(), fitted(COLUMNS, [_row(verdict, now) for verdict in shown], width)]
    hidden = len(report.verdicts) - len(shown)
    if hidden:
        parts.append(Text(f"{counted(hidden, 'more subject')} changed less (--all)", style="dim"))
    return parts


def _facts(report: pb.DriftReport, *, everything: bool) -> Table:
    facts: list[tuple[str, str | Text]] = []
    if report.HasField("window"):
        window = report.window
        start, end = _local(window.start), _local(window.end)
        span = f"{start.rpartition(' ')[0]} to {end.removeprefix(start[:11])}"
        facts.append(("window", f"{window_name(window.seconds)}, {span}, {counted(window.rows, 'row')}"))
    facts.append(("reference", reference_text(report.reference) if report.HasField("reference") else "none"))
    if report.verdicts:
        counts = [Text(f"{count:,} {word}", STYLES[mark] if count else "") for word, count, mark in tally(report)]
        facts.append(("decision", Text(", ").join(counts)))
    evidence = [one_line(verdict.subject) for verdict in report.verdicts if verdict.alarmed_by_evidence]
    if evidence:
        facts.append(("evidence", Text(f"of all panes so far alarms for {', '.join(evidence)}", "bold red")))
    facts += _several("uncompared", report.uncompared, everything=everything)
    facts += _several("note", report.notes, everything=everything)
    if report.problem:
        facts.append(("problem", Text(one_line(report.problem), "yellow")))
    if report.guarantee:
        facts.append(("guarantee", Text(one_line(report.guarantee), "dim")))
    drawn = Table.grid(padding=(0, 2, 0, 0))
    drawn.add_column(no_wrap=True)
    drawn.add_column(overflow="fold")
    for label, text in facts:
        drawn.add_row(Text(label, "dim"), text if isinstance(text, Text) else Text(text))
    return drawn


def _several(label: str, texts: Sequence[str], *, everything: bool) -> list[tuple[str, str | Text]]:
    shown = list(texts) if everything else list(texts[:FACTS])
    more = [f"{len(texts) - len(shown):,} more (--all)"] if len(shown) < len(texts) else []
    return [("" if at else label, one_line(text)) for at, text in enumerate(shown + more)]


def _how_to(report: pb.DriftReport) -> list[RenderableType]:
    if report.HasField("reference"):
        return []
    model, version = one_line(report.model), report.version
    return [
        Text(),
        Text("a reference is the profile of the training data, or rows that are known to be good:"),
        Text(f"  driftgate profile build --model {model} --version {version} --data train.parquet"),
        Text(f"  driftgate reference {model} --version {version} --live-rows 10000"),
    ]


def _row(verdict: pb.DriftVerdict, now: float) -> Sequence[Text]:
    finding, effect = deciding(verdict), deciding_effect(verdict)
    since = seconds_of(verdict.since) if verdict.HasField("since") else None
    figures = (
        [value_text(effect), bracket_text(effect), threshold_text(effect), chance_text(effect)]
        if effect is not None
        else [""] * 4
    )
    texts = [
        *figures,
        p_value(finding.p_adjusted) if finding is not None else "",
        _clock(verdict.since, now) if since is not None else "",
        age(now - since) if since is not None else "",
        f"{finding.live_rows:,}" if finding is not None else "",
        f"{finding.reference_rows:,}" if finding is not None else "",
    ]
    named = [Text(one_line(verdict.subject) or NOTHING), Text(one_line(verdict.role)), _decision(verdict)]
    return [*named, Text(_measure(finding, effect)), *(Text(one_line(text) or NOTHING) for text in texts)]


def _decision(verdict: pb.DriftVerdict) -> Text:
    decision = one_line(verdict.decision)
    if verdict.alarmed or verdict.alarmed_by_evidence:
        return Text(f"alarm, {decision}" if verdict.alarmed else f"evidence, {decision}", STYLES["loud"])
    return _coloured(decision)


def _coloured(decision: str) -> Text:
    style = {STABLE: STYLES["calm"], NOT_ENOUGH: STYLES["unknown"], "": "yellow"}.get(decision, "red")
    return Text(one_line(decision) or "no verdict", style)


def _measure(finding: pb.DriftFinding | None, effect: pb.DriftEffect | None) -> str:
    """As short as it is clear: a distribution's measure by its name, any other aspect by its own."""
    if finding is None or effect is None:
        return NOTHING
    if finding.aspect in {"distribution", "told apart by a classifier"}:
        return one_line(effect.measure).removesuffix(" distance")
    return f"{one_line(finding.aspect)} share" if effect.measure == "difference of shares" else one_line(finding.aspect)


def _local(timestamp: Timestamp) -> str:
    return moment(timestamp, None)


def _clock(timestamp: Timestamp, now: float) -> str:
    """Local time; with the date where that is not today's."""
    then = at(timestamp, None)
    today = datetime.fromtimestamp(now, UTC).astimezone().date()
    return then.strftime("%H:%M" if then.date() == today else "%Y-%m-%d %H:%M")
