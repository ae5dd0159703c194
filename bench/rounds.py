"""Rounds of all servers, interleaved, so that the machine's noise falls on all alike."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.catalogue import ServerSpec, Site
from bench.cores import Cores, Usage, own_seconds, strays, used_seconds
from bench.model import Workload
from bench.probe import reply_bytes
from bench.process import RunningServer, ServerFailed, free_ports, running
from bench.sample import MANY_IN_FLIGHT, ONE_IN_FLIGHT, Generator, Load, LoadFailed, Measurement, Sample, unanswered


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
class Bench:
    workload: Workload
    generator: Generator
    cores: Cores
    plan: Plan

    def run(self, report: Callable[[int, ServerSpec, Sample | str], None]) -> Results:
        """A server that fails is left out of the rounds that follow; `report` hears of each sample or failure."""
        results = Results(rounds=[], failures={})
        for round_index in range(self.plan.rounds):
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
        return results

    def sample(self, spec: ServerSpec) -> Sample:
        """A fresh process under both loads. Raises ServerFailed, LoadFailed."""
        with tempfile.TemporaryDirectory(prefix="bench-server-") as folder:
            port, http_port, admin_port = free_ports(3)
            site = Site(port, http_port, admin_port, self.workload.repository, self.workload.model_file, Path(folder))
            with running(spec, site, self.cores.server) as server:
                return Sample(
                    many=self._measure(spec, server, MANY_IN_FLIGHT), one=self._measure(spec, server, ONE_IN_FLIGHT)
                )

    def _measure(self, spec: ServerSpec, server: RunningServer, load: Load) -> Measurement:
        expected_bytes = self._checked_reply_bytes(spec, server)
        if stray := strays(server.tree(), self.cores.server):
            raise ServerFailed(f"threads {stray} may leave core {self.cores.server}")
        self.generator(server.port, load, self.plan.warm_up_seconds)
        before = self._usage(server)
        burst = self.generator(server.port, load, self.plan.seconds)
        spent = self._usage(server).since(before)
        server.check_alive()
        self._checked_reply_bytes(spec, server)
        # A failed request has no reply either: the larger count holds both.
        errors = max(burst.failed, unanswered(burst, load, expected_bytes))
        return Measurement(
            burst=burst,
            errors=errors,
            server_busy=spent.server_seconds / spent.wall_seconds,
            load_busy=spent.load_seconds / spent.wall_seconds,
            others_busy=spent.others_seconds(shared=self.cores.shared) / spent.wall_seconds,
            requests_per_cpu_second=burst.requests / max(spent.server_seconds, 0.01),
        )

    def _usage(self, server: RunningServer) -> Usage:
        return Usage(
            wall_seconds=time.perf_counter(),
            server_seconds=server.cpu_seconds(),
            load_seconds=own_seconds(),
            server_core_seconds=used_seconds(self.cores.server),
            load_core_seconds=used_seconds(self.cores.load),
        )

    def _checked_reply_bytes(self, spec: ServerSpec, server: RunningServer) -> int:
        return reply_bytes(
            server.port, self.workload.request, self._not_echoed if spec.echoes else self.workload.objection
        )

    def _not_echoed(self, reply: bytes) -> str | None:
        return None if reply == self.workload.request else "an echo gave other bytes than it got"
