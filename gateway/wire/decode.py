"""ModelInferRequest → Request: every value a client sends is checked here against the version's signature.

The checks are ordered so that a wrong request is refused before anything is allocated in proportion to what it claims.
"""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np

from gateway.wire.pb.inference import grpc_service_pb2 as pb
from runtime.batching.request import Request
from runtime.errors import InvalidRequest
from runtime.onnx.dtypes import BY_NAME, Datatype
from runtime.onnx.signature import show_shape
from runtime.types import ANY, Signature, TensorSpec

MAX_RANK = 32  # numpy's own limit is 64; no model comes near
MAX_EMPTY_ELEMENTS = 1 << 20  # no bytes stand behind an empty tensor's axes, but a model may allocate by them
SHOWN_NAMES = 20  # an error lists this many names, not a thousand
INT_RANGES = {name: np.iinfo(BY_NAME[name].numpy) for name in ("INT8", "INT16", "UINT8", "UINT16")}
PARAMETER_KINDS = {
    "timeout": ("int64_param",),
    "priority": ("int64_param", "uint64_param"),
    "sequence_id": ("int64_param", "string_param"),
    "sequence_start": ("bool_param",),
    "sequence_end": ("bool_param",),
    "triton_enable_empty_final_response": ("bool_param",),
}
"""The protocol's own request parameters; any other name is the caller's, except those that begin with triton_."""
KNOWN_TRITON_PARAMETERS = tuple(name for name in PARAMETER_KINDS if name.startswith("triton_"))
UINT32 = struct.Struct("<I")


class Decoder:
    """Decodes the requests of one version. `max_rows`: 0 where requests are not merged, so axis 0 means nothing.

    `row_limit`: the largest batch that one request may hold; 0: no limit but the message's size.
    """

    def __init__(self, signature: Signature, max_rows: int, row_limit: int) -> None:
        self._signature = signature
        self._merges = max_rows > 0
        self._row_limit = row_limit
        self._specs = signature.inputs
        self._datatypes = [BY_NAME[spec.datatype] for spec in signature.inputs]
        self._position = {spec.name: index for index, spec in enumerate(signature.inputs)}
        self._outputs = {spec.name: index for index, spec in enumerate(signature.outputs)}
        self._all_outputs = tuple(range(len(signature.outputs)))
        self._any_bytes = all(spec.datatype not in ("BYTES", "BOOL") for spec in signature.inputs)

    def decode(self, message: pb.ModelInferRequest) -> Request:
        """Raises InvalidRequest; its field names the tensor."""
        inputs = message.inputs
        raws = message.raw_input_contents
        specs = self._specs
        if len(inputs) != len(specs):
            raise self._wrong_inputs(message)
        if raws and len(raws) != len(inputs):
            raise InvalidRequest(
                f"expected {len(inputs)} entries in raw_input_contents, one per input, got {len(raws)}",
                field="raw_input_contents",
            )
        values: list[Any] = [None] * len(specs)
        shapes: list[Any] = [None] * len(specs)
        for index, tensor in enumerate(inputs):
            position = index
            if tensor.name != specs[index].name:
                position = self._position.get(tensor.name, -1)
                if position < 0:
                    raise self._wrong_inputs(message)
            if values[position] is not None:
                raise InvalidRequest(f"input {tensor.name!r} is given twice", field=f"inputs[{index}]")
            spec = specs[position]
            datatype = self._datatypes[position]
            if tensor.datatype != spec.datatype:
                raise _wrong_datatype(spec, tensor.datatype)
            shape = tuple(tensor.shape)
            elements = _check_shape(spec, shape)
            if tensor.parameters:
                _refuse_tensor_parameters("input", spec.name, tensor.parameters)
            if raws:
                if tensor.HasField("contents"):
                    raise InvalidRequest(
                        f"input {spec.name!r} has contents although raw_input_contents is used: send one of the two",
                        field=spec.name,
                    )
                raw = raws[index]
                if datatype.size_bytes:
                    if len(raw) != elements * datatype.size_bytes:
                        raise _wrong_size(spec, shape, elements * datatype.size_bytes, len(raw))
                    if datatype.name == "BOOL" and raw.translate(None, b"\0\1"):
                        raise InvalidRequest(
                            f"input {spec.name!r} is BOOL: expected bytes of 0 and 1, got others", field=spec.name
                        )
                    values[position] = raw
                else:
                    values[position] = decode_strings(spec.name, raw, elements)
            else:
                values[position] = _typed_contents(spec, datatype, tensor.contents, shape, elements)
            shapes[position] = shape
        outputs = self._requested(message) if message.outputs else self._all_outputs
        rows = self._rows(shapes)
        key = (outputs, *(shape[1:] for shape in shapes)) if self._merges else None
        return Request(values, shapes, outputs, rows, key)

    def plain(self, message: pb.ModelInferRequest) -> bool:
        """True if the message's values may be taken from its bytes as they are, without another look.

        That is, if they are raw, in the order of the signature, and of datatypes in which any bytes are a value.
        """
        if not self._any_bytes or not message.raw_input_contents:
            return False
        return [tensor.name for tensor in message.inputs] == list(self._position)

    def _rows(self, shapes: list[tuple[int, ...]]) -> int:
        if not self._merges:
            return 1
        rows = shapes[0][0]
        for spec, shape in zip(self._specs, shapes, strict=True):
            if shape[0] != rows:
                raise InvalidRequest(
                    f"all inputs must hold the same number of rows: {self._specs[0].name!r} has {rows}, "
                    f"{spec.name!r} has {shape[0]}",
                    field=spec.name,
                )
        if self._row_limit and rows > self._row_limit:
            raise InvalidRequest(
                f"expected at most {self._row_limit} rows in a request (batching.max_batch_size), got {rows}: "
                "split the request",
                field=self._specs[0].name,
            )
        return rows

    def _requested(self, message: pb.ModelInferRequest) -> tuple[int, ...]:
        chosen: list[int] = []
        for output in message.outputs:
            index = self._outputs.get(output.name)
            if index is None:
                raise InvalidRequest(
                    f"the model has no output {output.name!r}; it has {_names(self._outputs)}", field=output.name[:100]
                )
            if index in chosen:
                raise InvalidRequest(f"output {output.name!r} is asked for twice", field=output.name)
            if output.parameters:
                _refuse_tensor_parameters("output", output.name, output.parameters)
            chosen.append(index)
        return tuple(chosen)

    def _wrong_inputs(self, message: pb.ModelInferRequest) -> InvalidRequest:
        got = [tensor.name for tensor in message.inputs[:SHOWN_NAMES]]
        missing = [name for name in self._position if name not in got]
        unknown = [name for name in got if name not in self._position]
        parts = [f"expected {len(self._specs)} inputs ({_names(self._position)}), got {len(message.inputs)}"]
        if unknown:
            parts.append(f"unknown: {_names(unknown)}")
        if missing and len(message.inputs) <= SHOWN_NAMES:
            parts.append(f"missing: {_names(missing)}")
        return InvalidRequest("; ".join(parts), field="inputs")


