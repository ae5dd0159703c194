"""Who did what: what each change, done, refused or failed, leaves in the audit and among the log events."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from gateway.control.desired import operators_route
from gateway.routing.table import target_version
from gateway.store.contract import AuditEntry, DesiredModel, DesiredVersion
from gateway.telemetry.events import ROUTE_CHANGED, VERSION_LOADED, VERSION_SWAPPED, EventLog, Value
from gateway.telemetry.refusals import ChangeRefusals
from runtime.routing.route import Route

MAX_NAME = 128  # characters of a name that may be anyone's invention
MAX_ROUTE = 4096  # characters of a route in the audit, as of an event's attribute
NO_ROUTE = "{}"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks for a change, from where, and why."""

    name: str
    peer: str
    reason: str = ""


SYSTEM = Actor("system", "")


def audit_entry(
    action: str,
    model: DesiredModel,
    version: int,
    actor: Actor,
    outcome: Any,
    detail: str,
    before: DesiredModel | None = None,
) -> AuditEntry:
    """`before` has the digest of a version that `model` no longer has."""
    if not version and len(model.versions) == 1:
        version = model.versions[0].version
    past = before.versions if before is not None else ()
    digest = {v.version: v.digest for v in (*past, *model.versions)}.get(version, "")
    return AuditEntry(
        actor=actor.name, peer=actor.peer, action=action, model=model.name, version=version, digest=digest,
        outcome=outcome, detail=detail, reason=actor.reason,
    )  # fmt: skip


SET_ROUTE = "set route"


def describe(model: DesiredModel, action: str = "") -> str:
    """What a change has led to. Of a route that was set, the route; of others, in short what it is made of."""
    if action == SET_ROUTE:
        return f"route {_shortened(model.route) or 'none'}"
    if not model.served:
        return "not served"
    versions = ", ".join(f"{v.version} ({v.digest[:19]})" for v in model.versions)
    labels = ", ".join(f"{name}={version}" for name, version in sorted(model.labels.items()))
    names = f"labels {labels or 'none'}; default {model.default_target or 'newest'}"
    return f"serves {versions}; {names}; route {_outlined(operators_route(model))}"


def announce(
    events: EventLog,
    change: AuditEntry,
    audit_id: int,
    before: DesiredModel | None,
    after: DesiredModel,
    seconds: float,
) -> None:
    """A change that has been made, as events: each new version; the swap; the names that lead to versions."""
    had, has = _served(before), _served(after)
    for version in has:
        if version not in had:
            events.emit(VERSION_LOADED, model=after.name, version=version.version, digest=version.digest)
    who: dict[str, Value] = {"action": change.action, "actor": change.actor, "audit": audit_id, "seconds": seconds}
    if had != has or _default(before) != _default(after):
        events.emit(
            VERSION_SWAPPED,
            model=after.name,
            versions=[version.version for version in has],
            versions_before=[version.version for version in had],
            default=_default(after),
            default_before=_default(before),
            **who,
        )
    if _names(before) != _names(after):
        labels, target, route = _names(after)
        labels_before, target_before, route_before = _names(before)
        events.emit(
            ROUTE_CHANGED,
            model=after.name,
            labels=labels,
            labels_before=labels_before,
            target=target,
            target_before=target_before,
            route=route,
            route_before=route_before,
            **who,
        )


def announce_refusal(refusals: ChangeRefusals, action: str, model: str, actor: Actor, outcome: str, error: str) -> None:
    """A change that was not made. `model` is whatever was asked for."""
    refusals.add(
        time.monotonic(), action=action, model=model[:MAX_NAME], actor=actor.name, outcome=outcome, error=error
    )


def _served(model: DesiredModel | None) -> tuple[DesiredVersion, ...]:
    return model.versions if model is not None and model.served else ()


def _default(model: DesiredModel | None) -> int | None:
    """The version that answers requests which name none."""
    served = [version.version for version in _served(model)]
    if model is None or not served:
        return None
    return target_version(model.default_target, model.labels) if model.default_target else max(served)


def _names(model: DesiredModel | None) -> tuple[list[str], str, str]:
    """Labels, what the default is set to, and the operators' route."""
    if model is None:
        return [], "newest", NO_ROUTE
    labels = [f"{name}={version}" for name, version in sorted(model.labels.items())]
    return labels, model.default_target or "newest", model.route or NO_ROUTE


def _outlined(route: Route) -> str:
    """As "2 rules, split stable 95 canary 5, 1 shadow"."""
    parts = [
        f"{len(things)} {noun}{'s' if len(things) > 1 else ''}"
        for noun, things in (("rule", route.rules), ("shadow", route.shadows))
        if things
    ]
    if route.split:
        parts.insert(bool(route.rules), f"split {' '.join(f'{arm.name} {arm.weight:g}' for arm in route.split)}")
    return ", ".join(parts) or "none"


def _shortened(route: str) -> str:
    return route if len(route) <= MAX_ROUTE else f"{route[:MAX_ROUTE]}... ({len(route)} characters)"
