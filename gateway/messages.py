"""What workers and control say to each other: JSON frames over a local socket, each with a length before it.

Control sends the whole desired state at every change, so a message lost with a connection is made good by the next.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

LENGTH = struct.Struct("<I")
MAX_FRAME_BYTES = 64 * 1024 * 1024
PEER_CREDENTIALS = struct.Struct("3i")


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True)


class VersionOrder(_Message):
    """One version a worker should hold. `manifest` is in model.yaml's form."""

    version: int
    digest: str
    generation: int
    folder: str
    model_filename: str
    file_bytes: int
    manifest: dict[str, Any]


class ModelOrder(_Message):
    """`serve`: route to these. `prepare`: load, do not route, on worker `prepare_on` alone, all (-1) or none (-2).

    `prepare_on_shadow`: the process that answers copies prepares them too, whatever `prepare_on` says of workers.
    `unavailable`: known versions that are not to be loaded, and why. `route`: as JSON, what operators and a rollout
    under way make of it together; "": the default alone. `replay`: versions that the process that answers copies holds
    as well, for rows that it is asked to replay.
    """

    model: str
    serve: tuple[VersionOrder, ...] = ()
    prepare: tuple[VersionOrder, ...] = ()
    prepare_on: int = -1
    prepare_on_shadow: bool = False
    labels: dict[str, int] = Field(default_factory=dict)
    default_target: str = ""
    unavailable: dict[int, str] = Field(default_factory=dict)
    route: str = ""
    replay: tuple[int, ...] = ()


class Desired(_Message):
    """Control → worker: the whole desired state. `hold`: do not listen yet, the first versions are being tried."""

    kind: Literal["desired"] = "desired"
    revision: int
    hold: bool = False
    models: tuple[ModelOrder, ...]


class Answer(_Message):
    """Control → worker: the outcome of a worker's Request.

    `code` 0: `body` holds it; else an error's message and details (a serialized google.rpc.Status).
    """

    model_config = ConfigDict(frozen=True, ser_json_bytes="base64", val_json_bytes="base64")

    kind: Literal["answer"] = "answer"
    id: int
    code: int = 0
    message: str = ""
    details: bytes = b""
    body: dict[str, Any] = Field(default_factory=dict)


class TensorRows(_Message):
    """Rows of one input. `data`: of the datatype's numpy dtype, little-endian, C-contiguous, of `shape`."""

    model_config = ConfigDict(frozen=True, ser_json_bytes="base64", val_json_bytes="base64")

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes


class ReplayOrder(_Message):
    """Control → shadow process: run these rows through both versions, `block_rows` of them together.

    Versions are told by number and digest. `id` names this order alone.
    """

    kind: Literal["replay"] = "replay"
    id: str
    model: str
    baseline: int
    baseline_digest: str
    candidate: int
    candidate_digest: str
    rows: int
    block_rows: int
    inputs: tuple[TensorRows, ...]


class Hello(_Message):
    """Worker → control, first on each connection. `role` shadow: the process that answers copies; it has no index."""

    kind: Literal["hello"] = "hello"
    index: int
    pid: int
    transport: str
    role: Literal["worker", "shadow"] = "worker"


class TensorInfo(_Message):
    name: str
    datatype: str
    shape: tuple[int, ...]


class LoadedInfo(_Message):
    """What a worker learned of a version by loading it."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    load_seconds: float
    loaded_at_seconds: float
    memory_bytes: int
    file_bytes: int
    execution_providers: tuple[str, ...]
    max_rows: int
    warnings: tuple[str, ...]


class VersionReport(_Message):
    """Worker → control: a version's state has changed."""

    kind: Literal["version"] = "version"
    model: str
    version: int
    digest: str
    generation: int
    state: str
    reason: str = ""
    loaded: LoadedInfo | None = None


class Progress(_Message):
    """Worker → control: the desired state `revision` has been taken up; `listening` once the port is open."""

    kind: Literal["progress"] = "progress"
    revision: int
    settled: bool
    listening: bool
    draining: bool


class Request(_Message):
    """Worker → control: a client of the data port asks for something that control decides."""

    kind: Literal["request"] = "request"
    id: int
    verb: Literal["index", "load", "unload"]
    model: str = ""
    ready_only: bool = False
    actor: str = ""
    peer: str = ""


class PairReport(_Message):
    """What came to one pair of versions since the report before: `delta` is a `runtime.shadow` comparison's bytes."""

    model_config = ConfigDict(frozen=True, ser_json_bytes="base64", val_json_bytes="base64")

    model: str
    primary: int
    primary_digest: str
    shadow: int
    shadow_digest: str
    delta: bytes


class ComparisonReport(_Message):
    """Shadow process → control. `counters`: names this process's memory."""

    kind: Literal["comparison"] = "comparison"
    counters: str
    pairs: tuple[PairReport, ...]


class BlockReport(_Message):
    """Of replayed rows that ran together. `compared`: those that both versions answered."""

    rows: int
    candidate_failed: int
    baseline_failed: int
    compared: int
    agreed: int


class ReplayReport(_Message):
    """Shadow process → control: what came of a ReplayOrder, all of it or (`problem`) nothing."""

    kind: Literal["replayed"] = "replayed"
    id: str
    blocks: tuple[BlockReport, ...] = ()
    problem: str = ""


FromWorker = Hello | VersionReport | Progress | Request | ComparisonReport | ReplayReport
FromControl = Desired | Answer | ReplayOrder
FROM_WORKER: TypeAdapter[FromWorker] = TypeAdapter(FromWorker)
FROM_CONTROL: TypeAdapter[FromControl] = TypeAdapter(FromControl)


class FrameTooLarge(ValueError):
    """A frame claims more than MAX_FRAME_BYTES."""


def frame(message: BaseModel) -> bytes:
    payload = message.model_dump_json().encode()
    return LENGTH.pack(len(payload)) + payload


def frame_length(head: bytes) -> int:
    """Raises FrameTooLarge."""
    (length,) = LENGTH.unpack(head)
    if length > MAX_FRAME_BYTES:
        raise FrameTooLarge(f"a frame claims {length} bytes; the limit is {MAX_FRAME_BYTES}")
    return int(length)


def same_user(connection: socket.socket) -> bool:
    """True if the other end runs as this user (or cannot be asked, where the address is not shared)."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER_CREDENTIALS.size)
    _, uid, _ = PEER_CREDENTIALS.unpack(raw)
    return bool(uid == os.getuid())


OF_ROUTING = frozenset({"versions", "labels", "default", "route"})
"""Settings that are no version's: control decides by them, and operators change them."""


def manifest_document(manifest: BaseModel) -> dict[str, Any]:
    """A manifest in model.yaml's form, as far as a worker needs it."""
    document: dict[str, Any] = json.loads(manifest.model_dump_json())
    kept = {key: value for key, value in document.items() if key not in OF_ROUTING}
    providers = kept["session"]["execution_providers"]
    kept["session"]["execution_providers"] = [{name: options} if options else name for name, options in providers]
    return kept
