"""A process keeps a model's router as long as its route's text stays the same."""

from __future__ import annotations

import pytest

from gateway.routing.routers import Routers
from runtime.routing.document import parse_route, to_json

SPLIT = to_json(parse_route("split: {a: 1, b: 1}"))
OTHER = to_json(parse_route("split: {a: 1, b: 2}"))


def test_the_same_text_has_the_same_router_and_another_text_another() -> None:
    routers = Routers()
    first = routers.of("m", SPLIT)
    assert first.router is not None
    assert first.route == parse_route("split: {a: 1, b: 1}")
    assert routers.of("m", SPLIT) is first
    assert routers.of("n", SPLIT).router is not first.router
    assert routers.of("m", OTHER).router is not first.router
    assert routers.of("m", SPLIT).router is not first.router


@pytest.mark.parametrize("text", ["", "{}", '{"salt":"x"}', '{"sticky":"request_id"}'])
def test_a_route_that_decides_nothing_needs_no_router(text: str) -> None:
    assert Routers().of("m", text).router is None


def test_what_is_drawn_goes_on_where_it_was_when_a_route_changes() -> None:
    """Else each step of a rollout would give all workers' requests another lot at once."""
    routers = Routers()
    first, second = routers.of("m", SPLIT).router, routers.of("m", OTHER).router
    assert first is not None
    assert second is not None
    assert first._draw == second._draw


def test_a_route_that_cannot_be_read_leaves_the_one_before(caplog: pytest.LogCaptureFixture) -> None:
    routers = Routers()
    first = routers.of("m", SPLIT)
    texts = ("{", "[]", '{"split":{}}', '{"of another release":1}')
    for text in texts:
        for _ in range(2):
            assert routers.of("m", text).router is first.router
        assert routers.of("new", text).router is None
    told = [f"the route of model {model!r} cannot be read; the one before stays" for model in ("m", "new")]
    assert caplog.messages == told * len(texts), "once for each"


def test_routers_of_models_that_are_gone_are_forgotten() -> None:
    routers = Routers()
    kept, gone = routers.of("kept", SPLIT), routers.of("gone", SPLIT)
    routers.keep({"kept"})
    assert routers.of("kept", SPLIT) is kept
    assert routers.of("gone", SPLIT) is not gone
