"""The routers of a process: one for each model and route text, as long as the text stays the same."""

from __future__ import annotations

import logging
import random
from collections.abc import Collection
from typing import NamedTuple

from gateway.routing.router import Router
from runtime.routing.document import RouteError, from_json
from runtime.routing.route import Route

log = logging.getLogger(__name__)

NO_ROUTE = Route()


class Routed(NamedTuple):
    """A route and the text it was read from. `router` None: it decides nothing, the default answers."""

    text: str
    route: Route
    router: Router | None


NOTHING = Routed("", NO_ROUTE, None)


class Routers:
    """Not thread-safe. One random generator draws for all, however often routes change."""

    def __init__(self) -> None:
        self._draw = random.Random().random  # noqa: S311  # no secret depends on it
        self._routed: dict[str, Routed] = {}

    def of(self, model: str, text: str) -> Routed:
        """`text`: a route as JSON, or "" for none. One that cannot be read leaves the model with the one before."""
        known = self._routed.get(model, NOTHING)
        if known.text == text:
            return known
        try:
            route = from_json(text) if text else NO_ROUTE
        except RouteError:  # control checks what it sends: it is of another release, or wrong
            log.exception("the route of model %r cannot be read; the one before stays", model)
            made = self._routed[model] = known._replace(text=text)  # told once
            return made
        decides = bool(route.rules or route.split)
        made = Routed(text, route, Router(model, route, self._draw) if decides else None)
        self._routed[model] = made
        return made

    def keep(self, models: Collection[str]) -> None:
        """Forgets all others."""
        self._routed = {model: routed for model, routed in self._routed.items() if model in models}
