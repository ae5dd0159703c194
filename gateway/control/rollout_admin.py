"""The RPCs of rollouts."""

from __future__ import annotations

from typing import Any

from gateway.control.audit import Actor
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from runtime.errors import NotReady


class RolloutAdmin:
    async def StartRollout(self, request: pb.StartRolloutRequest, actor: Actor) -> Any:
        raise NotReady("not built yet")

    async def CommandRollout(self, request: pb.CommandRolloutRequest, actor: Actor) -> Any:
        raise NotReady("not built yet")

    async def GetRollout(self, request: pb.GetRolloutRequest, actor: Actor) -> Any:
        raise NotReady("not built yet")

    async def ListRollouts(self, request: pb.ListRolloutsRequest, actor: Actor) -> Any:
        raise NotReady("not built yet")

    async def WatchRollout(self, request: pb.WatchRolloutRequest, actor: Actor) -> Any:
        raise NotReady("not built yet")

    async def ListRolloutDecisions(self, request: pb.ListRolloutDecisionsRequest, actor: Actor) -> Any:
        raise NotReady("not built yet")
