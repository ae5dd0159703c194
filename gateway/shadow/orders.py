"""What the shadow process should hold: shadows that routes name, candidates to be tried here, both of a replay."""

from __future__ import annotations

from gateway.messages import Desired, ModelOrder, VersionOrder


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
        from gateway.routing.table import target_version
        from runtime.routing.document import from_json

        named = {target_version(shadow.target, order.labels) for shadow in from_json(order.route).shadows}
        wanted += [version for version in (*order.prepare, *order.serve) if version.version in named]
    wanted += [version for version in order.serve if version.version in order.replay]
    distinct = {(version.version, version.digest, version.generation): version for version in wanted}
    return tuple(distinct[key] for key in sorted(distinct))
