"""Server reflection on the data port, so that grpcurl and its like work without .proto files.

Version v1 has the messages of v1alpha under another package, so one handler serves both.
"""

from __future__ import annotations

from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from gateway.errors import status_of
from gateway.wire.pb.inference import grpc_service_pb2, model_config_pb2
from gateway.worker.transport.interface import Stream
from runtime.errors import InvalidRequest

PATHS = tuple(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo" for version in ("v1", "v1alpha"))
SERVICES = ("inference.GRPCInferenceService", health_pb2.DESCRIPTOR.services_by_name["Health"].full_name)


def make_servicer() -> reflection.ReflectionServicer:
    pool = DescriptorPool()
    for module in (model_config_pb2, grpc_service_pb2, health_pb2, reflection_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    return reflection.ReflectionServicer((*SERVICES, reflection.SERVICE_NAME), pool)


class ReflectionStream:
    """One request, one answer, until the client half-closes."""

    def __init__(self, servicer: reflection.ReflectionServicer, stream: Stream) -> None:
        self._servicer = servicer
        self._stream = stream

    def message(self, payload: bytes) -> None:
        try:
            request = reflection_pb2.ServerReflectionRequest.FromString(payload)
            for response in self._servicer.ServerReflectionInfo(iter((request,)), None):
                self._stream.send(response.SerializeToString())
        except DecodeError:
            error = InvalidRequest("the bytes received are not a ServerReflectionRequest")
            self._stream.end(status_of(error, self._stream.method))
        except Exception as error:
            self._stream.end(status_of(error, self._stream.method))

    def sent(self) -> None:
        self._stream.read()

    def half_closed(self) -> None:
        self._stream.end()

    def cancelled(self) -> None:
        """Nothing is held between messages."""
