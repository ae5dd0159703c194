"""Who this gateway is, for everything it exports: OpenTelemetry's resource, detected by its SDK.

OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME go before what is given here.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.sdk.resources import OTELResourceDetector, Resource

from gateway.telemetry.settings import RESOURCE_NAMES
from gateway.version import VERSION

SERVICE = "driftgate"
UNNAMED = "unknown_service"
INSTANCE = "service.instance.id"

Attributes = dict[str, str | bool | int | float]


def detect(instance_id: str, settings: Mapping[str, str]) -> Attributes:
    """`instance_id` is unique to one start of the gateway: two that shared it would mix their cumulative series.

    `settings`: OTEL_* variables, also those of the configuration.
    """
    for variable in RESOURCE_NAMES:
        if variable in settings:
            os.environ[variable] = settings[variable]  # the SDK reads them only there
    found: Attributes = {
        key: value if isinstance(value, (str, bool, int, float)) else str(value)
        for key, value in Resource.create().attributes.items()
    }
    ours: Attributes = {"service.version": VERSION, "host.name": socket.gethostname()}
    # Detectors give an id to a process, the SDK's own does so always: a restart of control would begin other series.
    found[INSTANCE] = str(OTELResourceDetector().detect().attributes.get(INSTANCE) or instance_id)
    if str(found.get("service.name", UNNAMED)).startswith(UNNAMED):
        found["service.name"] = SERVICE
    return {**ours, **found}


def to_proto(attributes: Attributes) -> resource_pb2.Resource:
    return resource_pb2.Resource(
        attributes=[KeyValue(key=key, value=_value(value)) for key, value in sorted(attributes.items())]
    )


def _value(value: str | bool | float) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    return AnyValue(string_value=value)
