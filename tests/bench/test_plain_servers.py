"""The plain servers with inference, as the benchmark starts them, and inference without one."""

from functools import partial
from pathlib import Path

import pytest

from bench import cores, model
from bench.catalogue import AIO_ONNX, SYNC_ONNX, ServerSpec, Site
from bench.inprocess import measure
from bench.model import Workload
from bench.probe import reply_bytes
from bench.process import free_ports, running
from gateway.wire.pb.inference import grpc_service_pb2 as pb

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def workload(tmp_path_factory: pytest.TempPathFactory) -> Workload:
    return model.build(tmp_path_factory.mktemp("bench"))


@pytest.mark.parametrize("spec", [AIO_ONNX, SYNC_ONNX], ids=lambda spec: spec.key)
def test_a_plain_server_answers_as_the_model_does(spec: ServerSpec, workload: Workload, tmp_path: Path) -> None:
    port, http_port, admin_port = free_ports(3)
    site = Site(port, http_port, admin_port, workload.repository, workload.model_file, tmp_path)
    with running(spec, site, cores.choose().server):
        assert reply_bytes(port, workload.request, partial(workload.objection, 0)) > 0


def test_inference_in_a_loop_counts_rows(workload: Workload) -> None:
    limit = measure(workload.model_file, 64, 0.05, cores.choose().server)

    assert limit.rows == 64
    assert limit.rows_per_second >= 64 / 0.05
    assert limit.median_us > 0


def answer(label_shape: tuple[int, ...], workload: Workload) -> bytes:
    response = pb.ModelInferResponse(model_name="tabular")
    for name, values in workload.expected.items():
        value = values[:1]
        response.outputs.add(
            name=name,
            datatype="INT64" if name == "label" else "FP32",
            shape=label_shape if name == "label" else value.shape,
        )
        response.raw_output_contents.append(value.tobytes())
    return response.SerializeToString()


def test_a_value_a_row_may_come_with_an_axis_of_its_own_but_with_no_other(workload: Workload) -> None:
    assert workload.objection(0, answer((1,), workload)) is None
    assert workload.objection(0, answer((1, 1), workload)) is None
    assert "label" in str(workload.objection(0, answer((1, 1, 1), workload)))
