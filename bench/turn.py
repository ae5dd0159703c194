"""A server under measurement: one load on it at a time, with what is checked around each."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from bench.catalogue import ServerSpec, Site
from bench.cores import Cores, Usage, own_seconds, strays, used_seconds
from bench.exports import Recorded, Sent, objection, settled
from bench.load import unanswered
from bench.probe import REPEATS, reply_bytes
from bench.process import RunningServer, ServerFailed, free_ports, running
from bench.receiver import Received, Receiver, receiving
from bench.sample import Generator, Load, Measurement

T = TypeVar("T")

LEAST_REST_SECONDS = 11.0
"""A gateway collects what was seen each ten seconds; at the first time it opens all versions."""

MOST_REST_SECONDS = 60.0
QUIET_SECONDS = 2.0
QUIET_SHARE = 0.05
"""Of a core: what collects, exports and looks after things without a request takes less."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a plain client asks before and after each load; `objection` says why a reply is no answer to it."""

    request: bytes
    objection: Callable[[bytes], str | None]

    @classmethod
    def first_of(
        cls, requests: tuple[bytes, ...], objection: Callable[[int, bytes], str | None], *, echoes: bool
    ) -> Question:
        """The first of a pool; of an echo, that it gives back what it got."""
        request = requests[0]

        def not_echoed(reply: bytes) -> str | None:
            return None if reply == request else "an echo gave other bytes than it got"

        return cls(request, not_echoed if echoes else partial(objection, 0))


@dataclass(frozen=True, slots=True)
class Turn:
    """A server, with what takes its telemetry, and what it has been sent so far. `on`: the cores that it may use."""

    spec: ServerSpec
    server: RunningServer
    receiver: Receiver | None
    cores: Cores
    on: frozenset[int]
    sent: Sent = field(default_factory=Sent)

    def measure(
        self, generator: Generator, question: Question, load: Load, seconds: float, warm_up_seconds: float
    ) -> Measurement:
        """Raises ServerFailed, LoadFailed."""
        expected_bytes = self._checked_reply_bytes(question)
        if stray := strays(self.server.tree(), self.on):
            raise ServerFailed(f"threads {stray} may leave cores {sorted(self.on)}")
        self.sent.add_burst(generator(self.server.port, load, warm_up_seconds))
        before = self._usage()
        burst = generator(self.server.port, load, seconds)
        after = self._usage()
        self.sent.add_burst(burst)
        self.server.check_alive()
        self._checked_reply_bytes(question)
        spent = after.since(before)
        # Where the generator does not look at replies, it leaves some requests undecided: their bytes are counted.
        errors = burst.failed + (unanswered(burst, expected_bytes) if burst.undecided else 0)
        return Measurement(
            burst=burst,
            began_seconds=before.wall_seconds,
            ended_seconds=after.wall_seconds,
            errors=errors,
            server_busy=spent.server_seconds / spent.wall_seconds,
            load_busy=spent.load_seconds / spent.wall_seconds,
            receiver_busy=spent.receiver_seconds / spent.wall_seconds,
            others_busy=spent.others_seconds(shared=len(self.on) > 1 or self.cores.shared) / spent.wall_seconds,
            requests_per_cpu_second=burst.requests / max(spent.server_seconds, 0.01),
        )

    def rest(self) -> None:
        """Until the server does nothing to speak of, after its first pane. Raises ServerFailed if it never does."""
        time.sleep(LEAST_REST_SECONDS)
        give_up = time.monotonic() + MOST_REST_SECONDS
        while True:
            before = self.server.cpu_seconds()
            time.sleep(QUIET_SECONDS)
            if self.server.cpu_seconds() - before < QUIET_SHARE * QUIET_SECONDS:
                return
            if time.monotonic() > give_up:
                raise ServerFailed(f"it was still busy {MOST_REST_SECONDS:g} s after it was ready, without a request")

    def _usage(self) -> Usage:
        receiver_seconds = self.receiver.cpu_seconds() if self.receiver is not None else 0.0
        return Usage(
            wall_seconds=time.monotonic(),
            server_seconds=self.server.cpu_seconds(),
            load_seconds=own_seconds() + receiver_seconds,
            receiver_seconds=receiver_seconds,
            # Where the server has more than one core, one clock stands for all of them.
            server_core_seconds=sum(map(used_seconds, self.on)),
            load_core_seconds=used_seconds(self.cores.load),
        )

    def _checked_reply_bytes(self, question: Question) -> int:
        size = reply_bytes(self.server.port, question.request, question.objection)
        self.sent.add(REPEATS)
        return size


@dataclass(frozen=True, slots=True)
class Place:
    """What a server serves, and where. `on`: the cores that it may use; more than one only to see what that brings."""

    repository: Path
    model_file: Path
    cores: Cores
    on: frozenset[int]


def take_turn(spec: ServerSpec, place: Place, act: Callable[[Turn], T]) -> tuple[T, tuple[Recorded, Received] | None]:
    """What `act` makes of a fresh process, and what that recorded and exported in its life; None if it exports nothing.

    Raises ServerFailed, also where telemetry is lost and not counted, and LoadFailed.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-server-")))
        receiver = stack.enter_context(receiving()) if spec.exports else None
        port, http_port, admin_port = free_ports(3)
        site = Site(
            port=port,
            http_port=http_port,
            admin_port=admin_port,
            repository=place.repository,
            model_file=place.model_file,
            folder=folder,
            otlp_port=receiver.port if receiver is not None else 0,
            otlp_http_port=receiver.http_port if receiver is not None else 0,
        )
        with running(spec, site, *place.on) as server:
            turn = Turn(spec, server, receiver, place.cores, place.on)
            given = act(turn)
            recorded = settled(spec, http_port) if spec.exports else None
        if receiver is None or recorded is None:
            return given, None
        # The server has ended, and with it its last export.
        received = receiver.report()
        if complaint := objection(spec, turn.sent, recorded, received):
            raise ServerFailed(complaint)
        return given, (recorded, received)
