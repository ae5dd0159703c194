"""The RPCs of routes."""

from __future__ import annotations

from typing import Any

from gateway.control.audit import Actor
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from runtime.errors import NotReady


class RouteAdmin:
    async def GetRoute(self, request: pb.GetRouteRequest, actor: Actor) -> Any:
        raise NotReady("not built yet")

    async def SetRoute(self, request: pb.SetRouteRequest, actor: Actor) -> Any:
        raise NotReady("not built yet")

    async def ExplainRoute(self, request: pb.ExplainRouteRequest, actor: Actor) -> Any:
        raise NotReady("not built yet")
