"""Small ONNX models of every kind that the data plane must serve, and ONNX Runtime's own answers to compare with.

Each is under 1 MB and built from fixed seeds: the same bytes, so the same digest, at every build.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

Array = NDArray[Any]
Tensors = dict[str, Array]
Feeds = Callable[[np.random.Generator, int], Tensors]

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
WORDS = ("", "a", "b", "crème brûlée", "日本", "nul\0inside", "🚀", "x" * 300)
TABLE_ROWS = 8
"""Ids that `gather` knows: 0 to 7; -8 to -1 count from the end; others fail at run time."""
SLOW_STEPS = 12_000
"""About 30 ms on a 2-core x86-64 machine, nearly whatever the rows."""


@dataclass(frozen=True, slots=True)
class ZooModel:
    """`feeds(rng, rows)` makes valid inputs; `failing` (if any) makes inputs of the right type on which a run fails.

    `batched`: axis 0 of every input and every output is rows, and a row's answer depends on that row alone, so
    requests may be merged and the answers cut apart. Where it is False, `rows` may mean nothing to `feeds`.
    """

    name: str
    build: Callable[[], bytes]
    batched: bool
    feeds: Feeds
    notes: str = ""
    failing: Feeds | None = None


def graph(text: str, *, opset: int = 20, **initializers: Array) -> Callable[[], bytes]:
    """A builder of the model whose graph is `text` in ONNX's textual syntax; weights are added by name."""

    def build() -> bytes:
        header = f'<ir_version: 9, opset_import: ["" : {opset}, "ai.onnx.ml" : 3]>'
        model = onnx.parser.parse_model(f"{header} {text}")
        model.graph.initializer.extend(onnx.numpy_helper.from_array(w, name) for name, w in initializers.items())
        return model.SerializeToString(deterministic=True)

    return build


def weights(*shape: int, seed: int = 7) -> Array:
    """float32[*shape], standard normal."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def draw(rng: np.random.Generator, dtype: Any, shape: tuple[int, ...]) -> Array:
    """dtype[*shape]: normal floats, integers of the type's whole range, coins, or object arrays of str.

    Strings are str because ONNX Runtime's binding would send the repr of bytes.
    """
    dtype = np.dtype(dtype)
    if dtype.kind == "O":
        chosen = [WORDS[i] for i in rng.integers(len(WORDS), size=int(np.prod(shape)))]
        return np.array(chosen, dtype=object).reshape(shape)
    if dtype.kind == "b":
        return np.asarray(rng.random(shape) < 0.5)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return np.asarray(rng.integers(info.min, info.max, size=shape, dtype=dtype, endpoint=True))
    return np.asarray(rng.standard_normal(shape)).astype(dtype)


def normal(**shapes: tuple[int, ...]) -> Feeds:
    """Feeds of float32[rows, *shape] under each name."""
    return lambda rng, rows: {name: draw(rng, np.float32, (rows, *shape)) for name, shape in shapes.items()}


def declared(text: str, optional: Iterable[str] = ()) -> Feeds:
    """Feeds of the types that a graph's text declares: axis 0 is `rows` if dynamic, other dynamic axes are 5."""

    def feeds(rng: np.random.Generator, rows: int) -> Tensors:
        made: Tensors = {}
        for value in onnx.parser.parse_graph(text).input:
            if value.name in optional:
                continue
            tensor = value.type.tensor_type
            shape = tuple(
                dim.dim_value if dim.HasField("dim_value") else 5 if axis else rows
                for axis, dim in enumerate(tensor.shape.dim)
            )
            made[value.name] = draw(rng, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type), shape)
        return made

    return feeds


def versioned(k: float) -> bytes:
    """y = x + k, float32[N, 4]: the answer proves which version made it."""
    return graph("add_const (float[N,4] x) => (float[N,4] y) { y = Add(x, k) }", k=np.array(k, dtype=np.float32))()


