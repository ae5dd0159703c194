"""Where the targets of a route lead now: to which version, and whether it can answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.control.views import ModelView, VersionView
from gateway.routing.table import target_version
from gateway.store.contract import DesiredModel
from runtime.routing.route import Route
from runtime.versions.state import VersionState


@dataclass(frozen=True, slots=True)
class Resolved:
    """`version` 0: none can answer, and `unavailable` says why; beside a version it says what it lacks."""

    version: int
    digest: str = ""
    unavailable: str = ""


class Targets:
    """Of one model, as desired and as its workers have reported. Pure."""

    def __init__(self, model: DesiredModel, view: ModelView | None) -> None:
        self._model = model
        self._served = {version.version for version in model.versions} if model.served else set()
        self._views = {one.version: one for one in view.versions} if view is not None else {}

    def view(self, version: int) -> VersionView | None:
        """What is known of a version that is served."""
        return self._views.get(version) if version in self._served else None

    @property
    def served(self) -> tuple[int, ...]:
        return tuple(sorted(self._served))

    def version(self, target: str) -> int | None:
        """The version that a target means, served or not; "" is the default. None if it means none."""
        target = target or self._model.default_target
        if target:
            return target_version(target, self._model.labels)
        ready = [number for number in self._served if (view := self.view(number)) and view.workers_available]
        return max(ready, default=max(self._served, default=None))

    def resolve(self, target: str) -> Resolved:
        """As workers do: a target that cannot answer is never replaced by another version."""
        number = self.version(target)
        if number is None and not target:
            return Resolved(0, unavailable=f"model {self._model.name!r} has no version that is served")
        if number is None:
            labels = ", ".join(sorted(self._model.labels)) or "none"
            return Resolved(0, unavailable=f"the model has no label {target[:100]!r}; labels: {labels}")
        view = self.view(number)
        if view is None:
            versions = ", ".join(map(str, self.served)) or "none"
            return Resolved(0, unavailable=f"version {number} is not served; served: {versions}")
        if not view.workers_available:
            state = view.state.name.lower().replace("_", " ")
            why = f": {view.reason}" if view.reason else ""
            return Resolved(0, view.digest, f"version {number} is not ready: {state}{why}")
        lacks = ""
        if view.workers_available < view.workers_total or view.state is not VersionState.AVAILABLE:
            lacks = f"version {number} is ready on {view.workers_available} of {view.workers_total} workers"
        return Resolved(number, view.digest, lacks)

    def problems(self, route: Route) -> Iterator[str]:
        """Targets that cannot answer now, or not everywhere, with the reason; the default where there is no split."""
        places: dict[str, list[str]] = {}
        for place, target in (*route.targets(), *(() if route.split else (("the default", ""),))):
            if why := self.resolve(target).unavailable:
                places.setdefault(why, []).append(place)
        for why, named in places.items():
            yield f"{', '.join(named)}: {why}"

    def shadows(self, route: Route, version: int) -> tuple[int, ...]:
        """The versions that get copies of what `version` answers, if every run is chosen."""
        copied_to = {
            self.version(shadow.target)
            for shadow in route.shadows
            if not shadow.of or self.version(shadow.of) == version
        }
        return tuple(number for number in self.served if number in copied_to and number != version)
