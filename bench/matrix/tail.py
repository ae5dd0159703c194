"""A long open loop at half of the capacity: the longest request, when slow ones came, and whether memory grows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial

from rich import box
from rich.table import Table

from bench.generator import WireGenerator
from bench.matrix import tables
from bench.matrix.case import Outcome, Setting
from bench.matrix.memory import Look, growth, slope_bytes_per_minute, watched
from bench.matrix.sections import OPEN, OPEN_CAPACITY
from bench.matrix.servers import ALL_ON, CANARY, VERSIONS
from bench.matrix.table import Verdict, render_claims
from bench.matrix.workload import Workload, workload, write
from bench.process import ServerFailed
from bench.report.of_single import tail_table
from bench.sample import LoadFailed, Measurement
from bench.turn import Place, Question, Turn, take_turn

SLOW_MS = 100.0
SHARE = 0.5
LOOKS = 120
"""At memory, over the run; a look takes some milliseconds of the load's core."""

LEAST_LOOK_SECONDS = 1.0
FLAT = 1.02
"""Memory of the run's last quarter to that of its second, at most."""

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Tail:
    name: str = "tail"
    title: str = "minutes of an open loop at half of the capacity"

    def run(self, setting: Setting) -> Outcome:
        root = setting.folder / self.name
        subject = tables.linear()
        graph = write(subject, root, versions=VERSIONS[CANARY], settings=CANARY)
        place = Place(root, graph, setting.cores, frozenset((setting.cores.server,)))
        try:
            (capacity, measured, looks), _ = take_turn(ALL_ON, place, partial(_act, setting, workload(subject, 1)))
        except (ServerFailed, LoadFailed) as error:
            setting.tell(f"failed: {error}")
            return Outcome((), {"title": self.title, "failures": {ALL_ON.key: str(error)}}, failed=True)
        slow = sum(count for _, count in measured.burst.slow)
        slope = slope_bytes_per_minute(looks)
        totals = [float(sum(each.pss_bytes.values())) for each in looks]
        judged = [
            Verdict(f"requests over {SLOW_MS:g} ms", 0, at_least=False, **_alike(slow), holds=not slow),
            Verdict(
                "memory of the last quarter to that of the second",
                FLAT,
                at_least=False,
                **_alike(growth(looks)),
                holds=growth(looks) <= FLAT,
            ),
        ]
        return Outcome(
            tables=(_table(self.title, setting, capacity, measured, looks), render_claims(judged)),
            document={
                "title": self.title,
                "minutes": setting.minutes,
                "capacity": capacity,
                "measurement": asdict(measured),
                "memory": [{"seconds": each.seconds - looks[0].seconds, **each.pss_bytes} for each in looks],
                "slope_bytes_per_minute": slope,
                "claims": [asdict(verdict) for verdict in judged],
            },
            failed=bool(measured.errors),
            report=(tail_table(setting.minutes, capacity, measured, slow, totals, slope),),
        )


def _alike(value: float) -> Mapping[str, float]:
    return {"median": value, "least": value, "greatest": value}


def _act(setting: Setting, pool: Workload, turn: Turn) -> tuple[float, Measurement, list[Look]]:
    """Requests/s of a closed loop, the long run, and looks at memory in it."""
    generator = WireGenerator(pool.requests, pool.objection, slow_ms=SLOW_MS)
    question = Question.first_of(pool.requests, pool.objection, echoes=False)
    closed = turn.measure(generator, question, OPEN_CAPACITY, 2 * setting.seconds, setting.warm_up_seconds)
    capacity = closed.burst.requests_per_second
    setting.tell(f"capacity {capacity:,.0f} requests/s; {setting.minutes:g} minutes at {SHARE:.0%} of it")
    seconds = setting.minutes * 60
    with watched(turn.server.process.pid, max(seconds / LOOKS, LEAST_LOOK_SECONDS)) as looks:
        measured = turn.measure(
            generator, question, replace(OPEN, rate=SHARE * capacity), seconds, setting.warm_up_seconds
        )
    return capacity, measured, looks.taken


def _table(title: str, setting: Setting, capacity: float, measured: Measurement, looks: list[Look]) -> Table:
    table = Table(title=f"tail: {title}", box=box.SIMPLE_HEAD, show_header=False)
    table.add_column("what", no_wrap=True)
    table.add_column("figure")
    burst = measured.burst
    table.add_row("minutes", f"{setting.minutes:g}")
    table.add_row("capacity, closed loop", f"{capacity:,.0f} requests/s")
    table.add_row("requests that were due, failed", f"{burst.offered:,}, {measured.errors:,}")
    quantiles = (burst.p50_ms, burst.p90_ms, burst.p99_ms, burst.p999_ms, burst.longest_ms)
    table.add_row("p50 / p90 / p99 / p99.9 / longest", " / ".join(f"{ms:.3f}" for ms in quantiles) + " ms")
    table.add_row("the generator noticed late, p99", f"{burst.late_p99_ms:.3f} ms")
    table.add_row("others on a core", f"{measured.others_busy:.0%}")
    slow = ", ".join(f"{count} at {seconds:.1f} s" for seconds, count in burst.slow)
    table.add_row(f"over {SLOW_MS:g} ms", slow or "none")
    if looks:
        for role in looks[-1].pss_bytes:
            first, last = (each.pss_bytes.get(role, 0) / MIB for each in (looks[0], looks[-1]))
            table.add_row(f"memory of {role}, first and last", f"{first:.1f} and {last:.1f} MiB")
        table.add_row("slope of all memory", f"{slope_bytes_per_minute(looks) / MIB:+.3f} MiB a minute")
    return table
