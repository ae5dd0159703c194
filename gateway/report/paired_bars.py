"""Categories, or few different numbers: two bars each, the reference's above that of live rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from gateway.report import svg
from gateway.report.text import clean, share
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

MOST_PAIRS = 10
LABEL_CHARACTERS = 15
WIDTH, LEFT, RIGHT, ROW, BAR = 340.0, 104.0, 252.0, 25.0, 8.0


@dataclass(frozen=True, slots=True)
class Pair:
    """Shares of both samples' rows, 0 to 1; `label` as it is shown. `reference` None: there is none."""

    label: str
    live: float
    reference: float | None
    is_new: bool = False


def category_pairs(feature: pb.Feature) -> list[Pair]:
    """Of its bins, or where it has none of its values: the largest of either sample, and the rest as one."""
    counts = {one.category: (float(one.live), float(one.reference)) for one in feature.bins}
    if not counts:
        here, there = ({v.value: v.count for v in side.values} for side in (feature.live, feature.reference))
        counts = {name: (here.get(name, 0), there.get(name, 0)) for name in [*here, *(there.keys() - here.keys())]}
        if feature.live.other or feature.reference.other:
            counts["other"] = float(feature.live.other), float(feature.reference.other)
    return shortened(pairs_of([(clean(name, 40) or '""', *rows) for name, rows in counts.items()]))


def pairs_of(rows: Sequence[tuple[str, float, float]]) -> list[Pair]:
    """Of label, live rows and reference rows: what part of its sample each is."""
    live, reference = sum(here for _, here, _ in rows), sum(there for _, _, there in rows)
    return [
        Pair(label, here / (live or 1), there / reference if reference else None, reference > 0 and here > 0 == there)
        for label, here, there in rows
    ]


def shortened(pairs: Sequence[Pair]) -> list[Pair]:
    """At most MOST_PAIRS, the largest share of either sample first; what is left is one pair."""
    by_size = sorted(pairs, key=lambda p: -max(p.live, p.reference or 0.0))
    if len(pairs) <= MOST_PAIRS:
        return by_size
    shown, rest = by_size[: MOST_PAIRS - 1], by_size[MOST_PAIRS - 1 :]
    compared = rest[0].reference is not None
    others = Pair(
        f"{len(rest)} others", sum(p.live for p in rest), sum(p.reference or 0.0 for p in rest) if compared else None
    )
    return [*shown, others]


def paired_bars(title: str, pairs: Sequence[Pair]) -> Markup:
    most = max(max(p.live, p.reference or 0.0) for p in pairs) or 1.0
    parts: list[Markup] = []
    for at, pair in enumerate(pairs):
        top = at * ROW + 4
        parts.append(
            svg.text(LEFT - 8, top + 12, clean(pair.label, LABEL_CHARACTERS), text_anchor="end", class_="label")
        )
        bars = [("live-bar", pair.live)]
        if pair.reference is not None:
            bars.insert(0, ("reference-bar", pair.reference))
        for below, (kind, part) in enumerate(bars):
            length = (RIGHT - LEFT) * part / most
            parts.append(svg.rectangle(LEFT, top + below * (BAR + 1), max(length, 1.0), BAR, class_=kind))
        end = LEFT + (RIGHT - LEFT) * max(part for _, part in bars) / most
        parts.append(svg.text(end + 5, top + 12, _note(pair), class_="new" if pair.is_new else None))
    return svg.picture(title, _in_words(pairs), WIDTH, ROW * len(pairs) + 4, *parts, class_="plot")


def _note(pair: Pair) -> str:
    """As "25 → 23.7 %": of the reference, of live rows."""
    live = share(pair.live, 1)
    if pair.is_new:
        return f"new: {live}"
    return live if pair.reference is None else f"{share(pair.reference, 1).removesuffix(' %')} → {live}"


def _in_words(pairs: Sequence[Pair]) -> str:
    return "; ".join(
        f"{p.label}: {share(p.live, 1)} of live rows"
        + (f", {share(p.reference, 1)} of the reference" if p.reference is not None else "")
        for p in pairs
    )
