"""The RPC of comparisons."""

from __future__ import annotations

from typing import Any

from gateway.control.audit import Actor
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from runtime.errors import NotReady


class ComparisonAdmin:
    async def GetComparisons(self, request: pb.GetComparisonsRequest, actor: Actor) -> Any:
        raise NotReady("not built yet")
