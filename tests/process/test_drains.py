"""One drain of a worker's queue takes what all connections have received, so it becomes one run."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import psutil
import pytest
from rollout_models import everyday, write_pair
from support.admin import until
from support.gateway import Gateway
from support.load import infer_request
from support.predict import client_of

from gateway.wire.pb.inference import grpc_service_pb2 as pb

pytestmark = pytest.mark.process

MODEL = "m"
CONNECTIONS = 16


def unread(port: int) -> int:
    """Connections of this port that hold bytes their server has not read."""
    lines = [line for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]]
    rows = [line.split() for line in lines]  # number, local address, remote, state (01: connected), sent:received, ...
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "01" and int(row[4][9:], 16) > 0 for row in rows)


def test_requests_of_connections_of_their_own_share_a_run(tmp_path: Path) -> None:
    request = infer_request(MODEL, everyday(np.random.default_rng(1)), "1")
    models = write_pair(tmp_path / "models", MODEL, "equal")
    with Gateway(models, tmp_path / "state", workers=1) as gateway, ExitStack() as stack:
        clients = [stack.enter_context(client_of(gateway.grpc)) for _ in range(CONNECTIONS)]

        def runs() -> int:
            counts = clients[0].ask("ModelStatistics", pb.ModelStatisticsRequest(name=MODEL, version="1"))
            return sum(row.execution_count for row in counts.model_stats)

        for client in clients:  # each connects, and its layout is known
            client.ask("ModelInfer", request)
        before = runs()
        worker: psutil.Process = gateway.children("worker")[0]
        worker.suspend()
        try:
            calls = [client.begin("ModelInfer", request) for client in clients]
            port = int(gateway.grpc.rpartition(":")[2])
            until(lambda: unread(port) == CONNECTIONS, "all requests wait at the worker's sockets")
        finally:
            worker.resume()
        for call in calls:
            call.result()
        assert runs() - before <= 2  # the poll that it was stopped in may have begun with the first of them
