"""Routes and rollouts as changes of the desired state: stored, told to workers, audited, refused with a reason."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from change_scene import OLGA, Scene, scene

from gateway.control.rollout_changes import Before
from gateway.control.traffic import Traffic
from gateway.errors import Precondition
from runtime.errors import LoadError, NotFound
from runtime.routing.document import RouteError, from_json, parse_route
from runtime.routing.route import Route, Shadow

CANARY = parse_route("split: {1: 95, 2: 5}")
RULES = parse_route("rules: [{name: r, when: {x: y}, to: 2}]")
BUSY = "rollout 7 of model 'm' is under way: abort it first"


class Rollouts:
    """One rollout or none, as the test says."""

    def __init__(self) -> None:
        self.now: Traffic | None = None

    def traffic(self, _model: str) -> Traffic | None:
        return self.now

    def busy(self, _model: str) -> str:
        return BUSY if self.now is not None else ""

    def find(self, _rollout_id: int, _model: str, *, under_way: bool = False) -> int:
        if under_way and self.now is None:
            raise NotFound("no rollout is under way")
        return 7


def served(there: Scene) -> list[int]:
    return [version.version for version in there.changes.desired["m"].versions]


def test_a_route_is_stored_told_to_workers_audited_and_there_after_a_restart(tmp_path: Path) -> None:
    async def run() -> None:
        async with scene(tmp_path) as there:
            await there.changes.load("m", (1, 2), OLGA)
            assert there.order().route == ""
            there.told()
            outcome = await there.changes.set_route("m", CANARY, OLGA)
            assert (outcome.changed, from_json(there.order().route)) == (True, CANARY)
            ((name, said),) = there.told()
            assert (name, said["change.action"], said["route.previous.document"]) == (
                "driftgate.route.changed", "set route", "{}",
            )  # fmt: skip
            assert from_json(said["route.document"]) == CANARY
            action, done, detail = there.audited()[0]
            assert (action, done, detail) == ("set route", "done", f"route {there.order().route}")
            again = await there.changes.set_route("m", CANARY, OLGA)
            assert (again.changed, there.told()) == (False, [])
        async with scene(tmp_path) as there:
            assert from_json(there.order().route) == CANARY
            assert there.changes.effective_route("m") == CANARY
            assert (await there.changes.set_route("m", None, OLGA)).changed
            assert (there.order().route, there.changes.effective_route("m")) == ("", Route())

    asyncio.run(run())


def test_a_route_to_what_is_not_served_is_refused_with_every_target_and_audited(tmp_path: Path) -> None:
    async def run() -> None:
        async with scene(tmp_path) as there:
            with pytest.raises(NotFound, match="has never been loaded: load it first"):
                await there.changes.set_route("m", CANARY, OLGA)
            await there.changes.load("m", (1,), OLGA)
            with pytest.raises(RouteError) as caught:
                await there.changes.set_route("m", parse_route("split: {1: 1, 2: 1, stable: 1}"), OLGA)
            assert [problem.partition(":")[0] for problem in caught.value.problems] == ["split.2", "split.stable"]
            assert there.audited()[0] == ("set route", "refused", caught.value.message)
            assert there.order().route == ""

    asyncio.run(run())


def test_loads_keep_what_the_route_names_and_nothing_that_it_names_goes(tmp_path: Path) -> None:
    async def run() -> None:
        async with scene(tmp_path) as there:
            await there.changes.load("m", (1, 2), OLGA)
            await there.changes.set_label("m", "stable", 1, OLGA)
            await there.changes.set_route("m", parse_route("split: {stable: 9, 2: 1}"), OLGA)
            await there.changes.load("m", (3,), OLGA)
            assert served(there) == [1, 2, 3]
            assert there.audited()[0][2].endswith("; labels stable=1; default newest; route split stable 9 2 1")
            with pytest.raises(Precondition, match=r"named by route\.split\.2"):
                await there.changes.unload("m", 2, OLGA)
            with pytest.raises(Precondition, match=r"named by route\.split\.stable"):
                await there.changes.delete_label("m", "stable", OLGA)
            await there.changes.unload("m", 0, OLGA)
            await there.changes.load("m", (3,), OLGA)
            assert served(there) == [1, 2, 3], "the route outlives an unload of the whole model"

    asyncio.run(run())


def test_a_route_in_model_yaml_holds_from_the_first_load_until_operators_change_it(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "m"
    folder.mkdir(parents=True)
    (folder / "model.yaml").write_text(
        "versions: {latest: 2}\nlabels: {stable: 2}\nroute: {split: {stable: 9, 3: 1}}\n"
    )

    async def run() -> None:
        async with scene(tmp_path) as there:
            await there.changes.load("m", (), OLGA)
            assert from_json(there.order().route) == parse_route("split: {stable: 9, 3: 1}")
            generations = [version.generation for version in there.changes.desired["m"].versions]
            (folder / "model.yaml").write_text("versions: {latest: 2}\nroute: {split: {3: 1}}\n")
            outcome = await there.changes.load("m", (), OLGA)
            assert not outcome.changed, "a route is no setting of a version"
            assert generations == [version.generation for version in there.changes.desired["m"].versions]
            await there.changes.set_route("m", None, OLGA)
            await there.changes.load("m", (), OLGA)
            assert there.order().route == ""

    asyncio.run(run())


def test_a_route_in_model_yaml_to_what_is_not_loaded_refuses_the_load(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "m"
    folder.mkdir(parents=True)
    (folder / "model.yaml").write_text("route: {split: {stable: 9, 2: 1}}\n")

    async def run() -> None:
        async with scene(tmp_path) as there:
            with pytest.raises(Precondition, match=r"split\.stable: .*\n.*split\.2: the model has no version 2"):
                await there.changes.load("m", (), OLGA)
            assert "m" not in there.changes.desired

    asyncio.run(run())


def test_a_rollout_loads_its_candidate_beside_all_that_is_served_and_goes_live_or_back(tmp_path: Path) -> None:
    async def run() -> None:
        async with scene(tmp_path) as there:
            changes = there.changes
            changes.rollouts = rollouts = Rollouts()
            await changes.load("m", (2,), OLGA)
            start = changes.desired["m"]
            assert changes.before_rollout("m", 3) == Before("", (2,), had_candidate=False)
            before = await changes.begin_rollout("m", 2, 3, OLGA)
            assert before == Before("", (2,), had_candidate=False)
            assert (served(there), there.order().default_target) == ([2, 3], "2"), "the newest is not live yet"
            assert there.audited()[0][:2] == ("begin rollout", "done")
            await changes.begin_rollout("m", 2, 3, OLGA)
            assert there.audited()[0][:2] == ("begin rollout", "unchanged")
            rollouts.now = Traffic(2, 3, 5, 50)
            await changes.refresh("m")
            step = from_json(there.order().route)
            assert [(arm.name, arm.target, arm.weight) for arm in step.split] == [
                ("baseline", "2", 95), ("candidate", "3", 5),
            ]  # fmt: skip
            assert step.shadows == (Shadow("3", 0.5, of="2"),)
            assert changes.effective_route("m") == step
            rollouts.now = None
            await changes.end_rollout("m", 2, 3, before, live=False, actor=OLGA)
            after = changes.desired["m"]
            assert (after.versions, after.default_target, after.pinned_versions) == (start.versions, "", (2,))
            assert there.order().route == ""
            again = await changes.end_rollout("m", 2, 3, before, live=False, actor=OLGA)
            assert not again.changed
            before = await changes.begin_rollout("m", 2, 3, OLGA)
            await changes.end_rollout("m", 2, 3, before, live=True, actor=OLGA)
            assert (served(there), there.order().default_target) == ([2, 3], "3")
            again = await changes.end_rollout("m", 2, 3, before, live=True, actor=OLGA)
            assert (again.changed, there.audited()[0][:2]) == (False, ("end rollout", "unchanged"))

    asyncio.run(run())


def test_the_end_of_a_rollout_reaches_workers_also_where_nothing_is_to_be_stored(tmp_path: Path) -> None:
    async def run() -> None:
        async with scene(tmp_path) as there:
            there.changes.rollouts = rollouts = Rollouts()
            await there.changes.load("m", (1, 2), OLGA)
            await there.changes.set_default("m", "1", OLGA)
            before = await there.changes.begin_rollout("m", 1, 2, OLGA)
            rollouts.now = Traffic(1, 2, 5, 0)
            await there.changes.refresh("m")
            assert there.order().route
            rollouts.now = None
            outcome = await there.changes.end_rollout("m", 1, 2, before, live=False, actor=OLGA)
            assert (outcome.changed, there.order().route) == (False, "")

    asyncio.run(run())


def test_a_candidate_that_cannot_be_loaded_leaves_all_as_it_was(tmp_path: Path) -> None:
    async def run() -> None:
        async with scene(tmp_path, failing=(3,)) as there:
            await there.changes.load("m", (2,), OLGA)
            before = there.changes.desired["m"]
            with pytest.raises(LoadError, match="version 3 of model 'm' cannot be served: it is broken"):
                await there.changes.begin_rollout("m", 2, 3, OLGA)
            assert there.changes.desired["m"] == before
            assert [version.version for version in there.order().serve] == [2]
            assert there.order().prepare == ()
            assert there.audited()[0][:2] == ("begin rollout", "failed")
            assert there.changes.failure("m", 3) == "it is broken"
            with pytest.raises(NotFound, match="no complete version 9"):
                await there.changes.begin_rollout("m", 2, 9, OLGA)
            with pytest.raises(NotFound, match="version 1 of model 'm' is not served"):
                await there.changes.begin_rollout("m", 1, 2, OLGA)

    asyncio.run(run())


def test_while_a_rollout_is_under_way_what_it_compares_stays(tmp_path: Path) -> None:
    async def run() -> None:
        async with scene(tmp_path) as there:
            changes = there.changes
            changes.rollouts = rollouts = Rollouts()
            await changes.load("m", (1, 2), OLGA)
            await changes.set_label("m", "stable", 1, OLGA)
            await changes.set_default("m", "stable", OLGA)
            before = there.changes.desired["m"]
            rollouts.now = Traffic(1, 2, 5, 0)
            for change in (
                lambda: changes.load("m", (3,), OLGA),
                lambda: changes.unload("m", 0, OLGA),
                lambda: changes.unload("m", 2, OLGA),
                lambda: changes.set_default("m", "2", OLGA),
                lambda: changes.set_label("m", "stable", 2, OLGA),
                lambda: changes.set_route("m", CANARY, OLGA),
            ):
                with pytest.raises(Precondition) as caught:
                    await change()
                assert caught.value.message == BUSY
                assert there.audited()[0][1:] == ("refused", BUSY)
            assert changes.desired["m"] == before
            await changes.set_label("m", "other", 2, OLGA)
            await changes.set_label("m", "stable", 1, OLGA)
            await changes.set_route("m", RULES, OLGA)
            step = from_json(there.order().route)
            assert (step.rules, [arm.name for arm in step.split]) == (RULES.rules, ["baseline", "candidate"])

    asyncio.run(run())


def test_a_look_at_the_repository_passes_a_model_in_a_rollout_without_a_word(tmp_path: Path) -> None:
    async def run() -> None:
        async with scene(tmp_path) as there:
            there.changes.rollouts = rollouts = Rollouts()
            await there.changes.load("m", (1,), OLGA)
            rollouts.now = Traffic(1, 2, 5, 0)
            records = there.audited()
            assert not await there.changes.differs("m")
            rollouts.now = None
            assert await there.changes.differs("m"), "it is tried once the rollout has ended"
            assert there.audited() == records

    asyncio.run(run())
