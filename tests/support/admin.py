"""The admin API as the tests use it: one call, one answer or one error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc

from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from gateway.wire.pb.driftgate.admin.v1.admin_pb2_grpc import AdminStub

CALL_SECONDS = 60.0
OPTIONS = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))


class Refused(Exception):
    """What the gateway said instead of an answer."""

    def __init__(self, error: grpc.RpcError) -> None:
        self.code: grpc.StatusCode = error.code()
        self.message: str = error.details() or ""
        super().__init__(f"{self.code.name}: {self.message}")


class Watch:
    """A stream of state changes."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def until(self, reached: Callable[[pb.ModelEvent], bool]) -> list[pb.ModelEvent]:
        """The changes up to the first that `reached`, without those that tell how things were at the start."""
        seen: list[pb.ModelEvent] = []
        for event in self._call:
            if not event.initial:
                seen.append(event)
                if reached(event):
                    break
        return seen


class Admin:
    """`actor` is who the audit says asked. Raises Refused."""

    def __init__(self, channel: grpc.Channel, actor: str) -> None:
        self._stub: Any = AdminStub(channel)  # type: ignore[no-untyped-call]  # generated
        self._metadata = (("driftgate-actor", actor),)

    def load(self, model: str, *versions: int, force: bool = False, reason: str = "") -> pb.ChangeResponse:
        return self._change(
            "LoadModel", pb.LoadModelRequest(model=model, versions=versions, force=force, reason=reason)
        )

    def begin_load(self, model: str, *versions: int) -> Any:
        """The call, under way."""
        return self._stub.LoadModel.future(
            pb.LoadModelRequest(model=model, versions=versions), metadata=self._metadata, timeout=CALL_SECONDS
        )

    def unload(self, model: str, version: int = 0, reason: str = "") -> pb.ChangeResponse:
        return self._change("UnloadModel", pb.UnloadModelRequest(model=model, version=version, reason=reason))

    def label(self, model: str, label: str, version: int, reason: str = "") -> pb.ChangeResponse:
        return self._change("SetLabel", pb.SetLabelRequest(model=model, label=label, version=version, reason=reason))

    def delete_label(self, model: str, label: str) -> pb.ChangeResponse:
        return self._change("DeleteLabel", pb.DeleteLabelRequest(model=model, label=label))

    def default(self, model: str, target: str, reason: str = "") -> pb.ChangeResponse:
        return self._change("SetDefault", pb.SetDefaultRequest(model=model, target=target, reason=reason))

    def route(self, model: str) -> pb.GetRouteResponse:
        return self._ask("GetRoute", pb.GetRouteRequest(model=model))

    def set_route(self, model: str, route: str, *, dry_run: bool = False, reason: str = "") -> pb.SetRouteResponse:
        request = pb.SetRouteRequest(model=model, route=route, dry_run=dry_run, reason=reason)
        return self._ask("SetRoute", request)

    def explain(
        self,
        model: str,
        version: str = "",
        metadata: Iterable[tuple[str, str]] = (),
        parameters: Mapping[str, str] | None = None,
        request_id: str = "",
    ) -> pb.ExplainRouteResponse:
        entries = [pb.MetadataEntry(key=key, value=value) for key, value in metadata]
        return self._ask(
            "ExplainRoute",
            pb.ExplainRouteRequest(
                model=model, version=version, metadata=entries, parameters=parameters or {}, request_id=request_id
            ),
        )

    def model(self, name: str) -> pb.Model:
        return self.models(name)[name]

    def models(self, only: str = "") -> dict[str, pb.Model]:
        return {model.name: model for model in self._ask("ListModels", pb.ListModelsRequest(model=only)).models}

    def available(self, name: str) -> set[int]:
        """Versions that every worker has available."""
        return {
            version.version
            for version in self.model(name).versions
            if version.state == pb.VERSION_STATE_AVAILABLE and version.workers_available == version.workers_total > 0
        }

    def status(self) -> pb.GetStatusResponse:
        status: pb.GetStatusResponse = self._ask("GetStatus", pb.GetStatusRequest())
        return status

    def audit(self, model: str = "", limit: int = 1000) -> list[pb.AuditRecord]:
        """Newest first."""
        return list(self._ask("ListAudit", pb.ListAuditRequest(model=model, limit=limit)).records)

    @contextmanager
    def watch(self) -> Iterator[Watch]:
        """Every change of state from here on. Something must be loaded: its state now is what a watch begins with."""
        call = self.watch_call()
        try:
            next(call)
            yield Watch(call)
        finally:
            call.cancel()

    def watch_call(self, model: str = "") -> Any:
        """The stream itself, from its first event."""
        return self._stub.WatchModels(
            pb.WatchModelsRequest(model=model), metadata=self._metadata, timeout=CALL_SECONDS, wait_for_ready=True
        )

    def _change(self, method: str, request: Any) -> pb.ChangeResponse:
        change: pb.ChangeResponse = self._ask(method, request)
        return change

    def _ask(self, method: str, request: Any) -> Any:
        try:
            return getattr(self._stub, method)(
                request, metadata=self._metadata, timeout=CALL_SECONDS, wait_for_ready=True
            )
        except grpc.RpcError as error:
            raise Refused(error) from None


@contextmanager
def admin_of(address: str, actor: str = "tester") -> Iterator[Admin]:
    with grpc.insecure_channel(address, options=OPTIONS) as channel:
        yield Admin(channel, actor)


def until(condition: Callable[[], bool], what: str, timeout_seconds: float = 30.0) -> None:
    """Polls what other processes do, which no event of this one tells."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, f"{timeout_seconds} s passed before {what}"
        time.sleep(0.02)
