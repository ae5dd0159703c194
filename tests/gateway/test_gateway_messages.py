"""Frames between workers and control: what one writes, the other reads."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from gateway.messages import (
    FROM_CONTROL,
    FROM_WORKER,
    LENGTH,
    MAX_FRAME_BYTES,
    Answer,
    Desired,
    FrameTooLarge,
    Hello,
    LoadedInfo,
    ModelOrder,
    Progress,
    Request,
    TensorInfo,
    VersionOrder,
    VersionReport,
    frame,
    frame_length,
    manifest_document,
    same_user,
)
from runtime.repository.manifest import BATCH_LIMIT_ROWS, Manifest, manifest_of, parse_manifest

ORDER = VersionOrder(
    version=2**63 - 1, digest="sha256:a", generation=3, folder="/é", model_filename="model.onnx", file_bytes=7,
    manifest={"batching": {"max_batch_size": 4}},
)  # fmt: skip
LOADED = LoadedInfo(
    inputs=(TensorInfo(name="x", datatype="FP32", shape=(-1, 4)),), outputs=(), load_seconds=0.5,
    loaded_at_seconds=1.5e9, memory_bytes=1, file_bytes=2, execution_providers=("CPUExecutionProvider",), max_rows=64,
    warnings=("slow",),
)  # fmt: skip
FROM_WORKERS: list[BaseModel] = [
    Hello(index=1, pid=2, transport="queue"),
    VersionReport(model="m", version=1, digest="sha256:a", generation=1, state="AVAILABLE", loaded=LOADED),
    VersionReport(model="m", version=1, digest="sha256:a", generation=1, state="FAILED", reason="日本\n"),
    Progress(revision=2**62, settled=True, listening=False, draining=False),
    Request(id=1, verb="load", model="m", actor="token", peer="ipv4:1.2.3.4:5"),
]
FROM_CONTROLS: list[BaseModel] = [
    Desired(
        revision=1, hold=True,
        models=(ModelOrder(model="m", serve=(ORDER,), prepare=(ORDER,), labels={"a": 1}, unavailable={3: "gone"}),),
    ),
    Answer(id=1, code=5, reason="NOT_FOUND", message="no", body={"models": [{"name": "m"}]}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("message", "reader"),
    [*((m, FROM_WORKER) for m in FROM_WORKERS), *((m, FROM_CONTROL) for m in FROM_CONTROLS)],
    ids=lambda value: type(value).__name__,
)
def test_a_message_is_the_same_on_the_other_side(message: BaseModel, reader: Any) -> None:
    data = frame(message)
    length = frame_length(data[: LENGTH.size])
    assert len(data) == LENGTH.size + length
    assert reader.validate_json(data[LENGTH.size :]) == message


@pytest.mark.parametrize("data", [b"{}", b"[]", b"null", b"{", b'{"kind": "hello"}', b'{"kind": "nobody", "id": 1}'])
def test_what_is_no_message_is_a_value_error(data: bytes) -> None:
    for reader in (FROM_WORKER, FROM_CONTROL):
        with pytest.raises(ValidationError) as caught:
            reader.validate_json(data)
        assert isinstance(caught.value, ValueError), "which ends the connection, not the process"


def test_a_frame_that_claims_too_much_is_refused_before_it_is_read() -> None:
    assert frame_length(LENGTH.pack(MAX_FRAME_BYTES)) == MAX_FRAME_BYTES
    with pytest.raises(FrameTooLarge, match=f"a frame claims {MAX_FRAME_BYTES + 1} bytes"):
        frame_length(LENGTH.pack(MAX_FRAME_BYTES + 1))


def test_the_other_end_of_a_local_socket_is_this_user() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert same_user(ours)


TEXT = st.text(max_size=8)
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "batching": st.fixed_dictionaries(
            {},
            optional={
                "max_batch_size": st.none() | st.integers(0, BATCH_LIMIT_ROWS),
                "max_queue_delay_seconds": st.floats(0, 10),
                "max_queue_requests": st.integers(1, 10**6),
            },
        ),
        "session": st.fixed_dictionaries(
            {},
            optional={
                "intra_op_threads": st.integers(1, 256),
                "execution": st.sampled_from(["sequential", "parallel"]),
                "graph_optimization": st.sampled_from(["disabled", "basic", "extended", "all"]),
                "spinning": st.booleans(),
                "execution_providers": st.lists(
                    st.sampled_from(["CPUExecutionProvider", "CUDAExecutionProvider"])
                    | st.just({"CUDAExecutionProvider": {"device_id": "1"}}),
                    min_size=1,
                    max_size=2,
                ),
                "config": st.dictionaries(TEXT, TEXT, max_size=2),
            },
        ),
        "warmup": st.fixed_dictionaries(
            {},
            optional={
                "enabled": st.booleans(),
                "batch_sizes": st.none() | st.lists(st.integers(1, 64), max_size=3),
                "file": st.just("rows.npz"),
                "runs": st.integers(1, 100),
            },
        ),
        "instances": st.integers(1, 64),
        "description": TEXT,
        "metadata": st.dictionaries(TEXT, TEXT, max_size=2),
        "versions": st.sampled_from(["all", {"latest": 2}]),
        "labels": st.dictionaries(st.sampled_from(["stable", "canary"]), st.integers(1, 9)),
        "default": st.sampled_from(["", "stable", "3"]),
    },
)


@settings(max_examples=150)
@given(DOCUMENTS)
def test_a_workers_part_of_a_manifest_survives_the_way_to_it(document: dict[str, Any]) -> None:
    """Versions, labels and default are control's: a worker is told what they come to."""
    manifest = manifest_of(document, "model.yaml")
    order = ORDER.model_copy(update={"manifest": manifest_document(manifest)})
    received = VersionOrder.model_validate_json(order.model_dump_json())
    there = manifest_of(dict(received.manifest), "model.yaml")
    plain = Manifest()
    assert there == manifest.model_copy(
        update={"versions": plain.versions, "labels": plain.labels, "default": plain.default}
    )
    assert manifest_document(there) == manifest_document(manifest)


def test_a_version_keeps_all_of_its_settings_on_their_way_to_a_worker() -> None:
    text = """
    statistics:
      names: {X: [age, height]}
      features: {age: {range: [0, null], missing: -1}, kind: {categories: [a, b]}}
      reject_below: 0.7
    drift: {thresholds: {psi: 0.2}, window_seconds: 60}
    batching: {max_batch_size: 8}
    session: {execution_providers: [{CPUExecutionProvider: {use_arena: "1"}}]}
    """
    manifest = parse_manifest(text, "model.yaml")
    assert manifest_of(json.loads(json.dumps(manifest_document(manifest))), "model.yaml") == manifest
