"""Who did what: the entries that each change, done, refused or failed, leaves in the audit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.store.contract import AuditEntry, DesiredModel


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


def describe(model: DesiredModel) -> str:
    if not model.served:
        return "not served"
    versions = ", ".join(f"{v.version} ({v.digest[:19]})" for v in model.versions)
    labels = ", ".join(f"{name}={version}" for name, version in sorted(model.labels.items()))
    return f"serves {versions}; labels {labels or 'none'}; default {model.default_target or 'newest'}"