def versioned_big(k: float, megabytes: int) -> bytes:
    """y = x + k as `versioned`, k read from a float32 table of `megabytes` MiB at a place that x chooses.

    So the weight can be neither folded nor dropped, and the answer is exact.
    """
    text = """add_big (float[N,4] x) => (float[N,4] y) {
        whole = Cast<to = 7>(x)
        place = Mod(whole, entries)
        k = Gather(table, place)
        y = Add(x, k)
    }"""
    entries = np.array(megabytes * 2**20 // 4, dtype=np.int64)
    return graph(text, table=np.full(entries, k, dtype=np.float32), entries=entries)()


def slow(steps: int = SLOW_STEPS) -> bytes:
    """s = tanh(s W + x), `steps` times from s = x, float32[N, 64]; 2 to 3 us a step; can be stopped between steps."""
    text = """slow (float[N,64] x) => (float[N,64] y) {
        y = Loop <body = step (int64 i, bool go, float[N,64] s) => (bool on, float[N,64] t) {
            on = Identity(go)
            mixed = MatMul(s, w)
            moved = Add(mixed, x)
            t = Tanh(moved)
        }> (steps, , x)
    }"""
    # The norm is under 1: the steps contract to a fixed point, and rounding does not grow with them.
    return graph(text, steps=np.array(steps, dtype=np.int64), w=weights(64, 64) / 32)()


def learned(kind: str, *, zipmap: bool = False) -> Callable[[], bytes]:
    """A builder of a scikit-learn classifier of float32[N, 4]; `zipmap` makes its probabilities a sequence of maps."""

    def build() -> bytes:
        from skl2onnx import to_onnx  # type: ignore[import-untyped]
        from sklearn.ensemble import RandomForestClassifier  # type: ignore[import-untyped]
        from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]

        x = weights(120, 4, seed=11)
        labels = (x[:, 0] > 0).astype(np.int64) + (x[:, 1] > 0.5)
        if kind == "forest":
            model = RandomForestClassifier(n_estimators=5, max_depth=3, random_state=3).fit(x, labels)
        else:
            model = LogisticRegression().fit(x, np.array(["blé", "maïs", "orge"])[labels])
        options = {id(model): {"zipmap": zipmap}}
        converted = to_onnx(model, x[:1], name=kind, options=options, target_opset={"": 18, "ai.onnx.ml": 3})
        data: bytes = converted.SerializeToString(deterministic=True)
        return data

    return build


def _integers() -> str:
    inputs = ", ".join(f"{t}[N] {t}_in" for t in INTEGERS)
    outputs = ", ".join(f"{t}[N] {t}_out" for t in INTEGERS)
    return f"integers ({inputs}) => ({outputs}) {{ {' '.join(f'{t}_out = Identity({t}_in)' for t in INTEGERS)} }}"


def _tokens(rng: np.random.Generator, rows: int) -> Tensors:
    return {"x": draw(rng, np.float32, (rows, int(rng.integers(1, 7))))}


def _matrices(rng: np.random.Generator, rows: int) -> Tensors:
    inner, columns = (int(size) for size in rng.integers(1, 6, size=2))
    return {"x": draw(rng, np.float32, (rows, inner)), "y": draw(rng, np.float32, (inner, columns))}


def _integers_below(bound: int, name: str) -> Feeds:
    return lambda rng, rows: {name: rng.integers(bound, size=rows, dtype=np.int64)}


def _kind(
    text: str,
    batched: bool,
    notes: str = "",
    *,
    feeds: Feeds | None = None,
    failing: Feeds | None = None,
    opset: int = 20,
    **initializers: Array,
) -> ZooModel:
    """A model of the name that its text begins with, fed what the text declares unless `feeds` is given."""
    feeds = feeds or declared(text, optional=initializers)
    return ZooModel(text.split(maxsplit=1)[0], graph(text, opset=opset, **initializers), batched, feeds, notes, failing)


