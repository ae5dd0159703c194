"""Memory comes back: after reloads of a large model, and after loads that fail.

DRIFTGATE_RELOADS sets how many reloads there are. The figures are printed: see them with -s.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest
from support.admin import Admin, Refused, admin_of
from support.gateway import Gateway
from support.predict import Client, client_of
from zoo import versioned, versioned_big, write_version

from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

pytestmark = [pytest.mark.process, pytest.mark.timeout(600)]

RELOADS = int(os.environ.get("DRIFTGATE_RELOADS", "20"))
WARM_RELOADS = 5
BIG_MEGABYTES = 50
BROKEN_MEGABYTES = 30
GROWTH = 1.10
MEBIBYTE = 2**20
FAILED_LOADS = 10
FAILED_LOADS_MAY_KEEP_BYTES = 8 * MEBIBYTE


@dataclass(frozen=True, slots=True)
class Served:
    models: Path
    gateway: Gateway
    admin: Admin
    client: Client

    def memory_bytes(self) -> int:
        """What of the worker is resident."""
        (worker,) = self.gateway.children("worker")
        return int(worker.memory_info().rss)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("memory")
    models = folder / "models"
    write_version(models, "big", 1, versioned_big(1.0, BIG_MEGABYTES))
    write_version(models, "victim", 1, versioned(7.0))
    (models / "victim" / "model.yaml").write_text("warmup: {limit_seconds: 0.1}\n")
    with (
        Gateway(models, folder / "state") as gateway,
        admin_of(gateway.admin) as admin,
        client_of(gateway.grpc) as client,
    ):
        yield Served(models, gateway, admin, client)


def test_reloads_of_a_large_model_do_not_grow_the_worker(served: Served) -> None:
    sizes = []
    with served.admin.watch() as watch:
        for _ in range(RELOADS):
            served.admin.load("big", force=True)
            watch.until(lambda event: event.state == pb.VERSION_STATE_UNLOADED)
            assert served.client.predict("big") == (1, 1.0)
            sizes.append(served.memory_bytes())
    print("\nresident MiB after each reload:", [size // MEBIBYTE for size in sizes])
    assert sizes[-1] <= GROWTH * sizes[WARM_RELOADS - 1]


def test_unloading_a_large_model_gives_its_memory_back(served: Served) -> None:
    served.admin.load("big", force=True)
    with served.admin.watch() as watch:
        before = served.memory_bytes()
        served.admin.unload("big")
        watch.until(lambda event: event.state == pb.VERSION_STATE_UNLOADED)
        freed = before - served.memory_bytes()
        assert freed > 0.8 * BIG_MEGABYTES * MEBIBYTE
        served.admin.load("big")


@pytest.mark.parametrize("fault", ["its outputs are no tensors", "its file is cut short", "its warm-up does not end"])
def test_loads_of_a_large_model_that_fail_leave_nothing_in_memory(served: Served, fault: str) -> None:
    write_version(served.models, "victim", 2, broken_big(fault))
    fail_to_load(served)
    before = served.memory_bytes()
    for _ in range(FAILED_LOADS):
        fail_to_load(served)
    kept = served.memory_bytes() - before
    print(f"\n{FAILED_LOADS} failed loads of {BROKEN_MEGABYTES} MiB, because {fault}: {kept / MEBIBYTE:.1f} MiB kept")
    assert kept < FAILED_LOADS_MAY_KEEP_BYTES
    assert served.client.predict("victim") == (1, 7.0)


def fail_to_load(served: Served) -> None:
    with pytest.raises(Refused, match="version 2 of model 'victim'"):
        served.admin.load("victim", 2)


def broken_big(fault: str) -> bytes:
    """A sound model of BROKEN_MEGABYTES, but for one fault."""
    data = versioned_big(1.0, BROKEN_MEGABYTES)
    if fault == "its file is cut short":
        return data[: len(data) * 9 // 10]
    model = onnx.load_from_string(data)
    if fault == "its outputs are no tensors":
        model.graph.node.append(onnx.helper.make_node("SplitToSequence", ["y"], ["parts"]))
        model.graph.output.append(onnx.helper.make_tensor_sequence_value_info("parts", onnx.TensorProto.FLOAT, None))
    else:
        body = onnx.helper.make_graph(
            [onnx.helper.make_node("Identity", ["go"], ["on"]), onnx.helper.make_node("Neg", ["s"], ["t"])],
            "step",
            [
                onnx.helper.make_tensor_value_info("i", onnx.TensorProto.INT64, []),
                onnx.helper.make_tensor_value_info("go", onnx.TensorProto.BOOL, []),
                onnx.helper.make_tensor_value_info("s", onnx.TensorProto.FLOAT, None),
            ],
            [
                onnx.helper.make_tensor_value_info("on", onnx.TensorProto.BOOL, []),
                onnx.helper.make_tensor_value_info("t", onnx.TensorProto.FLOAT, None),
            ],
        )
        (add,) = (node for node in model.graph.node if "y" in node.output)
        add.output[0] = "sum"
        model.graph.initializer.append(onnx.helper.make_tensor("yes", onnx.TensorProto.BOOL, [], [True]))
        model.graph.node.append(onnx.helper.make_node("Loop", ["", "yes", "sum"], ["y"], body=body))
    return model.SerializeToString()
