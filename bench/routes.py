"""`python -m bench.routes`: CPU time, in ns, to decide where a request goes: median and least of rounds."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from statistics import median

from rich.console import Console
from rich.table import Table

from gateway.routing.decision import grouped
from gateway.routing.router import Router
from gateway.routing.table import ModelRoute, RouteTable
from runtime.routing.document import parse_route
from runtime.routing.route import Route

REQUESTS = 20_000
ROUNDS = 9
BATCH = 32

METADATA = (("user-agent", "grpc-python/1.85"), ("x-region", "eu-west-1"), ("x-user-id", ""))
"""Of most clients, with the key at the end, where it is found last."""

CANARY = "sticky: {metadata: x-user-id}\nsplit: {stable: 90, canary: 10}"
RULES = "rules:\n" + "\n".join(f"  - {{name: r{n}, when: {{x-tier: t{n}}}, to: canary}}" for n in range(8))
REGEX = 'rules: [{name: eu, when: {x-region: {regex: "us-[a-z]+-[0-9]+"}}, to: canary}]'
MANY = "sticky: {metadata: x-user-id}\nsplit: {" + ", ".join(f"v{n}: {n + 1}" for n in range(16)) + "}"

Case = tuple[str, Callable[[], object]]


def deciding(route: Route, version: str = "", *, keyed: bool = True) -> Callable[[], object]:
    router = Router("model", route)
    if keyed:
        requests = [(*METADATA[:2], ("x-user-id", f"user-{number:09}")) for number in range(REQUESTS)]
    else:
        requests = [METADATA] * REQUESTS

    def run() -> None:
        decide = router.decide
        for metadata in requests:
            decide(version, metadata)

    return run


def leading() -> Callable[[], object]:
    """As a worker asks it: to the decision, and from there to what answers."""
    router = Router("model", parse_route(CANARY))
    table = RouteTable([ModelRoute("model", {1: "one", 2: "two"}, {"stable": 1, "canary": 2}, router=router)])
    requests = [(*METADATA[:2], ("x-user-id", f"user-{number:09}")) for number in range(REQUESTS)]

    def run() -> None:
        lead = table.junctions["model"].lead
        for metadata in requests:
            lead(metadata, None, "")

    return run


def grouping() -> Callable[[], object]:
    router = Router("model", parse_route(CANARY))
    requests = [f"user-{number:09}" for number in range(REQUESTS)]
    decisions = [router.decide("", [("x-user-id", request)]) for request in requests]
    batches = [(requests[at : at + BATCH], decisions[at : at + BATCH]) for at in range(0, REQUESTS, BATCH)]

    def run() -> None:
        for batch, decided in batches:
            grouped(batch, decided)

    return run


def cases() -> Sequence[Case]:
    canary = parse_route(CANARY)
    return (
        ("a version is named", deciding(canary, "3")),
        ("no route: the default", deciding(Route())),
        ("two variants, key in the metadata", deciding(canary)),
        ("the same, and the version that it leads to", leading()),
        ("two variants, no key: drawn", deciding(canary, keyed=False)),
        ("sixteen variants, key in the metadata", deciding(parse_route(MANY))),
        ("eight rules whose key is not sent, two variants", deciding(parse_route(f"{RULES}\n{CANARY}"))),
        ("a regular expression that does not match, two variants", deciding(parse_route(f"{REGEX}\n{CANARY}"))),
        (f"grouping {BATCH} decided requests, each", grouping()),
    )


def nanoseconds(run: Callable[[], object]) -> tuple[float, float]:
    """Median and least of the rounds, for each of REQUESTS, the loop included."""
    times = []
    for _ in range(ROUNDS):
        gc.collect()
        began = time.thread_time_ns()  # of the processor: what others run meanwhile is none of it
        run()
        times.append((time.thread_time_ns() - began) / REQUESTS)
    return median(times), min(times)


def main() -> None:
    table = Table("request", "median", "least")
    for title, run in cases():
        table.add_row(title, *(f"{time_ns:,.0f}" for time_ns in nanoseconds(run)))
    Console().print(table)


if __name__ == "__main__":
    main()
