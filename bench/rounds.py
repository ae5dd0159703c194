"""Rounds of all servers, interleaved, so that the machine's noise falls on all alike."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.catalogue import ServerSpec, Site
from bench.cores import Cores, Usage, own_seconds, strays, used_seconds
from bench.exports import Sent, objection, settled, summed_up
from bench.generators import Generators
from bench.load import unanswered
from bench.model import Workload
from bench.probe import REPEATS, reply_bytes
from bench.process import RunningServer, ServerFailed, free_ports, running
from bench.receiver import Receiver, receiving
from bench.sample import MANY_IN_FLIGHT, ONE_IN_FLIGHT, Load, LoadFailed, Measurement, Sample


@dataclass(frozen=True, slots=True)
class Plan:
    servers: tuple[ServerSpec, ...]
    rounds: int
    seconds: float
    warm_up_seconds: float


@dataclass(frozen=True, slots=True)
class Results:
    """`rounds[i]` holds the samples of round i by server key; `failures` says why a server gave no more of them."""

    rounds: list[dict[str, Sample]]
    failures: dict[str, str]


@dataclass(frozen=True, slots=True)
class Turn:
    """A server under measurement, with what takes its telemetry, and what it has been sent so far."""

    spec: ServerSpec
    server: RunningServer
    receiver: Receiver | None
    sent: Sent


@dataclass(frozen=True, slots=True)
class Bench:
    workload: Workload
    generator: Generators
    cores: Cores
    plan: Plan

    def run(self, report: Callable[[int, ServerSpec, Sample | str], None]) -> Results:
        """A server that fails is left out of the rounds that follow; `report` hears of each sample or failure."""
        results = Results(rounds=[], failures={})
        for round_index in range(self.plan.rounds):
            self.round(round_index, results, report)
        return results

    def round(
        self, round_index: int, results: Results, report: Callable[[int, ServerSpec, Sample | str], None]
    ) -> None:
        """One more round, added to `results`."""
        samples: dict[str, Sample] = {}
        results.rounds.append(samples)
        # Another one starts each round: what the place in a round does to a server, it does to all.
        start = round_index % len(self.plan.servers)
        for spec in self.plan.servers[start:] + self.plan.servers[:start]:
            if spec.key in results.failures:
                continue
            try:
                samples[spec.key] = self.sample(spec)
            except (ServerFailed, LoadFailed) as error:
                results.failures[spec.key] = str(error)
            report(round_index, spec, samples.get(spec.key) or results.failures[spec.key])

    def sample(self, spec: ServerSpec) -> Sample:
        """A fresh process under both loads. Raises ServerFailed, LoadFailed."""
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-server-")))
            receiver = stack.enter_context(receiving()) if spec.exports else None
            port, http_port, admin_port = free_ports(3)
            site = Site(
                port=port,
                http_port=http_port,
                admin_port=admin_port,
                repository=self.workload.canary_repository if spec.routes else self.workload.repository,
                model_file=self.workload.model_file,
                folder=folder,
                otlp_port=receiver.port if receiver is not None else 0,
                otlp_http_port=receiver.http_port if receiver is not None else 0,
            )
            with running(spec, site, self.cores.server) as server:
                turn = Turn(spec, server, receiver, Sent())
                many, one = (self._measure(turn, load) for load in (MANY_IN_FLIGHT, ONE_IN_FLIGHT))
                recorded = settled(spec, http_port) if spec.exports else None
            if receiver is None or recorded is None:
                return Sample(many, one)
            # The server has ended, and with it its last export.
            received = receiver.report()
            if complaint := objection(spec, turn.sent, recorded, received):
                raise ServerFailed(complaint)
            return Sample(many, one, summed_up(recorded, received, many))

    def _measure(self, turn: Turn, load: Load) -> Measurement:
        server = turn.server
        expected_bytes = self._checked_reply_bytes(turn)
        if stray := strays(server.tree(), self.cores.server):
            raise ServerFailed(f"threads {stray} may leave core {self.cores.server}")
        generator = self.generator.of(echoes=turn.spec.echoes)
        turn.sent.add_burst(generator(server.port, load, self.plan.warm_up_seconds))
        before = self._usage(turn)
        burst = generator(server.port, load, self.plan.seconds)
        after = self._usage(turn)
        turn.sent.add_burst(burst)
        server.check_alive()
        self._checked_reply_bytes(turn)
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
            others_busy=spent.others_seconds(shared=self.cores.shared) / spent.wall_seconds,
            requests_per_cpu_second=burst.requests / max(spent.server_seconds, 0.01),
        )

    def _usage(self, turn: Turn) -> Usage:
        receiver_seconds = turn.receiver.cpu_seconds() if turn.receiver is not None else 0.0
        return Usage(
            wall_seconds=time.monotonic(),
            server_seconds=turn.server.cpu_seconds(),
            load_seconds=own_seconds() + receiver_seconds,
            receiver_seconds=receiver_seconds,
            server_core_seconds=used_seconds(self.cores.server),
            load_core_seconds=used_seconds(self.cores.load),
        )

    def _checked_reply_bytes(self, turn: Turn) -> int:
        objection_to = self._not_echoed if turn.spec.echoes else partial(self.workload.objection, 0)
        size = reply_bytes(turn.server.port, self.workload.request, objection_to)
        turn.sent.add(REPEATS)
        return size

    def _not_echoed(self, reply: bytes) -> str | None:
        return None if reply == self.workload.request else "an echo gave other bytes than it got"
