"""The generator: opens connections, lets the compiled loop run, judges the replies it has not seen before."""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Self

import numpy as np

from bench.generator.buffers import Memory, begin_connection, make_state, with_longer_places
from bench.generator.histogram import bucket_of, quantile_ms
from bench.generator.hpack import request_blocks
from bench.generator.http2 import closing
from bench.generator.layout import (
    BROKEN,
    COMPLAINTS,
    CONNECTING,
    DEAD,
    DONE,
    DRAINING,
    GROW,
    JUDGE,
    READY,
    RUNNING,
    State,
    reserved,
)
from bench.generator.loop_kernels import drive, gap_ns
from bench.generator.system_kernels import clock_ns, wait, wake_exactly
from bench.sample import Burst, Load, LoadFailed
from bench.servers import HOST, PATH

SLICE_NS = 100_000_000
"""How long the loop runs without a look at signals: Python's handlers wait for it."""

CONNECT_SECONDS = 10.0
MOST_RECONNECTS = 1_000
"""In a burst: a server that closes what it accepts is not asked for ever."""

MOST_PLACE_BYTES = 256 * 2**20
"""The longest reply that may come in pieces."""

SPIN_NS = 100_000
"""Open loop: so long before a request is due the thread is awake, because waking takes time."""

EVENTS = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
NANO = 1_000_000_000


