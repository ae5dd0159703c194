"""The unary RPCs of inference.GRPCInferenceService other than ModelInfer: rare, answered from what the worker knows.

RepositoryIndex, Load and Unload are control's to answer: the worker passes them on and replies when control has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message

from gateway import access
from gateway.config import Config
from gateway.errors import STATUS_DETAILS, Status, status_of
from gateway.link import Link
from gateway.messages import Answer
from gateway.version import VERSION
from gateway.wire.pb.inference import grpc_service_pb2 as pb
from gateway.wire.pb.inference import model_config_pb2 as mc
from gateway.worker.pipeline import Pipeline
from gateway.worker.target import Target
from gateway.worker.transport.interface import Call
from runtime.errors import InvalidRequest, NotFound, NotReady
from runtime.shm.statistics import StatisticsReader, VersionCounts
from runtime.types import TensorSpec

SERVICE = "/inference.GRPCInferenceService/"
PLATFORM = "onnxruntime_onnx"
EXTENSIONS = ("model_repository", "model_configuration", "binary_tensor_data", "parameters", "statistics")
CONFIG_TYPES = {"BYTES": "TYPE_STRING"}

M = TypeVar("M", bound=Message)


class InferenceService:
    def __init__(
        self, config: Config, pipeline: Pipeline, link: Link, statistics: StatisticsReader, is_ready: Callable[[], bool]
    ) -> None:
        self._control_policy = config.repository_control
        self._token = config.admin_token()
        self._pipeline = pipeline
        self._link = link
        self._statistics = statistics
        self._is_ready = is_ready

    def methods(self) -> dict[str, Callable[[Call, bytes], None]]:
        """RPC path → handler."""
        local: dict[str, tuple[type[Message], Callable[[Any], Message]]] = {
            "ServerLive": (pb.ServerLiveRequest, lambda _: pb.ServerLiveResponse(live=True)),
            "ServerReady": (pb.ServerReadyRequest, lambda _: pb.ServerReadyResponse(ready=self._is_ready())),
            "ModelReady": (pb.ModelReadyRequest, self._model_ready),
            "ServerMetadata": (pb.ServerMetadataRequest, self._server_metadata),
            "ModelMetadata": (pb.ModelMetadataRequest, self._model_metadata),
            "ModelConfig": (pb.ModelConfigRequest, self._model_config),
            "ModelStatistics": (pb.ModelStatisticsRequest, self._model_statistics),
        }
        handlers = {SERVICE + name: _answering(name, kind, answer) for name, (kind, answer) in local.items()}
        handlers[SERVICE + "RepositoryIndex"] = self._index
        handlers[SERVICE + "RepositoryModelLoad"] = self._load
        handlers[SERVICE + "RepositoryModelUnload"] = self._unload
        return handlers

    def _find(self, model: str, version: str) -> Target:
        table = self._pipeline.table
        target = table.find(model, version)
        if target is None:
            raise table.why_not(model, version)
        return target

    def _model_ready(self, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        table = self._pipeline.table
        ready = table.serves(request.name)
        if request.version:
            ready = table.find(request.name, request.version) is not None
        if not ready:
            error = table.why_not(request.name, request.version)
            if isinstance(error, NotFound):
                raise error
        return pb.ModelReadyResponse(ready=ready and self._is_ready())

    def _server_metadata(self, _: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(name="driftgate", version=VERSION, extensions=EXTENSIONS)

    def _model_metadata(self, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
        table = self._pipeline.table
        target = table.find(request.name, request.version)
        if target is None:
            raise table.why_not(request.name, request.version)
        signature = target.version.signature
        route = table.models[request.name]
        return pb.ModelMetadataResponse(
            name=request.name,
            versions=[str(version) for version in sorted(route.available)],
            platform=PLATFORM,
            inputs=[_tensor_metadata(spec) for spec in signature.inputs],
            outputs=[_tensor_metadata(spec) for spec in signature.outputs],
        )

    def _model_config(self, request: pb.ModelConfigRequest) -> pb.ModelConfigResponse:
        return pb.ModelConfigResponse(config=model_config(self._find(request.name, request.version)))

    def _model_statistics(self, request: pb.ModelStatisticsRequest) -> pb.ModelStatisticsResponse:
        wanted: int | None = None
        if request.name and request.version:
            wanted = self._find(request.name, request.version).version.version
        elif request.name and request.name not in self._pipeline.table.models:
            raise self._pipeline.table.why_not(request.name, "")
        response = pb.ModelStatisticsResponse()
        for counts in self._statistics.totals(request.name):
            if wanted in (None, counts.version):
                response.model_stats.append(_statistics(counts))
        return response

    def _index(self, call: Call, payload: bytes) -> None:
        def reply(answer: Answer) -> Message:
            return pb.RepositoryIndexResponse(
                models=[pb.RepositoryIndexResponse.ModelIndex(**row) for row in answer.body["models"]]
            )

        try:
            request = _parse(pb.RepositoryIndexRequest, payload)
            self._ask(call, "index", reply, ready_only=request.ready)
        except Exception as error:
            call.refuse(status_of(error, call.method))

    def _load(self, call: Call, payload: bytes) -> None:
        self._change(call, payload, pb.RepositoryModelLoadRequest, "load", pb.RepositoryModelLoadResponse())

    def _unload(self, call: Call, payload: bytes) -> None:
        self._change(call, payload, pb.RepositoryModelUnloadRequest, "unload", pb.RepositoryModelUnloadResponse())

    def _change(self, call: Call, payload: bytes, kind: type[Message], verb: str, done: Message) -> None:
        try:
            request: Any = _parse(kind, payload)
            actor = access.require(verb, self._control_policy, call.peer(), call.metadata, self._token)
            for name in request.parameters:
                if name != "unload_dependents":  # there are no ensembles, so no dependents
                    raise InvalidRequest(
                        f"parameter {name[:100]!r} is not supported: models come from the repository and are "
                        "configured by their model.yaml",
                        field=name[:100],
                    )
            self._ask(call, verb, lambda _: done, model=request.model_name, actor=actor, peer=call.peer())
        except Exception as error:
            call.refuse(status_of(error, call.method))

    def _ask(self, call: Call, verb: str, reply: Callable[[Answer], Message], **fields: Any) -> None:
        def on_answer(answer: Answer | None) -> None:
            if answer is None:
                call.refuse(status_of(NotReady("the control process went away before it answered: try again"), verb))
            elif answer.code:
                trailers = ((STATUS_DETAILS, answer.details),) if answer.details else ()
                call.refuse(Status(answer.code, answer.message, trailers))
            else:
                call.answer(reply(answer).SerializeToString())

        if not self._link.ask(verb, on_answer, **fields):
            raise NotReady("the control process is restarting: predictions go on, try this again in a moment")


def _answering(name: str, kind: type[Message], answer: Callable[[Any], Message]) -> Callable[[Call, bytes], None]:
    def handle(call: Call, payload: bytes) -> None:
        try:
            response = answer(_parse(kind, payload)).SerializeToString()
        except Exception as error:
            call.refuse(status_of(error, name))
        else:
            call.answer(response)

    return handle


def _parse(kind: type[M], payload: bytes) -> M:
    try:
        return kind.FromString(payload)
    except DecodeError:
        raise InvalidRequest(f"the {len(payload)} bytes received are not an {kind.DESCRIPTOR.full_name}") from None


def _tensor_metadata(spec: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(name=spec.name, datatype=spec.datatype, shape=spec.shape)


def model_config(target: Target) -> mc.ModelConfig:
    """What the version runs with, in Triton's terms: where it batches, dims leave out the batch axis."""
    version = target.version
    skip = 1 if version.max_rows else 0
    config = mc.ModelConfig(
        name=version.model,
        platform=PLATFORM,
        backend="onnxruntime",
        max_batch_size=version.max_rows,
        default_model_filename="model.onnx",
        input=[
            mc.ModelInput(name=spec.name, data_type=_config_type(spec.datatype), dims=spec.shape[skip:])
            for spec in version.signature.inputs
        ],
        output=[
            mc.ModelOutput(name=spec.name, data_type=_config_type(spec.datatype), dims=spec.shape[skip:])
            for spec in version.signature.outputs
        ],
        instance_group=[
            mc.ModelInstanceGroup(
                name=version.model, kind=mc.ModelInstanceGroup.KIND_CPU, count=version.manifest.instances
            )
        ],
    )
    if version.max_rows:
        batching = version.manifest.batching
        config.dynamic_batching.max_queue_delay_microseconds = int(batching.max_queue_delay_seconds * 1e6)
        config.dynamic_batching.default_queue_policy.max_queue_size = batching.max_queue_requests
    for key, value in version.signature.metadata.items():
        config.parameters[key].string_value = value
    return config


