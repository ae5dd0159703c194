"""Which function of the worker opens which stage of a request's way: one table.

Time belongs to the stage that was opened last and is still open. So what such a function calls counts as its own,
unless the table names it too, and what nothing here names, on a thread that takes requests, is `poll`: the C-core's
completion queue, and the loop around it.
"""

from __future__ import annotations

POLL = "poll: C-core reads and parses; the loop"
TAKE = "take: a call, its metadata, its message"
POST = "post: ask the C-core for another call"
TRACE = "trace: context in"
BATCH = "batch: admit, lease, queue, gather"
DECODE = "decode"
ROUTE = "route: choose among versions"
RUN = "run: ONNX Runtime"
ENCODE = "encode"
REPLY = "reply: C-core frames and sends"
STATISTICS = "measure: values of inputs and outputs"
RECORD = "record: counters, request records"
COPY = "copy: for shadows"

STAGES = (POLL, TAKE, POST, TRACE, BATCH, DECODE, ROUTE, RUN, ENCODE, REPLY, STATISTICS, RECORD, COPY)
"""In the order of a request's way. `poll` comes first: it is open where nothing else is."""

OPENED_BY = {
    "gateway.worker.transport.queue:QueueTransport._take_safely": TAKE,
    "gateway.worker.transport.queue:QueueTransport._post_infer": POST,
    "gateway.worker.transport.queue:QueueStream._on_sent": REPLY,
    "gateway.worker.streams:InferStream.settled": REPLY,
    "gateway.worker.pipeline:Pipeline._begin": TRACE,
    "gateway.worker.pipeline:Pipeline.infer": BATCH,
    "gateway.worker.pipeline:Pipeline._decode": DECODE,
    "gateway.routing.table:Junction.lead": ROUTE,
    "runtime.onnx.session:Session.run": RUN,
    "gateway.worker.target:Target.answered": REPLY,
    "gateway.wire.encode:Encoder.encode": ENCODE,
    "gateway.worker.target:Target._end": BATCH,
    "gateway.worker.observer:VersionObserver.observe": STATISTICS,
    "gateway.worker.target:Target._count": RECORD,
    "gateway.telemetry.recorder:Recorder.answered": RECORD,
    "gateway.worker.copies:Copier.offer": COPY,
}
