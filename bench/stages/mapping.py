"""Which Python function belongs to which stage of a request's way: one table.

A stack belongs to the stage of its innermost frame that has a rule, so that a library's function counts as its
caller's. What a C function takes (the C-core, ONNX Runtime, numba's kernels) counts as the Python function's that calls
it: samples show no frames of C.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.stages.stacks import Frame

UNMAPPED = "not mapped"


@dataclass(frozen=True, slots=True)
class Stage:
    """`files`: what the path of a frame's file ends with, or, with a slash at its end, a folder within it.

    `functions`: of those files, by name without the class; none given: all of them.
    """

    title: str
    files: tuple[str, ...]
    functions: frozenset[str] = frozenset()


def _stage(title: str, files: str, functions: str = "") -> Stage:
    return Stage(title, tuple(files.split()), frozenset(functions.split()))


QUEUE = "gateway/worker/transport/queue.py"
PIPELINE = "gateway/worker/pipeline.py"
TARGET = "gateway/worker/target.py"
RUNNER = "runtime/batching/runner.py"

POLL = "poll: C-core reads sockets, parses HTTP/2"
TAKE = "take: calls, their metadata and messages"
TRACE = "trace: context in"
DECODE = "decode"
ROUTE = "route"
BATCH = "batch: admit, lease, queue, gather"
RUN = "run: ONNX Runtime"
ENCODE = "encode"
REPLY = "reply: C-core writes HTTP/2, sends"
STATISTICS = "statistics: every value measured"
RECORD = "record: counters, request records"
COPIES = "copy: for shadows"

TABLE = (
    _stage(POLL, QUEUE, "_poll"),
    _stage(TAKE, QUEUE, "_take_safely _take _post_infer _open __init__ open read _on_read _text"),
    _stage(REPLY, QUEUE, "answer refuse _finish send end _send _send_status _on_sent _send_next _on_close watch"),
    _stage(RECORD, QUEUE, "peer peer_key"),
    _stage(TAKE, "gateway/worker/streams.py", "__init__ message _read_on _full open"),
    _stage(REPLY, "gateway/worker/streams.py"),
    _stage(TRACE, PIPELINE, "_begin"),
    _stage(TRACE, "gateway/telemetry/context.py gateway/telemetry/sampler.py"),
    _stage(DECODE, PIPELINE, "_decode _parse _fitted _key_parameter _note"),
    _stage(DECODE, "gateway/wire/decode.py gateway/wire/layout.py gateway/wire/pool.py"),
    _stage(ROUTE, PIPELINE, "_lead _reached"),
    _stage(ROUTE, "gateway/routing/ runtime/routing/"),
    _stage(BATCH, PIPELINE, "infer _admit _submit done"),
    _stage(BATCH, TARGET, "submit _end"),
    _stage(BATCH, "runtime/versions/lease.py runtime/batching/"),
    _stage(RUN, "runtime/onnx/session.py runtime/shm/crashes.py"),
    _stage(ENCODE, "gateway/wire/encode.py"),
    _stage(REPLY, TARGET, "answered _headers_with"),
    _stage(STATISTICS, "gateway/worker/observer.py runtime/profile/ runtime/sketch/"),
    _stage(STATISTICS, "runtime/shm/panes_slot.py runtime/shm/panes_writer.py runtime/shm/panes_memory.py"),
    _stage(RECORD, TARGET, "_count"),
    _stage(RECORD, "gateway/telemetry/recorder.py gateway/telemetry/peers.py runtime/shm/"),
    _stage(COPIES, "gateway/worker/copies.py runtime/shadow/"),
)
"""The first rule that fits a frame holds."""

STAGES = (POLL, TAKE, TRACE, DECODE, ROUTE, BATCH, RUN, ENCODE, REPLY, STATISTICS, RECORD, COPIES, UNMAPPED)
"""In the order of a request's way."""


def stage_of_frame(frame: Frame) -> str | None:
    """None where the table has no rule for it."""
    for stage in TABLE:
        if stage.functions and frame.function not in stage.functions:
            continue
        for file in stage.files:
            if f"/{file}" in f"/{frame.file}" if file.endswith("/") else f"/{frame.file}".endswith(f"/{file}"):
                return stage.title
    return None


def stage_of(frames: Sequence[Frame]) -> str:
    """Of a stack, outermost frame first."""
    for frame in reversed(frames):
        stage = stage_of_frame(frame)
        if stage is not None:
            return stage
    return UNMAPPED
