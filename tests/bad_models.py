"""Artifacts that must never become a served version, each with the stage at which ONNX Runtime shows its fault."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import onnx
from zoo import built, graph, learned, write_external


class Fault(Enum):
    LOAD = "ONNX Runtime refuses the file"
    SIGNATURE = "it loads, but its inputs or outputs cannot be served"
    RUN = "it loads, and every run fails"
    ENDLESS = "it loads, and no run ends unless it is told to"


@dataclass(frozen=True, slots=True)
class BadModel:
    """`write(folder)` makes the version's folder with its files; `says` is in ONNX Runtime's message (LOAD, RUN)."""

    name: str
    fault: Fault
    write: Callable[[Path], None]
    says: str = ""


def _bytes(make: Callable[[], bytes]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.onnx").write_bytes(make())

    return write


def _text(text: str, *, opset: int = 20) -> Callable[[Path], None]:
    return _bytes(graph(text, opset=opset))


def _edited(edit: Callable[[onnx.ModelProto], object]) -> Callable[[Path], None]:
    """Writes the sound model y = Neg(x), float32[N], after an edit that the textual syntax cannot say."""

    def make() -> bytes:
        model = onnx.load_from_string(graph("sound (float[N] x) => (float[N] y) { y = Neg(x) }")())
        edit(model)
        return model.SerializeToString()

    return _bytes(make)


def _corrupt() -> bytes:
    """Sound at both ends, noise in every seventh byte."""
    data = bytearray(built("mlp"))
    for position in range(7, len(data) - 7, 7):
        data[position] ^= 0xA5
    return bytes(data)


def _truncated() -> bytes:
    data = built("mlp")
    return data[: len(data) // 2]


def _external(damage: Callable[[Path], object], *, location: str = "weights.bin") -> Callable[[Path], None]:
    """Writes a model whose weights are in a second file, then damages that file."""

    def write(folder: Path) -> None:
        write_external(folder, 1.0, location=location)
        damage(folder / location)

    return write


def _shorten(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _link_out(file: Path) -> None:
    """Moves the file out of the version's folder and leaves a link in its place."""
    file.symlink_to(file.rename(file.parent.parent / "outside.bin"))


