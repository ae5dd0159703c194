"""The loop of a burst: arrivals, sending, waiting, receiving. It returns to Python a few times a second, or when asked.

Open loop, when each request is due follows from a seed alone. Two cursors walk through the same arrivals: `noticed`
sees that one is due, `issued` sends it, as soon as a stream is free. So nothing is queued, and none is forgotten.
"""

from __future__ import annotations

import math

from numba import int64, types, uint64

from bench.generator.answer_kernels import observe
from bench.generator.layout import (
    BROKEN,
    CLOSING,
    CONNECTING,
    DEAD,
    DONE,
    DRAINING,
    EVENT_BYTES,
    EVENT_DATA_AT,
    EVENTS,
    OPEN,
    READY,
    RUNNING,
    SLICE,
    STATE,
)
from bench.generator.receive_kernels import take_all
from bench.generator.send_kernels import end_stream, issue, mark, tend
from bench.generator.system_kernels import clock_ns, load32, wait
from runtime.kernels import kernel

HUNG_UP = 0x2000 | 0x10 | 0x8  # EPOLLRDHUP, EPOLLHUP, EPOLLERR


@kernel(types.float64(uint64, int64, types.float64), allocates=False)
def gap_ns(seed, number, mean_ns):  # type: ignore[no-untyped-def]
    """From arrival `number` to the next: exponential, by splitmix64 of the seed and the number."""
    mixed = seed + uint64(number + 1) * uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> uint64(30))) * uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> uint64(27))) * uint64(0x94D049BB133111EB)
    mixed = mixed ^ (mixed >> uint64(31))
    return -math.log1p(-float(mixed >> uint64(11)) * 2.0**-53) * mean_ns


@kernel(types.void(STATE, int64), allocates=False)
def _notice(state, now_ns):  # type: ignore[no-untyped-def]
    """Counts the arrivals that are due; none is after the burst's end."""
    run = state.run[0]
    limit = float(min(now_ns, run.end_ns) - run.begin_ns)
    while run.notice_ns <= limit:
        observe(state.lateness, now_ns - run.begin_ns - int64(run.notice_ns))
        run.noticed += 1
        run.notice_ns += gap_ns(run.seed, run.noticed, run.gap_ns)


@kernel(types.void(STATE), allocates=False)
def _send_due(state):  # type: ignore[no-untyped-def]
    """The oldest requests that are due go to the connections in turn, as far as streams are free."""
    run = state.run[0]
    refused = 0
    while run.issued < run.noticed and refused < run.connections:
        c = run.rotation
        run.rotation = c + 1 if c + 1 < run.connections else 0
        connection = state.connection[c]
        most = run.streams if run.streaming else min(run.streams, connection.peer_streams)
        began = run.begin_ns + int64(run.issue_ns)
        if connection.state == OPEN and connection.active < most and issue(state, c, began):
            mark(state, c)
            run.issued += 1
            run.issue_ns += gap_ns(run.seed, run.issued, run.gap_ns)
            refused = 0
        else:
            refused += 1


@kernel(int64(STATE), allocates=False)
def _all_open(state):  # type: ignore[no-untyped-def]
    for c in range(state.run[0].connections):
        if state.connection[c].state != OPEN:
            return 0
    return 1


@kernel(int64(STATE), allocates=False)
def _streams_ended(state):  # type: ignore[no-untyped-def]
    run = state.run[0]
    for c in range(run.connections):
        if state.slot[c * run.streams].id != 0:
            return 0
    return 1


@kernel(int64(STATE, int64), allocates=False)
def _progress(state, now_ns):  # type: ignore[no-untyped-def]
    """The phase that the time and what is answered lead to; DONE or READY if Python goes on, else SLICE."""
    run = state.run[0]
    if run.phase == CONNECTING:
        return READY if _all_open(state) else SLICE
    if run.phase == RUNNING and now_ns >= run.end_ns:
        run.phase = DRAINING
    if run.phase == RUNNING:
        return SLICE
    if now_ns >= run.grace_ns:
        return DONE
    if run.phase == DRAINING and run.in_flight == 0 and run.issued == run.noticed:
        if not run.streaming:
            return DONE
        run.phase = CLOSING
        for c in range(run.connections):
            end_stream(state, c)
    if run.phase == CLOSING and _streams_ended(state):
        return DONE
    return SLICE


@kernel(int64(STATE, int64), allocates=False)
def _idle_ns(state, now_ns):  # type: ignore[no-untyped-def]
    """How long there is nothing to do unless something is received."""
    run = state.run[0]
    until = run.slice_ns
    if run.phase == RUNNING:
        until = min(until, run.end_ns)
        if run.open_loop:
            until = min(until, run.begin_ns + int64(math.ceil(run.notice_ns)) - run.spin_ns)
    return max(until - now_ns, 0)


@kernel(int64(STATE), nogil=True, allocates=False)
def drive(state):  # type: ignore[no-untyped-def]
    """Until `slice_ns`, or until Python has to do something: what, is answered."""
    run = state.run[0]
    code = SLICE
    for c in range(run.connections):
        if state.connection[c].resume:
            code = max(code, take_all(state, c))
    while code == SLICE:
        now = clock_ns(state.pause)
        if now >= run.slice_ns:
            return SLICE
        code = _progress(state, now)
        if code != SLICE:
            return code
        if run.open_loop and run.phase != CONNECTING:
            _notice(state, now)
            _send_due(state)
        while run.dirty > 0:
            run.dirty -= 1
            c = int64(state.dirty[run.dirty])
            state.connection[c].dirty = 0
            tend(state, c)
        ready = wait(run.epoll, state.events, EVENTS, state.pause, _idle_ns(state, clock_ns(state.pause)))
        for event in range(ready):
            at = event * EVENT_BYTES
            c = int64(state.owner[int64(load32(state.events, at + EVENT_DATA_AT))])
            connection = state.connection[c]
            if int64(load32(state.events, at)) & HUNG_UP:
                connection.hung_up = 1
            code = max(code, take_all(state, c))
            if connection.state != DEAD:
                mark(state, c)
        if code == SLICE:
            for c in range(run.connections):
                if state.connection[c].state == DEAD and state.connection[c].fd >= 0:
                    code = BROKEN
    return code
