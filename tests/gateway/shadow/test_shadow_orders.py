"""Which versions the shadow process holds, by the orders that workers get too."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.messages import Desired, ModelOrder, VersionOrder
from gateway.shadow.orders import concerns_shadows, shadow_versions
from runtime.routing.document import to_json
from runtime.routing.route import Route, Shadow


def number(version: int, generation: int = 1) -> VersionOrder:
    return VersionOrder(
        version=version, digest="", generation=generation, folder="", model_filename="", file_bytes=0, manifest={}
    )


NO_ROUTE = Route()


def order(route: Route = NO_ROUTE, **more: Any) -> ModelOrder:
    text = to_json(route) if route != NO_ROUTE else ""
    return ModelOrder(model="m", serve=(number(1), number(2), number(3)), labels={"next": 3}, route=text, **more)


@pytest.mark.parametrize(
    ("ordered", "versions"),
    [
        (order(), []),
        (order(Route(shadows=(Shadow("2"),))), [2]),
        (order(Route(shadows=(Shadow("next"), Shadow("1", of="2")))), [1, 3]),
        (order(Route(shadows=(Shadow("9"), Shadow("gone")))), []),
        (order(prepare=(number(4),)), []),
        (order(prepare=(number(4),), prepare_on_shadow=True), [4]),
        (order(Route(shadows=(Shadow("4"),)), prepare=(number(4),)), [4]),
    ],
)
def test_shadows_of_the_route_and_candidates_to_be_tried_here_are_held(
    ordered: ModelOrder, versions: list[int]
) -> None:
    assert [version.version for version in shadow_versions(ordered)] == versions
    desired = Desired(revision=1, models=(ordered,))
    assert concerns_shadows(desired) or not versions, "else it would not even look"


def test_a_route_that_cannot_be_read_names_nothing(caplog: pytest.LogCaptureFixture) -> None:
    broken = ModelOrder(model="m", serve=(number(1),), route='{"shadows":"all of them"}')
    assert shadow_versions(broken) == ()
    assert "the route of model 'm' cannot be read" in caplog.text


def test_a_version_that_is_loaded_anew_is_held_twice_until_it_is_served() -> None:
    ordered = order(Route(shadows=(Shadow("2"),)), prepare=(number(2, generation=2),))
    assert [(version.version, version.generation) for version in shadow_versions(ordered)] == [(2, 1), (2, 2)]
