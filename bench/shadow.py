"""`python -m bench.shadow`: what a shadow costs the clients of the version that answers.

One gateway, three copies of one model: one alone; one with a shadow that gets all and takes 20 times as long; one with
a shadow of its own speed that gets a tenth. Each gets the same load, at stated times and not when the answer before has
come, in slices that take turns, so that the machine's noise falls on all alike. Between two slices what waits is worked
off. Latencies count from the time at which a request was to be sent.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import click
import grpc.aio
import numpy as np
import onnx
import onnxruntime
import psutil  # type: ignore[import-untyped]
from onnx import TensorProto, helper, numpy_helper
from rich import box
from rich.console import Console
from rich.table import Table

from bench import model
from bench.servers import HOST, PATH
from gateway.wire.pb.inference import grpc_service_pb2 as pb
from runtime.shadow.ring_map import CopyCounter, CopyCounts, map_copy_ring
from runtime.shm.segment import Segment

TIMES_SLOWER = 20
BATCH = 16  # rows of the run by which that is measured
WIDTH = 256
LATE_SECONDS = 1.0
CONNECTIONS = 8
TICK_SECONDS = 0.001
CALL_SECONDS = 10.0
SETTLE_SECONDS = 60.0
START_SECONDS = 90.0
SHARES = {"alone": 0, "all": 100, "tenth": 10}
"""Model → percent of its runs that are copied."""


@dataclass
class Slice:
    """`late_ms`: float64[requests], from when each was due to its answer."""

    late_ms: list[float] = field(default_factory=list)
    failed: int = 0

    def quantile(self, q: float) -> float:
        return float(np.quantile(self.late_ms, q))


def slower(graph: bytes, times: float) -> tuple[bytes, float]:
    """The same answers by a graph that takes `times` as long for a run of BATCH rows, and how many times it was."""
    plain = _run_seconds(graph)
    layers = 1
    while True:
        slow = with_layers(graph, layers)
        ratio = _run_seconds(slow) / plain
        if ratio >= times:
            return slow, ratio
        layers = max(layers + 1, int(layers * min(times / ratio, 2)))


def with_layers(graph: bytes, layers: int) -> bytes:
    """The input goes through `layers` products of matrices, and what is left of them, nothing, is added to it."""
    proto = onnx.load_from_string(graph)
    name = proto.graph.input[0].name
    random = np.random.default_rng(1)
    sizes = [30, *[WIDTH] * layers, 30]
    nodes, last = [], name
    for index, (rows, columns) in enumerate(itertools.pairwise(sizes)):
        weights = random.normal(0, 0.05, (rows, columns)).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(weights, f"slow_w{index}"))
        nodes += [
            helper.make_node("MatMul", [last, f"slow_w{index}"], [f"slow_{index}"]),
            helper.make_node("Tanh", [f"slow_{index}"], [f"slow_t{index}"]),
        ]
        last = f"slow_t{index}"
    proto.graph.initializer.append(helper.make_tensor("slow_zero", TensorProto.FLOAT, [], [0.0]))
    nodes += [helper.make_node("Mul", [last, "slow_zero"], ["slow_nothing"])]
    nodes += [helper.make_node("Add", [name, "slow_nothing"], ["slow_input"])]
    for node in proto.graph.node:
        node.input[:] = ["slow_input" if each == name else each for each in node.input]
    before = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*nodes, *before])
    slow: bytes = proto.SerializeToString()
    return slow


def _run_seconds(graph: bytes) -> float:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    x = np.zeros((BATCH, 30), np.float32)
    took = []
    for _ in range(200):
        began = time.perf_counter()
        session.run(None, {"X": x})
        took.append(time.perf_counter() - began)
    return median(took)


def write_models(folder: Path, times: float = TIMES_SLOWER) -> tuple[Path, bytes, float]:
    """The repository, a request without a model's name, and how much slower the slow version is."""
    workload = model.build(folder)
    graph = workload.model_file.read_bytes()
    slow, ratio = slower(graph, times)
    root = folder / "shadowed"
    for name, percent in SHARES.items():
        for version, content in ((1, graph), (2, slow if percent == 100 else graph)):
            file = root / name / str(version) / "model.onnx"
            file.parent.mkdir(parents=True)
            file.write_bytes(content)
        shadows = f"route: {{shadows: [{{to: 2, percent: {percent}}}]}}\n" if percent else ""
        (root / name / "model.yaml").write_text(f"versions: all\ndefault: 1\n{shadows}")
    return root, workload.request, ratio


