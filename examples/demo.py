"""The main job, shown: real models, real clients at load, live swaps, and a worker killed in the middle.

Run by `make demo`. Builds the example repository, starts the gateway with two workers on free ports, and sends held-out
rows of four data sets through tritonclient while versions are swapped. Every answer is compared with what ONNX Runtime
gives for the version that answered. Exits 0 only if no request failed and every answer was right.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import grpc
import numpy as np
import onnxruntime as ort
import tritonclient.grpc as triton
from rich.console import Console
from rich.table import Table
from rows import load_rows

from gateway.wire.pb.driftgate.admin.v1 import admin_pb2, admin_pb2_grpc

HERE = Path(__file__).resolve().parent
MODELS = ("breast_cancer", "patients", "diabetes", "digits")
CLIENTS_PER_MODEL = 4
ROWS_PER_REQUEST = 2
START_SECONDS = 60
RETRIES = 20  # of a request whose connection the killed worker took with it
TRITON_TYPES = {"O": "BYTES", "f": "FP32"}
console = Console(width=None if sys.stdout.isatty() else 100)


@dataclass
class Tally:
    """What the clients of one model saw."""

    answers: Counter[str] = field(default_factory=Counter)
    milliseconds: list[float] = field(default_factory=list)
    retried: int = 0
    failures: list[str] = field(default_factory=list)
    wrong: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Reference:
    """ONNX Runtime itself on the files of the repository: what each version must answer."""

    def __init__(self, repository: Path) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.rows = {model: load_rows(model) for model in MODELS}
        self.answers = {
            (model, folder.name): ort.InferenceSession(str(folder / "model.onnx"), options).run(None, self.rows[model])
            for model in MODELS
            for folder in (repository / model).iterdir()
            if folder.name.isdigit()
        }

    def agrees(self, model: str, version: str, result: triton.InferResult, start: int) -> bool:
        expected = self.answers[model, version]
        for output, whole in zip(result.get_response().outputs, expected, strict=True):
            got, want = result.as_numpy(output.name), whole[start : start + ROWS_PER_REQUEST]
            if got.dtype.kind == "O":
                got = np.array([element.decode() for element in got.ravel()], object).reshape(got.shape)
            same = np.allclose(got, want, atol=1e-5) if want.dtype.kind == "f" else np.array_equal(got, want)
            if not same:
                return False
        return True


class Clients:
    """Closed loops of a stock client: each sends its next request when the last is answered."""

    def __init__(self, address: str, reference: Reference) -> None:
        self._address = address
        self._reference = reference
        self._stop = threading.Event()
        self.tallies = {model: Tally() for model in MODELS}
        self._threads = [
            threading.Thread(target=self._run, args=(model, seed))
            for model in MODELS
            for seed in range(CLIENTS_PER_MODEL)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def answered(self) -> int:
        return sum(sum(tally.answers.values()) for tally in self.tallies.values())

    def _run(self, model: str, seed: int) -> None:
        tally, rows = self.tallies[model], self._reference.rows[model]
        total = len(next(iter(rows.values())))
        # A subchannel pool of its own: each client is a connection of its own, as separate services would be.
        client = triton.InferenceServerClient(self._address, channel_args=[("grpc.use_local_subchannel_pool", 1)])
        number = seed * 1009
        while not self._stop.is_set():
            start = number % (total - ROWS_PER_REQUEST)
            number += 1
            inputs = []
            for name, column in rows.items():
                values = column[start : start + ROWS_PER_REQUEST]
                tensor = triton.InferInput(name, values.shape, TRITON_TYPES[values.dtype.kind])
                tensor.set_data_from_numpy(values)
                inputs.append(tensor)
            began = time.perf_counter()
            try:
                result = self._send(client, model, inputs, tally)
            except triton.InferenceServerException as error:
                with tally.lock:
                    tally.failures.append(str(error))
                continue
            milliseconds = (time.perf_counter() - began) * 1000
            version = result.get_response().model_version
            right = self._reference.agrees(model, version, result, start)
            with tally.lock:
                tally.answers[version] += 1
                tally.milliseconds.append(milliseconds)
                tally.wrong += not right
        client.close()

    def _send(
        self, client: triton.InferenceServerClient, model: str, inputs: list[triton.InferInput], tally: Tally
    ) -> triton.InferResult:
        for attempt in range(RETRIES):
            try:
                return client.infer(model, inputs, client_timeout=30)
            except triton.InferenceServerException as error:
                if "UNAVAILABLE" not in str(error.status()) or attempt == RETRIES - 1:
                    raise
                with tally.lock:  # its connection ended with the killed worker: sent again, to another
                    tally.retried += 1
                time.sleep(0.05)
        raise AssertionError("the loop returns or raises")


class Server:
    """`driftgate serve` on free ports, with a state directory of its own."""

    def __init__(self, repository: Path, state: Path, *, ports: tuple[str, str, str]) -> None:
        self._state = state
        self._log = (state.parent / "driftgate.log").open("wb")
        command = [sys.executable, "-m", "gateway", "serve", "--models", str(repository), "--state-dir", str(state)]
        command += ["--workers", "2", "--grpc", ports[0], "--http", ports[1], "--admin", ports[2]]
        self.process = subprocess.Popen(command, stdout=self._log, stderr=self._log)
        self.endpoints: dict[str, str] = {}

    def wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        file = self._state / "endpoints.json"
        while not (file.exists() and self._ready(file)):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the gateway did not start; its log: {self._log.name}")
            time.sleep(0.05)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(60)
        self._log.close()
        return status

    def _ready(self, file: Path) -> bool:
        self.endpoints = json.loads(file.read_text())
        try:
            with urllib.request.urlopen(f"http://{self.endpoints['http']}/readyz", timeout=5) as response:
                return response.status == 200
        except (urllib.error.URLError, OSError):
            return False


def swap(admin: admin_pb2_grpc.AdminStub, seconds: float, clients: Clients) -> tuple[list[tuple[str, float]], float]:
    """Swaps versions evenly over `seconds` and kills a worker half-way: ([(what, ms)], seconds until it served)."""
    steps = [
        ("breast_cancer: default to 2 (gradient boosting)", lambda: admin.SetDefault(_default("breast_cancer", "2"))),
        ("diabetes: load 1 in place of 2", lambda: admin.LoadModel(_load("diabetes", 1))),
        ("patients: default to label candidate", lambda: admin.SetDefault(_default("patients", "candidate"))),
        ("breast_cancer: label stable to 3, default stable", lambda: _relabel(admin)),
        ("digits: load both again", lambda: admin.LoadModel(admin_pb2.LoadModelRequest(model="digits", force=True))),
        ("kill", None),
        ("diabetes: load 2 in place of 1", lambda: admin.LoadModel(_load("diabetes", 2))),
        ("digits: default to 1 (perceptron)", lambda: admin.SetDefault(_default("digits", "1"))),
        ("patients: default to label stable", lambda: admin.SetDefault(_default("patients", "stable"))),
    ]
    pause = seconds / (len(steps) + 1)
    done, restart = [], 0.0
    for what, step in steps:
        time.sleep(pause)
        began = time.perf_counter()
        if step is None:
            restart = kill_worker(admin)
            console.print(f"  [red]kill -9[/] of worker 0: it served again after {restart:.2f} s")
            continue
        step()
        took = (time.perf_counter() - began) * 1000
        done.append((what, took))
        console.print(f"  [cyan]swap[/]  {what}: {took:.0f} ms, {clients.answered():,} answers so far")
    time.sleep(pause)
    return done, restart


def kill_worker(admin: admin_pb2_grpc.AdminStub) -> float:
    def worker() -> admin_pb2.Worker:
        return admin.GetStatus(admin_pb2.GetStatusRequest()).workers[0]

    victim = worker().pid
    os.kill(victim, signal.SIGKILL)
    began = time.perf_counter()
    while (now := worker()).pid in (0, victim) or now.state != "serving":
        if time.perf_counter() - began > START_SECONDS:
            raise SystemExit("the killed worker did not come back")
        time.sleep(0.01)
    return time.perf_counter() - began


def _default(model: str, target: str) -> admin_pb2.SetDefaultRequest:
    return admin_pb2.SetDefaultRequest(model=model, target=target, reason="demo")


def _load(model: str, version: int) -> admin_pb2.LoadModelRequest:
    return admin_pb2.LoadModelRequest(model=model, versions=[version], reason="demo")


def _relabel(admin: admin_pb2_grpc.AdminStub) -> None:
    admin.SetLabel(admin_pb2.SetLabelRequest(model="breast_cancer", label="stable", version=3, reason="demo"))
    admin.SetDefault(_default("breast_cancer", "stable"))


def summary(clients: Clients, swaps: list[tuple[str, float]], restart: float, seconds: float) -> bool:
    """Prints what happened; True if nothing failed."""
    count = len(MODELS) * CLIENTS_PER_MODEL
    table = Table(title=f"{clients.answered():,} requests in {seconds:.0f} s, {count} clients")
    for heading in ("model", "answers by version", "p50 ms", "p99 ms", "sent again", "failed", "wrong"):
        table.add_column(heading, justify="left" if heading in ("model", "answers by version") else "right")
    clean = True
    for model, tally in clients.tallies.items():
        versions = ", ".join(f"v{version}: {count:,}" for version, count in sorted(tally.answers.items()))
        p50, p99 = np.percentile(tally.milliseconds, (50, 99)) if tally.milliseconds else (0.0, 0.0)
        clean = clean and bool(tally.answers) and not tally.failures and not tally.wrong
        failed = f"[red]{len(tally.failures)}[/]" if tally.failures else "0"
        wrong = f"[red]{tally.wrong}[/]" if tally.wrong else "0"
        table.add_row(model, versions, f"{p50:.1f}", f"{p99:.1f}", str(tally.retried), failed, wrong)
    console.print()
    console.print(table)
    durations = sorted(milliseconds for _, milliseconds in swaps)
    console.print(
        f"{len(swaps)} swaps under load, {durations[0]:.0f} to {durations[-1]:.0f} ms each; "
        f"worker killed and serving again in {restart:.2f} s.\n"
        "'Sent again' counts requests whose connection ended with the killed worker."
    )
    for tally in clients.tallies.values():
        for failure in tally.failures[:3]:
            console.print(f"[red]failed:[/] {failure}")
    return clean


def build(repository: Path) -> None:
    console.print(f"[bold]1[/] train and export the example models to {repository}")
    subprocess.run([sys.executable, str(HERE / "build.py"), "--out", str(repository)], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repository", type=Path, default=Path(".demo/models"))
    parser.add_argument("--seconds", type=float, default=12.0, help="length of the load")
    parser.add_argument("--serve", action="store_true", help="serve on the standard ports until Ctrl-C, without load")
    options = parser.parse_args()
    build(options.repository)
    if options.serve:
        command = [sys.executable, "-m", "gateway", "serve", "--models", str(options.repository)]
        os.execv(sys.executable, command)
    with tempfile.TemporaryDirectory(prefix="driftgate-demo-") as folder:
        console.print("[bold]2[/] start the gateway: a supervisor, control, two workers")
        server = Server(options.repository, Path(folder) / "state", ports=("127.0.0.1:0",) * 3)
        try:
            server.wait()
            where = server.endpoints
            console.print(f"  gRPC {where['grpc']}, HTTP http://{where['http']}, admin {where['admin']}")
            console.print(f"[bold]3[/] {options.seconds:.0f} s of load and swaps; answers are checked by ONNX Runtime")
            reference = Reference(options.repository)
            began = time.monotonic()
            with grpc.insecure_channel(where["admin"]) as channel, Clients(where["grpc"], reference) as clients:
                swaps, restart = swap(admin_pb2_grpc.AdminStub(channel), options.seconds, clients)
            clean = summary(clients, swaps, restart, time.monotonic() - began)
        finally:
            status = server.stop()
        console.print(f"[bold]4[/] SIGTERM: drained, exit status {status}")
    if clean and status == 0:
        console.print("[green]No request failed; every answer was the answering version's own.[/]")
        return 0
    console.print("[red]The demo found failures; see above.[/]")
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