def check_parameters(parameters: Any) -> float:
    """Answers the request's own timeout in seconds (inf: none). Raises InvalidRequest."""
    timeout = math.inf
    for name, value in parameters.items():
        kinds = PARAMETER_KINDS.get(name)
        if kinds is not None and value.WhichOneof("parameter_choice") not in kinds:
            raise InvalidRequest(
                f"parameter {name!r} must be {' or '.join(kind.removesuffix('_param') for kind in kinds)}, "
                f"got {str(value.WhichOneof('parameter_choice') or 'nothing').removesuffix('_param')}",
                field=name,
            )
        if name == "timeout":
            if value.int64_param < 0:
                raise InvalidRequest(
                    f"parameter 'timeout' must be microseconds, 0 or more, got {value.int64_param}", field="timeout"
                )
            if value.int64_param:
                timeout = value.int64_param / 1e6
        elif name.startswith("triton_") and kinds is None:
            raise InvalidRequest(
                f"parameter {name[:100]!r} is reserved and not known here; known: {_names(KNOWN_TRITON_PARAMETERS)}",
                field=name[:100],
            )
    return timeout


def decode_strings(name: str, raw: bytes, elements: int) -> list[str]:
    """BYTES raw contents → `elements` strings. ONNX strings are UTF-8."""
    if len(raw) < 4 * elements:
        raise InvalidRequest(
            f"input {name!r}: {elements} elements need at least {4 * elements} bytes of lengths, got {len(raw)} bytes",
            field=name,
        )
    strings: list[str] = []
    offset, end = 0, len(raw)
    for index in range(elements):
        if offset + 4 > end:
            raise InvalidRequest(
                f"input {name!r}: the contents end at byte {end}, before the length of element {index} of {elements}",
                field=name,
            )
        (length,) = UINT32.unpack_from(raw, offset)
        offset += 4
        if offset + length > end:
            raise InvalidRequest(
                f"input {name!r}: element {index} claims {length} bytes, {end - offset} are left", field=name
            )
        strings.append(_utf8(name, index, raw[offset : offset + length]))
        offset += length
    if offset != end:
        raise InvalidRequest(f"input {name!r}: {end - offset} bytes are left after its {elements} elements", field=name)
    return strings


