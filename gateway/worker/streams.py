"""ModelStreamInfer: each message of a stream is a request of the pipeline; answers keep the order of the requests.

Errors of a request go into `error_message` and the stream goes on, unless the client sent the metadata
`triton_grpc_error: true`, which ends the stream with a status. A stream holds at most MAX_IN_FLIGHT
requests and answers that its client has not taken yet; then it is not read.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from google.protobuf.message import DecodeError

from gateway.errors import Draining, Status, status_of
from gateway.telemetry.context import Begun
from gateway.wire.encode import stream_answer, stream_error
from gateway.wire.pb.inference import grpc_service_pb2 as pb
from gateway.worker.transport.interface import Call, Headers, Metadata, Stream

MAX_IN_FLIGHT = 64
DRAINING = status_of(Draining("the server is shutting down: open the stream anew, to another"), "ModelStreamInfer")
GRPC_ERRORS = "triton_grpc_error"
FINAL_PARAMETER = "triton_enable_empty_final_response"


class StreamCall:
    """One request of a stream, as the pipeline's Call."""

    __slots__ = (
        "_handler",
        "answer_bytes",
        "deadline_seconds",
        "final",
        "id",
        "metadata",
        "method",
        "model",
        "received_ns",
        "status",
        "trace",
    )
    streamed = True

    def __init__(self, handler: InferStream, payload: bytes) -> None:
        stream = handler.stream
        self._handler = handler
        self.method = stream.method
        self.metadata: Metadata = stream.metadata
        self.deadline_seconds = stream.deadline_seconds
        self.received_ns = time.monotonic_ns()
        self.trace: Begun | None = None
        self.answer_bytes: bytes | None = None
        self.status: Status | None = None
        self.id, self.model, self.final = "", "", False
        try:
            message = pb.ModelInferRequest.FromString(payload)
        except DecodeError:
            return  # the pipeline refuses it with the reason
        self.id, self.model = message.id, message.model_name
        self.final = FINAL_PARAMETER in message.parameters and message.parameters[FINAL_PARAMETER].bool_param

    @property
    def cancelled(self) -> bool:
        return self._handler.stream.cancelled

    @property
    def authority(self) -> str:
        return self._handler.stream.authority

    def peer(self) -> str:
        return self._handler.stream.peer()

    peer_key = peer

    def watch(self) -> None:
        """A stream always watches."""

    def answer(self, payload: bytes, headers: Headers | None = None) -> None:  # noqa: ARG002  (a stream has sent its own)
        self.answer_bytes = payload
        self._handler.settled()

    def refuse(self, status: Status) -> None:
        self.status = status
        self._handler.settled()


class InferStreams:
    """The open streams. At the end of the worker each finishes what it has taken on, and then ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[InferStream] = set()
        self._draining = False

    def open(self, stream: Stream) -> InferStream:
        handler = InferStream(stream, self._open.discard)
        with self._lock:
            self._open.add(handler)
            draining = self._draining
        if draining:
            handler.drain()
        return handler

    def drain(self) -> None:
        with self._lock:
            self._draining = True
            handlers = list(self._open)
        for handler in handlers:
            handler.drain()


class InferStream:
    """The handler of one stream. `on_end` is called when it takes no more part in anything."""

    def __init__(self, stream: Stream, on_end: Callable[[InferStream], None]) -> None:
        self.stream = stream
        self._on_end = on_end
        self._draining = False
        self._lock = threading.Lock()
        self._waiting: deque[StreamCall] = deque()
        self._unsent = 0
        self._finished = False
        self._half_closed = False
        self._paused = False
        self._status_on_error = any(key == GRPC_ERRORS and value in ("true", b"true") for key, value in stream.metadata)

    def message(self, payload: bytes) -> tuple[Call, bytes] | None:
        call = StreamCall(self, payload)
        with self._lock:
            self._waiting.append(call)
            self._paused = self._full()
            read_on = not self._paused and not self._draining
        if read_on:
            self.stream.read()
        return call, payload

    def drain(self) -> None:
        """Reads no more; ends when what has been read is answered."""
        with self._lock:
            self._draining = True
            over = not self._waiting
        if over:
            self._finish(DRAINING)

    def half_closed(self) -> None:
        with self._lock:
            self._half_closed = True
            over = not self._waiting
        if over:
            self._finish(None)

    def cancelled(self) -> None:
        with self._lock:
            self._waiting.clear()
        self._on_end(self)

    def settled(self) -> None:
        """Sends, in order, every answer at the head of the stream that is there."""
        end: Status | None = None
        with self._lock:
            if self._finished:
                return
            while self._waiting and end is None:
                head = self._waiting[0]
                if head.answer_bytes is not None:
                    self._unsent += 1
                    self.stream.send(stream_answer(head.answer_bytes, final=head.final))
                elif head.status is None:
                    break
                elif self._status_on_error:
                    end = head.status
                else:
                    self._unsent += 1
                    self.stream.send(stream_error(head.status.message, head.id, head.model))
                self._waiting.popleft()
            over = (self._half_closed or self._draining) and not self._waiting
            self._finished = end is not None or over
            if over and not self._half_closed:
                end = end or DRAINING
        if end is not None or over:
            self._finish(end)
        else:
            self._read_on()

    def sent(self) -> None:
        with self._lock:
            self._unsent -= 1
        self._read_on()

    def _read_on(self) -> None:
        with self._lock:
            if not self._paused or self._full() or self._draining:
                return
            self._paused = False
        self.stream.read()

    def _full(self) -> bool:
        return len(self._waiting) + self._unsent >= MAX_IN_FLIGHT

    def _finish(self, status: Status | None) -> None:
        self._on_end(self)
        self.stream.end(status)
