"""The part of the admin API that shows routes, sets them, and explains where a request would go."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable

from google.protobuf.duration_pb2 import Duration

from gateway.control.audit import Actor
from gateway.control.changes import Changes, Outcome
from gateway.control.desired import operators_route, route_text
from gateway.control.fleet import Fleet
from gateway.control.route_targets import Targets
from gateway.control.route_warnings import route_warnings
from gateway.control.views import model_views
from gateway.routing.router import Router
from gateway.store.contract import DesiredModel
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from runtime.errors import InvalidRequest, NotFound, NotReady
from runtime.repository.document import read_document
from runtime.routing.document import RouteError, read_route
from runtime.routing.route import Route

MAX_ENTRIES = 256
"""Of metadata, and of parameters, of a request to be explained."""

DEFAULT_VARIANT = "default"
_METADATA_KEY = re.compile(r"[0-9a-z_.-]{1,256}")


class RouteAdmin:
    """One method per RPC, as in AdminService, which calls `use_routes` first."""

    _routed: Changes | None = None
    _routed_by: Fleet | None = None
    _copies = False

    def use_routes(self, changes: Changes, fleet: Fleet, *, shadows_enabled: bool) -> None:
        self._routed, self._routed_by, self._copies = changes, fleet, shadows_enabled

    async def GetRoute(self, request: pb.GetRouteRequest, _: Actor) -> pb.GetRouteResponse:
        changes = self._changes_of_routes()
        model = changes.known(_model(request.model))
        effective = changes.with_rollout(model)
        return pb.GetRouteResponse(
            model=model.name,
            route=model.route,
            effective=route_text(effective),
            rollout_id=_rollout(changes, model.name),
            problems=self._targets(model).problems(effective),
            shares=_shares(_arms(effective, model), _arms(effective, model)),
        )

    async def SetRoute(self, request: pb.SetRouteRequest, actor: Actor) -> pb.SetRouteResponse:
        changes = self._changes_of_routes()
        before = changes.known(_model(request.model))
        arms_before = _arms(changes.with_rollout(before), before)
        route = _read(request.route, before)
        after = changes.routed(before.name, route) if request.dry_run else None
        outcome = Outcome(changed=False, audit_id=0, seconds=0.0)
        if after is None:
            outcome = await changes.set_route(before.name, route, actor)
            after = changes.known(before.name)
        effective = changes.with_rollout(after)
        warnings = route_warnings(operators_route(after), self._targets(after), shadows_enabled=self._copies)
        return pb.SetRouteResponse(
            route=after.route,
            effective=route_text(effective),
            changed=outcome.changed,
            audit_id=outcome.audit_id,
            duration=_duration(outcome.seconds),
            shares=_shares(arms_before, _arms(effective, after)),
            warnings=warnings,
        )

    async def ExplainRoute(self, request: pb.ExplainRouteRequest, _: Actor) -> pb.ExplainRouteResponse:
        changes = self._changes_of_routes()
        model = changes.known(_model(request.model))
        if len(request.metadata) > MAX_ENTRIES or len(request.parameters) > MAX_ENTRIES:
            raise InvalidRequest(f"expected at most {MAX_ENTRIES} entries of metadata, and as many parameters")
        metadata = [_entry(entry.key, entry.value) for entry in request.metadata]
        effective = changes.with_rollout(model)
        # A parameter's text has the key of the integer or boolean that a client sends: they are hashed as their text.
        explanation = Router(model.name, effective).explain(
            request.version, metadata, dict(request.parameters), request.request_id
        )
        decision, targets = explanation.decision, self._targets(model)
        resolved = targets.resolve(decision.target)
        copied_to = targets.shadows(effective, resolved.version) if self._copies and resolved.version else ()
        return pb.ExplainRouteResponse(
            version=resolved.version,
            digest=resolved.digest,
            unavailable=resolved.unavailable,
            target=decision.target,
            variant=decision.variant,
            reason=decision.reason.name.lower(),
            lines=explanation.lines(),
            document=json.dumps(explanation.document(), ensure_ascii=False),
            shadows=copied_to,
        )

    def _changes_of_routes(self) -> Changes:
        if self._routed is None:
            raise NotReady("the gateway is starting: ask again")
        return self._routed

    def _targets(self, model: DesiredModel) -> Targets:
        views = model_views(self._changes_of_routes(), self._routed_by, model.name) if self._routed_by else []
        return Targets(model, views[0] if views else None)


def _model(name: str) -> str:
    if not name:
        raise InvalidRequest("expected a model's name, got nothing", field="model")
    return name


def _read(text: str, model: DesiredModel) -> Route:
    """The route in YAML or JSON. RouteError with every problem, also of targets, which a route alone does not show."""
    document, problems = read_document(text)
    route, found = read_route(document)
    problems = [*problems, *found]
    if problems:
        versions = [version.version for version in model.versions] if model.served else []
        raise RouteError("the route", [*problems, *route.unknown_targets(versions, model.labels)])
    return route


def _entry(key: str, value: str) -> tuple[str, str | bytes]:
    """As a worker gets it: the key in lower case; the bytes of a key that ends in -bin come in base64, as grpcurl's."""
    name = key.lower()
    if _METADATA_KEY.fullmatch(name) is None:
        raise InvalidRequest(
            f"expected metadata keys of letters, digits, '-', '_' and '.', got {key[:100]!r}", field="metadata"
        )
    if name.endswith("-bin"):
        try:
            return name, base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
        except (binascii.Error, ValueError):
            raise InvalidRequest(
                f"expected base64 for the key {name!r}, got {value[:100]!r}", field="metadata"
            ) from None
    if not value.isascii() or (value and not value.isprintable()):
        raise InvalidRequest(
            f"expected printable ASCII for the key {name!r}, as metadata has it, got {value[:100]!r}", field="metadata"
        )
    return name, value


def _rollout(changes: Changes, model: str) -> int:
    """The id of the rollout under way; 0: none is."""
    if changes.rollouts is None:
        return 0
    try:
        return changes.rollouts.find(0, model, under_way=True)
    except NotFound:
        return 0


def _arms(route: Route, model: DesiredModel) -> dict[str, tuple[str, float]]:
    """(target, share) by variant of what reaches the split, which is the default's where there is none."""
    if not route.split:
        return {DEFAULT_VARIANT: (model.default_target or "newest", 1.0)}
    total = sum(variant.weight for variant in route.split)
    return {variant.name: (variant.target, variant.weight / total) for variant in route.split}


def _shares(before: dict[str, tuple[str, float]], after: dict[str, tuple[str, float]]) -> Iterable[pb.VariantShare]:
    """Those that are there afterwards in their order, then those that have gone."""
    for name in dict.fromkeys((*after, *before)):
        target, share = after.get(name) or (before[name][0], 0.0)
        _, share_before = before.get(name, ("", 0.0))
        yield pb.VariantShare(variant=name, target=target, share=share, share_before=share_before)


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(int(seconds * 1e9))
    return duration
