"""Cases under loads of their own, which take turns in rounds, as one table; claims of them as another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from bench.report.results import Column, Row, Table
from bench.sample import Load, Measurement

Round = Mapping[str, Mapping[str, Measurement]]
"""By case, by step."""


class AnyStep(Protocol):
    """A load, and what is sent."""

    @property
    def key(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def load(self) -> Load: ...


class AnyCase(Protocol):
    """A server under some loads; `against`: the case that it is held against, under the same."""

    @property
    def key(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def steps(self) -> Sequence[AnyStep]: ...
    @property
    def against(self) -> str: ...


class AnyClaim(Protocol):
    @property
    def title(self) -> str: ...
    @property
    def figure(self) -> Callable[[Round], float]: ...
    @property
    def bound(self) -> float: ...
    @property
    def at_least(self) -> bool: ...


MEASURED: dict[Column, Callable[[Measurement], float]] = {
    Column("rate", "answered", "requests/s", spread=True): lambda m: m.burst.requests_per_second,
    Column("p50", "p50", "ms", ".3g"): lambda m: m.burst.p50_ms,
    Column("p90", "p90", "ms", ".3g"): lambda m: m.burst.p90_ms,
    Column("p99", "p99", "ms", ".3g"): lambda m: m.burst.p99_ms,
    Column("p999", "p99.9", "ms", ".3g"): lambda m: m.burst.p999_ms,
    Column("longest", "longest", "ms", ".3g"): lambda m: m.burst.longest_ms,
    Column("cpu", "CPU a request", "µs", ",.1f"): lambda m: m.cpu_us_per_request,
    Column("server_busy", "of the server's core used", format=".0%"): lambda m: m.server_busy,
    Column("load_busy", "of the load's core used", format=".0%"): lambda m: m.load_busy,
    Column("others_busy", "of a core taken by others", format=".0%"): lambda m: m.others_busy,
    Column("errors", "errors", format=",.0f"): lambda m: m.errors,
}
RATIO = Column("ratio", "to what it is held against", "", ".2f", spread=True, of="rate")
CPU_BEYOND = Column("cpu_beyond", "beyond what it is held against", "µs", "+,.1f", of="cpu", how="difference")


def cases_table(name: str, title: str, cases: Sequence[AnyCase], rounds: Sequence[Round], note: str = "") -> Table:
    """A row for each case and step that was measured, `CASE/STEP`, in the steps' order."""
    places = {key: place for place, key in enumerate(dict.fromkeys(step.key for case in cases for step in case.steps))}
    pairs = sorted(((case, step) for case in cases for step in case.steps), key=lambda pair: places[pair[1].key])
    rows = (_row(case, step, rounds) for case, step in pairs)
    measured = tuple(row for row in rows if any(value is not None for value in row.values["rate"]))
    return Table(name, title, (*MEASURED, RATIO, CPU_BEYOND), measured, "case", note)


def _row(case: AnyCase, step: AnyStep, rounds: Sequence[Round]) -> Row:
    taken = [by_case.get(case.key, {}).get(step.key) for by_case in rounds]
    return Row(
        key=f"{case.key}/{step.key}",
        title=f"{case.title}: {step.title}",
        values={
            column.key: tuple(figure(one) if one is not None else None for one in taken)
            for column, figure in MEASURED.items()
        },
        against=f"{case.against}/{step.key}" if case.against else "",
        series=case.title,
        x=step.title,
    )


def claims_table(name: str, claims: Sequence[AnyClaim], rounds: Sequence[Round]) -> Table:
    """A row for each; `bound` is the same in all rounds. A round without its cases has no figure."""
    columns = (Column("figure", "measured", "", ".2f", spread=True), Column("bound", "claimed", "", "g"))
    rows = tuple(
        Row(
            f"{name}-{number}",
            f"{claim.title}: {'at least' if claim.at_least else 'at most'}",
            {
                "figure": tuple(_figure(claim, one) for one in rounds),
                "bound": (claim.bound,) * len(rounds),
            },
        )
        for number, claim in enumerate(claims, 1)
    )
    return Table(f"{name}-claims", "What is claimed", columns, rows, "claim")


def _figure(claim: AnyClaim, samples: Round) -> float | None:
    try:
        return claim.figure(samples)
    except KeyError:
        return None
