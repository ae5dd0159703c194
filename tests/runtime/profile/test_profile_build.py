"""Building: which columns become which input, what clients would send of them, and what is measured of all rows."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from profile_models import NAMES, run_of, session_of, settings
from zoo import by_name, graph

from runtime.onnx.session import Session
from runtime.onnx.signature import batch_axis
from runtime.profile.build import Building, Built, chunk_rows, missing_numbers
from runtime.profile.build_columns import assign
from runtime.profile.build_data import DataProblem, data_files, fingerprint, open_data
from runtime.profile.of_signature import column_names, schema_of
from runtime.repository.manifest import SessionSettings

Build = Callable[..., Built]

TEXT = """table (float[N,2] X, int64[N,1] count, bool[N,1] flag, string[N,1] colour)
    => (float[N,1] y, string[N,1] echo, int64[N,1] label) <int64[1] last = {1}> {
    y = ReduceSum<keepdims = 1>(X, last)
    echo = Identity(colour)
    label = Identity(count)
}"""


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Builds from files or from columns, with a model of the zoo or of a graph's text."""

    def run(
        model: str, data: Mapping[str, Any] | Path | list[Path], *, target: str = "", statistics: str = "",
        names: dict[str, list[str]] | None = None, run_rows: int = 64, seed: int = 1, **options: Any,
    ) -> Built:  # fmt: skip
        session = session_of(model) if model in by_name else loaded(tmp_path, model)
        files = data if isinstance(data, list) else [data] if isinstance(data, Path) else [npz(tmp_path, data)]
        opened = open_data(data_files(files))
        made = schema_of(session.signature, settings(statistics))
        inputs = assign(
            session.signature, opened.columns, target=target,
            names=names or column_names(session.signature, settings(statistics)),
            missing=missing_numbers(made, settings(statistics)),
        )  # fmt: skip
        rows = run_rows if batch_axis(session.signature) else 0
        return Building(session, made, inputs, target, rows, seed, **options).build(opened)

    return run


def loaded(folder: Path, text: str) -> Session:
    path = folder / "model.onnx"
    path.write_bytes(graph(text)())
    return Session(path, SessionSettings())


def npz(folder: Path, columns: Mapping[str, Any], name: str = "data.npz") -> Path:
    np.savez_compressed(folder / name, **columns)
    return folder / name


def parquet(folder: Path, columns: Mapping[str, Any], name: str = "data.parquet", **options: Any) -> Path:
    pyarrow.parquet.write_table(pa.table(dict(columns)), folder / name, **options)
    return folder / name


def csv(folder: Path, columns: Mapping[str, Any], name: str = "data.csv") -> Path:
    pyarrow.csv.write_csv(pa.table(dict(columns)), folder / name)
    return folder / name


def floats(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, 4)).astype(np.float32)


def columns_of(x: np.ndarray) -> dict[str, np.ndarray]:
    return {f"c{at}": x[:, at].astype(np.float64) for at in range(x.shape[1])}


@pytest.mark.parametrize("rows", [1, 255, 256, 8192, 20_000])
def test_parquet_csv_and_npz_of_the_same_rows_give_the_same_bytes(build: Build, tmp_path: Path, rows: int) -> None:
    """Whatever portions the files are read in."""
    x = floats(rows)
    expected = build("mlp", {"x": x}).summary.encode()
    columns = columns_of(x)
    assert build("mlp", parquet(tmp_path, columns, row_group_size=1000)).summary.encode() == expected
    assert build("mlp", csv(tmp_path, columns)).summary.encode() == expected
    assert build("mlp", {"x": np.asfortranarray(x)}).summary.encode() == expected
    assert build("mlp", columns).summary.encode() == expected
    assert build("mlp", {"x": x.astype(np.float64)}, run_rows=7).summary.rows == rows


def test_what_is_measured_is_what_the_model_answers(build: Build) -> None:
    x = floats(1000)
    summary = build("mlp", {"x": x}).summary
    (answers,) = session_of("mlp").run({"x": x})
    for at in range(3):
        assert summary.histograms()[f"y[{at}]"].maximum == answers[:, at].max()
        assert summary.moments()[f"y[{at}]"].summary().mean == pytest.approx(answers[:, at].mean(), rel=1e-5)


