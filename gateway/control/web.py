"""HTTP: /livez, /readyz, /metrics."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.control.changes import Changes
from gateway.control.fleet import Fleet
from gateway.process import Spawn
from gateway.version import VERSION
from runtime.shm.segment import Segment
from runtime.shm.statistics import StatisticsReader
from runtime.shm.tally import Tally

Metric = CounterMetricFamily | GaugeMetricFamily
VERSION_COUNTERS = (
    ("requests_succeeded", "Requests answered with OK.", "successes", 1.0),
    ("requests_failed", "Requests that a version failed or refused.", "failures", 1.0),
    ("rows", "Rows computed.", "rows", 1.0),
    ("runs", "Runs of the model; requests that were ready together share one.", "runs", 1.0),
    ("request_seconds", "Time from decoded to replied, summed over requests.", "success_ns", 1e-9),
    ("queue_seconds", "Time from decoded to the start of the run, summed over requests.", "queue_ns", 1e-9),
    ("run_seconds", "Time inside ONNX Runtime, summed over runs.", "run_ns", 1e-9),
)


class WebServer:
    """`readiness` answers why the gateway is not ready, "" if it is."""

    def __init__(
        self, orders: Spawn, changes: Changes, fleet: Fleet, statistics: StatisticsReader, readiness: Callable[[], str]
    ) -> None:
        self._readiness = readiness
        self._registry = CollectorRegistry()
        self._registry.register(_Figures(orders, changes, fleet, statistics))
        application = Starlette(
            routes=[
                Route("/livez", self._live),
                Route("/readyz", self._ready),
                Route("/metrics", self._metrics),
            ]
        )
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        config = uvicorn.Config(
            application,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=2,
        )
        self._server = uvicorn.Server(config)
        self._server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]  # control has its own

    async def serve(self, listener: socket.socket) -> None:
        """Until `stop`."""
        await self._server._serve([listener])  # noqa: SLF001  (`serve` would take over the signal handlers)

    def stop(self) -> None:
        self._server.should_exit = True

    async def _live(self, _: Request) -> Response:
        return JSONResponse({"live": True, "version": VERSION})

    async def _ready(self, _: Request) -> Response:
        reason = self._readiness()
        return JSONResponse({"ready": not reason, "reason": reason}, status_code=503 if reason else 200)

    async def _metrics(self, _: Request) -> Response:
        exposition = await asyncio.to_thread(generate_latest, self._registry)  # reads every worker's page
        return Response(exposition, media_type=CONTENT_TYPE_LATEST)


class _Figures(Collector):
    """Read from the workers' pages at each scrape; exact over all workers, and over their restarts."""

    def __init__(self, orders: Spawn, changes: Changes, fleet: Fleet, statistics: StatisticsReader) -> None:
        self._orders = orders
        self._changes = changes
        self._fleet = fleet
        self._statistics = statistics
        self._restarts = Tally(Segment.attach(orders.tally_fd, writable=False))

    def collect(self) -> Iterable[Metric]:
        totals = self._statistics.totals()
        labels = ("model", "version")
        for name, text, attribute, scale in VERSION_COUNTERS:
            family = CounterMetricFamily(f"driftgate_{name}", text, labels=labels)
            for counts in totals:
                family.add_metric((counts.model, str(counts.version)), getattr(counts, attribute) * scale)
            yield family
        yield self._gauge("workers_serving", "Workers that accept requests.", self._serving())
        restarts = CounterMetricFamily(
            "driftgate_process_restarts", "Processes started again: a worker's number, or control.", labels=("process",)
        )
        for index in range(len(self._orders.page_fds)):
            restarts.add_metric((str(index),), self._restarts.value(index))
        restarts.add_metric(("control",), self._restarts.value(len(self._orders.page_fds)))
        yield restarts
        yield self._gauge("workers", "Workers that there should be.", len(self._orders.page_fds))
        in_flight = sum(self._statistics.in_flight(index) for index in range(len(self._orders.page_fds)))
        yield self._gauge("requests_in_flight", "Requests admitted and not yet answered.", in_flight)
        lost = CounterMetricFamily("driftgate_statistics_lost_versions", "Versions that found no room for counters.")
        lost.add_metric((), self._statistics.lost_versions())
        yield lost
        served = GaugeMetricFamily("driftgate_model_served", "1 for each version that is to be served.", labels=labels)
        for model in self._changes.desired.values():
            for version in model.versions if model.served else ():
                served.add_metric((model.name, str(version.version)), 1)
        yield served
        problems = len(self._changes.scan.problems)
        yield self._gauge("repository_problems", "Problems found by the last look at the repository.", problems)

    def _serving(self) -> int:
        return sum(worker.state == "serving" for worker in self._fleet.workers.values())

    @staticmethod
    def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
        family = GaugeMetricFamily(f"driftgate_{name}", text)
        family.add_metric((), value)
        return family
