"""Which generator makes the load: ours, which looks at every reply, or h2load to check its figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.generator import WireGenerator
from bench.load import H2Load
from bench.model import Workload
from bench.sample import Generator

Choice = Literal["wire", "h2load"]


@dataclass(frozen=True, slots=True)
class Generators:
    """The same load for servers that run the model and for those that echo; they owe different replies."""

    for_models: Generator
    for_echoes: Generator

    @property
    def name(self) -> str:
        return self.for_models.name

    def of(self, *, echoes: bool) -> Generator:
        return self.for_echoes if echoes else self.for_models


def generator_of(choice: Choice, workload: Workload, folder: Path) -> Generators:
    """`folder`: for h2load's files."""
    if choice == "h2load":
        h2load = H2Load(workload.request, folder)
        return Generators(h2load, h2load)
    requests = workload.requests

    def not_echoed(index: int, reply: bytes) -> str | None:
        return None if reply == requests[index] else "an echo gave other bytes than it got"

    return Generators(WireGenerator(requests, workload.objection), WireGenerator(requests, not_echoed))