def test_the_same_seed_gives_the_same_bytes_and_another_another_sample(build: Build) -> None:
    data = {"x": floats(5000)}
    one, again, other = (build("mlp", data, seed=seed).summary for seed in (8, 8, 100))
    assert one.encode() == again.encode()
    assert one.encode() != other.encode()
    assert one.histograms()["x[0]"].minimum == other.histograms()["x[0]"].minimum


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("no_inputs", "matmul", "slow")])
def test_models_of_the_zoo_are_measured_on_rows(build: Build, name: str) -> None:
    """Of fixed batches, scalars, any rank, and where rows of an answer are not those of the question. Not matmul, whose
    second input has no rows.
    """
    model = by_name[name]
    feeds, _ = run_of(model, rows=6)
    data = {
        input_: array.astype(str) if array.dtype == object else np.repeat(array, 6) if array.ndim == 0 else array
        for input_, array in feeds.items()
    }
    rows = max(len(array) for array in data.values())
    built = build(name, {key: array if len(array) == rows else np.resize(array, rows) for key, array in data.items()})
    assert built.summary.rows == rows
    assert built.left_out == 0


@pytest.mark.parametrize("name", ["no_inputs"])
def test_a_model_without_inputs_has_no_profile(build: Build, name: str) -> None:
    with pytest.raises(DataProblem, match="no inputs"):
        build(name, {"x": floats(3)})


def test_rows_that_do_not_fill_a_run_of_a_fixed_batch_are_left_out_and_counted(build: Build) -> None:
    built = build("fixed", {"x": floats(20_000)})
    assert (built.summary.rows, built.left_out) == (19_998, 2)
    with pytest.raises(DataProblem, match="none that fill a run: 2"):
        build("fixed", {"x": floats(2)})


def test_only_the_first_rows_are_taken_where_so_many_are_asked_for(build: Build, tmp_path: Path) -> None:
    x = floats(9000)
    for data in ({"x": x}, parquet(tmp_path, columns_of(x)), csv(tmp_path, columns_of(x))):
        assert build("mlp", data, limit_rows=8500).summary.encode() == build("mlp", {"x": x[:8500]}).summary.encode()


def test_columns_are_taken_by_name_whatever_their_order_and_others_are_left(build: Build, tmp_path: Path) -> None:
    x = floats(300)
    names = "names: {x: [a, b, c, d]}"
    mixed = {"id": np.arange(300), "d": x[:, 3], "c": x[:, 2], "b": x[:, 1], "a": x[:, 0]}
    expected = build("mlp", {"x": x}, statistics=names).summary.encode()
    assert build("mlp", parquet(tmp_path, mixed), statistics=names).summary.encode() == expected
    given = {"x": ["a", "b", "c", "d"]}
    assert build("mlp", parquet(tmp_path, mixed), names=given).summary.moments()[
        "x[1]"
    ].summary().mean == pytest.approx(x[:, 1].mean(), rel=1e-4)


@pytest.mark.parametrize(
    ("columns", "options", "complaint"),
    [
        (
            "abc",
            {},
            "expected 4 columns, got 3: 'a', 'b', 'c'; name those that are meant by --names, and the label by",
        ),
        ("abcde", {"target": "f"}, r"no column 'f' for the target"),
        (
            "abcde",
            {"names": {"x": ["a", "b", "c", "D"]}},
            "expected 4 columns, of which the data lacks 'D'; it has 'd'",
        ),
        ("abcde", {"names": {"x": ["a", "b", "c"]}}, r"expected 4 columns, got 3"),
    ],
)
def test_columns_that_do_not_fit_are_named(
    build: Build, tmp_path: Path, columns: str, options: dict[str, Any], complaint: str
) -> None:
    data = parquet(tmp_path, {name: np.zeros(3) for name in columns})
    with pytest.raises(DataProblem, match=complaint):
        build("mlp", data, **options)


def test_an_input_without_a_column_of_its_name_is_named_with_the_closest(build: Build, tmp_path: Path) -> None:
    data = parquet(tmp_path, {"amounts": [1.0], "code": [1], "name": ["a"], "flag": [True]})
    with pytest.raises(
        DataProblem, match=r"input 'amount': the data has no column of this name; did you mean 'amounts'"
    ):
        build("mixed", data)


def test_the_target_is_no_input_and_its_values_are_counted(build: Build, tmp_path: Path) -> None:
    x = floats(100)
    labels = np.array(["no", "yes"])[(x[:, 0] > 0).astype(int)]
    expected = {"no": int((labels == "no").sum()), "yes": int((labels == "yes").sum())}
    for data in (
        parquet(tmp_path, columns_of(x) | {"label": labels}),
        csv(tmp_path, {"label": labels} | columns_of(x)),
        npz(tmp_path, {"x": x, "label": labels}),
    ):
        built = build("mlp", data, target="label")
        assert dict(built.labels.counts) == expected
        assert built.summary.rows == 100