ZOO: tuple[ZooModel, ...] = (
    _kind(
        """mlp (float[N,4] x) => (float[N,3] y) {
            hidden = Gemm(x, w1, b1)
            active = Relu(hidden)
            logits = Gemm(active, w2, b2)
            y = Softmax<axis = 1>(logits)
        }""",
        batched=True,
        w1=weights(4, 16),
        b1=weights(16),
        w2=weights(16, 3, seed=8),
        b2=weights(3, seed=8),
    ),
    _kind(
        "float64 (double[N,3] x) => (double[N,3] y) <double[3] k = {0.1, -2.0, 1e300}> { y = Mul(x, k) }",
        batched=True,
        opset=17,
    ),
    _kind("float16 (float16[N,3] x) => (float16[N,3] y) { y = Add(x, x) }", batched=True, opset=18),
    _kind(
        """bfloat16 (bfloat16[N,4] x) => (bfloat16[N,4] same, float[N,4] wide, bfloat16[N,4] square) {
            same = Identity(x)
            wide = Cast<to = 1>(x)
            product = Mul(wide, wide)
            square = Cast<to = 16>(product)
        }""",
        batched=True,
        notes="the CPU provider casts and copies bfloat16, and computes nothing in it",
    ),
    _kind(_integers(), batched=True, notes="the whole range of each type"),
    _kind(
        "boolean (bool[N,2] a, bool[N,2] b) => (bool[N,2] both, bool[N,2] no) { both = And(a, b) no = Not(a) }",
        batched=True,
    ),
    _kind(
        """strings (string[N] a, string[N] b) => (string[N] same, string[N] joined) {
            same = Identity(a)
            joined = StringConcat(a, b)
        }""",
        batched=True,
        notes="empty, accented, astral, with a NUL, and longer than 255 bytes",
    ),
    _kind(
        """label_encoder (string[N,1] x) => (int64[N,1] y) {
            y = ai.onnx.ml.LabelEncoder<keys_strings = ["a", "b"], values_int64s = [10, 20], default_int64 = -1>(x)
        }""",
        batched=True,
    ),
    _kind(
        """scaler (float[N,2] x) => (float[N,2] y) {
            y = ai.onnx.ml.Scaler<offset = [1.0, 2.0], scale = [0.5, 4.0]>(x)
        }""",
        batched=True,
        notes="a numeric operator of ai.onnx.ml",
    ),
    _kind(
        """mixed (float[N,3] amount, int64[N] code, string[N] name, bool[N,1] flag)
            => (double[N] total, int32[N] parity, string[N] echo, uint8[N,3] positive)
            <float zero = {0}, int64 two = {2}, int64[1] last = {1}> {
            kept = Where(flag, amount, zero)
            sum = ReduceSum<keepdims = 0>(kept, last)
            total = Cast<to = 11>(sum)
            rest = Mod(code, two)
            parity = Cast<to = 6>(rest)
            echo = Identity(name)
            above = Greater(kept, zero)
            positive = Cast<to = 2>(above)
        }""",
        batched=True,
        notes="four inputs and four outputs of eight types",
    ),
    _kind("fixed (float[3,4] x) => (float[3,4] y) { y = Neg(x) }", batched=False, notes="[3, 4] and nothing else"),
    _kind(
        "scalar (float x, int64 n) => (float y, int64 m) { y = Mul(x, x) m = Identity(n) }",
        batched=False,
        notes="rank 0 in and out",
    ),
    _kind(
        "images (float[N,1,8,8] x) => (float[N,2,6,6] y) { y = Conv<kernel_shape = [3, 3]>(x, w) }",
        batched=True,
        w=weights(2, 1, 3, 3),
    ),
    _kind(
        "reduce_t (float[N,T] x) => (float[N] y) <int64[1] last = {1}> { y = ReduceMean<keepdims = 0>(x, last) }",
        batched=True,
        notes="T differs from request to request: only those of one T may be merged",
        feeds=_tokens,
    ),
    _kind(
        "equal_axes (float[A,B] x, float[A,B] y) => (float[A,B] z) { z = Sub(x, y) }",
        batched=True,
        notes="one symbol is one size over both inputs",
    ),
    _kind(
        "matmul (float[A,B] x, float[B,C] y) => (float[A,C] z) { z = MatMul(x, y) }",
        batched=False,
        notes="axis 0 of y is axis 1 of x",
        feeds=_matrices,
    ),
    _kind(
        """center_rows (float[N,2] x) => (float[N,2] y) <int64[1] first = {0}> {
            mean = ReduceMean(x, first)
            y = Sub(x, mean)
        }""",
        batched=False,
        notes="the signature of a batched model, but its rows depend on each other: only a probe can tell",
    ),
    _kind(
        """reverse_rows (float[N,2] x) => (float[N,2] y)
            <int64[1] start = {-1}, int64[1] end = {-2147483648}, int64[1] axis = {0}, int64[1] step = {-1}> {
            y = Slice(x, start, end, axis, step)
        }""",
        batched=False,
        notes="right values in the wrong rows: a probe with equal rows does not find it",
    ),
    _kind(
        "double_rows (float[N,2] x) => (float[M,2] y) { y = Concat<axis = 0>(x, x) }",
        batched=False,
        notes="2N rows out",
    ),
    _kind(
        "unique (int64[N] x) => (int64[U] values, int64[U] counts) { values, , , counts = Unique(x) }",
        batched=False,
        notes="the size of the answer depends on the data",
        feeds=_integers_below(3, "x"),
    ),
    _kind(
        "nonzero (float[N,3] x) => (int64[2,K] where) { active = Relu(x) where = NonZero(active) }",
        batched=False,
        notes="axis 0 of the answer is 2 whatever the rows; axis 1 depends on the data",
    ),
    _kind(
        """three_outputs (float[N,2] x) => (float[N,2] negative, float[N] total, int64[N] best)
            <int64[1] last = {1}> {
            negative = Neg(x)
            total = ReduceSum<keepdims = 0>(x, last)
            best = ArgMax<axis = 1, keepdims = 0>(x)
        }""",
        batched=True,
        notes="callers may ask for some, in any order",
    ),
    _kind(
        "rows_or_none (float[N,2] x, string[N] s) => (float[N,2] y, string[N] t) { y = Abs(x) t = Identity(s) }",
        batched=True,
        notes="0 rows in, 0 rows out",
    ),
    ZooModel("forest", learned("forest"), True, normal(X=(4,)), "random forest: int64 labels, float32 probabilities"),
    ZooModel("string_labels", learned("string_labels"), True, normal(X=(4,)), "labels are strings"),
    _kind(
        """constant_output (float[N,2] x) => (float[N,2] y, int64[2] classes) <int64[2] c = {4, 9}> {
            y = Neg(x)
            classes = Identity(c)
        }""",
        batched=False,
        notes="[2] whatever the rows, also where a batch has 2: it must not be cut into rows",
    ),
    _kind(
        "shared_scalar (float[N,2] x, float scale) => (float[N,2] y) { y = Mul(x, scale) }",
        batched=False,
        notes="one input has rows, the other belongs to the request",
    ),
    _kind(
        "unknown_rank (float[] x) => (float[] y) { mean = ReduceMean(x) y = Sub(x, mean) }",
        batched=False,
        notes="no shape in the graph: any rank goes; ONNX Runtime reports [], as for a scalar",
        feeds=normal(x=(3,)),
    ),
    _kind(
        "anonymous_axis (float[?,2] x) => (float[?,2] y) { y = Abs(x) }",
        batched=True,
        notes="a dynamic axis without a name: reported as None",
    ),
    _kind(
        "default_input (float[N,2] x, float[2] bias) => (float[N,2] y) { y = Add(x, bias) }",
        batched=True,
        notes="bias is an initializer that a caller may override; it is not among the inputs that must be sent",
        bias=np.array([10, 20], dtype=np.float32),
    ),
    _kind("no_inputs () => (float[2] y) <float[2] c = {1, 2}> { y = Identity(c) }", batched=False),
    ZooModel("slow", slow, True, normal(x=(64,)), "about 30 ms a run"),
    _kind(
        "gather (int64[N] ids) => (float[N,4] y) { y = Gather(table, ids) }",
        batched=True,
        notes="one unknown id fails the whole run, with the requests it was merged with",
        feeds=_integers_below(TABLE_ROWS, "ids"),
        failing=lambda rng, rows: {"ids": rng.integers(TABLE_ROWS, 99, size=rows, dtype=np.int64)},
        table=weights(TABLE_ROWS, 4),
    ),
    ZooModel("add_const", lambda: versioned(1.0), True, normal(x=(4,)), "versioned(1.0)"),
)

