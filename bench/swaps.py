"""`python -m bench.swaps`: what swaps of versions cost the requests that are in flight meanwhile.

One gateway on one core, 64 requests in flight. Slices without a change, slices in which a version is loaded in place of
another, and slices in which the default moves between versions that are loaded, take turns, so that the machine's noise
falls on all alike. A version weighs up to 20 MB. Every answer of a load is counted; a ratio is the median of the
rounds' own ratios to the slice without a change.
"""

from __future__ import annotations

import itertools
import json
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import click
import grpc
import numpy as np
import onnx
from onnx import numpy_helper
from rich import box
from rich.console import Console
from rich.table import Table

from bench import cores, model
from bench.catalogue import DRIFTGATE, Site
from bench.generator import WireGenerator
from bench.process import ServerFailed, free_ports, running
from bench.sample import MANY_IN_FLIGHT, Burst, Generator
from bench.servers import HOST
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from gateway.wire.pb.driftgate.admin.v1.admin_pb2_grpc import AdminStub

MEGABYTES = {1: 0, 2: 2, 3: 20, 4: 8}
"""Version → how much it weighs beside the model of the benchmark."""

KINDS = ("steady", "load", "default")
PAUSE_SECONDS = 0.2  # between two changes of a slice
CALL_SECONDS = 60.0


@dataclass
class Slice:
    burst: Burst
    errors: int
    swap_seconds: list[float] = field(default_factory=list)


