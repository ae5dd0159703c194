"""A request's way: decode → route → lease → batch → run → reply → record.

`infer` takes whatever the transport found ready, on the transport's thread. It refuses what cannot be answered, groups
the rest by version and submits each group, which may run at once on this thread (see runtime/batching/runner.py).
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable

from google.protobuf.message import DecodeError

from gateway.errors import Draining, Status, status_of
from gateway.routing.router import Parameters
from gateway.routing.table import NOT_ROUTED, Junction, RouteTable, Routing, Way
from gateway.telemetry.context import Tracer, log_fields
from gateway.telemetry.recorder import NOBODY, REQUESTED_MODEL, Recorder
from gateway.wire.decode import check_parameters
from gateway.wire.layout import Layout, Layouts
from gateway.wire.pb.inference import grpc_service_pb2 as pb
from gateway.worker.target import Target, with_context
from gateway.worker.transport.interface import Call, Ready
from runtime.batching.request import Request
from runtime.errors import InvalidRequest, Overloaded

log = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 0.05
ROUTE_TRIES = 8  # a version can be retired between the look-up and the lease; eight times in a row is a bug

DRAINING = status_of(
    Draining("the server is shutting down: it finishes what is in flight and takes nothing new; ask another"),
    "ModelInfer",
)

NO_MESSAGE = status_of(InvalidRequest("the call ended without a request message: send one"), "ModelInfer")

parse = pb.ModelInferRequest.FromString


class Misfit(Exception):
    """A request that was routed and does not fit its version, because of `error`."""

    def __init__(self, target: Target, routing: Routing, error: Exception) -> None:
        super().__init__()
        self.target, self.routing, self.error = target, routing, error


class Unreached(Exception):
    """A request that a route has led to a version that cannot answer, because of `error`."""

    def __init__(self, model: str, way: Way[Target], error: Exception) -> None:
        super().__init__()
        self.model, self.way, self.error = model, way, error


class Routes:
    """A route table, and the layouts of requests that were decoded under it."""

    __slots__ = ("layouts", "table")

    def __init__(self, table: RouteTable[Target]) -> None:
        self.table = table
        self.layouts: Layouts[Target] = Layouts()


class Pipeline:
    """The routes are replaced by one assignment; a request sees one table from look-up to lease."""

    def __init__(
        self, max_in_flight: int, on_in_flight: Callable[[int], None], recorder: Recorder | None = None
    ) -> None:
        self._recorder = recorder
        self._tracer = recorder.tracer if recorder is not None else None
        self._routes = Routes(RouteTable())
        self.draining = False
        self._max_in_flight = max_in_flight
        self._in_flight = 0
        self._lock = threading.Lock()
        self._on_in_flight = on_in_flight

    @property
    def in_flight(self) -> int:
        return self._in_flight

    @property
    def table(self) -> RouteTable[Target]:
        return self._routes.table

    @table.setter
    def table(self, table: RouteTable[Target]) -> None:
        self._routes = Routes(table)

    def infer(self, ready: Ready) -> None:
        if self._tracer is not None:
            for call, _ in ready:
                self._begin(self._tracer, call)
        if self.draining:
            for call, payload in ready:
                self._end(call, DRAINING, len(payload))
            return
        ready = self._admit(ready)
        routes = self._routes
        monotonic_ns = time.monotonic_ns
        groups: dict[Target, tuple[list[Request], Ready]] = {}
        for item in ready:
            call, payload = item
            try:
                target, request = self._decode(routes, call, payload)
            except Exception as error:
                self._refuse(call, error, len(payload))
                continue
            request.owner = call
            request.arrived_ns = call.received_ns
            request.decoded_ns = monotonic_ns()
            request.size_bytes = len(payload)
            group = groups.get(target)
            if group is None:
                groups[target] = ([request], [item])
            else:
                group[0].append(request)
                group[1].append(item)
        for target, (requests, items) in groups.items():
            self._submit(target, requests, items)

    def empty(self, call: Call) -> None:
        """A call that ended without a message."""
        if self._tracer is not None:
            self._begin(self._tracer, call)
        self._end(call, NO_MESSAGE, 0)

    def _begin(self, tracer: Tracer, call: Call) -> None:
        try:
            call.trace = tracer.begin(call.metadata)
        except Exception:
            log.exception("a request's trace context could not be read; it has none")

    def done(self, count: int) -> None:
        """Requests that were admitted have been answered or refused."""
        with self._lock:
            self._in_flight -= count
            self._on_in_flight(self._in_flight)

    def _admit(self, ready: Ready) -> Ready:
        with self._lock:
            room = max(self._max_in_flight - self._in_flight, 0)
            admitted = min(len(ready), room)
            self._in_flight += admitted
            self._on_in_flight(self._in_flight)
        if admitted < len(ready):
            error = Overloaded(
                f"{self._max_in_flight} requests are in flight in this worker, which is its limit "
                "(limits.max_in_flight): retry later or add workers",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            )
            status = status_of(error, "admission")
            for call, payload in ready[admitted:]:
                self._end(call, status, len(payload))
            ready = ready[:admitted]
        return ready

    def _decode(self, routes: Routes, call: Call, payload: bytes) -> tuple[Target, Request]:
        known = routes.layouts.find(payload)
        if known is None:
            target, request, timeout = self._parse(routes, call, payload)
        else:
            layout, request = known
            target, timeout = layout.target, layout.timeout_seconds
            if layout.junction is not None:  # it decides once, whatever comes after
                way = layout.junction.lead(call.metadata, layout.parameters, request.id)
                fitted = layout.fit(request, way)
                if fitted is not None:
                    target = fitted
                else:
                    target, request = self._lead(routes, layout, way, call, payload, request)
        request.deadline_seconds = call.deadline_seconds
        if timeout != math.inf:
            request.deadline_seconds = min(request.deadline_seconds, time.time() + timeout)
        return target, request

    def _parse(self, routes: Routes, call: Call, payload: bytes) -> tuple[Target, Request, float]:
        try:
            message = parse(payload)
        except DecodeError:
            raise InvalidRequest(
                f"the {len(payload)} bytes received are not an inference.ModelInferRequest: a length inside them "
                "reaches past their end, or they are of another message"
            ) from None
        junction = parameters = None
        found = routes.table.route(message.model_name, message.model_version)
        if found is None:
            junction = None if message.model_version else routes.table.junctions.get(message.model_name)
            if junction is None:
                self._note(call, message.id, message.model_name)
                raise routes.table.why_not(message.model_name, message.model_version)
            parameters = _key_parameter(junction, message)
            way = junction.lead(call.metadata, parameters, message.id)
            found = self._reached(routes, call, way, message), way.routing
        target, routing = found
        request, timeout = self._fitted(call, message, target, routing)
        if target.decoder.plain(message):
            routes.layouts.learn(payload, request, target, timeout, junction, parameters)
        return target, request, timeout

    def _lead(
        self, routes: Routes, layout: Layout[Target], way: Way[Target], call: Call, payload: bytes, request: Request
    ) -> tuple[Target, Request]:
        """A request of a known layout that goes to a version which has not met the layout yet, or cannot answer."""
        message = parse(payload)  # equal, but for values and id, to one that was parsed
        target = self._reached(routes, call, way, message)
        decoded, _ = self._fitted(call, message, target, way.routing)
        if target.decoder.plain(message):
            layout.add(request, decoded, target)
        return target, decoded

    def _reached(self, routes: Routes, call: Call, way: Way[Target], message: pb.ModelInferRequest) -> Target:
        if way.target is None:
            self._note(call, message.id)
            raise Unreached(message.model_name, way, routes.table.why_not_led(message.model_name, way.decision))
        return way.target

    def _fitted(
        self, call: Call, message: pb.ModelInferRequest, target: Target, routing: Routing
    ) -> tuple[Request, float]:
        """The request, and its own timeout in seconds. Raises Misfit."""
        try:
            request = target.decoder.decode(message)
            timeout = check_parameters(message.parameters) if message.parameters else math.inf
        except Exception as error:
            self._note(call, message.id)
            raise Misfit(target, routing, error) from error
        request.id = message.id
        request.routing = routing
        return request, timeout

    def _note(self, call: Call, request_id: str, requested_model: str = "") -> None:
        """What is told of a request that is refused, and which no Request will carry."""
        if self._tracer is not None and call.trace is not None:
            call.trace = trace = self._tracer.whole(call.trace)
            trace.request_id = request_id
            if requested_model:
                trace.add(REQUESTED_MODEL, requested_model)

    def _submit(self, target: Target, requests: list[Request], items: Ready) -> None:
        queued_ns = time.monotonic_ns()
        for request in requests:
            request.queued_ns = queued_ns
        for _ in range(ROUTE_TRIES):
            if target.submit(requests):
                return
            # Retired in between: the table without it is already in place, so the requests are routed anew.
            routes = self._routes
            regrouped: dict[Target, tuple[list[Request], Ready]] = {}
            for item, stale in zip(items, requests, strict=True):
                try:
                    found, request = self._decode(routes, *item)
                except Exception as error:
                    self._refuse(item[0], error, len(item[1]))
                    continue
                request.owner, request.arrived_ns, request.size_bytes = stale.owner, stale.arrived_ns, stale.size_bytes
                request.decoded_ns = request.queued_ns = time.monotonic_ns()
                group = regrouped.setdefault(found, ([], []))
                group[0].append(request)
                group[1].append(item)
            if not regrouped:
                return
            (target, (requests, items)), *others = regrouped.items()
            for other, (other_requests, other_items) in others:
                self._submit(other, other_requests, other_items)
        unrouted = RuntimeError(f"{target!r} was retired {ROUTE_TRIES} times between look-up and lease")
        for request in requests:
            self._refuse(request.owner, unrouted, request.size_bytes)

    def _refuse(self, call: Call, error: Exception, size_bytes: int) -> None:
        if isinstance(error, Misfit):
            status = status_of(error.error, error.target.version.name, log_fields(call.trace))
            error.target.refuse_misfit(call, status, error.routing, size_bytes)
        elif isinstance(error, Unreached):
            self._end(call, status_of(error.error, "ModelInfer", log_fields(call.trace)), size_bytes, error)
        else:
            self._end(call, status_of(error, "ModelInfer", log_fields(call.trace)), size_bytes)
        self.done(1)

    def _end(self, call: Call, status: Status, size_bytes: int, unreached: Unreached | None = None) -> None:
        """Refuses a request that has reached no version. Where a route named one, it counts as that one's."""
        call.refuse(with_context(status, call, self._tracer))
        if self._recorder is not None:
            try:
                subject, routing = NOBODY, NOT_ROUTED
                if unreached is not None and unreached.way.version is not None:
                    subject = self._recorder.subject(unreached.model, unreached.way.version, "")
                    routing = unreached.way.routing
                self._recorder.refused(call, status, size_bytes, None, subject, routing)
            except Exception:
                log.exception("a refused request could not be recorded")


def _key_parameter(junction: Junction[Target], message: pb.ModelInferRequest) -> Parameters | None:
    """The one parameter that a sticky key may be, if the request has it."""
    name = junction.parameter
    if not name or name not in message.parameters:
        return None
    value = message.parameters[name]
    kind = value.WhichOneof("parameter_choice")
    return {name: getattr(value, kind)} if kind is not None else None
