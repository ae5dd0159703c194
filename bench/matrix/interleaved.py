"""A section of cases that take turns in rounds, so that the machine's noise falls on all alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from bench.generator import WireGenerator
from bench.matrix import limit
from bench.matrix.case import Case, Claim, Outcome, Setting, Step
from bench.matrix.table import render, render_claims, rows_of, verdicts
from bench.matrix.workload import Workload
from bench.process import ServerFailed
from bench.report.of_matrix import cases_table, claims_table
from bench.sample import Generator, LoadFailed, Measurement
from bench.servers import PATH, STREAM_PATH
from bench.turn import Place, Question, Turn, take_turn


@dataclass(frozen=True, slots=True)
class Results:
    """`rounds[i]`: by case, by step; `failures`: why a case gave no more of them."""

    rounds: list[dict[str, dict[str, Measurement]]]
    failures: dict[str, str]


@dataclass(frozen=True, slots=True)
class Interleaved:
    """`cases`: made in a folder, of models that are trained there; `caption`: what the table's reader must know."""

    name: str
    title: str
    cases: Callable[[Path], tuple[Case, ...]]
    claims: tuple[Claim, ...] = ()
    caption: str = ""

    def run(self, setting: Setting) -> Outcome:
        folder = setting.folder / self.name
        folder.mkdir()
        made = self.cases(folder)
        cases = tuple(case for case in made if any(fnmatchcase(case.key, only) for only in setting.only))
        results = rounds_of(cases, setting, Generators())
        rows = rows_of(cases, results.rounds)
        judged = verdicts(self.claims, results.rounds)
        tables = [render(f"{self.name}: {self.title}", rows, results.failures, self._method(setting))]
        if judged:
            tables.append(render_claims(judged))
        return Outcome(
            tables=tuple(tables),
            document={
                "title": self.title,
                "rows": [asdict(row) for row in rows],
                "claims": [asdict(verdict) for verdict in judged],
                "failures": results.failures,
                "rounds": [
                    {case: {step: asdict(each) for step, each in steps.items()} for case, steps in samples.items()}
                    for samples in results.rounds
                ],
            },
            failed=bool(results.failures) or any(row.errors for row in rows),
            report=(
                cases_table(self.name, self.title, cases, results.rounds, self.caption),
                *([claims_table(self.name, self.claims, results.rounds)] if judged else []),
            ),
        )

    def _method(self, setting: Setting) -> str:
        what = f"medians of {setting.rounds} rounds of {setting.seconds:g} s, ratios too"
        return "\n".join(
            filter(None, (self.caption, f"{what}; !: the load's core was the limit, or others took of a core"))
        )


class Generators:
    """One for each pool of requests, echoed or answered, unary or streamed: it keeps what it has judged."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, bool, bool], tuple[Workload, Generator]] = {}

    def of(self, workload: Workload, *, echoes: bool, streaming: bool) -> Generator:
        key = (id(workload), echoes, streaming)
        if key not in self._made:  # the workload is kept with it, so that its id stays its own
            objection = workload.streamed_objection if streaming else workload.objection
            if echoes:
                objection = partial(_not_echoed, workload.requests)
            path = STREAM_PATH if streaming else PATH
            self._made[key] = (workload, WireGenerator(workload.requests, objection, path))
        return self._made[key][1]


def _not_echoed(requests: tuple[bytes, ...], index: int, reply: bytes) -> str | None:
    return None if reply == requests[index] else "an echo gave other bytes than it got"


def rounds_of(cases: tuple[Case, ...], setting: Setting, generators: Generators) -> Results:
    """A case that fails is left out of the rounds that follow."""
    results = Results([], {})
    for index in range(setting.rounds):
        samples: dict[str, dict[str, Measurement]] = {}
        results.rounds.append(samples)
        # Another one starts each round: what the place in a round does to a case, it does to all.
        start = index % len(cases)
        for case in cases[start:] + cases[:start]:
            if case.key in results.failures:
                continue
            try:
                samples[case.key] = _measured(case, setting, generators)
            except (ServerFailed, LoadFailed) as error:
                results.failures[case.key] = str(error)
                setting.tell(f"{case.title} failed: {error}")
                continue
            rates = ", ".join(f"{each.burst.requests_per_second:,.0f}" for each in samples[case.key].values())
            setting.tell(f"round {index + 1}  {case.title}: {rates} requests/s")
            for note in {note for each in samples[case.key].values() for note in each.burst.notes}:
                setting.tell(f"  {note}")
    return results


def _measured(case: Case, setting: Setting, generators: Generators) -> dict[str, Measurement]:
    """All of a case's steps. Raises ServerFailed, LoadFailed."""
    if case.spec is None:
        return {
            step.key: limit.measure(
                case.graph,
                step.workload,
                step.times_longer * setting.seconds,
                setting.warm_up_seconds,
                setting.cores.server,
            )
            for step in case.steps
        }
    cores = setting.cores
    on = frozenset((cores.server, cores.load) if case.both_cores else (cores.server,))
    place = Place(case.repository, case.graph, cores, on)
    measured, _ = take_turn(case.spec, place, partial(_steps, case, setting, generators))
    return measured


def _steps(case: Case, setting: Setting, generators: Generators, turn: Turn) -> dict[str, Measurement]:
    measured: dict[str, Measurement] = {}
    capacity = 0.0
    if case.rests:
        turn.rest()
    for step in case.steps:
        measured[step.key] = measure(turn, step, setting, generators, capacity)
        capacity = capacity or measured[step.key].burst.requests_per_second
    return measured


def measure(turn: Turn, step: Step, setting: Setting, generators: Generators, capacity: float) -> Measurement:
    """`capacity`: requests/s, of which an open loop's rate is a share. Raises ServerFailed, LoadFailed."""
    workload, echoes = step.workload, turn.spec.echoes
    load = step.load if step.share is None else replace(step.load, rate=step.share * capacity)
    generator = generators.of(workload, echoes=echoes, streaming=load.streaming)
    question = Question.first_of(workload.requests, workload.objection, echoes=echoes)
    return turn.measure(generator, question, load, step.times_longer * setting.seconds, setting.warm_up_seconds)