def with_ballast(graph: bytes, megabytes: int) -> bytes:
    """The same model, which takes the time to read and load of one that is larger."""
    proto = onnx.load_from_string(graph)
    weights = np.ones(megabytes * 2**20 // 4, np.float32)
    proto.graph.initializer.append(numpy_helper.from_array(weights, "ballast"))
    heavy: bytes = proto.SerializeToString()
    return heavy


def write_versions(workload: model.Workload) -> None:
    """Versions 2 to 4 beside version 1, each with its profile: looks for drift are a part of what is measured."""
    folder = workload.repository / model.MODEL_NAME
    graph = workload.model_file.read_bytes()
    for version, megabytes in MEGABYTES.items():
        file = folder / str(version) / "model.onnx"
        if megabytes:
            file.parent.mkdir()
            file.write_bytes(with_ballast(graph, megabytes))
            shutil.copy(folder / "profiles" / "1.profile", folder / "profiles" / f"{version}.profile")


class Operator:
    """Makes the changes of a slice, one after another."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub: Any = AdminStub(channel)  # type: ignore[no-untyped-call]  # generated
        self._versions = itertools.cycle(MEGABYTES)

    def prepare(self, kind: str) -> None:
        """What a slice begins with: for `default` all versions are loaded, else one."""
        versions = list(MEGABYTES) if kind == "default" else [next(self._versions)]
        self._stub.SetDefault(pb.SetDefaultRequest(model=model.MODEL_NAME, target=""), timeout=CALL_SECONDS)
        self._stub.LoadModel(pb.LoadModelRequest(model=model.MODEL_NAME, versions=versions), timeout=CALL_SECONDS)

    def change(self, kind: str) -> None:
        version = next(self._versions)
        if kind == "load":
            self._stub.LoadModel(pb.LoadModelRequest(model=model.MODEL_NAME, versions=[version]), timeout=CALL_SECONDS)
        elif kind == "default":
            request = pb.SetDefaultRequest(model=model.MODEL_NAME, target=str(version))
            self._stub.SetDefault(request, timeout=CALL_SECONDS)

    @contextmanager
    def changing(self, kind: str) -> Iterator[list[float]]:
        """Changes go on within; what they took, in seconds, is in the list after it. Raises what one raised."""
        took: list[float] = []
        failed: list[Exception] = []
        ended = threading.Event()

        def forever() -> None:
            try:
                while not ended.wait(PAUSE_SECONDS):
                    began = time.perf_counter()
                    self.change(kind)
                    took.append(time.perf_counter() - began)
            except Exception as error:
                failed.append(error)

        thread = threading.Thread(target=forever, name="changes")
        if kind != "steady":
            thread.start()
        try:
            yield took
        finally:
            ended.set()
            if kind != "steady":
                thread.join()
        if failed:
            raise ServerFailed(f"a change failed: {failed[0]}")


def measure(operator: Operator, port: int, generator: Generator, rounds: int, seconds: float) -> list[dict[str, Slice]]:
    """The slices of each round by kind. Raises ServerFailed, LoadFailed."""
    found: list[dict[str, Slice]] = []
    generator(port, MANY_IN_FLIGHT, seconds / 2)  # for what is done at a first use
    for turn in range(rounds):
        slices: dict[str, Slice] = {}
        for kind in KINDS[turn % len(KINDS) :] + KINDS[: turn % len(KINDS)]:
            operator.prepare(kind)
            with operator.changing(kind) as took:
                burst = generator(port, MANY_IN_FLIGHT, seconds)
            slices[kind] = Slice(burst, burst.failed, took)
        found.append(slices)
    return found


def render(found: list[dict[str, Slice]], seconds: float, generator: str) -> Table:
    caption = f"medians of {len(found)} rounds of {seconds:g} s, 64 in flight, load by {generator}"
    table = Table(box=box.SIMPLE_HEAD, title="What swaps cost the requests in flight", caption=caption)
    for head in ("slices", "requests/s", "errors", "p50 ms", "p99 ms", "p99 to steady", "swaps", "a swap takes"):
        table.add_column(head, justify="left" if head == "slices" else "right")
    titles = {"steady": "nothing changes", "load": "a version is loaded", "default": "the default moves"}
    for kind in KINDS:
        slices = [each[kind] for each in found]
        ratios = [each[kind].burst.p99_ms / each["steady"].burst.p99_ms for each in found]
        swaps = [took for one in slices for took in one.swap_seconds]
        table.add_row(
            titles[kind],
            f"{median(one.burst.requests_per_second for one in slices):,.0f}",
            str(sum(one.errors for one in slices)),
            f"{median(one.burst.p50_ms for one in slices):.2f}",
            f"{median(one.burst.p99_ms for one in slices):.2f}",
            f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
            str(len(swaps)),
            f"{1e3 * median(swaps):.0f} ms" if swaps else "-",
        )
    return table


@contextmanager
def serving(workload: model.Workload, folder: Path, core: int) -> Iterator[Site]:
    """The product with its defaults, on one core."""
    port, http_port, admin_port = free_ports(3)
    (folder / "server").mkdir()
    site = Site(port, http_port, admin_port, workload.repository, workload.model_file, folder / "server")
    with running(DRIFTGATE, site, core) as server:
        yield site
        server.check_alive()


@click.command(help=__doc__)
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="Slices of each kind.")
@click.option("--seconds", default=3.0, show_default=True, type=click.FloatRange(0.3), help="Of each slice.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all slices there.")
def main(*, rounds: int, seconds: float, json_file: Path | None) -> None:
    pair = cores.choose()
    with cores.pinned(pair.load), tempfile.TemporaryDirectory(prefix="bench-swaps-") as name:
        folder = Path(name)
        workload = model.build(folder)
        write_versions(workload)
        generator = WireGenerator(workload.requests, workload.objection)
        options = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))
        with (
            serving(workload, folder, pair.server) as site,
            grpc.insecure_channel(f"{HOST}:{site.admin_port}", options=options) as channel,
        ):
            found = measure(Operator(channel), site.port, generator, rounds, seconds)
    Console(width=None if sys.stdout.isatty() else 160).print(render(found, seconds, generator.name))
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps([{k: asdict(v) for k, v in each.items()} for each in found], indent=2) + "\n")
    if any(one.errors for each in found for one in each.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main(prog_name="python -m bench.swaps")