class WireGenerator:
    """Sends `requests`, serialised messages, in turn; `objection(i, reply)` says why `reply` is no answer to request i.

    It is asked once for each distinct reply to a request, over the life of the generator: replies are told apart by
    their bytes. `path`: of the RPC; `headers`: sent with each request. What is unanswered `grace_seconds` after a
    burst's end has failed. Arrivals of an open loop follow from `seed`. `slow_ms`: when answers came that took longer
    is told.
    """

    name = "wire"

    def __init__(
        self,
        requests: tuple[bytes, ...],
        objection: Callable[[int, bytes], str | None],
        path: str = PATH,
        headers: tuple[tuple[str, str], ...] = (),
        *,
        grace_seconds: float = 30.0,
        seed: int = 1,
        slow_ms: float | None = None,
    ) -> None:
        if not requests:
            raise ValueError("a generator needs at least one request")
        self._messages = tuple(struct.pack(">BI", 0, len(request)) + request for request in requests)
        self._objection = objection
        self._path = path
        self._headers = headers
        self._grace_ns = round(grace_seconds * NANO)
        self._seed = seed
        self.slow_from = None if slow_ms is None else bucket_of(round(slow_ms * 1e6))
        self._memory = Memory.empty()
        self._wrong: dict[int, str] = {}
        """Answers, by their place in the memory, that are objected to, and why."""

    def __call__(self, port: int, load: Load, seconds: float) -> Burst:
        """Raises LoadFailed when nothing was answered rightly, or the server cannot be connected to."""
        blocks = request_blocks(f"{HOST}:{port}", self._path, self._headers)
        state = make_state(load, self._messages, blocks, self._memory)
        with _Burst(state, port, self) as burst:
            burst.connect()
            burst.run(load, round(seconds * NANO))
        return self._summed_up(burst, load, seconds)

    def judge(self, state: State) -> None:
        """The replies that are aside; none is left there."""
        run = state.run[0]
        for index in range(int(run["judged"]), int(run["answers"])):
            answer = state.answer[index]
            at = int(answer["aside_at"])
            reply = state.aside[at : at + int(answer["size"])].tobytes()
            if (complaint := self._objection(int(answer["request"]), reply)) is not None:
                self._wrong[index] = complaint
        run["judged"] = self._memory.answers = int(run["answers"])
        run["aside_fill"] = 0

    def make_room(self, state: State) -> State:
        """Aside, for a reply that may be new."""
        self.judge(state)
        need = int(state.run[0]["need_bytes"])
        if need <= len(state.aside):
            return state
        self._memory.aside = reserved(2 * need)
        state.run[0]["aside_bytes"] = len(self._memory.aside)
        return state._replace(aside=self._memory.aside)

    def lengthen(self, state: State) -> State:
        """Places for a reply that is longer than any before."""
        need = int(state.run[0]["need_bytes"])
        if need > MOST_PLACE_BYTES:
            raise LoadFailed(f"a reply has {need:,} bytes; at most {MOST_PLACE_BYTES:,} are taken")
        self._memory.place_bytes = 1 << (need - 1).bit_length()
        return with_longer_places(state, self._memory.place_bytes)

    def _summed_up(self, burst: _Burst, load: Load, seconds: float) -> Burst:
        state, run = burst.state, burst.state.run[0]
        self.judge(state)
        wrong = {index: int(state.answer[index]["count"]) for index in self._wrong}
        wrong_replies = sum(wrong.values())
        never_sent = int(run["noticed"] - run["issued"])
        unanswered = int(run["in_flight"]) + never_sent
        statuses = {index - 1: int(count) for index, count in enumerate(state.statuses) if count}
        if unanswered:
            statuses[-1] = statuses.get(-1, 0) + unanswered
        notes = [f"{count} replies: {self._wrong[index]}" for index, count in wrong.items() if count]
        notes += [f"{count} times: {COMPLAINTS[complaint]}" for complaint, count in burst.complaints.items()]
        if unanswered:
            notes.append(f"{unanswered} requests unanswered at the end, {never_sent} of them never sent")
        if run["overflowed"]:
            notes.append(f"{run['overflowed']} replies too many to be told apart: they count as failed")
        requests = int(run["answered"]) - wrong_replies
        if not requests:
            raise LoadFailed("; ".join(["no request was answered rightly", f"statuses {statuses}", *notes]))
        quantiles = [quantile_ms(state.latency, share) for share in (0.5, 0.9, 0.99, 0.999)]
        p50_ms, p90_ms, p99_ms, p999_ms = quantiles
        return Burst(
            requests=requests,
            failed=int(run["failed"]) + wrong_replies + unanswered,
            reply_bytes=int(run["reply_bytes"]),
            requests_per_second=max(int(run["in_time"]) - wrong_replies, 0) / seconds,
            p50_ms=p50_ms,
            p90_ms=p90_ms,
            p99_ms=p99_ms,
            p999_ms=p999_ms,
            longest_ms=float(run["longest_ns"]) / 1e6,
            statuses=statuses,
            distinct_replies=int(np.count_nonzero(state.answer["count"])),
            offered=int(run["sent"] if load.rate is None else run["noticed"]),
            late_p99_ms=0.0 if load.rate is None else quantile_ms(state.lateness, 0.99),
            slow=tuple(burst.slow),
            notes=tuple(notes),
        )