def test_labels_that_are_missing_are_counted_and_numbers_are_labels_as_they_are_written(
    build: Build, tmp_path: Path
) -> None:
    columns = columns_of(floats(4))
    data = parquet(tmp_path, columns | {"label": pa.array([1.0, None, 0.0, 1.0])})
    assert dict(build("mlp", data, target="label").labels.counts) == {"1": 2, "0": 1, "": 1}
    data = parquet(tmp_path, columns | {"label": [True, False, True, True]})
    assert dict(build("mlp", data, target="label").labels.counts) == {"True": 3, "False": 1}


def test_a_target_of_too_many_values_is_no_label(build: Build) -> None:
    x = floats(3000)
    labels = build("mlp", {"x": x, "price": x[:, 0]}, target="price").labels
    assert labels.too_many
    assert not labels.counts


def rows_of_table(rows: int = 4) -> dict[str, Any]:
    return {
        "X": pa.FixedSizeListArray.from_arrays(pa.array(np.arange(2.0 * rows)), 2),
        "count": pa.array(range(rows), pa.int32()),
        "flag": [bool(at % 2) for at in range(rows)],
        "colour": ["red", None, "blue", "red"][:rows],
    }


def test_columns_become_what_a_client_would_send(build: Build, tmp_path: Path) -> None:
    """Lists are rows of a tensor; integers widen; a missing text is the empty one."""
    summary = build(TEXT, parquet(tmp_path, rows_of_table())).summary
    assert summary.histograms()["X[1]"].maximum == 7
    assert summary.histograms()["flag"].total == 4
    frequent, missing = summary.frequent()["colour"]
    assert ({each.value: each.at_least for each in frequent.top()}, missing) == ({"red": 2, "": 1, "blue": 1}, 0)


def test_texts_of_a_dictionary_and_numbers_for_texts_are_taken(build: Build, tmp_path: Path) -> None:
    text = "echo (string[N,1] t) => (string[N,1] y) { y = Identity(t) }"
    for values, expected in (
        (pa.array(["a", "b", "a"]).dictionary_encode(), {"a": 2, "b": 1}),
        (pa.array([1, 2, 1]), {"1": 2, "2": 1}),
        (pa.array([b"x", b"y", b"x"]), {"x": 2, "y": 1}),
    ):
        frequent, _ = build(text, parquet(tmp_path, {"t": values})).summary.frequent()["t"]
        assert {each.value: each.at_least for each in frequent.top()} == expected
    frequent, _ = build(text, csv(tmp_path, {"t": ["007", "NA", ""]})).summary.frequent()["t"]
    assert {each.value for each in frequent.top()} == {"007", "NA", ""}


def test_a_missing_number_is_nan_or_what_settings_say_clients_send(build: Build, tmp_path: Path) -> None:
    columns = {name: pa.array([1.0, None, 3.0]) for name in ("c0", "c1", "c2", "c3")}
    for data in (parquet(tmp_path, columns), csv(tmp_path, columns)):
        assert build("mlp", data).summary.histograms()["x[0]"].aside["nan"] == 1
        filled = build("mlp", data, statistics="features: {'x[0]': {missing: -9}}").summary
        assert filled.histograms()["x[0]"].aside["missing"] == 1
        assert filled.histograms()["x[0]"].aside["nan"] == 0


def test_a_missing_whole_number_is_refused_with_column_and_row_unless_settings_say_what_is_sent(
    build: Build, tmp_path: Path
) -> None:
    text = "ids (int64[N,1] id) => (int64[N,1] y) { y = Identity(id) }"
    large = (1 << 53) + 1
    columns = {"id": pa.array([large, 5, None])}
    for data in (parquet(tmp_path, columns), csv(tmp_path, columns)):
        with pytest.raises(DataProblem, match="column 'id': there is no value in row 3, and no INT64 stands for that"):
            build(text, data)
        summary = build(text, data, statistics="features: {id: {missing: -1}}").summary
        assert summary.histograms()["id"].aside["missing"] == 1
        assert large in {each.value for each in summary.frequent()["y"][0].top()}


