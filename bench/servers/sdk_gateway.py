"""driftgate's worker with OpenTelemetry's SDK in place of its recorder: one process, no control, no supervisor.

The pipeline is composed as gateway/worker/main.py composes it. GET /metrics tells how many requests were recorded.
Usage: python -m bench.servers.sdk_gateway PORT HTTP_PORT MODEL.onnx
"""

from __future__ import annotations

import gc
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, cast

from bench.servers import HOST, METHOD, SERVICE
from bench.servers.sdk_recorder import SdkRecorder
from gateway.config import Limits
from gateway.routing.table import ModelRoute, RouteTable
from gateway.worker.main import GC_THRESHOLD, TICK_SECONDS
from gateway.worker.pipeline import Pipeline
from gateway.worker.target import Target
from gateway.worker.transport.choose import make_transport
from gateway.worker.transport.interface import Methods, TransportSettings
from runtime.malloc import return_large_blocks
from runtime.repository.digest import folder_digest
from runtime.repository.manifest import manifest_of
from runtime.shm.statistics import StatisticsWriter
from runtime.shm.statistics_layout import create_page
from runtime.types import Artifact
from runtime.versions.manager import LONG_NS
from runtime.versions.version import load_version

if TYPE_CHECKING:
    from gateway.telemetry.recorder import Recorder

GRACE_SECONDS = 5.0


def make_answers(recorder: SdkRecorder, pipeline: Pipeline) -> type[BaseHTTPRequestHandler]:
    """By the names of driftgate's own /metrics, so that both are read alike."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = f"driftgate_requests_total {recorder.requests}\ndriftgate_request_in_flight {pipeline.in_flight}\n"
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    return Answers


def serve(port: int, http_port: int, model_file: Path) -> None:
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 10, 100)
    return_large_blocks()
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ending.set())

    statistics = StatisticsWriter(create_page("bench"))
    recorder = SdkRecorder(f"{HOST}:{port}")
    instead = cast("Recorder", recorder)
    limits = Limits()  # driftgate's defaults
    pipeline = Pipeline(limits.max_in_flight, statistics.set_in_flight, instead)
    folder = model_file.parent
    digest = folder_digest(folder)
    artifact = Artifact(folder.parent.name, int(folder.name), digest, str(folder), model_file.stat().st_size)
    version = load_version(artifact, manifest_of({}, "defaults"), lambda: None)
    target = Target(version, statistics.slot(version.model, version.version), pipeline.done, instead)
    version.start(target)
    pipeline.table = RouteTable([ModelRoute(version.model, {version.version: target})])

    settings = TransportSettings(
        address=f"{HOST}:{port}",
        max_message_bytes=limits.max_message_bytes,
        max_metadata_bytes=limits.max_metadata_bytes,
        max_concurrent_streams=limits.max_concurrent_streams,
        max_connection_age_seconds=limits.max_connection_age_seconds,
        max_connection_idle_seconds=limits.max_connection_idle_seconds,
    )
    transport = make_transport("queue", settings)
    transport.start(Methods(f"/{SERVICE}/{METHOD}", pipeline.infer, {}, {}, pipeline.empty))
    web = ThreadingHTTPServer((HOST, http_port), make_answers(recorder, pipeline))
    threading.Thread(target=web.serve_forever, daemon=True).start()
    runner = version.runner
    assert runner is not None
    while not ending.wait(TICK_SECONDS):
        transport.relieve(runner.look_after(time.time(), LONG_NS).inline)
    web.shutdown()
    web.server_close()
    transport.stop(GRACE_SECONDS)
    transport.close()
    runner.close()
    recorder.shutdown()


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
