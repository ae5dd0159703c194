"""Which version answers: an immutable table, replaced by one reference assignment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from runtime.errors import NotFound, NotReady, ServingError
from runtime.repository.layout import version_number
from runtime.shm.record_layout import Reason

V = TypeVar("V")
SHOWN = 20


class Routing(NamedTuple):
    """How a request came to its version. `variant`: the arm of the route that it took."""

    variant: str
    reason: int


NOT_ROUTED = Routing("", Reason.NONE)
DEFAULT = Routing("default", Reason.DEFAULT)
PINNED = Routing("pinned", Reason.VERSION)


@dataclass(frozen=True, slots=True)
class ModelRoute(Generic[V]):
    """One model's part: what is available, what is known but is not, and the names that lead to versions.

    `default_target`: a version, a label, or "" for the newest available version.
    """

    model: str
    available: Mapping[int, V]
    labels: Mapping[str, int] = field(default_factory=dict)
    default_target: str = ""
    unavailable: Mapping[int, str] = field(default_factory=dict)

    def default_version(self) -> int | None:
        """The version that an empty model_version means, available or not; None if there is none at all."""
        target = self.default_target
        if target:
            return target_version(target, self.labels)
        return max(self.available, default=max(self.unavailable, default=None))


def target_version(target: str, labels: Mapping[str, int]) -> int | None:
    """The version that a number or a label means; None if it means none."""
    number = version_number(target)
    return number if number is not None else labels.get(target)


class RouteTable(Generic[V]):
    """`find` is one dictionary look-up; the reasons of a miss are worked out only when there is one."""

    def __init__(self, routes: Iterable[ModelRoute[V]] = ()) -> None:
        self.models: dict[str, ModelRoute[V]] = {route.model: route for route in routes}
        self._found: dict[tuple[str, str], tuple[V, Routing]] = {}
        for route in self.models.values():
            for version, target in route.available.items():
                self._found[route.model, str(version)] = (target, PINNED)
            for label, version in route.labels.items():
                if version in route.available:
                    self._found[route.model, label] = (route.available[version], Routing(label, Reason.LABEL))
            default = route.default_version()
            if default is not None and default in route.available:
                self._found[route.model, ""] = (route.available[default], DEFAULT)

    def find(self, model: str, version: str) -> V | None:
        found = self._found.get((model, version))
        return found[0] if found is not None else None

    def route(self, model: str, version: str) -> tuple[V, Routing] | None:
        """`find`, and why it is this one."""
        return self._found.get((model, version))

    def why_not(self, model: str, version: str) -> ServingError:
        """The error for a name that `find` does not know."""
        route = self.models.get(model)
        if route is None:
            return NotFound(f"no model {model[:200]!r}; known models: {_list(sorted(self.models))}", field="model_name")
        if version:
            number = version_number(version) or route.labels.get(version)
            if number is None or (number not in route.unavailable and number not in route.available):
                return NotFound(
                    f"model {model!r} has no version or label {version[:100]!r}; versions: "
                    f"{_list(sorted({*route.available, *route.unavailable}))}; labels: {_list(sorted(route.labels))}",
                    field="model_version",
                )
        else:
            number = route.default_version()
            if number is None:
                return NotReady(f"model {model!r} has no version that is served: it was unloaded or none was loaded")
        reason = route.unavailable.get(number, "it is not served")
        return NotReady(f"model {model!r} version {number} is not ready: {reason}")


def _list(names: Iterable[object]) -> str:
    shown = [str(name) for name in names]
    more = len(shown) - SHOWN
    return (", ".join(shown[:SHOWN]) or "none") + (f" and {more} more" if more > 0 else "")