def _utf8(name: str, index: int, element: bytes) -> str:
    try:
        return element.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"input {name!r}: element {index} is not UTF-8 (byte {error.start}), which ONNX strings are: "
            "encode binary data, for example as base64",
            field=name,
        ) from None


def _check_shape(spec: TensorSpec, shape: tuple[int, ...]) -> int:
    """Answers the number of elements; Python's integers cannot overflow."""
    want = shape[:MAX_RANK] if spec.any_rank else spec.shape
    if len(shape) != len(want):
        raise _wrong_shape(spec, shape)
    elements = 1
    for expected, size in zip(want, shape, strict=True):
        if size < 0 or (expected not in (ANY, size)):
            raise _wrong_shape(spec, shape)
        elements *= size
    if not elements and math.prod(size or 1 for size in shape) > MAX_EMPTY_ELEMENTS:
        raise InvalidRequest(
            f"input {spec.name!r} is empty: expected its other axes to multiply to {MAX_EMPTY_ELEMENTS} at most, "
            f"got {show_shape(shape)}",
            field=spec.name,
        )
    return elements


def _typed_contents(
    spec: TensorSpec, datatype: Datatype, contents: pb.InferTensorContents, shape: tuple[int, ...], elements: int
) -> bytes | list[str]:
    if not datatype.contents:
        raise InvalidRequest(
            f"input {spec.name!r} is {datatype.name}, which travels in raw_input_contents only", field=spec.name
        )
    for field, _ in contents.ListFields():
        if field.name != datatype.contents:
            raise InvalidRequest(
                f"input {spec.name!r} is {datatype.name}: expected its values in {datatype.contents}, got {field.name}",
                field=spec.name,
            )
    values = getattr(contents, datatype.contents)
    if len(values) != elements:
        raise InvalidRequest(
            f"input {spec.name!r}: shape {show_shape(shape)} needs {elements} values, got {len(values)}",
            field=spec.name,
        )
    if datatype.name == "BYTES":
        return [_utf8(spec.name, index, value) for index, value in enumerate(values)]
    limits = INT_RANGES.get(datatype.name)
    if limits is not None and elements:
        low, high = min(values), max(values)
        if low < limits.min or high > limits.max:
            raise InvalidRequest(
                f"input {spec.name!r} is {datatype.name}: expected values in [{limits.min}, {limits.max}], "
                f"got {low if low < limits.min else high}",
                field=spec.name,
            )
    return np.array(values, datatype.numpy).tobytes()


def _refuse_tensor_parameters(role: str, name: str, parameters: Any) -> None:
    for key in parameters:
        if key in ("binary_data", "binary_data_size", "content_type"):
            continue  # HTTP clients' hints; they mean nothing over gRPC
        raise InvalidRequest(f"{role} {name[:100]!r}: parameter {key[:100]!r} is not supported here", field=name[:100])


def _wrong_datatype(spec: TensorSpec, got: str) -> InvalidRequest:
    known = "" if got in BY_NAME else f", which is no datatype: the protocol has {', '.join(BY_NAME)}"
    return InvalidRequest(f"input {spec.name!r}: expected {spec.datatype}, got {got[:40]!r}{known}", field=spec.name)


def _wrong_shape(spec: TensorSpec, shape: tuple[int, ...]) -> InvalidRequest:
    shown = show_shape(shape[:MAX_RANK]) + ("..." if len(shape) > MAX_RANK else "")
    expected = f"{MAX_RANK} axes of 0 or more at most" if spec.any_rank else show_shape(spec.shape)
    return InvalidRequest(f"input {spec.name!r}: expected {expected}, got {shown}", field=spec.name)


def _wrong_size(spec: TensorSpec, shape: tuple[int, ...], expected: int, got: int) -> InvalidRequest:
    return InvalidRequest(
        f"input {spec.name!r}: {spec.datatype} {show_shape(shape)} needs {expected} bytes, got {got}", field=spec.name
    )


def _names(names: Any) -> str:
    shown = [repr(name[:100]) for name in list(names)[:SHOWN_NAMES]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
