"""The one table of datatypes, against ONNX's, numpy's and the protocol's own."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from gateway.wire.pb.inference import grpc_service_pb2 as pb
from gateway.wire.pb.inference import model_config_pb2 as mc
from gateway.worker.inference_service import CONFIG_TYPES
from runtime.onnx.dtypes import BY_NAME, BY_ONNX, DATATYPES, Datatype

ONNX_NAMES = {"float": "FLOAT", "double": "DOUBLE"}  # where ONNX Runtime's name in upper case is not ONNX's

ALL = pytest.mark.parametrize("datatype", DATATYPES, ids=lambda datatype: datatype.name)


@ALL
def test_the_element_type_is_onnx_own_number(datatype: Datatype) -> None:
    name = datatype.onnx.removeprefix("tensor(").removesuffix(")")
    assert onnx.TensorProto.DataType.Value(ONNX_NAMES.get(name, name.upper())) == datatype.element_type


@ALL
def test_the_array_type_is_that_of_onnx_and_little_endian(datatype: Datatype) -> None:
    theirs = onnx.helper.tensor_dtype_to_np_dtype(datatype.element_type)
    if datatype.name == "BF16":
        assert (datatype.numpy, theirs.itemsize) == (np.dtype("<u2"), 2)
    else:
        assert datatype.numpy == theirs
    assert datatype.numpy.newbyteorder("<") == datatype.numpy
    assert datatype.size_bytes == (0 if datatype.name == "BYTES" else theirs.itemsize)


@ALL
def test_typed_contents_are_a_field_of_the_protocol_that_holds_every_value(datatype: Datatype) -> None:
    if datatype.name in ("FP16", "BF16"):
        assert datatype.contents == "", "these travel raw only"
        return
    contents = pb.InferTensorContents()
    values: list[object] = [False, True] if datatype.name == "BOOL" else [b"", b"\xff"]
    if datatype.numpy.kind in "iu":
        info = np.iinfo(datatype.numpy)
        values = [int(info.min), int(info.max)]
    elif datatype.numpy.kind == "f":
        info_f = np.finfo(datatype.numpy)
        values = [float(info_f.min), float(info_f.max)]
    getattr(contents, datatype.contents).extend(values)
    assert list(getattr(contents, datatype.contents)) == values


@ALL
def test_model_config_has_a_type_of_that_name(datatype: Datatype) -> None:
    assert mc.DataType.Value(CONFIG_TYPES.get(datatype.name, f"TYPE_{datatype.name}")) > 0


def test_names_are_unique() -> None:
    assert len(BY_NAME) == len(BY_ONNX) == len(DATATYPES) == len({d.element_type for d in DATATYPES})
