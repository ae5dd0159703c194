"""The RPC of comparisons."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from gateway.control.audit import MAX_NAME, Actor
from gateway.control.comparison_answers import comparison_answer, tolerance_note, within
from gateway.control.comparisons import Comparisons
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from runtime.errors import InvalidRequest, NotFound, NotReady

NAMED = 20
"""Names that an error counts up."""


class ComparisonAdmin:
    """One method per RPC, as in AdminService. Until `use_comparisons`, it is not ready."""

    _comparisons: Comparisons | None = None
    _comparable_models: Callable[[], Collection[str]] | None = None

    def use_comparisons(
        self, comparisons: Comparisons, known_models: Callable[[], Collection[str]] | None = None
    ) -> None:
        """`known_models`: all names, so that a misspelt one gets an error and not an empty answer."""
        self._comparisons = comparisons
        self._comparable_models = known_models

    async def GetComparisons(self, request: pb.GetComparisonsRequest, _: Actor) -> pb.GetComparisonsResponse:
        return await asyncio.to_thread(self._compare, request)

    def _compare(self, request: pb.GetComparisonsRequest) -> pb.GetComparisonsResponse:
        comparisons = self._comparisons
        if comparisons is None:
            raise NotReady("control is still starting: retry")
        self._check(request, comparisons)
        keys = comparisons.pairs(request.model, request.primary, request.shadow)
        views = [(key, comparisons.view(key, request.window_seconds)) for key in keys]
        answers = [comparison_answer(key, view) for key, view in views]
        notes = [*comparisons.notes(), *(note for key, view in views if (note := tolerance_note(key, view)))]
        if not answers:
            notes.append(f"no copies were made{_of(request)}: a route's `shadows` ask for them")
        return pb.GetComparisonsResponse(comparisons=answers, notes=[*within(answers), *notes])

    def _check(self, request: pb.GetComparisonsRequest, comparisons: Comparisons) -> None:
        for field in ("primary", "shadow"):
            if getattr(request, field) < 0:
                raise InvalidRequest(
                    f"expected a {field} version of 1 or more, or 0: any, got {getattr(request, field)}", field=field
                )
            if getattr(request, field) and not request.model:
                raise InvalidRequest("expected the model that the version is of, got nothing", field="model")
        seconds = [level.window_seconds for level in comparisons.levels]
        if request.window_seconds and request.window_seconds not in seconds:
            known = ", ".join(map(str, seconds))
            raise InvalidRequest(
                f"expected a window of {known} seconds, or 0 for all since the gateway started, "
                f"got {request.window_seconds}",
                field="window_seconds",
            )
        if not request.model or self._comparable_models is None:
            return
        known_models = sorted(self._comparable_models())
        if request.model not in known_models and not comparisons.pairs(request.model):
            more = f" and {len(known_models) - NAMED} more" if len(known_models) > NAMED else ""
            named = (", ".join(name[:MAX_NAME] for name in known_models[:NAMED]) or "none") + more
            raise NotFound(f"no model {request.model[:MAX_NAME]!r}; known models: {named}", field="model")


def _of(request: pb.GetComparisonsRequest) -> str:
    if not request.model:
        return ""
    answered = f" that version {request.primary} answered" if request.primary else ""
    to = f" to version {request.shadow}" if request.shadow else ""
    return f" of requests for model {request.model!r}{answered}{to}"
