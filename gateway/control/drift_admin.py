"""The part of the admin API that tells what was seen of inputs and outputs, and whether it has drifted."""

from __future__ import annotations

from gateway.control.audit import Actor
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from runtime.errors import InvalidRequest


class DriftAdmin:
    """One method per RPC, as in AdminService."""

    async def GetFeatures(self, _request: pb.GetFeaturesRequest, _: Actor) -> pb.GetFeaturesResponse:
        raise InvalidRequest("not built yet")

    async def GetSketches(self, _request: pb.GetSketchesRequest, _: Actor) -> pb.GetSketchesResponse:
        raise InvalidRequest("not built yet")

    async def GetDrift(self, _request: pb.GetDriftRequest, _: Actor) -> pb.GetDriftResponse:
        raise InvalidRequest("not built yet")

    async def SetReference(self, _request: pb.SetReferenceRequest, _: Actor) -> pb.SetReferenceResponse:
        raise InvalidRequest("not built yet")
