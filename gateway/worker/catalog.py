"""What this worker serves: desired state and loaded versions → the pipeline's route table and the health statuses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from gateway.messages import Desired, ModelOrder
from gateway.routing.routers import Routers
from gateway.routing.table import ModelRoute, RouteTable
from gateway.version_messages import version_target
from gateway.worker.copies import Copies, ShadowPair, shadow_pairs
from gateway.worker.target import Target
from runtime.versions.manager import Instance, VersionTarget
from runtime.versions.policy import InstanceKey
from runtime.versions.state import VersionState
from runtime.versions.version import LoadedVersion


class Catalog:
    """Rebuilds the table at each change, under a lock that no request takes, and publishes it by `on_table`."""

    def __init__(
        self, index: int, on_table: Callable[[RouteTable[Target]], None], copies: Copies | None = None
    ) -> None:
        self._index = index
        self._on_table = on_table
        self._copies = copies
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
        routes = [self._route(order) for order in self._orders.values()]
        if self._copies is not None:
            self._shadow(self._copies, routes)
        self._on_table(RouteTable(routes))

    def _shadow(self, copies: Copies, routes: Sequence[ModelRoute[Target]]) -> None:
        """Gives each target that answers the copiers that its route asks for."""
        wanted: list[tuple[ShadowPair, LoadedVersion]] = []
        for route in routes:
            order = self._orders[route.model]
            digests = {version: target.version.digest for version, target in route.available.items()}
            pairs = shadow_pairs(order, self._routers.of(order.model, order.route).route, digests)
            wanted += [(pair, route.available[pair.key.primary].version) for pair in pairs]
        copiers = copies.copiers(wanted)
        for target in self._targets.values():
            target.copiers = copiers.get(id(target.version), ())

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


def health_statuses(table: RouteTable[Target], *, ready: bool) -> dict[str, bool]:
    """Health services → serving: the server, the inference service, "model" and "model/version"."""
    statuses = {"": ready, "inference.GRPCInferenceService": ready}
    for route in table.models.values():
        statuses[route.model] = ready and table.serves(route.model)
        for version in (*route.available, *route.unavailable):
            statuses[f"{route.model}/{version}"] = ready and version in route.available
    return statuses