class Gateway:
    """`driftgate serve`, and the rings of its workers."""

    def __init__(self, root: Path, folder: Path, workers: int) -> None:
        state = folder / "state"
        config = folder / "config.yaml"
        config.write_text(json.dumps({"shadow": {"late_seconds": LATE_SECONDS}, "repository": {"settle_seconds": 0}}))
        command = [sys.executable, "-m", "gateway", "serve", "--models", str(root), "--config", str(config)]
        command += ["--state-dir", str(state), "--workers", str(workers)]
        command += [f"--{port}={HOST}:0" for port in ("grpc", "http", "admin")]
        self._log = (folder / "server.log").open("wb")
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)
        try:
            file = state / "endpoints.json"
            _until(file.exists, START_SECONDS)
            self.address = json.loads(file.read_text())["grpc"]
            rings = [map_copy_ring(Segment.attach(fd, writable=False)) for fd in self._ring_fds()]
            self.counter = CopyCounter(rings)
        except BaseException:
            self.end()
            raise

    def _ring_fds(self) -> Iterator[int]:
        """The supervisor owns them; whoever runs as the same user may map them. A mapping has a descriptor too."""
        folder = Path(f"/proc/{self.process.pid}/fd")
        rings = {str(file.readlink()): file for file in folder.iterdir()}
        for name, file in sorted(rings.items()):
            if "memfd:driftgate-copies-" in name:
                yield os.open(file, os.O_RDONLY)

    def counts(self, name: str) -> CopyCounts:
        return next((counts for key, counts in self.counter.counts().items() if key.model == name), CopyCounts())

    def ready(self) -> bool:
        """The two shadows are loaded: copies are not refused for want of them."""
        return sum(counts.chosen > sum(counts.shed.values()) for counts in self.counter.counts().values()) == 2

    def settled(self) -> bool:
        return all(counts.waiting == 0 for counts in self.counter.counts().values())

    def shadow_process(self) -> psutil.Process:
        children = psutil.Process(self.process.pid).children(recursive=True)
        return next(child for child in children if "gateway.shadow" in child.cmdline())

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        self._log.close()