class _Burst:
    """One burst's connections. Use as a context: at its end they are closed."""

    def __init__(self, state: State, port: int, generator: WireGenerator) -> None:
        self.state = state
        self.complaints: Counter[int] = Counter()
        self.slow: list[tuple[float, int]] = []
        self._slow_count = 0
        self._port = port
        self._generator = generator
        self._sockets: dict[int, socket.socket] = {}
        self._reconnects = MOST_RECONNECTS
        self._epoll = select.epoll()

    def __enter__(self) -> Self:
        self.state.run[0]["epoll"] = self._epoll.fileno()
        return self

    def __exit__(self, *_: object) -> None:
        for c in list(self._sockets):
            with suppress(OSError):
                self._sockets[c].send(closing())
            self._close(c)
        self._epoll.close()

    def connect(self) -> None:
        """All connections, until each peer has said its settings. Raises LoadFailed."""
        if wait(self._epoll.fileno(), self.state.events, 1, self.state.pause, 0) < 0:
            raise LoadFailed(f"epoll_pwait2 (Linux 5.11) fails: {errno.errorcode.get(38)}")
        run = self.state.run[0]
        run["phase"] = CONNECTING
        for c in range(int(run["connections"])):
            try:
                self._open(c)
            except OSError as error:
                raise LoadFailed(f"no connection to port {self._port}: {error}") from error
        deadline = time.monotonic() + CONNECT_SECONDS
        while (code := self._drive()) != READY:
            if code == BROKEN:
                raise LoadFailed(f"no HTTP/2 on port {self._port}: {self._first_complaint()}")
            if time.monotonic() > deadline:
                raise LoadFailed(f"the peer said no HTTP/2 settings within {CONNECT_SECONDS:.0f} s")

    def run(self, load: Load, length_ns: int) -> None:
        """From the first request to the last answer, or to the end of the grace."""
        run = self.state.run[0]
        seed = self._generator._seed  # noqa: SLF001
        wake_exactly()
        if load.rate is not None:
            run["open_loop"], run["gap_ns"], run["seed"] = 1, NANO / load.rate, seed
            run["spin_ns"] = SPIN_NS
            run["notice_ns"] = run["issue_ns"] = gap_ns(np.uint64(seed), 0, NANO / load.rate)
        run["phase"] = RUNNING
        for c in range(int(run["connections"])):
            if not self.state.connection[c]["dirty"]:
                self.state.connection[c]["dirty"] = 1
                self.state.dirty[run["dirty"]] = c
                run["dirty"] += 1
        run["begin_ns"] = clock_ns(self.state.pause)
        run["end_ns"] = run["begin_ns"] + length_ns
        run["grace_ns"] = run["end_ns"] + self._generator._grace_ns  # noqa: SLF001
        while (code := self._drive_and_look()) != DONE:
            if code == GROW:
                self.state = self._generator.lengthen(self.state)
            elif code == JUDGE:
                self.state = self._generator.make_room(self.state)
            elif code == BROKEN and not self._mend():
                return

    def _drive_and_look(self) -> int:
        """A slice of the loop, and whether slow answers came in it."""
        code = self._drive()
        if (slow_from := self._generator.slow_from) is not None:
            count = int(self.state.latency[slow_from:].sum())
            if count > self._slow_count:
                seconds = (clock_ns(self.state.pause) - int(self.state.run[0]["begin_ns"])) / NANO
                self.slow.append((round(seconds, 1), count - self._slow_count))
                self._slow_count = count
        return code

    def _drive(self) -> int:
        self.state.run[0]["slice_ns"] = clock_ns(self.state.pause) + SLICE_NS
        return int(drive(self.state))

    def _open(self, c: int) -> None:
        link = socket.create_connection((HOST, self._port), timeout=CONNECT_SECONDS)
        link.setblocking(False)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sockets[c] = link
        begin_connection(self.state, c, link.fileno())
        self._epoll.register(link.fileno(), EVENTS)

    def _close(self, c: int) -> None:
        link = self._sockets.pop(c)
        self._epoll.unregister(link.fileno())
        link.close()
        self.state.connection[c]["fd"] = -1

    def _first_complaint(self) -> str:
        dead = self.state.connection[self.state.connection["state"] == DEAD]
        return COMPLAINTS[int(dead[0]["complaint"])]

    def _mend(self) -> bool:
        """Dead connections are closed and, while there is more to send, replaced; False if none is left."""
        run = self.state.run[0]
        for c in np.flatnonzero(self.state.connection["state"] == DEAD).tolist():
            if c not in self._sockets:
                continue
            complaint = int(self.state.connection[c]["complaint"])
            self.complaints[complaint] += 1
            self._close(c)
            goes_on = run["phase"] == RUNNING or (run["phase"] == DRAINING and run["issued"] < run["noticed"])
            if goes_on and self._reconnects > 0:
                self._reconnects -= 1
                with suppress(OSError):
                    self._open(c)
        return bool(self._sockets)
