"""From what the stage clocks and the kernel's clocks say to microseconds of processor time a request."""

from __future__ import annotations

from dataclasses import dataclass

from bench.stages.clocks import Reading
from bench.stages.mapping import POLL, RUN, STAGES
from bench.stages.usage import WORKER, Usage


@dataclass(frozen=True, slots=True)
class Profile:
    """One worker under one load: µs of processor time a request.

    `stages_us` and `clocks_us`, what the stage clocks themselves took, add up to the time of the threads that take
    requests; `other_threads_us`: the worker's others; `processes_us`: the server's others.
    """

    requests_per_second: float
    stages_us: dict[str, float]
    clocks_us: float
    other_threads_us: float
    processes_us: dict[str, float]

    @property
    def total_us(self) -> float:
        """Without the clocks."""
        return sum(self.stages_us.values()) + self.other_threads_us + sum(self.processes_us.values())


def attribute(before: Reading, after: Reading, spent: Usage, requests: int, requests_per_second: float) -> Profile:
    """`spent`: between the two readings, in which `requests` were answered.

    Wall time of a stage becomes processor time by the share that its thread ran, of all the time that it could have
    run. `poll` is the rest of the thread's processor time: there it sleeps, and the wall says nothing.
    """
    us = 1e-3 / max(requests, 1)
    stages = dict.fromkeys(STAGES, 0.0)
    clocks = others = 0.0
    empty = [0] * len(STAGES)
    for thread, used in spent.threads.items():
        if thread not in after.ns or not _takes_requests(after, thread):
            others += used.ran_ns
            continue
        ns, opened, within = (
            [now - then for now, then in zip(figures[thread], earlier.get(thread, empty), strict=True)]
            for figures, earlier in (
                (after.ns, before.ns),
                (after.opened, before.opened),
                (after.within, before.within),
            )
        )
        ran = used.ran_ns / max(used.ran_ns + used.waited_ns, 1)
        poll = float(used.ran_ns)
        for at, stage in enumerate(STAGES):
            own = opened[at] * after.cost.inner_ns + within[at] * after.cost.outer_ns
            clocks += own * ran
            if stage == POLL:
                poll -= own * ran
            else:
                stages[stage] += (ns[at] - own) * ran
                poll -= ns[at] * ran
        stages[POLL] += poll
    processes = {name: seconds * 1e9 * us for name, seconds in spent.processes.items() if name != WORKER}
    return Profile(
        requests_per_second=requests_per_second,
        stages_us={stage: taken * us for stage, taken in stages.items()},
        clocks_us=clocks * us,
        other_threads_us=others * us,
        processes_us=processes,
    )


def _takes_requests(reading: Reading, thread: str) -> bool:
    """One that measures values, now and then, does not."""
    return reading.opened[thread][STAGES.index(RUN)] > 0