def _config_type(datatype: str) -> Any:
    return mc.DataType.Value(CONFIG_TYPES.get(datatype, f"TYPE_{datatype}"))


def _statistics(counts: VersionCounts) -> pb.ModelStatistics:
    requests = counts.successes

    def duration(count: int, ns: int) -> pb.StatisticDuration:
        return pb.StatisticDuration(count=count, ns=ns)

    return pb.ModelStatistics(
        name=counts.model,
        version=str(counts.version),
        last_inference=counts.last_ms,
        inference_count=counts.rows,
        execution_count=counts.runs,
        inference_stats=pb.InferStatistics(
            success=duration(requests, counts.success_ns),
            fail=duration(counts.failures, counts.failure_ns),
            queue=duration(requests, counts.queue_ns),
            compute_input=duration(requests, counts.input_ns),
            compute_infer=duration(requests, counts.run_ns),
            compute_output=duration(requests, counts.output_ns),
        ),
        batch_stats=[
            pb.InferBatchStatistics(
                batch_size=rows,
                compute_input=duration(runs, input_ns),
                compute_infer=duration(runs, run_ns),
                compute_output=duration(runs, output_ns),
            )
            for rows, (runs, input_ns, run_ns, output_ns) in sorted(counts.batches.items())
        ],
    )
