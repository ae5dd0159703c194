"""From samples and processor time to microseconds a request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from bench.stages.mapping import STAGES, stage_of
from bench.stages.sampling import REQUEST_THREADS, Clocks
from bench.stages.stacks import Stack


@dataclass(frozen=True, slots=True)
class Profile:
    """One worker under one load. µs are of processor time, a request; `stages_us` add up to the request threads' time.

    `samples`: stacks of request threads; `functions`: of those, how many ended in which function of which file.
    """

    requests_per_second: float
    stages_us: dict[str, float]
    kernel_us: float
    other_threads_us: float
    processes_us: dict[str, float]
    samples: int
    functions: dict[str, int]

    @property
    def request_threads_us(self) -> float:
        return sum(self.stages_us.values())

    @property
    def total_us(self) -> float:
        return self.request_threads_us + self.other_threads_us + sum(self.processes_us.values())


def attribute(stacks: Iterable[Stack], clocks: Clocks, requests: int, requests_per_second: float) -> Profile:
    """`clocks`: what was used for `requests`, in a load like that which the stacks were taken under."""
    of_requests = [stack for stack in stacks if stack.thread.startswith(REQUEST_THREADS)]
    by_stage: Counter[str] = Counter()
    by_function: Counter[str] = Counter()
    for stack in of_requests:
        by_stage[stage_of(stack.frames)] += stack.samples
        if stack.frames:
            by_function[f"{stack.frames[-1].function} ({stack.frames[-1].file})"] += stack.samples
    samples = sum(by_stage.values())
    us_a_second = 1e6 / max(requests, 1)
    thread_us = clocks.request_threads * us_a_second
    return Profile(
        requests_per_second=requests_per_second,
        stages_us={stage: by_stage[stage] / max(samples, 1) * thread_us for stage in STAGES},
        kernel_us=clocks.request_threads_kernel * us_a_second,
        other_threads_us=clocks.other_threads * us_a_second,
        processes_us={name: seconds * us_a_second for name, seconds in clocks.processes.items()},
        samples=samples,
        functions=dict(by_function.most_common()),
    )
