"""Rounds of all servers, interleaved, so that the machine's noise falls on all alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.catalogue import ServerSpec
from bench.cores import Cores
from bench.exports import summed_up
from bench.generators import Generators
from bench.model import Workload
from bench.process import ServerFailed
from bench.sample import MANY_IN_FLIGHT, ONE_IN_FLIGHT, Load, LoadFailed, Measurement, Sample
from bench.turn import Place, Question, Turn, take_turn


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
        repository = self.workload.canary_repository if spec.routes else self.workload.repository
        place = Place(repository, self.workload.model_file, self.cores, frozenset((self.cores.server,)))

        def both(turn: Turn) -> tuple[Measurement, Measurement]:
            return self._measure(turn, MANY_IN_FLIGHT), self._measure(turn, ONE_IN_FLIGHT)

        (many, one), account = take_turn(spec, place, both)
        return Sample(many, one, account and summed_up(*account, many))

    def _measure(self, turn: Turn, load: Load) -> Measurement:
        echoes = turn.spec.echoes
        question = Question.first_of(self.workload.requests, self.workload.objection, echoes=echoes)
        return turn.measure(
            self.generator.of(echoes=echoes), question, load, self.plan.seconds, self.plan.warm_up_seconds
        )
