"""Every change that is made or refused is told as log events, in the words of what was and what is."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from change_scene import OLGA, scene

from runtime.errors import LoadError, NotFound

LOADED, SWAPPED, ROUTED = "driftgate.version.loaded", "driftgate.version.swapped", "driftgate.route.changed"
REFUSED = "driftgate.change.refused"


def test_a_first_load_is_a_loaded_version_a_swap_and_a_route(tmp_path: Path) -> None:
    (tmp_path / "models" / "m").mkdir(parents=True)
    (tmp_path / "models" / "m" / "model.yaml").write_text("labels: {stable: 3}\n")

    async def run() -> None:
        async with scene(tmp_path) as there:
            outcome = await there.changes.load("m", (), OLGA)
            loaded, swapped, routed = there.told()
            digest = there.changes.desired["m"].versions[0].digest
            assert loaded == (LOADED, {"model.name": "m", "model.version": 3, "model.digest": digest})
            seconds = swapped[1]["change.duration"]
            who = {
                "change.action": "load", "change.actor": "olga", "change.audit_id": outcome.audit_id,
                "change.duration": seconds,
            }  # fmt: skip
            assert 0 < seconds <= outcome.seconds
            assert swapped == (
                SWAPPED,
                {"model.name": "m", "route.versions": [3], "route.previous.versions": [], "route.default": 3, **who},
            )
            assert routed == (
                ROUTED,
                {
                    "model.name": "m", "route.labels": ["stable=3"], "route.previous.labels": [],
                    "route.default_target": "newest", "route.previous.default_target": "newest",
                    "route.document": "{}", "route.previous.document": "{}", **who,
                },
            )  # fmt: skip

    asyncio.run(run())


def test_labels_and_defaults_are_routes_and_swaps_only_where_the_default_version_moves(tmp_path: Path) -> None:
    async def run() -> None:
        async with scene(tmp_path) as there:
            await there.changes.load("m", (1, 2), OLGA)
            assert [name for name, _ in there.told()] == [LOADED, LOADED, SWAPPED]
            await there.changes.set_label("m", "stable", 1, OLGA)
            ((name, said),) = there.told()
            assert (name, said["route.labels"], said["change.action"]) == (ROUTED, ["stable=1"], "set label stable")
            await there.changes.set_default("m", "stable", OLGA)
            (swap, swapped), (route, routed) = there.told()
            assert (swap, swapped["route.default"], swapped["route.previous.default"]) == (SWAPPED, 1, 2)
            assert (route, routed["route.default_target"]) == (ROUTED, "stable")
            await there.changes.set_label("m", "stable", 2, OLGA)
            assert [(name, said.get("route.default")) for name, said in there.told()] == [(SWAPPED, 2), (ROUTED, None)]
            await there.changes.set_label("m", "stable", 2, OLGA)
            assert there.told() == [], "what was so already is no change"

    asyncio.run(run())


def test_a_version_loaded_anew_is_loaded_and_swapped_again(tmp_path: Path) -> None:
    async def run() -> None:
        async with scene(tmp_path) as there:
            await there.changes.load("m", (1,), OLGA)
            there.told()
            await there.changes.load("m", (1,), OLGA, force=True)
            assert [name for name, _ in there.told()] == [LOADED, SWAPPED]

    asyncio.run(run())


def test_an_unload_is_a_swap_to_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        async with scene(tmp_path) as there:
            await there.changes.load("m", (1,), OLGA)
            there.told()
            await there.changes.unload("m", 0, OLGA)
            ((name, said),) = there.told()
            assert (name, said["route.versions"], said["route.previous.versions"]) == (SWAPPED, [], [1])
            assert "route.default" not in said

    asyncio.run(run())


def test_a_refused_change_is_told_once_and_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with scene(tmp_path) as there:
            with caplog.at_level(logging.WARNING), pytest.raises(NotFound) as error:
                await there.changes.load("nobody", (), OLGA)
            assert there.told() == [
                (
                    REFUSED,
                    {
                        "model.name": "nobody", "change.action": "load", "change.actor": "olga",
                        "change.outcome": "refused", "error.message": error.value.message,
                    },
                )
            ]  # fmt: skip
            assert [record.getMessage() for record in caplog.records] == [
                f"load 'nobody' by olga refused: {error.value.message}"
            ]

    asyncio.run(run())


def test_a_version_that_cannot_be_loaded_is_told_by_worker_and_change(tmp_path: Path) -> None:
    async def run() -> None:
        async with scene(tmp_path, failing=(3,)) as there:
            with pytest.raises(LoadError):
                await there.changes.load("m", (), OLGA)
            (failed, said), (refused, why) = there.told()
            assert (failed, said["model.version"], said["worker"]) == ("driftgate.version.load_failed", 3, 0)
            assert (refused, why["change.outcome"]) == (REFUSED, "failed")

    asyncio.run(run())


def test_a_repository_that_cannot_be_read_is_told_when_it_begins(tmp_path: Path) -> None:
    async def run() -> None:
        async with scene(tmp_path) as there:
            there.models.rename(tmp_path / "elsewhere")
            await there.changes.rescan()
            await there.changes.rescan()
            assert [name for name, _ in there.told()] == ["driftgate.repository.problem"]

    asyncio.run(run())
