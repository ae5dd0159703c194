"""The report in words: its first sentence, and what its words mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gateway.report.effects import DRIFTED, NOT_ENOUGH, STABLE
from gateway.report.text import age, clean, counted, listed, moment, seconds_of
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

DERIVED = {"projection", "joint"}
"""Roles of what is made of several features' rows."""

MEASURES = {
    "PSI": "Population stability index: how unequally rows spread over some twenty intervals or categories that the "
    "reference fixes. 0.1 is the usual “some change”.",
    "Jensen-Shannon distance": "How far apart two distributions are, from 0 (the same) to 1 (nothing in common), by "
    "the same intervals.",
    "KS": "Kolmogorov-Smirnov: the largest difference between the shares of rows below any one value. 0.1: a tenth of "
    "the rows lies elsewhere.",
    "Wasserstein distance": "How far the average row has moved, in standard deviations of the reference.",
    "difference of means": "How far the mean has moved, in standard deviations of the reference. Tested where values "
    "vary so little that the intervals they are counted in do not tell.",
    "|ln σ′/σ|": "How much wider or narrower values have become: 0.1 is about a tenth.",
    "rows beside a constant": "The share of rows that differ from what was always the same.",
    "total variation": "The share of rows that would have to change their category.",
    "difference of shares": "The share of rows in question, less that in the reference.",
    "Cohen's q": "How far a correlation has moved, by Fisher's z. 0.1 is small, 0.3 medium, 0.5 large.",
    "2·AUC−1": "How well a classifier tells live rows from the reference's, on rows that it has not learned from: 0 is "
    "guessing, 1 is always right.",
}

WORDS = {
    "drifted": "A measure is at or above its threshold, and chance does not explain it. Both together: ten million "
    "rows make any change certain, a hundred make any measure large.",
    "stable": "Not drifted, and a change at the threshold would have shown in so many rows.",
    "not enough data": "Not drifted, but with so few rows, or values so near to each other, a change at the threshold "
    "need not have shown. A longer window or a larger reference would tell.",
    "alarm": "Raised after several looks with drift in a row, and cleared after more without, so that one odd window "
    "does neither. “Since” is the start of the first window of the row.",
    "in thresholds": "A measure divided by its threshold, so that measures can be compared: at 1 a change begins to "
    "matter. Subjects are ranked by how much of it is above what chance gives.",
    "by chance": "What a measure is on average when nothing has changed, by the number of rows on both sides. Up to "
    "the end of the grey zone chance explains it.",
    "p": "The probability of so large a difference without drift, corrected for everything that is tested and for "
    "every look.",
    "bracket": "Values are counted in narrow intervals. What a measure of the values themselves could be lies between "
    "these; decisions use the lower end.",
}
EVIDENCE = (
    "evidence",
    "Of all panes so far, not of one window: it adds up, and finds changes that are too small for a window.",
)


@dataclass(frozen=True, slots=True)
class Headline:
    """`mark`: loud, calm, unknown or none."""

    mark: str
    decision: str
    sentence: str
    detail: str


def headline(report: pb.DriftReport) -> Headline:
    verdicts = list(report.verdicts)
    alarmed = [v for v in verdicts if v.alarmed]
    fresh = [v for v in verdicts if v.decision == DRIFTED and not v.alarmed]
    if not verdicts:
        return _nothing_compared(report)
    if alarmed:
        begun = min((v.since for v in alarmed if v.HasField("since")), key=seconds_of, default=None)
        many = (
            f"{len(alarmed):,} of {counted(len(verdicts), 'comparison')} {'is' if len(alarmed) == 1 else 'are'} alarmed"
        )
        if begun is not None:
            many += f", the first since {moment(begun)}: {age(seconds_of(report.looked_at) - seconds_of(begun))} by now"
        calm = [v for v in alarmed if v.decision != DRIFTED]
        details = [f"{many}."]
        if calm:
            details.append(f"In the last look {counted(len(calm), 'alarm')} had no drift; more such looks clear it.")
        if fresh:
            details.append(f"Not yet often enough for an alarm: {listed(_names(fresh))}.")
        return Headline("loud", "drifted", f"Drift of {listed(_names(alarmed))}", " ".join(details))
    if fresh:
        waiting = "No alarm is raised yet: that takes more such looks in a row."
        return Headline("loud", "drifted", f"The last look shows drift of {listed(_names(fresh))}", waiting)
    by_evidence = [v for v in verdicts if v.alarmed_by_evidence]
    if by_evidence:
        why = "A small change that lasts: no single window shows it, all panes together do."
        return Headline("loud", "drifted, by evidence", f"Evidence of drift of {listed(_names(by_evidence))}", why)
    return _nothing_found(report)


