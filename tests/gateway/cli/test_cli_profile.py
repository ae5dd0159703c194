"""`driftgate profile build` and `driftgate profile show`."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result
from sklearn.datasets import load_breast_cancer
from zoo import graph, versioned, write_repository, write_version

from gateway.cli import cli
from runtime.profile.reference import Profile
from runtime.repository.digest import folder_digest

Driftgate = Callable[..., Result]
NOON = "1700000000"
FEATURES = [str(name) for name in load_breast_cancer().feature_names]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository of some of the zoo."""
    root = write_repository(tmp_path / "models", ["mlp", "gather", "mixed"])
    (root / "mlp" / "model.yaml").write_text("statistics:\n  names: {x: [a, b, c, d]}\n")
    return root


@pytest.fixture
def run(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Driftgate:
    monkeypatch.setenv("DRIFTGATE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("DRIFTGATE_MODELS", str(root))
    monkeypatch.setenv("DRIFTGATE_REPOSITORY__SETTLE_SECONDS", "0")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", NOON)

    def driftgate(*arguments: object) -> Result:
        result = CliRunner().invoke(cli, ["profile", *map(str, arguments)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return driftgate


def rows(count: int = 50, seed: int = 0) -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(seed).normal(size=(count, 4)), columns=["a", "b", "c", "d"])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    table = rows()
    table["label"] = np.where(table.a > 0, "yes", "no")
    table.to_parquet(tmp_path / "train.parquet")
    return tmp_path / "train.parquet"


def build(data: Path, *more: object, model: str = "mlp") -> tuple[object, ...]:
    return ("build", "--model", model, "--version", 1, "--data", data, *more)


def test_a_profile_lies_beside_its_version_and_says_where_it_comes_from(run: Driftgate, root: Path, data: Path) -> None:
    result = run(*build(data, "--target", "label", "--commit", "abc123", "--param", "depth=3"))
    assert result.exit_code == 0, result.output
    profile = Profile.decode((root / "mlp" / "profiles" / "1.profile").read_bytes())
    assert (profile.kind, profile.rows, profile.created_at_seconds) == ("profile", 50, 1_700_000_000)
    assert profile.about["version_digest"] == folder_digest(root / "mlp" / "1")
    assert profile.about["data_fingerprint"].startswith("sha256:")
    expected = {"model": "mlp", "model_version": "1", "data": "train.parquet", "commit": "abc123", "target": "label"}
    assert (expected | {"parameter.depth": "3"}).items() <= profile.about.items()
    assert set(profile.labels) == {"yes", "no"}
    assert "wrote     mlp/profiles/1.profile" in result.stdout
    assert profile.digest in result.stdout


def test_the_same_data_gives_the_same_bytes(run: Driftgate, data: Path, tmp_path: Path) -> None:
    made = [tmp_path / "one", tmp_path / "two"]
    for file in made:
        assert run(*build(data, "--target", "label", "--output", file)).exit_code == 0
    assert made[0].read_bytes() == made[1].read_bytes()


def test_built_anew_of_the_same_data_it_is_left_alone(
    run: Driftgate, root: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(*build(data, "--target", "label"))
    before = (root / "mlp" / "profiles" / "1.profile").read_bytes()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1800000000")
    again = run(*build(data, "--target", "label"))
    assert "unchanged     mlp/profiles/1.profile" in again.stdout
    assert (root / "mlp" / "profiles" / "1.profile").read_bytes() == before


def test_another_profile_is_replaced_only_by_force(run: Driftgate, root: Path, data: Path, tmp_path: Path) -> None:
    run(*build(data, "--target", "label"))
    before = (root / "mlp" / "profiles" / "1.profile").read_bytes()
    rows(80).to_csv(tmp_path / "more.csv", index=False)
    refused = run(*build(tmp_path / "more.csv"))
    assert refused.exit_code == 1
    complaint = "error: mlp/profiles/1.profile: there is another profile, made of train.parquet; --force replaces it\n"
    assert refused.stderr == complaint
    assert (root / "mlp" / "profiles" / "1.profile").read_bytes() == before
    assert run(*build(tmp_path / "more.csv", "--force")).exit_code == 0
    assert Profile.decode((root / "mlp" / "profiles" / "1.profile").read_bytes()).rows == 80


def test_something_else_in_its_place_is_replaced_only_by_force(run: Driftgate, root: Path, data: Path) -> None:
    (root / "mlp" / "profiles").mkdir()
    (root / "mlp" / "profiles" / "1.profile").write_bytes(b"something else")
    assert "--force replaces it" in run(*build(data)).stderr
    assert run(*build(data, "--force", "--target", "label")).exit_code == 0


def test_the_repository_does_not_take_profiles_for_a_version(run: Driftgate, root: Path, data: Path) -> None:
    digest = folder_digest(root / "mlp" / "1")
    run(*build(data, "--target", "label"))
    assert folder_digest(root / "mlp" / "1") == digest
    assert "unchanged" in run(*build(data, "--target", "label")).stdout


def test_json_has_every_fact_and_no_progress(run: Driftgate, data: Path) -> None:
    made = json.loads(run(*build(data, "--target", "label", "--json")).stdout)
    assert (made["rows"], made["changed"], made["path"]) == (50, True, "mlp/profiles/1.profile")
    features = {feature["name"]: feature for feature in made["features"]}
    assert features["a"]["quantiles"]["0.5"] == pytest.approx(rows().a.median(), rel=0.3, abs=0.1)
    assert features["a"]["mean"] == pytest.approx(rows().a.mean(), rel=1e-4)
    shown = json.loads(run("show", "--model", "mlp", "--version", 1, "--json").stdout)
    assert shown == {key: value for key, value in made.items() if key not in ("path", "changed")}


def test_it_is_shown_from_a_file_and_from_the_repository_alike(run: Driftgate, root: Path, data: Path) -> None:
    run(*build(data, "--target", "label"))
    by_model = run("show", "--model", "mlp", "--version", 1).stdout
    assert run("show", root / "mlp" / "profiles" / "1.profile").stdout == by_model
    lines = by_model.splitlines()
    assert lines[0].split() == ["rows", "50"]
    (header,) = [line for line in lines if line.startswith("FEATURE")]
    assert header.split()[:4] == ["FEATURE", "ROLE", "KIND", "MISSING"]
    assert [line.split()[0] for line in lines[lines.index(header) + 1 :]] == [
        "a",
        "b",
        "c",
        "d",
        "y[0]",
        "y[1]",
        "y[2]",
    ]


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (("show",), 2, "give FILE, or --model and --version"),
        (("show", "--model", "mlp"), 2, "give FILE, or --model and --version"),
        (("show", "--model", "mlp", "--version", 1), 1, "version 1 of model 'mlp' has no profile: driftgate profile"),
        (("show", "--model", "gone", "--version", 1), 1, "version 1 of model 'gone' has no profile"),
        (("show", "gone.profile"), 1, "gone.profile: cannot be read: No such file or directory"),
        (("show", __file__), 1, "is no profile: expected a profile, which begins with b'DGPR'"),
        (build(Path("gone.npz")), 1, "gone.npz: there is no such file"),
        (build(Path("gone.npz"), model="gone"), 1, "model 'gone' is not in the repository"),
        (build(Path("gone.npz"), "--param", "depth"), 2, "--param: expected KEY=VALUE, got 'depth'"),
        (build(Path(__file__)), 1, "expected a file whose name ends in .parquet"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said(run: Driftgate, arguments: tuple[Any, ...], status: int, complaint: str) -> None:
    result = run(*arguments)
    assert result.exit_code == status
    assert complaint in result.stderr


def test_columns_of_the_only_input_are_named_on_the_command_line(run: Driftgate, tmp_path: Path, root: Path) -> None:
    table = rows().rename(columns={"a": "w", "b": "x", "c": "y, or so", "d": "z"})
    table.to_csv(tmp_path / "train.csv", index=False)
    refused = run(*build(tmp_path / "train.csv"))
    assert "input 'x': expected 4 columns, of which the data lacks 'a', 'b', 'c', 'd'" in refused.stderr
    assert run(*build(tmp_path / "train.csv", "--names", '["w", "x", "y, or so", "z"]')).exit_code == 0
    profile = Profile.decode((root / "mlp" / "profiles" / "1.profile").read_bytes())
    assert profile.summary.moments()["a"].summary().mean == pytest.approx(table.w.mean(), rel=1e-4)
    complaint = run(*build(tmp_path / "train.csv", "--names", "a,b", model="mixed")).stderr
    assert "--names: the model has 4 inputs; each takes the column of its own name" in complaint


def test_a_model_that_fails_on_rows_leaves_no_file(run: Driftgate, root: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "ids.npz", ids=np.array([1, 2, 99]))
    result = run(*build(tmp_path / "ids.npz", model="gather"))
    assert result.exit_code == 1
    assert "the model fails on rows 1 to 3 of the data" in result.stderr
    assert not (root / "gather" / "profiles").exists()


def test_a_profile_of_another_content_of_the_version_can_be_told(run: Driftgate, root: Path, data: Path) -> None:
    run(*build(data, "--target", "label"))
    write_version(root, "mlp", 1, versioned(2.0))
    profile = Profile.decode((root / "mlp" / "profiles" / "1.profile").read_bytes())
    assert profile.version_digest != folder_digest(root / "mlp" / "1")


def test_a_cache_that_is_not_ours_is_done_without(
    run: Driftgate, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DRIFTGATE_STATE_DIR", str(tmp_path / "file" / "state"))
    assert run(*build(data, "--target", "label")).exit_code == 0


def test_real_data_from_three_kinds_of_files_gives_equal_sketches(run: Driftgate, root: Path, tmp_path: Path) -> None:
    """Breast cancer's 569 rows, through a classifier that skl2onnx has exported, with names in the graph's metadata."""
    write_version(root, "cancer", 1, classifier())
    cancer = load_breast_cancer()
    table = pd.DataFrame(cancer.data, columns=FEATURES).assign(diagnosis=cancer.target)
    table.to_parquet(tmp_path / "train.parquet")
    table.to_csv(tmp_path / "train.csv", index=False)
    np.savez(tmp_path / "train.npz", X=cancer.data, diagnosis=cancer.target)
    profiles = []
    for kind in ("parquet", "csv", "npz"):
        output = tmp_path / f"{kind}.profile"
        result = run(*build(tmp_path / f"train.{kind}", "--target", "diagnosis", "--output", output, model="cancer"))
        assert result.exit_code == 0, result.output
        profiles.append(Profile.decode(output.read_bytes()))
    one, *others = profiles
    assert [feature.name for feature in one.schema.features][:30] == FEATURES
    for other in others:
        assert other.labels == one.labels == {"0": 212, "1": 357}
        assert [block.memory.tobytes() for block, _ in other.summary.blocks()] == [
            block.memory.tobytes() for block, _ in one.summary.blocks()
        ]
    assert one.summary.moments()["mean radius"].summary().correlation < -0.5


def classifier() -> bytes:
    import onnx
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    cancer = load_breast_cancer()
    x = cancer.data.astype(np.float32)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, cancer.target)
    converted = to_onnx(model, x[:1], options={"zipmap": False}, target_opset={"": 18, "ai.onnx.ml": 3})
    onnx.helper.set_model_props(converted, {"feature_names": json.dumps(FEATURES)})
    return bytes(converted.SerializeToString())


def test_a_terminal_sees_progress_and_ctrl_c_leaves_no_file(run: Driftgate, root: Path, tmp_path: Path) -> None:
    """Rows are run one by one, so that it takes long enough to be interrupted."""
    assert run is not None
    np.savez(tmp_path / "train.npz", x=np.zeros((3_000_000, 4), np.float32))
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", *map(str, ("profile", *build(tmp_path / "train.npz", "--batch-rows", 1)))],
        stdin=theirs, stdout=subprocess.PIPE, stderr=theirs,
        env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "120"},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        while b"rows/s" not in shown:
            shown += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 1
    finally:
        process.kill()
        process.communicate()
        os.close(ours)
    assert not (root / "mlp" / "profiles").exists()


def test_without_a_terminal_there_is_no_progress(run: Driftgate, data: Path) -> None:
    assert run(*build(data, "--target", "label")).stderr == ""


def wide(folder: Path, kind: str, rows: int) -> Path:
    """rows of 32 columns: 128 bytes a row as float32, and more in each format."""
    x = np.random.default_rng(rows).normal(size=(rows, 32)).astype(np.float32)
    if kind.startswith("npz"):
        path = folder / f"{rows}.npz"
        np.savez(path, X=np.asfortranarray(x) if "columns" in kind else x)
        return path
    table = pa.table({f"c{at}": x[:, at].astype(np.float64) for at in range(32)})
    path = folder / f"{rows}.{kind}"
    if kind == "csv":
        pyarrow.csv.write_csv(table, path)
    else:
        pyarrow.parquet.write_table(table, path, row_group_size=rows)  # one group: as hard as it can be
    return path


PEAK = """
import sys, tracemalloc
import gateway.cli.profile_build, gateway.cli.profile_show, runtime.profile.build_arrow
from gateway.__main__ import main
tracemalloc.start()  # not before: to trace imports takes seconds
try:
    main()
except SystemExit as end:
    assert not end.code
pool = sys.modules["pyarrow"].default_memory_pool().max_memory()
print("peak", tracemalloc.get_traced_memory()[1] + pool, file=sys.stderr)
"""


def peak_bytes(*arguments: object) -> int:
    """The most that Python, NumPy and Arrow have allocated in a process of its own, which has built a profile.

    Not its resident memory: what allocators keep, and what Arrow reads ahead of a slow reader, varies by more than a
    test's data.
    """
    command = [sys.executable, "-c", PEAK, "profile", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return int(done.stderr.rpartition("peak ")[2])


@pytest.mark.parametrize(
    ("kind", "few", "many"),
    [
        ("parquet", 200_000, 450_000),
        ("csv", 100_000, 250_000),
        ("npz", 40_000, 200_000),
        ("npz in columns", 40_000, 200_000),
    ],
)
def test_memory_does_not_grow_with_the_data(
    run: Driftgate, root: Path, tmp_path: Path, kind: str, few: int, many: int
) -> None:
    """Once pages, dictionaries and blocks have their size, more rows take no more.

    Of rows that are kept, 150,000 take 19 MB.
    """
    assert run is not None
    write_version(root, "wide", 1, graph("wide (float[N,32] X) => (float[N,32] y) { y = Neg(X) }")())
    files = [wide(tmp_path, kind, rows) for rows in (few, many)]
    peaks = [peak_bytes(*build(file, "--output", tmp_path / "out", model="wide")) for file in files]
    assert peaks[1] - peaks[0] < 3_000_000, peaks
