"""Which version answers: an immutable table, replaced by one reference assignment.

A name, a label or the default of a model without a route takes one look-up. Where a model has a route, requests that
name no version come to its junction: the router decides, and what it decides leads to a version.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from gateway.routing.decision import Decision
from gateway.routing.router import Metadata, Parameters, Router
from runtime.errors import NotFound, NotReady, ServingError
from runtime.repository.layout import version_number
from runtime.routing.route import Source
from runtime.shm.record_layout import Reason

V = TypeVar("V")
SHOWN = 20
MOST = 0.5
"""Of a split's weight: a model serves while the versions that get this much of it can answer."""


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

    `default_target`: a version, a label, or "" for the newest available version. `router`: decides about requests that
    name no version; None: the default answers them.
    """

    model: str
    available: Mapping[int, V]
    labels: Mapping[str, int] = field(default_factory=dict)
    default_target: str = ""
    unavailable: Mapping[int, str] = field(default_factory=dict)
    router: Router | None = None

    def version_of(self, target: str) -> int | None:
        """What a route's target means, available or not: a number, a label, or "" for the default."""
        return target_version(target, self.labels) if target else self.default_version()

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


class Way(NamedTuple, Generic[V]):
    """Where a decision leads. `target` None: `version` (None: there is no such label) cannot answer."""

    target: V | None
    version: int | None
    routing: Routing
    decision: Decision


class Junction(Generic[V]):
    """Where the route of one model leads, under one table.

    `parameter`: the name of the request parameter that is the sticky key; "" where it is none.
    """

    __slots__ = ("_decide", "_ways", "parameter", "serves")

    def __init__(self, route: ModelRoute[V], router: Router) -> None:
        sticky = router.route.sticky
        self.parameter = sticky.name if sticky is not None and sticky.source is Source.PARAMETER else ""
        self._decide = router.decide
        self._ways = {decision: _way(route, decision) for decision in router.decisions}
        self.serves = _serves(route, router)

    def lead(self, metadata: Metadata, parameters: Parameters | None, request_id: str) -> Way[V]:
        """Of a request that names no version. Two calls may differ: without a key it is drawn each time."""
        return self._ways[self._decide("", metadata, parameters, request_id)]


def _way(route: ModelRoute[V], decision: Decision) -> Way[V]:
    version = route.version_of(decision.target)
    target = route.available.get(version) if version is not None else None
    return Way(target, version, Routing(decision.variant, decision.reason), decision)


def _serves(route: ModelRoute[V], router: Router) -> bool:
    split = router.route.split
    if not split:
        return route.default_version() in route.available
    answered = sum(arm.weight for arm in split if route.version_of(arm.target) in route.available)
    return answered >= MOST * sum(arm.weight for arm in split)


class RouteTable(Generic[V]):
    """`route` is one dictionary look-up; the reasons of a miss are worked out only when there is one.

    `junctions`: of the models whose route decides about requests that name no version.
    """

    def __init__(self, routes: Iterable[ModelRoute[V]] = ()) -> None:
        self.models: dict[str, ModelRoute[V]] = {route.model: route for route in routes}
        self.junctions: dict[str, Junction[V]] = {}
        self._found: dict[tuple[str, str], tuple[V, Routing]] = {}
        for route in self.models.values():
            for version, target in route.available.items():
                self._found[route.model, str(version)] = (target, PINNED)
            for label, version in route.labels.items():
                if version in route.available:
                    self._found[route.model, label] = (route.available[version], Routing(label, Reason.LABEL))
            default = route.default_version()
            if route.router is not None:
                self.junctions[route.model] = Junction(route, route.router)
            elif default is not None and default in route.available:
                self._found[route.model, ""] = (route.available[default], DEFAULT)

    def find(self, model: str, version: str) -> V | None:
        """The version of this number or label; "" is the model's default, whatever its route says."""
        found = self._found.get((model, version))
        if found is not None:
            return found[0]
        if not version and model in self.junctions:
            default = self.models[model].default_version()
            return self.models[model].available.get(default) if default is not None else None
        return None

    def route(self, model: str, version: str) -> tuple[V, Routing] | None:
        """`find`, and why it is this one; None, too, for what a junction decides."""
        return self._found.get((model, version))

    def serves(self, model: str) -> bool:
        """Whether requests that name no version are answered: those of the default, or most of a split's, by weight."""
        junction = self.junctions.get(model)
        return junction.serves if junction is not None else (model, "") in self._found

    def why_not_led(self, model: str, decision: Decision) -> ServingError:
        """The error where a route leads to a version that cannot answer: no other one takes its place."""
        error = self.why_not(model, decision.target)
        if not decision.target:
            return error
        return NotReady(
            f"{error.message} (the model's route leads this request there, as variant {decision.variant!r})"
        )

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