by_name: Mapping[str, ZooModel] = {model.name: model for model in ZOO}


@cache
def built(name: str) -> bytes:
    """The model's bytes, built once a process."""
    return by_name[name].build()


def write_version(root: Path, name: str, version: int, model: bytes) -> Path:
    """Writes <root>/<name>/<version>/model.onnx; returns the version's folder."""
    folder = root / name / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model)
    return folder


def write_repository(root: Path, names: Iterable[str] | None = None, versions: Iterable[int] = (1,)) -> Path:
    """Writes the named models (None: all of the zoo) under every version number, the same bytes in each."""
    numbers = tuple(versions)
    for name in by_name if names is None else names:
        for version in numbers:
            write_version(root, name, version, built(name))
    return root


def write_external(folder: Path, k: float, *, location: str = "weights.bin") -> Path:
    """Writes `versioned(k)` as two files: k is 1,024 float32 of external data, relative to the folder."""
    model = onnx.load_from_string(
        graph(
            "add_external (float[N,4] x) => (float[N,4] y) { k = ReduceMax<keepdims = 0>(table) y = Add(x, k) }",
            table=np.full(1024, k, dtype=np.float32),
        )()
    )
    (tensor,) = model.graph.initializer
    data = tensor.raw_data
    onnx.external_data_helper.set_external_data(tensor, location, offset=0, length=len(data))
    tensor.ClearField("raw_data")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))
    (folder / location).write_bytes(data)
    return folder


