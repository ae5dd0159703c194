"""What operators see of models: desired state, repository and workers' reports put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.control.changes import Changes
from gateway.control.fleet import Fleet
from gateway.control.observatory import Served
from gateway.messages import LoadedInfo, VersionReport
from gateway.routing.table import target_version
from gateway.store.contract import DesiredVersion
from gateway.store.panes import VersionKey
from runtime.repository.manifest import manifest_of
from runtime.versions.policy import InstanceKey
from runtime.versions.state import VersionState

PROGRESS = (
    VersionState.FAILED,
    VersionState.NOT_LOADED,
    VersionState.LOADING,
    VersionState.WARMING_UP,
    VersionState.AVAILABLE,
)
"""Over several workers a version is as far as the one that is least far."""


@dataclass(frozen=True, slots=True)
class VersionView:
    version: int
    digest: str
    state: VersionState
    reason: str
    labels: tuple[str, ...]
    is_default: bool
    loaded: LoadedInfo | None
    load_seconds: float
    memory_bytes: int
    workers_available: int
    workers_total: int


@dataclass(frozen=True, slots=True)
class ModelView:
    name: str
    versions: tuple[VersionView, ...]
    default_target: str
    labels: dict[str, int]
    policy: str
    problems: tuple[str, ...]
    served: bool


def model_views(changes: Changes, fleet: Fleet, only: str = "") -> list[ModelView]:
    names = sorted({*changes.desired, *changes.scan.models})
    return [_model(changes, fleet, name) for name in names if only in ("", name)]


def _model(changes: Changes, fleet: Fleet, name: str) -> ModelView:
    desired = changes.desired.get(name)
    entry = changes.scan.models.get(name)
    served = list(desired.versions) if desired is not None and desired.served else []
    labels = dict(desired.labels) if desired is not None else {}
    target = desired.default_target if desired is not None else ""
    default = _default(served, labels, target)
    rows = {v.version: _version(fleet, name, v, labels, default) for v in served}
    for version in changes.preparing(name):
        if version.version not in rows:
            rows[version.version] = _version(fleet, name, version, {}, None)
    for number, reason in changes.unavailable(name).items():
        if number and number not in rows:
            state = VersionState.FAILED if changes.failure(name, number) else VersionState.NOT_LOADED
            rows[number] = VersionView(number, "", state, reason, (), False, None, 0.0, 0, 0, len(fleet.workers))
    problems = [*(entry.problems if entry else ()), *(entry.warnings if entry else ())]
    if entry is None and served:
        problems.append("it is not in the repository (any more); served from the cache of what was loaded")
    if start_failure := changes.failure(name, 0):
        problems.append(start_failure)
    if desired is not None and desired.pinned_versions:
        policy = f"specific({', '.join(map(str, desired.pinned_versions))}), by an operator"
    else:
        policy = str(entry.manifest.versions) if entry is not None else ""
    return ModelView(
        name, tuple(rows[n] for n in sorted(rows)), target, labels, policy, tuple(dict.fromkeys(problems)),
        desired.served if desired is not None else False,
    )  # fmt: skip


def _version(
    fleet: Fleet, model: str, version: DesiredVersion, labels: dict[str, int], default: int | None
) -> VersionView:
    key = InstanceKey(model, version.version, version.digest, version.generation)
    reports = [worker.reports.get(key) for worker in fleet.workers.values()]
    states = [VersionState[r.state] if r is not None else VersionState.NOT_LOADED for r in reports]
    state = min(states, key=_progress, default=VersionState.NOT_LOADED)
    infos = [r.loaded for r in reports if r is not None and r.loaded is not None]
    return VersionView(
        version=version.version,
        digest=version.digest,
        state=state,
        reason=next((r.reason for r in reports if r is not None and r.reason), ""),
        labels=tuple(sorted(name for name, number in labels.items() if number == version.version)),
        is_default=version.version == default,
        loaded=infos[0] if infos else None,
        load_seconds=max((info.load_seconds for info in infos), default=0.0),
        memory_bytes=max((info.memory_bytes for info in infos), default=0),
        workers_available=states.count(VersionState.AVAILABLE),
        workers_total=len(reports),
    )


def _progress(state: VersionState) -> int:
    return PROGRESS.index(state) if state in PROGRESS else len(PROGRESS)


def _default(served: Sequence[DesiredVersion], labels: dict[str, int], target: str) -> int | None:
    if target:
        return target_version(target, labels)
    return max((v.version for v in served), default=None)


INDEX_STATES = {
    VersionState.AVAILABLE: "READY",
    VersionState.LOADING: "LOADING",
    VersionState.WARMING_UP: "LOADING",
    VersionState.DRAINING: "UNLOADING",
}


def index_rows(changes: Changes, fleet: Fleet, *, ready_only: bool) -> list[dict[str, str]]:
    """Triton's repository index: one row per version, or one without a version for a model that has none."""
    rows = []
    for model in model_views(changes, fleet):
        for version in model.versions:
            state = INDEX_STATES.get(version.state, "UNAVAILABLE")
            if state == "READY" or not ready_only:
                rows.append(
                    {"name": model.name, "version": str(version.version), "state": state, "reason": version.reason}
                )
        if not model.versions and not ready_only:
            rows.append(
                {"name": model.name, "version": "", "state": "UNAVAILABLE", "reason": "; ".join(model.problems)}
            )
    return rows


def initial_reports(fleet: Fleet) -> list[tuple[int, VersionReport]]:
    return [(w.index, report) for w in fleet.workers.values() for report in w.reports.values()]


def served_of(changes: Changes, key: VersionKey) -> Served | None:
    """What is wanted of a version now; None where it is not served. Any thread: models are replaced whole."""
    model = changes.desired.get(key.model)
    if model is None or not model.served or not model.versions:
        return None
    wanted = (*model.versions, *changes.preparing(key.model))
    version = next((v for v in wanted if (v.version, v.digest) == (key.version, key.digest)), None)
    if version is None:
        return None
    target = model.default_target
    default = target_version(target, model.labels) if target else max(v.version for v in model.versions)
    return Served(manifest_of(dict(version.settings), key.model).drift, version.version == default)


def drift_thresholds(changes: Changes, key: VersionKey) -> Mapping[str, float]:
    """Of a version's drift settings; the defaults where it is not served."""
    served = served_of(changes, key)
    return {str(name): bound for name, bound in served.settings.thresholds.items()} if served is not None else {}