def _until(condition: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise click.ClickException(f"waited {seconds:g} s in vain for {condition.__name__}")
        time.sleep(0.05)


@contextmanager
def serving(root: Path, folder: Path, workers: int) -> Iterator[Gateway]:
    gateway = Gateway(root, folder, workers)
    try:
        yield gateway
    finally:
        gateway.end()


class Clients:
    """Connections that send at stated times."""

    def __init__(self, address: str, request: bytes) -> None:
        options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))
        self._channels = [grpc.aio.insecure_channel(address, options=options) for _ in range(CONNECTIONS)]
        self._calls: list[Any] = [channel.unary_unary(PATH) for channel in self._channels]
        self._payloads = {}
        for name in SHARES:
            message = pb.ModelInferRequest.FromString(request)
            message.model_name = name
            self._payloads[name] = message.SerializeToString()

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()

    async def until_served(self, name: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while (await self._one(name, Slice(), time.perf_counter())) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.1)  # what another process does has no event here

    async def capacity(self, name: str, seconds: float, in_flight: int = 64) -> float:
        """Requests per second with so many in flight at all times."""
        taken = Slice()
        end = time.perf_counter() + seconds

        async def forever() -> None:
            while time.perf_counter() < end:
                await self._one(name, taken, time.perf_counter())

        await asyncio.gather(*(forever() for _ in range(in_flight)))
        return len(taken.late_ms) / seconds

    async def slice(self, name: str, rate: float, seconds: float) -> Slice:
        """Requests come by chance, `rate` a second on average."""
        taken = Slice()
        random = np.random.default_rng(7)
        due = np.cumsum(random.exponential(1 / rate, int(rate * seconds)))
        began = time.perf_counter()
        tasks: set[asyncio.Task[bool]] = set()
        for moment in due.tolist():
            while (wait := began + moment - time.perf_counter()) > 0:  # noqa: ASYNC110
                await asyncio.sleep(wait if wait > TICK_SECONDS else 0)
            task = asyncio.create_task(self._one(name, taken, began + moment))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
        return taken

    async def _one(self, name: str, into: Slice, due: float) -> bool:
        """True if it failed."""
        call = self._calls[len(into.late_ms) % CONNECTIONS]
        try:
            await call(self._payloads[name], timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError:
            into.failed += 1
            return True
        into.late_ms.append((time.perf_counter() - due) * 1e3)
        return False


async def measure(gateway: Gateway, request: bytes, rounds: int, seconds: float, load: float) -> Table:
    clients = Clients(gateway.address, request)
    try:
        for name in SHARES:
            await clients.until_served(name)
        await clients.capacity("tenth", seconds)
        while not gateway.ready():
            await clients.capacity("all", 0.2)
            await clients.capacity("tenth", 0.2)
        await _settle(gateway)
        capacity = await clients.capacity("alone", seconds)
        rate = capacity * load
        slices: dict[str, list[Slice]] = {name: [] for name in SHARES}
        spent: dict[str, float] = dict.fromkeys(SHARES, 0.0)
        before = {name: gateway.counts(name) for name in SHARES}
        gc.disable()
        for turn in range(rounds):
            names = list(SHARES)[turn % len(SHARES) :] + list(SHARES)[: turn % len(SHARES)]
            for name in names:
                gc.collect()
                idle = sum(gateway.shadow_process().cpu_times()[:2])
                slices[name].append(await clients.slice(name, rate, seconds))
                spent[name] += sum(gateway.shadow_process().cpu_times()[:2]) - idle
                await _settle(gateway)
        return _table(gateway, slices, before, spent, capacity, rate, seconds)
    finally:
        gc.enable()
        await clients.close()


async def _settle(gateway: Gateway) -> None:
    deadline = time.monotonic() + SETTLE_SECONDS
    while not gateway.settled():
        if time.monotonic() > deadline:
            raise click.ClickException(f"copies still wait after {SETTLE_SECONDS:g} s")
        await asyncio.sleep(0.05)


def _table(
    gateway: Gateway,
    slices: dict[str, list[Slice]],
    before: dict[str, CopyCounts],
    spent: dict[str, float],
    capacity: float,
    rate: float,
    seconds: float,
) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=f"{rate:,.0f} requests/s, of {capacity:,.0f}/s in a closed loop")
    for head in ("model", "failed", "p50 ms", "p99 ms", "p99 to alone", "chosen", "compared", "shed", "shadow's core"):
        table.add_column(head, justify="left" if head == "model" else "right")
    for name, taken in slices.items():
        ratios = [one.quantile(0.99) / alone.quantile(0.99) for one, alone in zip(taken, slices["alone"], strict=True)]
        now, then = gateway.counts(name), before[name]
        shed: dict[str, int] = {}
        for kind in ("shed", "outcomes"):
            for reason, count in getattr(now, kind).items():
                shed[reason] = shed.get(reason, 0) + count - getattr(then, kind).get(reason, 0)
        compared, failed = shed.pop("compared", 0), shed.pop("failed", 0)
        table.add_row(
            f"{name} ({SHARES[name]} %)",
            str(sum(one.failed for one in taken)),
            f"{median(one.quantile(0.5) for one in taken):.2f}",
            f"{median(one.quantile(0.99) for one in taken):.2f}",
            f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
            str(now.chosen - then.chosen),
            str(compared) + (f", {failed} failed" if failed else ""),
            ", ".join(f"{count} {reason}" for reason, count in shed.items() if count) or "0",
            f"{spent[name] / (len(taken) * seconds):.0%}",
        )
    return table


@click.command(help=__doc__)
@click.option("--rounds", default=10, show_default=True, help="Slices of each model.")
@click.option("--seconds", default=3.0, show_default=True, help="Of each slice.")
@click.option("--load", default=0.5, show_default=True, help="Of the rate that a closed loop reaches.")
@click.option("--workers", default=1, show_default=True)
def main(rounds: int, seconds: float, load: float, workers: int) -> None:
    folder = Path(tempfile.mkdtemp(prefix="bench-shadow-"))
    try:
        root, request, ratio = write_models(folder)
        with serving(root, folder, workers) as gateway:
            table = asyncio.run(measure(gateway, request, rounds, seconds, load))
        console = Console(width=None if sys.stdout.isatty() else 160)
        console.print(f"the slow version takes {ratio:.1f} times as long for {BATCH} rows")
        console.print(table)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