def session(model: bytes | Path) -> ort.InferenceSession:
    """ONNX Runtime on one thread, silent, from bytes or from the file."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(
        model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
    )


def reference(model: ort.InferenceSession, feeds: Mapping[str, Array], outputs: Sequence[str] = ()) -> Tensors:
    """ONNX Runtime's own answer, by output name; `outputs` () means all. The oracle of the data-plane tests."""
    names = list(outputs) or [out.name for out in model.get_outputs()]
    bfloat16 = np.dtype(ml_dtypes.bfloat16)
    if not any("bfloat16" in tensor.type for tensor in (*model.get_inputs(), *model.get_outputs())):
        return dict(zip(names, model.run(names, dict(feeds)), strict=True))
    values = {
        name: ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, onnx.TensorProto.BFLOAT16)
        if array.dtype == bfloat16
        else ort.OrtValue.ortvalue_from_numpy(array)
        for name, array in feeds.items()
    }
    return {
        name: _bfloat16(value) if value.data_type() == "tensor(bfloat16)" else value.numpy()
        for name, value in zip(names, model.run_with_ort_values(names, values), strict=True)
    }


def _bfloat16(value: ort.OrtValue) -> Array:
    """A copy of a bfloat16 value's memory: ONNX Runtime's numpy() knows no such type."""
    raw = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(raw, dtype=ml_dtypes.bfloat16).reshape(value.shape()).copy()
