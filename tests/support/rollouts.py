"""Rollouts as an operator and a test see them: the RPCs, and a rollout told as a story."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc

from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from gateway.wire.pb.driftgate.admin.v1.admin_pb2_grpc import AdminStub
from support.admin import OPTIONS, Refused

CALL_SECONDS = 60.0
END_SECONDS = 60.0
ENDED = (pb.ROLLOUT_PHASE_LIVE, pb.ROLLOUT_PHASE_ROLLED_BACK, pb.ROLLOUT_PHASE_ABORTED)


class RolloutDesk:
    """Raises Refused."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub: Any = AdminStub(channel)  # type: ignore[no-untyped-call]  # generated

    def start(self, plan: Mapping[str, Any]) -> pb.Rollout:
        request = pb.StartRolloutRequest(plan=json.dumps(plan), reason="a test")
        return self.ask("StartRollout", request).rollout  # type: ignore[no-any-return]

    def get(self, id_: int) -> pb.Rollout:
        return self.ask("GetRollout", pb.GetRolloutRequest(id=id_)).rollout  # type: ignore[no-any-return]

    def command(self, id_: int, verb: int, reason: str = "a test") -> pb.Rollout:
        request = pb.CommandRolloutRequest(id=id_, verb=verb, reason=reason)  # type: ignore[arg-type]
        return self.ask("CommandRollout", request).rollout  # type: ignore[no-any-return]

    def decisions(self, id_: int) -> list[pb.RolloutDecision]:
        """Oldest first, with their evidence."""
        request = pb.ListRolloutDecisionsRequest(id=id_, with_evidence=True)
        return list(self.ask("ListRolloutDecisions", request).decisions)

    def route(self, model: str) -> pb.GetRouteResponse:
        return self.ask("GetRoute", pb.GetRouteRequest(model=model))  # type: ignore[no-any-return]

    def set_route(self, model: str, route: Mapping[str, Any] | None) -> pb.SetRouteResponse:
        text = "" if route is None else json.dumps(route)
        return self.ask("SetRoute", pb.SetRouteRequest(model=model, route=text))  # type: ignore[no-any-return]

    def ask(self, method: str, request: Any) -> Any:
        try:
            return getattr(self._stub, method)(request, timeout=CALL_SECONDS, wait_for_ready=True)
        except grpc.RpcError as error:
            raise Refused(error) from None

    def until(
        self, id_: int, reached: Callable[[pb.Rollout], bool], timeout_seconds: float = END_SECONDS
    ) -> pb.Rollout:
        """Follows the rollout's news until one `reached`; fails where it has ended before."""
        deadline = time.monotonic() + timeout_seconds
        seen = self.get(id_)
        while not reached(seen):
            assert seen.phase not in ENDED, f"it has ended: {told(seen)}"
            left = deadline - time.monotonic()
            assert left > 0, f"{timeout_seconds} s passed; it is {told(seen)}\n{self.story(id_)}"
            seen = self._next(id_, reached, left)
        return seen

    def _next(self, id_: int, reached: Callable[[pb.Rollout], bool], timeout_seconds: float) -> pb.Rollout:
        """The first that has `reached`, or has ended, or the last before the stream broke."""
        call = self._stub.WatchRollout(pb.WatchRolloutRequest(id=id_), timeout=timeout_seconds, wait_for_ready=True)
        try:
            for update in call:
                if reached(update.rollout) or update.rollout.phase in ENDED:
                    return update.rollout  # type: ignore[no-any-return]
        except grpc.RpcError:
            time.sleep(0.05)  # control may be down; whoever waits has a deadline
        finally:
            call.cancel()
        return self.get(id_)

    def story(self, id_: int) -> str:
        return "\n".join(f"  {decision.number}. {decision.sentence}" for decision in self.decisions(id_))


@contextmanager
def rollouts_of(address: str) -> Iterator[RolloutDesk]:
    with grpc.insecure_channel(address, options=OPTIONS) as channel:
        yield RolloutDesk(channel)


def phase_name(phase: int) -> str:
    return pb.RolloutPhase.Name(phase).removeprefix("ROLLOUT_PHASE_")  # type: ignore[arg-type]


def told(rollout: pb.Rollout) -> str:
    return f"{phase_name(rollout.phase)}, step {rollout.step + 1} of {rollout.steps}: {rollout.reason}"
