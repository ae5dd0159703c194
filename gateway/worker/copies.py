"""Copies of answered runs for shadow versions: which runs, and how they leave the worker.

Copying happens after the replies have been handed over. It never waits, makes no system call and never fails a request:
what finds no room, or nobody who would run it, is shed and counted. What becomes of copies is in gateway/shadow.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt

from gateway.messages import ModelOrder
from gateway.routing.table import target_version
from runtime.batching.request import Request
from runtime.batching.runner import RunTimes
from runtime.routing.route import Route
from runtime.shadow.copied_pair import CopiedPair
from runtime.shadow.pair import PairKey, PairSettings
from runtime.shadow.ring_writer import CopyHead, CopyWriter, Forms, PairPlace
from runtime.versions.version import LoadedVersion

log = logging.getLogger(__name__)

Array = npt.NDArray[Any]
Draw = Callable[[], float]


@dataclass(frozen=True, slots=True)
class ShadowPair:
    """One version that answers, one that gets copies of `share` (0..1] of its runs."""

    key: PairKey
    settings: PairSettings
    share: float


class Copier:
    """Of one pair. Thread-safe: threads that count down at once may choose a run more or less, no other."""

    def __init__(
        self, writer: CopyWriter, place: PairPlace | None, forms: Forms, share: float, draw: Draw = random.random
    ) -> None:
        """`place` None: there is no room for the pair; what would be copied is counted. `draw`: 0 <= p < 1."""
        self.place = place
        self._writer = writer
        self._forms = forms
        self._draw = draw
        self._share = share
        self._skip = self._next()
        self._broken = False

    @property
    def share(self) -> float:
        return self._share

    @share.setter
    def share(self, share: float) -> None:
        if share != self._share:
            self._share = share
            self._skip = self._next()

    def offer(self, requests: Sequence[Request], answers: Sequence[Array], times: RunTimes) -> None:
        """A run that has been answered: a copy of it is written if it is chosen, and can be. Raises nothing.

        A run without rows is none: nothing was computed.
        """
        if self._skip > 0:
            self._skip -= 1
            return
        self._skip = self._next()
        try:
            if times.inputs and requests[0].rows:
                self._copy(requests, answers, times)
        except Exception:
            if not self._broken:
                self._broken = True
                log.exception("runs cannot be copied for a shadow; this is told once")

    def _copy(self, requests: Sequence[Request], answers: Sequence[Array], times: RunTimes) -> None:
        place, count = self.place, len(requests)
        if place is None:
            self._writer.unplaced(count)
            return
        useless = place.why_not()
        if useless is not None:
            with self._writer.lock:
                place.shed(useless, count)
            return
        form, contents = self._forms.of(count, tuple(times.inputs.values()), requests[0].outputs, answers)
        rows = [request.rows for request in requests]
        ids = [request.id for request in requests]
        head = CopyHead(rows, ids, time.time_ns(), times.ran_ns - times.gathered_ns)
        self._writer.write(place, form, head, contents)

    def _next(self) -> int:
        """How many runs to pass over before the next that is chosen: each is chosen alone, by `share`."""
        if self._share >= 1:
            return 0
        return int(math.log(1.0 - self._draw()) / math.log1p(-self._share))


class Copies:
    """A worker's copiers: one for each pair that its routes have, kept as long as they have it."""

    def __init__(self, writer: CopyWriter) -> None:
        self._writer = writer
        self._lock = threading.Lock()
        self._copiers: dict[bytes, Copier] = {}

    def copiers(self, wanted: Iterable[tuple[ShadowPair, LoadedVersion]]) -> dict[int, tuple[Copier, ...]]:
        """Of all pairs of all models, with the version that answers: copiers by `id` of that version.

        Pairs that are wanted no more give their places back.
        """
        writer = self._writer
        with self._lock:
            before, self._copiers = self._copiers, {}
            found: dict[int, tuple[Copier, ...]] = {}
            for pair, version in wanted:
                signature = version.signature
                described = CopiedPair(
                    pair.key,
                    pair.settings,
                    tuple((spec.name, spec.datatype) for spec in signature.inputs),
                    tuple((spec.name, spec.datatype) for spec in signature.outputs),
                    version.max_rows > 0,
                )
                text = described.to_json()
                copier = self._copiers.get(text) or before.pop(text, None) or _copier(writer, described, text, pair)
                copier.share = pair.share
                self._copiers[text] = copier
                found[id(version)] = (*found.get(id(version), ()), copier)
            for copier in before.values():
                if copier.place is not None:
                    writer.give_back(copier.place)
            return found


def _copier(writer: CopyWriter, described: CopiedPair, text: bytes, pair: ShadowPair) -> Copier:
    datatypes = [[datatype for _, datatype in tensors] for tensors in (described.inputs, described.outputs)]
    forms = Forms(*datatypes, batched=described.batched)
    return Copier(writer, writer.place(text), forms, pair.share)


def shadow_pairs(order: ModelOrder, route: Route, available: Mapping[int, str]) -> list[ShadowPair]:
    """What the route's shadows mean for the versions that answer here, `available`: version → digest.

    A shadow's target gets copies of all but its own answers, or of `of` alone. One that the order does not name is
    loaded nowhere, and gets none. Of two that are one pair, as where a label comes to name the other's version, the
    first counts, at the greater share and less what either redacts: no run is copied twice.
    """
    digests = {version.version: version.digest for version in (*order.prepare, *order.serve)}
    pairs: dict[PairKey, ShadowPair] = {}
    for shadow in route.shadows:
        target = target_version(shadow.target, order.labels)
        if target is None or target not in digests:
            continue
        only = target_version(shadow.of, order.labels) if shadow.of else None
        settings = PairSettings(shadow.absolute, shadow.relative, shadow.worst, shadow.inputs, shadow.redact)
        for version, digest in sorted(available.items()):
            if version != target and (not shadow.of or version == only):
                key = PairKey(order.model, version, digest, target, digests[target])
                first = pairs.setdefault(key, ShadowPair(key, settings, shadow.share))
                redact = tuple(dict.fromkeys((*first.settings.redact, *shadow.redact)))
                settings_of_both = replace(first.settings, redact=redact)
                pairs[key] = ShadowPair(key, settings_of_both, max(first.share, shadow.share))
    return list(pairs.values())