def _names(verdicts: Sequence[pb.DriftVerdict]) -> list[str]:
    """Without what is made of several features, where one of these is there itself."""
    own = [verdict for verdict in verdicts if verdict.role not in DERIVED]
    return [clean(verdict.subject, 60) for verdict in own or verdicts]


def _nothing_found(report: pb.DriftReport) -> Headline:
    unsure = [verdict for verdict in report.verdicts if verdict.decision == NOT_ENOUGH]
    rows, compared = counted(report.window.rows, "live row"), counted(len(report.verdicts), "comparison")
    more = "larger reference" if report.reference.rows < report.window.rows else "longer window"
    if report.decision != STABLE:
        return Headline(
            "unknown", "not enough data", "Not enough data to tell",
            f"With {rows} against {report.reference.rows:,}, a change at the threshold need not have shown in "
            f"{len(unsure):,} of {compared}. A {more} would tell.",
        )  # fmt: skip
    sure = f"{len(report.verdicts) - len(unsure):,} of {compared}" if unsure else f"all {compared}"
    shown = f"In {sure} of {rows}, a change at a threshold would have shown."
    return Headline("calm", "stable", "No drift: live rows are distributed as the reference's", shown)


def _nothing_compared(report: pb.DriftReport) -> Headline:
    problem = clean(report.problem, 400)
    if report.reference.rows_wanted:
        gathered, wanted = report.reference.rows_gathered, report.reference.rows_wanted
        return Headline(
            "none", "no verdict yet", f"The reference is being gathered: {gathered:,} of {wanted:,} rows", problem
        )
    if report.HasField("reference"):
        return Headline("none", "no verdict yet", "There has been no look yet", problem)
    return Headline("none", "no reference", "Nothing to compare live rows with", problem)


def tally(report: pb.DriftReport) -> list[tuple[str, int, str]]:
    """How many comparisons have which decision, with its mark."""
    marks = {DRIFTED: "loud", STABLE: "calm", NOT_ENOUGH: "unknown"}
    return [(word, sum(v.decision == word for v in report.verdicts), mark) for word, mark in marks.items()]


def glossary(report: pb.DriftReport) -> list[tuple[str, str]]:
    """What is said on the page, explained: all words, and the measures that occur."""
    used = {effect.measure for verdict in report.verdicts for f in verdict.findings for effect in f.effects}
    words: Iterable[tuple[str, str]] = WORDS.items()
    evidence = [EVIDENCE] if any(v.log_evidence or v.alarmed_by_evidence for v in report.verdicts) else []
    return [*words, *evidence, *((name, meaning) for name, meaning in MEASURES.items() if name in used)]


def reference_facts(reference: pb.Reference) -> list[tuple[str, str]]:
    facts = [("kind", clean(reference.kind)), ("digest", clean(reference.digest, 100))]
    if reference.rows:
        facts.append(("rows", f"{reference.rows:,}"))
    for label, field in (("made", "created_at"), ("set", "set_at")):
        if reference.HasField(field):
            facts.append((label, moment(getattr(reference, field))))
    facts += [(clean(key, 60), clean(value, 200)) for key, value in sorted(reference.about.items())[:30]]
    return [(label, value) for label, value in facts if value]
