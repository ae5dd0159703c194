"""What the shadow process should hold: shadows that routes name, candidates to be tried here, both of a replay."""

from __future__ import annotations

import logging

from gateway.messages import Desired, ModelOrder, VersionOrder

log = logging.getLogger(__name__)


def concerns_shadows(desired: Desired) -> bool:
    """Whether anything in the orders may be for the shadow process. Imports nothing: most gateways have no shadows."""
    return any(
        (order.prepare_on_shadow and order.prepare) or order.replay or '"shadows"' in order.route
        for order in desired.models
    )


def shadow_versions(order: ModelOrder) -> tuple[VersionOrder, ...]:
    """In the order of their numbers; of two orders of one version, first the one that is to be prepared."""
    wanted = list(order.prepare) if order.prepare_on_shadow else []
    if order.route:
        named = _shadows(order)
        wanted += [version for version in (*order.prepare, *order.serve) if version.version in named]
    wanted += [version for version in order.serve if version.version in order.replay]
    distinct = {(version.version, version.digest, version.generation): version for version in wanted}
    return tuple(distinct[key] for key in sorted(distinct))


def _shadows(order: ModelOrder) -> set[int | None]:
    """Versions that the route names. One that cannot be read names none: workers copy nothing by it either."""
    from gateway.routing.table import target_version
    from runtime.routing.document import RouteError, from_json

    try:
        route = from_json(order.route)
    except RouteError:  # control checks what it sends: it is of another release, or wrong
        log.exception("the route of model %r cannot be read: it has no shadows", order.model)
        return set()
    return {target_version(shadow.target, order.labels) for shadow in route.shadows}
