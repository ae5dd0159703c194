"""The real backends: how each is set up, where the gateway sends to, and what it shows of what it got."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Protocol

import requests
import yaml
from receivers_seen import Json, SeenSpan, span_of, spans_of
from receivers_tools import COLLECTOR, HERE, JAEGER, MLFLOW, MOCK_OTLP, Backend

GRPC, HTTP = "grpc", "http/protobuf"
LOCAL = "127.0.0.1:0"
ENDPOINT = r"127\.0\.0\.1:\d+"
ANSWER_SECONDS = 30.0
PAGE = 100  # traces that MLflow names or shows at once


class ShowsSpans(Protocol):
    """What the tests ask of every backend."""

    grpc: str
    http: str

    def settings(self, protocol: str) -> dict[str, str]: ...

    def spans(self) -> list[SeenSpan]: ...


class MockOtlp(Backend):
    """@elastic/mockotlpserver. It prints every request as a line of JSON, without the names of events."""

    headers: ClassVar[dict[str, str]] = {}
    keeps_event_names = False  # its .proto files are older than LogRecord.event_name

    def __init__(self, folder: Path) -> None:
        super().__init__(["node", str(HERE / "mock_otlp.js")], folder, {"NODE_PATH": str(MOCK_OTLP.parents[1])})

    def _started(self) -> None:
        self.http = self.wait_for(rf"OTLP/HTTP listening at http://({ENDPOINT})")
        self.grpc = self.wait_for(rf"OTLP/gRPC listening at http://({ENDPOINT})")

    def settings(self, protocol: str) -> dict[str, str]:
        return sending(self, protocol)

    def documents(self) -> list[Json]:
        """Requests of all signals, in the order in which they came. Fails if it could not print one."""
        lines = [json.loads(line) for line in self.log.splitlines(keepends=True) if line.endswith("\n")]
        failed = [line for line in lines if line.get("level", 0) >= 40]
        assert not failed, failed
        return lines

    def spans(self) -> list[SeenSpan]:
        return spans_of(self.documents())


class Collector(Backend):
    """An OpenTelemetry Collector, whose file exporter writes every request as a line of JSON."""

    headers: ClassVar[dict[str, str]] = {}
    keeps_event_names = True

    def __init__(self, folder: Path) -> None:
        self._files = {name: folder / f"{name}.json" for name in ("traces", "metrics", "logs")}
        config = {
            "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": LOCAL}, "http": {"endpoint": LOCAL}}}},
            "exporters": {
                "debug": {},
                **{f"file/{name}": {"path": str(file), "flush_interval": "50ms"} for name, file in self._files.items()},
            },
            "service": {
                "telemetry": {"metrics": {"level": "none"}},
                "pipelines": {n: {"receivers": ["otlp"], "exporters": ["debug", f"file/{n}"]} for n in self._files},
            },
        }
        super().__init__([str(COLLECTOR), f"--config={write_config(folder, config)}"], folder)

    def _started(self) -> None:
        self.grpc, self.http = otlp_endpoints(self)

    def settings(self, protocol: str) -> dict[str, str]:
        return sending(self, protocol) | {"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"}

    def documents(self) -> list[Json]:
        """Requests of all signals; those of one signal in the order in which they came."""
        text = "".join(file.read_text() for file in self._files.values() if file.exists())
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def spans(self) -> list[SeenSpan]:
        return spans_of(self.documents())


class Jaeger(Backend):
    """Jaeger with its store in memory. It keeps traces alone."""

    headers: ClassVar[dict[str, str]] = {}

    def __init__(self, folder: Path) -> None:
        config = {
            "extensions": {
                "jaeger_storage": {"backends": {"memory": {"memory": {"max_traces": 10_000}}}},
                "jaeger_query": {
                    "storage": {"traces": "memory"}, "http": {"endpoint": LOCAL}, "grpc": {"endpoint": LOCAL},
                },
            },
            "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": LOCAL}, "http": {"endpoint": LOCAL}}}},
            "exporters": {"jaeger_storage_exporter": {"trace_storage": "memory"}},
            "service": {
                "extensions": ["jaeger_storage", "jaeger_query"],
                "telemetry": {"metrics": {"level": "none"}},
                "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"]}},
            },
        }  # fmt: skip
        super().__init__([str(JAEGER), f"--config={write_config(folder, config)}"], folder)

    def _started(self) -> None:
        self.grpc, self.http = otlp_endpoints(self)
        self._query = self.wait_for(rf'"http_addr": "({ENDPOINT})"')

    def settings(self, protocol: str) -> dict[str, str]:
        return sending(self, protocol) | TRACES_ALONE

    def spans(self) -> list[SeenSpan]:
        """Of all traces that have a span of the gateway's."""
        found = get(f"http://{self._query}/api/traces", service="driftgate", limit=10_000)["data"]
        return [
            span
            for trace in found
            for span in spans_of([get(f"http://{self._query}/api/v3/traces/{trace['traceID']}")["result"]])
        ]