@pytest.mark.parametrize(
    ("column", "values", "complaint"),
    [
        ("count", [1.0, 2.0, 2.5, 4.0], "column 'count': 2.5 in row 3 is no INT64"),
        ("count", [1, 2, 3, 1 << 63], "column 'count': 9223372036854775808 in row 4 is no INT64"),
        ("flag", [0, 1, 2, 1], "column 'flag': 2 in row 3 is no BOOL"),
        ("flag", ["a", "b", "c", "d"], "column 'flag' holds texts, but input 'flag' takes BOOL"),
        ("X", [1.0, 2.0, 3.0, 4.0], r"input 'X': expected rows of shape \[2\], got \[\]"),
        ("X", [[1.0, 2.0], [1.0], [2.0], [3.0, 4.0]], "column 'X': expected lists of one length"),
        ("colour", pa.array([1, 2, 3, 4], pa.timestamp("s")), "column 'colour' is of type timestamp"),
    ],
)
def test_a_value_that_the_input_cannot_take_is_named(
    build: Build, tmp_path: Path, column: str, values: Any, complaint: str
) -> None:
    data = rows_of_table() | {column: pa.array(values, pa.uint64()) if values[-1] == 1 << 63 else values}
    with pytest.raises(DataProblem, match=complaint):
        build(TEXT, parquet(tmp_path, data))


def test_a_value_of_a_csv_file_that_is_no_number_is_named_with_its_row(build: Build, tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("a,b,c,d\n1,2,3,4\n1,2,three,4\n")
    with pytest.raises(DataProblem, match=r"data\.csv: .*[Rr]ow #3.*'three'"):
        build("mlp", path)


def test_bf16_is_rounded_to_the_nearest_and_bits_are_taken_as_they_are(build: Build) -> None:
    import ml_dtypes

    x = np.random.default_rng(1).normal(size=(500, 4)).astype(np.float32)
    x[0] = [np.nan, np.inf, 3.4e38, -0.0]
    rounded = x.astype(ml_dtypes.bfloat16)
    assert (
        build("bfloat16", {"x": x}).summary.encode()
        == build("bfloat16", {"x": rounded.view(np.uint16)}).summary.encode()
    )


def test_a_model_that_fails_says_on_which_rows(build: Build) -> None:
    ids = np.zeros(200, np.int64)
    ids[130] = 99
    with pytest.raises(DataProblem, match=r"the model fails on rows 129 to 192 of the data: .*99"):
        build("gather", {"ids": ids})
    with pytest.raises(DataProblem, match="the model fails on row 131 of the data"):
        build("gather", {"ids": ids}, run_rows=1)


def test_several_files_and_folders_of_them_are_one_after_the_other(build: Build, tmp_path: Path) -> None:
    x = floats(900)
    expected = build("mlp", {"x": x}).summary.encode()
    (tmp_path / "parts" / "deep").mkdir(parents=True)
    (tmp_path / "parts" / "_metadata.parquet").write_bytes(b"none")
    first = parquet(tmp_path / "parts", columns_of(x[:300]), "1.parquet")
    second = parquet(tmp_path / "parts" / "deep", columns_of(x[300:]), "2.parquet")
    assert build("mlp", [first, second]).summary.encode() == expected
    assert build("mlp", tmp_path / "parts").summary.encode() == expected
    other = parquet(tmp_path, {"other": [1.0]}, "other.parquet")
    with pytest.raises(DataProblem, match=r"other\.parquet: expected the columns of 1\.parquet, but 'c0' is not there"):
        build("mlp", [first, other])
    with pytest.raises(DataProblem, match="of one format, got npz, parquet"):
        build("mlp", [first, npz(tmp_path, {"x": x})])


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.txt", b"", "a file whose name ends in .parquet"),
        ("a.parquet", b"PAR1 nothing", "not a readable Parquet file"),
        ("a.npz", b"PK nothing", "not a readable .npz file"),
        ("a.csv", b"", "not a readable CSV file"),
        ("a.csv", b"a,b,a\n1,2,3\n", "got 'a' twice"),
        ("a.csv", b"a,b,c,d\n", "expected rows, got none"),
        ("a.csv", b"a,b,c,d\n1,2,3\n", "Expected 4 columns, got 3"),
        ("gone.csv", None, "there is no such file"),
    ],
)
def test_files_that_cannot_be_read_are_named(
    build: Build, tmp_path: Path, name: str, content: bytes | None, complaint: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataProblem, match=complaint):
        build("mlp", tmp_path / name)


