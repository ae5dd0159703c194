"""Everything that stands on the page, as the template has it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from gateway.report.cards import Card, Test, card, headline, remarks, tests
from gateway.report.effects import wants_attention
from gateway.report.ranking import Ranking, ranking
from gateway.report.text import NOTHING, clean, counted, moment, number, window_name
from gateway.report.timeline import Timeline, timeline
from gateway.report.words import Headline, glossary, reference_facts, tally
from gateway.report.words import headline as headline_of
from gateway.version import VERSION
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

PLOTTED = 50
"""Features with a plot; the others have a row in a table each."""
LISTED = 20_000
"""Features in that table."""
NOTES = 1_000


@dataclass(frozen=True, slots=True)
class Listed:
    """A feature without a plot."""

    name: str
    decision: str
    loud: bool
    headline: str
    reference: str
    live: str


@dataclass(frozen=True, slots=True)
class Whole:
    """A comparison that belongs to no single feature: of all together, a projection, a latency."""

    name: str
    role: str
    decision: str
    loud: bool
    headline: str
    remarks: list[str]
    tests: list[Test]


@dataclass(frozen=True, slots=True)
class Page:
    model: str
    version: int
    digest: str
    headline: Headline
    tally: list[tuple[str, int, str]]
    window: str
    window_rows: str
    looked_at: str
    compared: bool
    reference_name: str
    reference: list[tuple[str, str]]
    ranking: Ranking
    timeline: Timeline | None
    cards: list[Card]
    listed: list[Listed]
    unlisted: int
    features: int
    wholes: list[Whole]
    uncompared: list[str]
    notes: list[str]
    guarantee: str
    glossary: list[tuple[str, str]]
    generated_at: str
    driftgate: str


def page(drift: pb.DriftReport, features: pb.GetFeaturesResponse, generated_at: datetime) -> Page:
    verdicts = {verdict.subject: verdict for verdict in drift.verdicts}
    ordered = _ordered(features, drift)
    later = ordered[PLOTTED:]
    names = {feature.name for feature in features.features}
    window = drift.window if drift.HasField("window") else features.window
    return Page(
        model=clean(drift.model or features.model),
        version=drift.version or features.version,
        digest=clean(drift.digest or features.digest, 100),
        headline=headline_of(drift),
        tally=tally(drift),
        window=f"{window_name(window.seconds)}, {_span(window)}",
        window_rows=counted(window.rows, "row"),
        looked_at=moment(drift.looked_at) if drift.HasField("looked_at") else "",
        compared=bool(drift.verdicts),
        reference_name=_reference_name(drift.reference) if drift.HasField("reference") else "",
        reference=reference_facts(drift.reference),
        ranking=ranking(drift.verdicts),
        timeline=timeline(drift),
        cards=[card(feature, verdicts.get(feature.name)) for feature in ordered[:PLOTTED]],
        listed=[_listed(feature, verdicts.get(feature.name)) for feature in later[:LISTED]],
        unlisted=max(len(later) - LISTED, 0),
        features=len(ordered),
        wholes=[_whole(v) for v in drift.verdicts if v.subject not in names][:NOTES],
        uncompared=[clean(line, 400) for line in drift.uncompared[:NOTES]],
        notes=[clean(note, 400) for note in [*drift.notes, *features.notes][:NOTES]],
        guarantee=clean(drift.guarantee, 600),
        glossary=glossary(drift),
        generated_at=generated_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        driftgate=VERSION,
    )


def _ordered(features: pb.GetFeaturesResponse, drift: pb.DriftReport) -> list[pb.Feature]:
    """As they are ranked; what has no verdict last, as it came."""
    ranks = {verdict.subject: rank for rank, verdict in enumerate(drift.verdicts)}
    return sorted(features.features, key=lambda feature: ranks.get(feature.name, len(ranks)))


def _span(window: pb.Window) -> str:
    start, end = moment(window.start), moment(window.end)
    return f"{start.removesuffix(' UTC')} to {end.removeprefix(start[:11])}"


def _reference_name(reference: pb.Reference) -> str:
    kind = {"profile": "profile", "live": "live rows"}.get(reference.kind, clean(reference.kind, 30))
    digest = clean(reference.digest.rpartition(":")[2][:12])
    return f"{kind} {digest}, {counted(reference.rows, 'row')}" if digest else kind


def _listed(feature: pb.Feature, verdict: pb.DriftVerdict | None) -> Listed:
    def middle(summary: pb.FeatureSummary) -> str:
        if summary.HasField("mean"):
            return number(summary.mean)
        return clean(summary.values[0].value, 30) if summary.values else NOTHING

    return Listed(
        name=clean(feature.name),
        decision=clean(verdict.decision, 30) if verdict is not None else "",
        loud=verdict is not None and wants_attention(verdict),
        headline=headline(verdict),
        reference=middle(feature.reference) if feature.HasField("reference") else NOTHING,
        live=middle(feature.live),
    )


def _whole(verdict: pb.DriftVerdict) -> Whole:
    return Whole(
        clean(verdict.subject), clean(verdict.role, 30), clean(verdict.decision, 30), wants_attention(verdict),
        headline(verdict), remarks(verdict), tests(verdict),
    )  # fmt: skip
