"""HTTP: /livez, /readyz, /metrics."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.telemetry.measure import Measures
from gateway.telemetry.prometheus import exposition
from gateway.version import VERSION


class WebServer:
    """`readiness` answers why the gateway is not ready, "" if it is. `resource`: attributes that name this gateway."""

    def __init__(
        self, measures: Measures, resource: Mapping[str, str | bool | int | float], readiness: Callable[[], str]
    ) -> None:
        self._measures = measures
        self._resource = resource
        self._readiness = readiness
        application = Starlette(
            routes=[
                Route("/livez", self._live),
                Route("/readyz", self._ready),
                Route("/metrics", self._metrics),
            ]
        )
        logging.getLogger("uvicorn").setLevel(logging.ERROR)  # its warnings are of what anyone may send
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

    async def _metrics(self, request: Request) -> Response:
        page, content_type = await asyncio.to_thread(self._page, request.headers.get("accept", ""))
        return Response(page, headers={"content-type": content_type})

    def _page(self, accept: str) -> tuple[bytes, str]:
        """Reads every worker's page."""
        return exposition(self._measures.snapshot(), self._resource, accept)