def test_compressed_csv_is_read(build: Build, tmp_path: Path) -> None:
    import gzip

    x = floats(500)
    plain = csv(tmp_path, columns_of(x))
    (tmp_path / "data.csv.gz").write_bytes(gzip.compress(plain.read_bytes()))
    assert build("mlp", tmp_path / "data.csv.gz").summary.encode() == build("mlp", plain).summary.encode()


def test_arrays_of_objects_are_not_unpickled(build: Build, tmp_path: Path) -> None:
    with pytest.raises(DataProblem, match=r"'x' holds Python objects, which are not read: save texts as array\.astype"):
        build("mlp", npz(tmp_path, {"x": np.array([object()], object)}))


def test_a_damaged_archive_is_named(build: Build, tmp_path: Path) -> None:
    path = npz(tmp_path, {"x": floats(5000)})
    data = bytearray(path.read_bytes())
    data[2000] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DataProblem, match=r"data\.npz: is (damaged|not a readable)"):
        build("mlp", path)


def test_arrays_of_different_lengths_are_named(build: Build) -> None:
    with pytest.raises(DataProblem, match="as many rows each, got x 3, label 2"):
        build("mlp", {"x": floats(3), "label": np.zeros(2)}, target="label")


def test_an_array_in_either_order_and_any_shape_is_read_row_by_row(build: Build) -> None:
    images = np.random.default_rng(3).normal(size=(700, 1, 8, 8)).astype(np.float32)
    expected = build("images", {"x": images}).summary.encode()
    assert build("images", {"x": np.asfortranarray(images)}).summary.encode() == expected
    assert build("images", {"x": images.reshape(700, 64)}).summary.encode() == expected
    assert build("images", {"x": images.astype(">f8")}).summary.encode() == expected


def test_fewer_rows_are_held_of_wide_inputs() -> None:
    assert chunk_rows(session_of("mlp").signature, 1) == 8192
    assert chunk_rows(session_of("fixed").signature, 3) % 3 == 0
    wide = session_of("images").signature
    image = wide.inputs[0].__class__("x", "FP32", (-1, 3, 512, 512))
    assert chunk_rows(wide.__class__((image,), ()), 1) <= 8


def test_progress_is_told_after_each_portion(build: Build) -> None:
    told: list[int] = []
    build("mlp", {"x": floats(20_000)}, on_rows=told.append)
    assert told == [8192, 16_384, 20_000]


def test_a_fingerprint_is_that_of_the_files_content(tmp_path: Path) -> None:
    one, other = tmp_path / "a.npz", tmp_path / "b.npz"
    one.write_bytes(b"abc")
    other.write_bytes(b"abc")
    seen: list[int] = []
    assert fingerprint([one], seen.append) == "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert fingerprint([other]) == fingerprint([one])
    assert fingerprint([one, other]) not in (fingerprint([one]), fingerprint([one, one, one]))
    assert seen == [3]


def test_without_pyarrow_npz_is_read_and_the_others_say_what_to_install(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = parquet(tmp_path, columns_of(floats(3)))
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyarrow"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "runtime.profile.build_arrow", raising=False)
    monkeypatch.delattr("runtime.profile.build_arrow", raising=False)
    assert build("mlp", {"x": floats(3)}).summary.rows == 3
    with pytest.raises(DataProblem, match=r"pip install 'driftgate\[profile\]'"):
        build("mlp", path)


@pytest.mark.parametrize("kind", ["parquet", "csv", "npz", "npz in columns"])
def test_memory_does_not_grow_with_the_data(build: Build, tmp_path: Path, kind: str) -> None:
    """Of ten times the rows, no more is held."""
    path = written(tmp_path, kind, 400_000)
    build("mlp", written(tmp_path, kind, 40_000, "warm"))
    before, most = resident_bytes(), 0

    def look(_rows: int) -> None:
        nonlocal most
        most = max(most, resident_bytes())

    assert build("mlp", path, on_rows=look).summary.rows == 400_000
    assert path.stat().st_size > 6_000_000
    assert most - before < 16 * 1024 * 1024


def written(folder: Path, kind: str, rows: int, name: str = "data") -> Path:
    x = floats(rows)
    if kind == "parquet":
        return parquet(folder, columns_of(x), f"{name}.parquet", row_group_size=rows)
    if kind == "csv":
        return csv(folder, columns_of(x), f"{name}.csv")
    with zipfile.ZipFile(folder / f"{name}.npz", "w") as archive, archive.open("x.npy", "w") as member:
        np.lib.format.write_array(member, np.asfortranarray(x) if "columns" in kind else x)
    return folder / f"{name}.npz"


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_bytes().split()[1]) * 4096