class Mlflow(Backend):
    """MLflow's tracking server with a store in SQLite. It takes traces alone, over HTTP, for the experiment "0"."""

    headers: ClassVar[dict[str, str]] = {"x-mlflow-experiment-id": "0"}

    def __init__(self, folder: Path) -> None:
        command = [
            str(MLFLOW), "server", "--host", "127.0.0.1", "--port", "0", "--workers", "1",
            "--backend-store-uri", f"sqlite:///{folder / 'store.db'}",
            "--artifacts-destination", str(folder / "artifacts"),
        ]  # fmt: skip
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        super().__init__(command, folder, quiet)

    def _started(self) -> None:
        self.http = self.wait_for(rf"Uvicorn running on http://({ENDPOINT})")
        self.grpc = ""

    def settings(self, protocol: str) -> dict[str, str]:
        headers = ",".join(f"{key}={value}" for key, value in self.headers.items())
        return sending(self, protocol) | TRACES_ALONE | {"OTEL_EXPORTER_OTLP_HEADERS": headers}

    def traces(self) -> set[str]:
        """Ids of all traces."""
        found: set[str] = set()
        experiment = {"experiment_id": self.headers["x-mlflow-experiment-id"]}
        place = [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": experiment}]
        token = ""
        while True:
            asked = {"locations": place, "max_results": PAGE, **({"page_token": token} if token else {})}
            answer = requests.post(f"{self._api}/search", json=asked, timeout=ANSWER_SECONDS)
            answer.raise_for_status()
            found |= {trace["trace_id"].removeprefix("tr-") for trace in answer.json().get("traces", ())}
            token = answer.json().get("next_page_token", "")
            if not token:
                return found

    def spans(self) -> list[SeenSpan]:
        ids = sorted(f"tr-{trace_id}" for trace_id in self.traces())
        pages = [ids[at : at + PAGE] for at in range(0, len(ids), PAGE)]
        found = [trace for page in pages for trace in get(f"{self._api}/batchGet", trace_ids=page)["traces"]]
        return [span_of(span, {}) for trace in found for span in trace["spans"]]

    def page(self, trace_id: str) -> str:
        """Where its user interface shows the trace."""
        return f"http://{self.http}/#/experiments/0/traces?selectedEvaluationId=tr-{trace_id}"

    @property
    def _api(self) -> str:
        return f"http://{self.http}/api/3.0/mlflow/traces"


TRACES_ALONE = {"OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}

BACKENDS: dict[str, Callable[[Path], Any]] = {
    "mockotlpserver": MockOtlp, "collector": Collector, "jaeger": Jaeger, "mlflow": Mlflow,
}  # fmt: skip


def sending(backend: ShowsSpans, protocol: str) -> dict[str, str]:
    """The variables by which an OpenTelemetry SDK, and driftgate, sends everything there."""
    endpoint = backend.grpc if protocol == GRPC else backend.http
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{endpoint}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "OTEL_BLRP_SCHEDULE_DELAY": "200",
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
    }


def otlp_endpoints(backend: Backend) -> tuple[str, str]:
    """Of gRPC and HTTP, from a Collector's log."""
    backend.wait_for("(Everything is ready)")

    def endpoint(name: str) -> str:
        return backend.wait_for(rf'Starting {name} server\t.*"endpoint": "({ENDPOINT})"')

    return endpoint("GRPC"), endpoint("HTTP")


def write_config(folder: Path, config: dict[str, Any]) -> Path:
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


def get(url: str, **parameters: object) -> Any:
    answer = requests.get(url, params=parameters, timeout=ANSWER_SECONDS)  # type: ignore[arg-type]
    answer.raise_for_status()
    return answer.json()
