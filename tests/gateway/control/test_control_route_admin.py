"""The RPCs of routes: what is shown, what is refused with every problem, what is warned of, and explanations."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from change_scene import OLGA, Scene, scene
from google.protobuf.json_format import MessageToDict

from gateway.control.route_admin import RouteAdmin
from gateway.control.route_targets import Targets
from gateway.control.route_warnings import route_warnings
from gateway.control.traffic import Traffic
from gateway.control.views import ModelView, VersionView
from gateway.errors import Precondition
from gateway.messages import LoadedInfo, TensorInfo
from gateway.store.contract import DesiredModel, DesiredVersion
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from runtime.errors import InvalidRequest, NotFound
from runtime.routing.document import RouteError, parse_route, to_json
from runtime.versions.state import VersionState

ROUTE = """
sticky: {metadata: x-user}
rules: [{name: testers, when: {x-tier: gold}, to: 2}]
split: {stable: 95, canary: {to: 2, weight: 5}}
shadows: [{to: 3, of: stable}]
"""


@dataclass
class Desk:
    admin: RouteAdmin
    scene: Scene

    async def get(self) -> pb.GetRouteResponse:
        return await self.admin.GetRoute(pb.GetRouteRequest(model="m"), OLGA)

    async def set(self, route: str, *, dry_run: bool = False) -> pb.SetRouteResponse:
        return await self.admin.SetRoute(pb.SetRouteRequest(model="m", route=route, dry_run=dry_run), OLGA)

    async def explain(self, metadata: dict[str, str] | None = None, **fields: Any) -> pb.ExplainRouteResponse:
        entries = [pb.MetadataEntry(key=key, value=value) for key, value in (metadata or {}).items()]
        return await self.admin.ExplainRoute(pb.ExplainRouteRequest(model="m", metadata=entries, **fields), OLGA)


@asynccontextmanager
async def desk(folder: Path, *, shadows_enabled: bool = True) -> AsyncIterator[Desk]:
    """Versions 1 to 3 of `m` are served, 1 is stable and the default."""
    async with scene(folder) as there:
        await there.changes.load("m", (1, 2, 3), OLGA)
        await there.changes.set_label("m", "stable", 1, OLGA)
        await there.changes.set_default("m", "stable", OLGA)
        admin = RouteAdmin()
        admin.use_routes(there.changes, there.made.fleet, shadows_enabled=shadows_enabled)
        yield Desk(admin, there)


def shares(response: Any) -> list[tuple[str, str, float, float]]:
    return [(s.variant, s.target, s.share, s.share_before) for s in response.shares]


def test_a_route_is_set_shown_and_deleted_with_shares_before_and_after(tmp_path: Path) -> None:
    async def run() -> None:
        async with desk(tmp_path) as at:
            empty = await at.get()
            assert (empty.route, empty.effective, empty.rollout_id, list(empty.problems)) == ("", "", 0, [])
            assert shares(empty) == [("default", "stable", 1.0, 1.0)]
            answer = await at.set(ROUTE)
            assert answer.changed
            assert answer.audit_id > 0
            assert answer.route == answer.effective == to_json(parse_route(ROUTE))
            assert list(answer.warnings) == []
            assert shares(answer) == [
                ("stable", "stable", 0.95, 0.0), ("canary", "2", 0.05, 0.0), ("default", "stable", 0.0, 1.0),
            ]  # fmt: skip
            shown = await at.get()
            assert (shown.route, shares(shown)[1]) == (answer.route, ("canary", "2", 0.05, 0.05))
            assert not (await at.set(answer.route)).changed
            gone = await at.set("")
            assert (gone.changed, gone.route, gone.effective) == (True, "", "")

    asyncio.run(run())


def test_a_dry_run_tells_what_would_be_and_changes_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        async with desk(tmp_path) as at:
            records = at.scene.audited()
            answer = await at.set(ROUTE, dry_run=True)
            assert (answer.changed, answer.audit_id, answer.route) == (False, 0, to_json(parse_route(ROUTE)))
            assert shares(answer)[0] == ("stable", "stable", 0.95, 0.0)
            assert (await at.get()).route == ""
            assert at.scene.audited() == records

    asyncio.run(run())


def test_every_problem_is_told_at_once_those_of_targets_too(tmp_path: Path) -> None:
    async def run() -> None:
        async with desk(tmp_path) as at:
            with pytest.raises(RouteError) as caught:
                await at.set("salt: 7\nsplit: {stable: 1, 9: 1}\nshadows: [{of: nobody}]", dry_run=True)
            assert caught.value.problems == (
                "salt: expected a text of at most 128 characters, got 7",
                (
                    "shadows[0].to: expected a version's number or a label "
                    "(a letter, then up to 62 letters, digits, '.', '_' or '-'), got null"
                ),
                "split.9: the model has no version 9; versions: 1, 2, 3",
                "shadows[0].of: the model has no label 'nobody'; labels: stable",
            )
            with pytest.raises(RouteError, match=r"split\.9: the model has no version 9"):
                await at.set("split: {stable: 1, 9: 1}", dry_run=True)
            with pytest.raises(InvalidRequest, match="expected a model's name"):
                await at.admin.GetRoute(pb.GetRouteRequest(), OLGA)
            with pytest.raises(NotFound, match="no model 'x' in the repository; it has: m"):
                await at.admin.GetRoute(pb.GetRouteRequest(model="x"), OLGA)

    asyncio.run(run())


class OneRollout:
    def traffic(self, _model: str) -> Traffic | None:
        return Traffic(1, 2, 20, 10)

    def busy(self, _model: str) -> str:
        return "rollout 7 is under way"

    def find(self, _rollout_id: int, _model: str, *, under_way: bool = False) -> int:
        assert under_way
        return 7


def test_a_rollout_under_way_is_part_of_what_is_shown_and_explained(tmp_path: Path) -> None:
    async def run() -> None:
        async with desk(tmp_path) as at:
            at.scene.changes.rollouts = OneRollout()
            shown = await at.get()
            assert (shown.route, shown.rollout_id) == ("", 7)
            assert shares(shown) == [("baseline", "1", 0.8, 0.8), ("candidate", "2", 0.2, 0.2)]
            found = await at.explain()
            assert (found.variant, found.reason) in [("baseline", "drawn"), ("candidate", "drawn")]
            assert list(found.shadows) == ([2] if found.version == 1 else [])
            with pytest.raises(Precondition, match="rollout 7 is under way"):
                await at.set("split: {1: 1}", dry_run=True)
            assert (await at.set("sticky: {parameter: user}")).changed
            keyed = [(await at.explain(parameters={"user": "12"})).variant for _ in range(3)]
            assert len(set(keyed)) == 1

    asyncio.run(run())


def test_an_explanation_names_version_digest_reason_story_and_copies(tmp_path: Path) -> None:
    async def run() -> None:
        async with desk(tmp_path) as at:
            await at.set(ROUTE)
            ruled = await at.explain({"X-Tier": "gold"})
            assert (ruled.version, ruled.target, ruled.variant, ruled.reason) == (2, "2", "testers/2", "rule")
            digests = {version.version: version.digest for version in at.scene.changes.desired["m"].versions}
            assert (ruled.digest, list(ruled.shadows)) == (digests[2], [])
            keyed = await at.explain({"x-user": "user-1"})
            assert (keyed.version, keyed.variant, keyed.reason, list(keyed.shadows)) == (1, "stable", "sticky", [3])
            assert keyed.lines[0] == "m: to stable, variant stable, reason sticky"
            assert json.loads(keyed.document)["variant"] == "stable"
            named = await at.explain(version="3")
            assert (named.version, named.variant, named.reason, list(named.shadows)) == (3, "pinned", "version", [])
            labelled = await at.explain(version="stable")
            assert (labelled.version, labelled.variant, labelled.reason) == (1, "stable", "label")

    asyncio.run(run())


def test_what_cannot_answer_is_said_and_never_replaced(tmp_path: Path) -> None:
    async def run() -> None:
        async with desk(tmp_path) as at:
            for version, why in (
                ("9", "version 9 is not served; served: 1, 2, 3"),
                ("x", "the model has no label 'x'; labels: stable"),
            ):
                found = await at.explain(version=version)
                assert (found.version, found.digest, found.unavailable) == (0, "", why)
            await at.scene.changes.unload("m", 0, OLGA)
            found = await at.explain()
            assert (found.version, found.unavailable) == (0, "version 1 is not served; served: none")
            assert list((await at.get()).problems) == ["the default: version 1 is not served; served: none"]

    asyncio.run(run())


def test_nothing_gets_a_copy_where_copies_are_off(tmp_path: Path) -> None:
    async def run() -> None:
        async with desk(tmp_path, shadows_enabled=False) as at:
            answer = await at.set("shadows: [{to: 3}]")
            assert list(answer.warnings) == [
                "shadows: nothing is copied: shadow.enabled is false in the gateway's configuration"
            ]
            assert list((await at.explain()).shadows) == []

    asyncio.run(run())


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("a b", "x", "expected metadata keys of letters"),
        ("", "x", "expected metadata keys of letters"),
        ("x", "ä", "expected printable ASCII for the key 'x'"),
        ("x", "a\nb", "expected printable ASCII for the key 'x'"),
        ("x-bin", "§", "expected base64 for the key 'x-bin'"),
    ],
)
def test_metadata_that_no_request_has_is_refused(tmp_path: Path, key: str, value: str, problem: str) -> None:
    async def run() -> None:
        async with desk(tmp_path) as at:
            with pytest.raises(InvalidRequest, match=problem):
                await at.explain({key: value})

    asyncio.run(run())


def test_bytes_are_given_in_base64_with_or_without_its_padding(tmp_path: Path) -> None:
    async def run() -> None:
        async with desk(tmp_path) as at:
            await at.set("sticky: {metadata: user-bin}\nsplit: {1: 1, 2: 1}")
            for text in ("/wE=", "/wE"):
                found = await at.explain({"user-bin": text})
                assert any(r"sticky key: metadata user-bin: '\\xff\x01'" in line for line in found.lines)
            assert MessageToDict(found)["reason"] == "sticky"

    asyncio.run(run())


def loaded(*inputs: str, outputs: tuple[str, ...] = ("y",)) -> LoadedInfo:
    takes, gives = (
        tuple(TensorInfo(name=name, datatype="FP32", shape=(-1, 4)) for name in names) for names in (inputs, outputs)
    )
    return LoadedInfo(
        inputs=takes, outputs=gives, load_seconds=0, loaded_at_seconds=0, memory_bytes=0, file_bytes=0,
        execution_providers=(), max_rows=1, warnings=(),
    )  # fmt: skip


def targets(infos: dict[int, LoadedInfo | None], labels: dict[str, int] | None = None, ready: int = 2) -> Targets:
    model = DesiredModel("m", True, tuple(DesiredVersion(v, f"d{v}", 1) for v in infos), labels or {})
    views = tuple(
        VersionView(v, f"d{v}", VersionState.AVAILABLE, "", (), False, info, 0.0, 0, ready, 2)
        for v, info in infos.items()
    )
    return Targets(model, ModelView("m", views, "", labels or {}, "", (), True))


ALIKE = {1: loaded("x"), 2: loaded("x"), 3: loaded("x")}


@pytest.mark.parametrize(
    ("rules", "warning"),
    [
        ("{name: b, when: {x: y}, to: 1}", "takes all"),
        ("{name: b, when: {x: y, z: w}, to: 1}", "takes all"),
        ("{name: b, when: {x: {prefix: y}}, to: 1}", ""),
        ("{name: b, when: {z: y}, to: 1}", ""),
        ("{name: b, when: {x: ä}, to: 1}", "metadata is printable ASCII, and x would have to be 'ä'"),
    ],
)
def test_a_rule_that_an_earlier_one_leaves_nothing_to_is_warned_of(rules: str, warning: str) -> None:
    route = parse_route(f"rules: [{{name: a, when: {{x: y}}, to: 2}}, {rules}]")
    warnings = route_warnings(route, targets(ALIKE), shadows_enabled=True)
    assert len(warnings) == bool(warning)
    assert all(w.startswith("rules[1] (b) never applies: ") and warning in w for w in warnings)


@pytest.mark.parametrize(
    ("first", "second", "never"),
    [
        ("{prefix: a}", "ab", True),
        ("{prefix: a}", "ba", False),
        ("{prefix: a}", "{prefix: ab}", True),
        ("{prefix: ab}", "{prefix: a}", False),
        ("{regex: 'a.*'}", "ab", True),
        ("{regex: 'a.*'}", "{regex: 'ab.*'}", False),
        ('{prefix: ""}', "{regex: 'ab.*'}", True),
        ("{regex: 'a'}", "{prefix: a}", False),
    ],
)
def test_one_condition_may_leave_nothing_to_another(first: str, second: str, never: bool) -> None:
    route = parse_route(f"rules: [{{name: a, when: {{x: {first}}}, to: 2}}, {{name: b, when: {{x: {second}}}, to: 1}}]")
    assert bool(route_warnings(route, targets(ALIKE), shadows_enabled=True)) is never


@pytest.mark.parametrize(
    ("shadows", "infos", "warnings"),
    [
        ("{to: 3}", ALIKE, []),
        (
            "{to: 3, of: 1}",
            {1: loaded("x"), 2: loaded("z"), 3: loaded("x", "z")},
            [
                (
                    "shadows[0]: requests of version 1 are not copied: it takes x FP32[-1,4], and version 3 takes "
                    "x FP32[-1,4], z FP32[-1,4]"
                )
            ],
        ),
        (
            "{to: 3}",
            {1: loaded("x"), 2: loaded("x", outputs=("z",)), 3: loaded("x")},
            [
                (
                    "shadows[0]: answers of version 2 are not compared: it gives z FP32[-1,4], and version 3 gives "
                    "y FP32[-1,4]"
                )
            ],
        ),
        ("{to: 3}", {1: None, 3: loaded("x")}, []),
        ("{to: 3, of: same}", ALIKE, ["shadows[0]: nothing is copied: '3' and 'same' are both version 3"]),
        ("{to: 3}, {to: same}", ALIKE, ["shadows[1].to: 'same' is version 3, as shadows[0].to is"]),
    ],
)
def test_copies_that_cannot_be_answered_are_warned_of(
    shadows: str, infos: dict[int, LoadedInfo | None], warnings: list[str]
) -> None:
    route = parse_route(f"shadows: [{shadows}]")
    assert route_warnings(route, targets(infos, {"same": 3}), shadows_enabled=True) == warnings


def test_a_target_that_is_ready_on_some_workers_answers_and_is_said_to_lack_the_others() -> None:
    found = targets(ALIKE, ready=1).resolve("2")
    assert (found.version, found.unavailable) == (2, "version 2 is ready on 1 of 2 workers")
    none = targets(ALIKE, ready=0)
    assert none.resolve("2").version == 0
    assert list(none.problems(parse_route("split: {2: 1, c: {to: 2, weight: 1}}"))) == [
        "split.2, split.c: version 2 is not ready: available"
    ]


def test_the_newest_that_is_ready_is_the_default_where_none_is_set() -> None:
    assert targets(ALIKE).version("") == 3
    assert targets({}).resolve("").unavailable == "model 'm' has no version that is served"
