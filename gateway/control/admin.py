"""The admin API (driftgate.admin.v1): rare traffic, so grpc.aio carries it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, NoReturn, TypeVar

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from gateway import access
from gateway.config import Config, TlsFiles
from gateway.control.audit import Actor
from gateway.control.changes import Changes, Outcome
from gateway.control.comparison_admin import ComparisonAdmin
from gateway.control.drift_admin import DriftAdmin
from gateway.control.events import Events, ModelChange
from gateway.control.fleet import Fleet
from gateway.control.rollout_admin import RolloutAdmin
from gateway.control.route_admin import RouteAdmin
from gateway.control.statistics import Statistics
from gateway.control.views import ModelView, VersionView, initial_reports, model_views
from gateway.errors import Status, Unauthenticated, status_of
from gateway.process import Spawn
from gateway.store.contract import AuditRecord, Store
from gateway.version import VERSION
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2_grpc
from runtime.errors import InvalidRequest, NotFound, Overloaded
from runtime.repository.layout import LABEL_PATTERN, version_number
from runtime.shm.segment import Segment
from runtime.shm.series import SeriesReader
from runtime.shm.statistics import StatisticsReader
from runtime.shm.tally import Tally
from runtime.versions.state import VersionState

CODES = {code.value[0]: code for code in grpc.StatusCode}
ACTOR = "driftgate-actor"
MAX_TEXT = 1000
MAX_AUDIT = 1000
M = TypeVar("M", bound=Message)
SERVICE = pb.DESCRIPTOR.services_by_name["Admin"].full_name


class AdminUnavailable(OSError):
    """The admin address cannot be listened on, or its certificate and key do not fit."""


class AdminServer:
    def __init__(self, config: Config, service: AdminService) -> None:
        self._config = config
        self._token = config.admin_token()
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 1)])
        self._service = service
        self._health = health.aio.HealthServicer()

    async def start(self, address: str) -> None:
        guard = functools.partial(_guarded, self._config, self._token)
        admin_pb2_grpc.add_AdminServicer_to_server(  # type: ignore[no-untyped-call]  # generated
            _Guard(self._service, guard), self._server
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        try:
            if self._config.admin_tls is None:
                self._server.add_insecure_port(address)
            else:
                self._server.add_secure_port(address, _credentials(self._config.admin_tls))
        except (RuntimeError, OSError) as error:
            raise AdminUnavailable(
                f"cannot listen on admin address {address}: admin_tls is wrong, or it is in use"
            ) from error
        await self._server.start()
        await self.set_serving(serving=True)

    async def set_serving(self, *, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", SERVICE):
            await self._health.set(name, status)

    async def stop(self) -> None:
        await self._health.enter_graceful_shutdown()
        self._service.closing.set()
        await self._server.stop(1.0)


class AdminService(DriftAdmin, RouteAdmin, ComparisonAdmin, RolloutAdmin):
    """One method per RPC: request message, actor → response message. Raises ServingError."""

    def __init__(
        self,
        orders: Spawn,
        changes: Changes,
        fleet: Fleet,
        store: Store,
        events: Events,
        statistics: StatisticsReader,
        series: SeriesReader,
        readiness: Callable[[], str],
    ) -> None:
        self._orders = orders
        self._changes = changes
        self._fleet = fleet
        self._store = store
        self._events = events
        self._statistics = statistics
        self._measured = Statistics(series, statistics, len(orders.page_fds), orders.started_at_seconds)
        self._readiness = readiness
        self.use_routes(changes, fleet, shadows_enabled=orders.config.shadow.enabled)
        self._restarts = Tally(Segment.attach(orders.tally_fd, writable=False))
        self.closing = asyncio.Event()

    async def ListModels(self, request: pb.ListModelsRequest, _: Actor) -> pb.ListModelsResponse:
        await self._changes.rescan()
        views = model_views(self._changes, self._fleet, request.model)
        if request.model and not views:
            known = ", ".join(view.name for view in model_views(self._changes, self._fleet)[:20]) or "none"
            raise NotFound(f"no model {request.model[:128]!r}; known models: {known}")
        return pb.ListModelsResponse(models=[_model(view) for view in views])

    async def GetStatus(self, _request: pb.GetStatusRequest, _: Actor) -> pb.GetStatusResponse:
        await self._changes.rescan()
        reason = self._readiness()
        workers = []
        for index in range(len(self._orders.page_fds)):
            view = self._fleet.workers.get(index)
            workers.append(
                pb.Worker(
                    index=index,
                    pid=view.pid if view else 0,
                    state=view.state if view else "down",
                    transport=view.transport if view else "",
                    requests_in_flight=self._statistics.in_flight(index),
                    restarts=self._restarts.value(index),
                )
            )
        return pb.GetStatusResponse(
            version=VERSION,
            ready=not reason,
            ready_reason=reason,
            started_at=_timestamp(self._orders.started_at_seconds),
            workers=workers,
            repository_problem="; ".join(self._changes.scan.problems),
            state_dir=self._orders.state_dir,
        )

    async def LoadModel(self, request: pb.LoadModelRequest, actor: Actor) -> pb.ChangeResponse:
        for version in request.versions:
            if version < 1:
                raise InvalidRequest(f"expected versions of 1 or more, got {version}", field="versions")
        outcome = await self._changes.load(_name(request.model), list(request.versions), actor, force=request.force)
        return self._changed(request.model, outcome)

    async def UnloadModel(self, request: pb.UnloadModelRequest, actor: Actor) -> pb.ChangeResponse:
        if request.version < 0:
            raise InvalidRequest(
                f"expected a version of 1 or more, or 0 for all, got {request.version}", field="version"
            )
        outcome = await self._changes.unload(_name(request.model), request.version, actor)
        return self._changed(request.model, outcome)

    async def SetLabel(self, request: pb.SetLabelRequest, actor: Actor) -> pb.ChangeResponse:
        outcome = await self._changes.set_label(_name(request.model), _label(request.label), request.version, actor)
        return self._changed(request.model, outcome)

    async def DeleteLabel(self, request: pb.DeleteLabelRequest, actor: Actor) -> pb.ChangeResponse:
        outcome = await self._changes.delete_label(_name(request.model), _label(request.label), actor)
        return self._changed(request.model, outcome)

    async def SetDefault(self, request: pb.SetDefaultRequest, actor: Actor) -> pb.ChangeResponse:
        outcome = await self._changes.set_default(_name(request.model), _target(request.target), actor)
        return self._changed(request.model, outcome)

    async def ListAudit(self, request: pb.ListAuditRequest, _: Actor) -> pb.ListAuditResponse:
        if not 0 <= request.limit <= MAX_AUDIT:
            raise InvalidRequest(f"expected a limit of 0 (100) to {MAX_AUDIT}, got {request.limit}", field="limit")
        if request.before_id < 0:
            raise InvalidRequest(f"expected a before_id of 0 or more, got {request.before_id}", field="before_id")
        records = await asyncio.to_thread(
            self._store.list_audit, request.model, request.limit or 100, request.before_id
        )
        return pb.ListAuditResponse(records=[_audit(record) for record in records])

    async def GetStatistics(self, request: pb.GetStatisticsRequest, _: Actor) -> pb.GetStatisticsResponse:
        known = {view.name for view in model_views(self._changes, self._fleet, request.model)}
        return await asyncio.to_thread(self._measured.response, request.model, known)

    async def WatchModels(self, request: pb.WatchModelsRequest, _: Actor) -> AsyncIterator[pb.ModelEvent]:
        if self._events.full:
            raise Overloaded("too many watchers are connected", retry_after_seconds=1.0)
        with self._events.watching() as changes:  # before what is so now: no change may fall between
            now = datetime.now(UTC).timestamp()
            for worker, report in initial_reports(self._fleet):
                if request.model in ("", report.model):
                    yield _event(ModelChange(now, worker, report, initial=True))
            closing = asyncio.ensure_future(self.closing.wait())
            pending = asyncio.ensure_future(changes.get())
            try:
                while True:
                    await asyncio.wait({pending, closing}, return_when=asyncio.FIRST_COMPLETED)
                    if closing.done():
                        return
                    change = pending.result()
                    pending = asyncio.ensure_future(changes.get())
                    if request.model in ("", change.report.model):
                        yield _event(change)
            finally:
                pending.cancel()
                closing.cancel()
                await asyncio.gather(pending, closing, return_exceptions=True)

    def _changed(self, model: str, outcome: Outcome) -> pb.ChangeResponse:
        views = model_views(self._changes, self._fleet, model)
        return pb.ChangeResponse(
            model=_model(views[0]) if views else None,
            changed=outcome.changed,
            audit_id=outcome.audit_id,
            duration=_duration(outcome.seconds),
        )


class _Guard:
    """Wraps each RPC: who is it, is he allowed, and what does an error become."""

    def __init__(self, service: AdminService, guard: Callable[[str, Any], Actor]) -> None:
        for name in pb.DESCRIPTOR.services_by_name["Admin"].methods_by_name:
            method = getattr(service, name)
            wrap = _stream if name.startswith("Watch") else _unary
            setattr(self, name, wrap(name, method, guard))


def _unary(name: str, method: Callable[[Any, Actor], Awaitable[M]], guard: Callable[[str, Any], Actor]) -> Any:
    async def call(request: Any, context: Any) -> Any:
        try:
            actor = guard(name, context)
            if hasattr(request, "reason"):
                actor = Actor(actor.name, actor.peer, request.reason[:MAX_TEXT])
            return await method(request, actor)
        except Exception as error:
            status = status_of(error, name)
        return await _abort(context, status)

    return call


def _stream(name: str, method: Callable[[Any, Actor], AsyncIterator[M]], guard: Callable[[str, Any], Actor]) -> Any:
    async def call(request: Any, context: Any) -> AsyncIterator[M]:
        try:
            async for response in method(request, guard(name, context)):
                yield response
        except Exception as error:
            status = status_of(error, name)
        else:
            return
        await _abort(context, status)

    return call


async def _abort(context: Any, status: Status) -> NoReturn:
    await context.abort(CODES[status.code], status.message, trailing_metadata=status.trailers)
    raise RuntimeError("abort returned")


def _guarded(config: Config, token: str, verb: str, context: Any) -> Actor:
    """Raises Unauthenticated. The listener itself is loopback, or guarded by a token or by mTLS."""
    metadata = tuple(context.invocation_metadata() or ())
    claimed = next((str(value)[:64] for key, value in metadata if key == ACTOR), "")
    peer = context.peer()
    names = context.auth_context().get("x509_common_name")
    if names:
        return Actor(f"cert:{names[0].decode('utf-8', 'replace')[:128]}", peer)
    if token:
        if not access.token_matches(access.presented_token(metadata), token):
            raise Unauthenticated(f"{verb} needs the metadata 'authorization: Bearer <token>' with the admin token")
        return Actor(f"token:{claimed}" if claimed else "token", peer)
    if config.admin_tls is not None and config.admin_tls.client_ca is not None:
        return Actor("cert", peer)
    return Actor(f"loopback:{claimed}" if claimed else "loopback", peer)


def _credentials(tls: TlsFiles) -> grpc.ServerCredentials:
    ca = tls.client_ca.read_bytes() if tls.client_ca is not None else None
    pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
    return grpc.ssl_server_credentials([pair], ca, require_client_auth=ca is not None)


def _name(model: str) -> str:
    if not model:
        raise InvalidRequest("expected a model's name, got nothing", field="model")
    return model


def _target(target: str) -> str:
    return target if not target or version_number(target) is not None else _label(target)


def _label(label: str) -> str:
    if LABEL_PATTERN.fullmatch(label) is None:
        raise InvalidRequest(
            f"expected a label that starts with a letter, then up to 62 letters, digits, '.', '_' or '-'; "
            f"got {label[:100]!r}",
            field="label",
        )
    return label


def _model(view: ModelView) -> pb.Model:
    return pb.Model(
        name=view.name,
        versions=[_version(version) for version in view.versions],
        default_target=view.default_target,
        labels=view.labels,
        policy=view.policy,
        problems=view.problems,
        served=view.served,
    )


def _version(view: VersionView) -> pb.Version:
    message = pb.Version(
        version=view.version,
        digest=view.digest,
        state=_state(view.state),
        reason=view.reason,
        labels=view.labels,
        is_default=view.is_default,
        memory_bytes=view.memory_bytes,
        workers_available=view.workers_available,
        workers_total=view.workers_total,
    )
    if view.loaded is not None:
        info = view.loaded
        for specs, tensors in ((info.inputs, message.inputs), (info.outputs, message.outputs)):
            tensors.extend(pb.Tensor(name=t.name, datatype=t.datatype, shape=t.shape) for t in specs)
        message.loaded_at.CopyFrom(_timestamp(info.loaded_at_seconds))
        message.load_duration.CopyFrom(_duration(view.load_seconds))
        message.file_bytes = info.file_bytes
        message.execution_providers.extend(info.execution_providers)
        message.max_batch_size = info.max_rows
        message.warnings.extend(info.warnings)
    return message


def _event(change: ModelChange) -> pb.ModelEvent:
    report = change.report
    return pb.ModelEvent(
        time=_timestamp(change.time_seconds),
        model=report.model,
        version=report.version,
        digest=report.digest,
        state=_state(VersionState[report.state]),
        reason=report.reason,
        worker=change.worker,
        initial=change.initial,
        dropped=change.dropped,
    )


def _audit(record: AuditRecord) -> pb.AuditRecord:
    return pb.AuditRecord(
        id=record.id,
        time=_timestamp(record.time.timestamp()),
        actor=record.actor,
        peer=record.peer,
        action=record.action,
        model=record.model,
        version=record.version,
        digest=record.digest,
        outcome=record.outcome,
        detail=record.detail,
        reason=record.reason,
    )


def _state(state: VersionState) -> Any:
    return pb.VersionState.Value(f"VERSION_STATE_{state.name}")


def _timestamp(seconds: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMicroseconds(round(seconds * 1e6))
    return stamp


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(int(seconds * 1e9))
    return duration