def _unfinished(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx.part").write_bytes(built("mlp"))


def _folder_for_a_file(folder: Path) -> None:
    (folder / "model.onnx").mkdir(parents=True)


def _dangling(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").symlink_to(folder / "gone.onnx")


def _duplicate_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(model.graph.input[0])


def _future_ir(model: onnx.ModelProto) -> None:
    model.ir_version = 99


def _no_graph(model: onnx.ModelProto) -> None:
    model.ClearField("graph")


def _undeclared_domain(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.example"


def _unknown_domain(model: onnx.ModelProto) -> None:
    _undeclared_domain(model)
    model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))


def _no_outputs(model: onnx.ModelProto) -> None:
    model.graph.ClearField("output")


def _sequence_output(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "SplitToSequence"
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_sequence_value_info("y", onnx.TensorProto.FLOAT, None))


def _optional_output(model: onnx.ModelProto) -> None:
    tensor = model.graph.output[0].type
    model.graph.node[0].op_type = "Optional"
    model.graph.output[0].CopyFrom(onnx.helper.make_value_info("y", onnx.helper.make_optional_type_proto(tensor)))


BAD: tuple[BadModel, ...] = (
    BadModel("empty", Fault.LOAD, _bytes(bytes), "No graph was found"),
    BadModel(
        "text_file",
        Fault.LOAD,
        _bytes(lambda: b"version https://git-lfs.example/spec\n" * 9),
        "Protobuf parsing failed",
    ),
    BadModel("corrupt", Fault.LOAD, _bytes(_corrupt), "Protobuf parsing failed"),
    BadModel("truncated", Fault.LOAD, _bytes(_truncated), "Protobuf parsing failed"),
    BadModel("no_graph", Fault.LOAD, _edited(_no_graph), "No graph was found"),
    BadModel("unfinished", Fault.LOAD, _unfinished, "File doesn't exist"),
    BadModel("folder_for_a_file", Fault.LOAD, _folder_for_a_file, "Protobuf parsing failed"),
    BadModel("dangling_link", Fault.LOAD, _dangling, "File doesn't exist"),
    BadModel("external_missing", Fault.LOAD, _external(Path.unlink), "path does not exist"),
    BadModel("external_short", Fault.LOAD, _external(_shorten), "out of bounds or can not be read in full"),
    BadModel(
        "external_escapes", Fault.LOAD, _external(lambda _: None, location="../weights.bin"), "escapes model directory"
    ),
    BadModel("external_link", Fault.LOAD, _external(_link_out), "escapes model directory"),
    BadModel("future_ir", Fault.LOAD, _edited(_future_ir), "IR version"),
    BadModel("future_opset", Fault.LOAD, _text("m (float[N] x) => (float[N] y) { y = Neg(x) }", opset=99), "opset"),
    BadModel(
        "unknown_operator", Fault.LOAD, _text("m (float[N] x) => (float[N] y) { y = Frob(x) }"), "No Op registered"
    ),
    BadModel("unknown_domain", Fault.LOAD, _edited(_unknown_domain), "not a registered function/op"),
    BadModel("undeclared_domain", Fault.LOAD, _edited(_undeclared_domain), "com.example"),
    BadModel(
        "no_kernel",
        Fault.LOAD,
        _text("m (bfloat16[N] x) => (bfloat16[N] y) { y = Add(x, x) }"),
        "Could not find an implementation",
    ),
    BadModel(
        "unsupported_type",
        Fault.LOAD,
        _text("m (complex64[N] x) => (complex64[N] y) { y = Identity(x) }"),
        "not currently registered or supported",
    ),
    BadModel("duplicate_input", Fault.LOAD, _edited(_duplicate_input), "Duplicate definition"),
    BadModel(
        "duplicate_output", Fault.LOAD, _text("m (float[N] x) => (float[N] y) { y = Neg(x) y = Abs(x) }"), "Duplicate"
    ),
    BadModel("undefined_input", Fault.LOAD, _text("m (float[N] x) => (float[N] y) { y = Add(x, w) }"), "'w'"),
    BadModel("undefined_output", Fault.LOAD, _text("m (float[N] x) => (float[N] y) { z = Neg(x) }"), "(y)"),
    BadModel("cycle", Fault.LOAD, _text("m (float[N] x) => (float[N] b) { a = Add(x, b) b = Neg(a) }"), "not acyclic"),
    BadModel("wrong_type", Fault.LOAD, _text("m (float[N] x) => (int64[N] y) { y = Neg(x) }"), "Type Error"),
    BadModel(
        "wrong_shape",
        Fault.LOAD,
        _text("m (float[N,4] x) => (float[N,2] y) <float[3,2] w = {1,1,1,1,1,1}> { y = MatMul(x, w) }"),
        "Incompatible dimensions",
    ),
    # What TfidfVectorizer converts to names en_US.UTF-8, which may be installed; this locale is nowhere.
    BadModel(
        "locale",
        Fault.LOAD,
        _text(
            """m (string[N] x) => (string[N] y) {
                y = StringNormalizer<case_change_action = "LOWER", locale = "tlh_KX.UTF-8">(x)
            }"""
        ),
        "Failed to construct locale with name:tlh_KX.UTF-8",
    ),
    BadModel("zipmap", Fault.SIGNATURE, _bytes(learned("zipmap", zipmap=True))),
    BadModel("sequence_output", Fault.SIGNATURE, _edited(_sequence_output)),
    BadModel("optional_output", Fault.SIGNATURE, _edited(_optional_output)),
    BadModel("float8", Fault.SIGNATURE, _text("m (float8e4m3fn[N] x) => (float8e4m3fn[N] y) { y = Identity(x) }")),
    BadModel("no_outputs", Fault.SIGNATURE, _edited(_no_outputs)),
    BadModel(
        "always_fails",
        Fault.RUN,
        _text("m (float[N,4] x) => (float[A,B] y) <int64[2] shape = {7, 11}> { y = Reshape(x, shape) }"),
        "cannot be reshaped",
    ),
    # 2^46 float32 is 256 TiB: beyond a 47-bit address space, so refused at once even where memory is overcommitted.
    BadModel(
        "huge",
        Fault.RUN,
        _text(
            """m (float[N] x) => (float[A] y) <int64[1] big = {70368744177664}> {
                n = Shape(x)
                size = Mul(n, big)
                y = ConstantOfShape(size)
            }"""
        ),
        "Failed to allocate memory",
    ),
    BadModel(
        "endless",
        Fault.ENDLESS,
        _text(
            """m (float[N] x) => (float[N] y) <bool yes = {1}> {
                y = Loop <body = step (int64 i, bool go, float[N] s) => (bool on, float[N] t) {
                    on = Identity(go)
                    t = Neg(s)
                }> (, yes, x)
            }"""
        ),
    ),
)

bad_by_name: Mapping[str, BadModel] = {bad.name: bad for bad in BAD}


def write_bad(root: Path, name: str, version: int = 1, *, model: str | None = None) -> Path:
    """Writes <root>/<model or name>/<version>/ with the bad artifact; returns the version's folder."""
    folder = root / (model or name) / str(version)
    bad_by_name[name].write(folder)
    return folder
