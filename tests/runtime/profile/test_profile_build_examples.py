"""Each example model comes with the profile of the rows that it was trained on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from runtime.profile.reference import Profile
from runtime.repository.digest import folder_digest
from runtime.repository.layout import profile_path, version_number

ROOT = Path(__file__).resolve().parents[3]
TRAINED_ROWS = {"breast_cancer": 426, "diabetes": 331, "digits": 1347, "patients": 331}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("examples")
    subprocess.run(
        [sys.executable, ROOT / "examples" / "build.py", "--out", out], check=True, capture_output=True, cwd=ROOT
    )
    return out


def test_every_version_has_a_profile_of_its_training_rows(models: Path) -> None:
    versions = [folder for folder in models.glob("*/*") if version_number(folder.name) is not None]
    assert len(versions) == 9
    for folder in versions:
        model = folder.parent.name
        profile = Profile.decode((models / profile_path(model, int(folder.name))).read_bytes())
        assert profile.rows == TRAINED_ROWS[model]
        assert profile.version_digest == folder_digest(folder)
        assert sum(profile.labels.values()) == profile.rows


def test_features_have_the_names_of_the_data(models: Path) -> None:
    profile = Profile.decode((models / profile_path("breast_cancer", 1)).read_bytes())
    assert profile.schema.features[0].name == "mean radius"
    assert "worst area" in profile.summary.moments()
    profile = Profile.decode((models / profile_path("patients", 1)).read_bytes())
    assert {feature.name for feature in profile.schema.features} >= {"bmi_group", "age", "probabilities[fast]"}


def test_built_again_nothing_is_written(models: Path) -> None:
    files = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in models.rglob("*") if path.is_file()}
    command = [sys.executable, ROOT / "examples" / "build.py", "--out", models, "--only", "diabetes"]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in models.rglob("*") if path.is_file()} == files
