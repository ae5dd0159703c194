"""What this worker serves: desired state and loaded versions → the pipeline's route table and the health statuses."""

from __future__ import annotations

import threading
from collections.abc import Callable

from gateway.messages import Desired, LoadedInfo, ModelOrder, TensorInfo, VersionOrder, VersionReport
from gateway.routing.routers import Routers
from gateway.routing.table import ModelRoute, RouteTable
from gateway.worker.target import Target
from runtime.repository.manifest import manifest_of
from runtime.types import Artifact, Signature, TensorSpec
from runtime.versions.manager import Instance, VersionTarget
from runtime.versions.policy import InstanceKey
from runtime.versions.state import VersionState
from runtime.versions.version import LoadedVersion


class Catalog:
    """Rebuilds the table at each change, under a lock that no request takes, and publishes it by `on_table`."""

    def __init__(self, index: int, on_table: Callable[[RouteTable[Target]], None]) -> None:
        self._index = index
        self._on_table = on_table
        self._lock = threading.Lock()
        self._orders: dict[str, ModelOrder] = {}
        self._routers = Routers()
        self._targets: dict[InstanceKey, Target] = {}
        self._states: dict[InstanceKey, tuple[VersionState, str]] = {}

    def add_target(self, key: InstanceKey, target: Target) -> None:
        with self._lock:
            self._targets[key] = target

    def set_desired(self, desired: Desired) -> list[VersionTarget]:
        """Flips the routes; answers what should be in memory."""
        with self._lock:
            self._orders = {order.model: order for order in desired.models}
            self._routers.keep(self._orders)
            self._publish()
        return [
            version_target(order.model, version)
            for order in desired.models
            for version in (*order.serve, *(order.prepare if order.prepare_on in (-1, self._index) else ()))
        ]

    def note(self, instance: Instance) -> None:
        """A version's state has changed: it becomes visible after AVAILABLE and invisible before DRAINING."""
        with self._lock:
            self._states[instance.key] = (instance.state, instance.reason)
            if instance.state in (VersionState.UNLOADED, VersionState.FAILED):
                self._targets.pop(instance.key, None)
            if instance.state is VersionState.UNLOADED:
                del self._states[instance.key]
            self._publish()

    def _publish(self) -> None:
        self._on_table(RouteTable(self._route(order) for order in self._orders.values()))

    def _route(self, order: ModelOrder) -> ModelRoute[Target]:
        available: dict[int, Target] = {}
        unavailable = dict(order.unavailable)
        for version in order.serve:
            key = InstanceKey(order.model, version.version, version.digest, version.generation)
            state, reason = self._states.get(key, (VersionState.NOT_LOADED, ""))
            target = self._targets.get(key)
            if state is VersionState.AVAILABLE and target is not None:
                available[version.version] = target
            else:
                unavailable[version.version] = f"{state.value}{': ' + reason if reason else ''}"
        for version in order.prepare:
            if version.version not in available:
                unavailable.setdefault(version.version, VersionState.LOADING.value)
        router = self._routers.of(order.model, order.route).router
        return ModelRoute(order.model, available, order.labels, order.default_target, unavailable, router)


def version_target(model: str, order: VersionOrder) -> VersionTarget:
    artifact = Artifact(
        model=model,
        version=order.version,
        digest=order.digest,
        folder=order.folder,
        file_bytes=order.file_bytes,
        model_filename=order.model_filename,
    )
    return VersionTarget(artifact, manifest_of(order.manifest, f"{model}/model.yaml"), order.generation)


def health_statuses(table: RouteTable[Target], *, ready: bool) -> dict[str, bool]:
    """Health services → serving: the server, the inference service, "model" and "model/version"."""
    statuses = {"": ready, "inference.GRPCInferenceService": ready}
    for route in table.models.values():
        statuses[route.model] = ready and table.serves(route.model)
        for version in (*route.available, *route.unavailable):
            statuses[f"{route.model}/{version}"] = ready and version in route.available
    return statuses


def report(instance: Instance) -> VersionReport:
    key = instance.key
    loaded = instance.loaded
    return VersionReport(
        model=key.model,
        version=key.version,
        digest=key.digest,
        generation=key.generation,
        state=instance.state.name,
        reason=instance.reason,
        loaded=_info(loaded) if loaded is not None else None,
    )


def _info(loaded: LoadedVersion) -> LoadedInfo:
    signature: Signature = loaded.signature
    return LoadedInfo(
        inputs=tuple(_tensor(spec) for spec in signature.inputs),
        outputs=tuple(_tensor(spec) for spec in signature.outputs),
        load_seconds=loaded.load_seconds,
        loaded_at_seconds=loaded.loaded_at_seconds,
        memory_bytes=loaded.memory_bytes,
        file_bytes=loaded.file_bytes,
        execution_providers=loaded.execution_providers,
        max_rows=loaded.max_rows,
        warnings=loaded.warnings,
    )


def _tensor(spec: TensorSpec) -> TensorInfo:
    return TensorInfo(name=spec.name, datatype=spec.datatype, shape=spec.shape)
