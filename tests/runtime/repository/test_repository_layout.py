"""What counts as a model, a version, and a complete one."""

import hashlib
import struct

import pytest
from repository_models import ManualClock

from runtime.errors import IncompleteVersion
from runtime.repository.digest import FileDigest, file_digest, folder_digest, version_digest
from runtime.repository.graph import ExternalFile
from runtime.repository.layout import (
    FileStat,
    external_problem,
    inside_path,
    is_model_name,
    listing_problem,
    settled,
    version_number,
)

MODEL = FileStat("model.onnx", 10)


@pytest.mark.parametrize(("name", "version"), [("1", 1), ("20250131", 20250131), (str(2**63 - 1), 2**63 - 1)])
def test_a_folder_named_by_a_positive_number_is_a_version(name, version):
    assert version_number(name) == version


@pytest.mark.parametrize("name", ["0", "01", "-1", "1.0", "v1", "", " 1", "1\n", "\u0661", "1_0", str(2**63)])
def test_other_folders_are_no_versions(name):
    assert version_number(name) is None


@pytest.mark.parametrize("name", ["a", "9", "ResNet-50_v1.5", "x" * 128])
def test_names_of_models(name):
    assert is_model_name(name)


@pytest.mark.parametrize("name", ["", ".git", "-a", "_a", "a b", "a/b", "..", "é", "x" * 129, "a\n"])
def test_what_cannot_name_a_model(name):
    assert not is_model_name(name)


@pytest.mark.parametrize(
    "name", [".model.onnx.x7Yz1a", "w.bin.tmp", "w.PART", "w.partial", "w.crdownload", "w.filepart"]
)
def test_a_partial_upload_beside_the_model_makes_a_version_incomplete(name):
    assert f"{name} is a partial upload" in listing_problem([FileStat(name, 5), MODEL], "model.onnx")
    assert "sub/" in listing_problem([MODEL, FileStat(f"sub/{name}", 5)], "model.onnx")


def test_a_model_file_must_be_there_and_not_empty():
    assert listing_problem([MODEL], "model.onnx") == ""
    assert listing_problem([FileStat("model.onnx", 0)], "model.onnx") == "model.onnx is empty"
    assert listing_problem([], "model.onnx") == "model.onnx is missing; the folder holds no files"
    assert "net.onnx is missing; the folder holds model.onnx" in listing_problem([MODEL], "net.onnx")


@pytest.mark.parametrize("location", ["../w.bin", "/etc/passwd", "a/../../w", "", ".", "a/..", "a\0b", "\ud800"])
def test_external_data_outside_the_folder_is_refused(location):
    assert inside_path(location) is None
    problem = external_problem([ExternalFile(location, 1, "t")], [MODEL])
    assert "external data must lie inside the version's folder" in problem


def test_external_data_must_be_there_and_long_enough():
    needed = [ExternalFile("./data/w.bin", 100, "t")]
    assert "'t' lies in './data/w.bin', which is missing" in external_problem(needed, [MODEL])
    assert "needs 100 bytes of './data/w.bin', which has 99" in external_problem(needed, [FileStat("data/w.bin", 99)])
    assert external_problem(needed, [FileStat("data/w.bin", 100)]) == ""


def settle(clock: ManualClock, list_files) -> tuple[FileStat, ...]:
    return settled(list_files, 1.0, clock=clock, sleep=clock.sleep)


def test_files_that_are_old_enough_are_taken_at_once():
    clock = ManualClock(100.0)
    assert settle(clock, lambda: (FileStat("a", 1, 99.0),)) == (FileStat("a", 1, 99.0),)
    assert clock.slept == []


def test_a_store_that_tells_no_times_is_not_waited_for():
    clock = ManualClock(100.0)
    assert settle(clock, lambda: (FileStat("a", 1),)) == (FileStat("a", 1),)
    assert clock.slept == []


def test_files_just_written_are_waited_for_until_they_are_old_enough():
    clock = ManualClock(100.0)
    settle(clock, lambda: (FileStat("a", 1, 40.0), FileStat("b", 1, 99.75)))
    assert clock.slept == [0.75]


def test_files_that_are_written_on_and_on_are_given_up():
    clock = ManualClock(100.0)
    with pytest.raises(IncompleteVersion, match="still being written"):
        settle(clock, lambda: (FileStat("a", 1, clock.now - 0.25),))
    assert clock.slept == [0.75] * 5


def test_a_time_in_the_future_is_another_clock_and_stillness_is_enough():
    clock = ManualClock(100.0)
    assert settle(clock, lambda: (FileStat("a", 1, 5000.0),)) == (FileStat("a", 1, 5000.0),)
    assert clock.slept == [1.0]


def test_a_time_in_the_future_that_moves_is_given_up():
    clock = ManualClock(100.0)
    with pytest.raises(IncompleteVersion):
        settle(clock, lambda: (FileStat("a", int(clock.now), clock.now + 50),))


def test_a_digest_is_made_as_documented(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "b").write_bytes(b"bb")
    (tmp_path / "sub" / "ä").write_bytes(b"")
    total = hashlib.sha256()
    for path, content in (("b", b"bb"), ("sub/ä", b"")):
        total.update(path.encode() + b"\0" + struct.pack("<Q", len(content)) + hashlib.sha256(content).digest())
    assert folder_digest(tmp_path) == f"sha256:{total.hexdigest()}"


def test_a_digest_depends_on_names_and_content_and_nothing_else(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    first = file_digest(tmp_path / "a", "a")
    other = FileDigest("b", first.size_bytes, first.sha256)
    assert version_digest([first, other]) == version_digest([other, first])
    assert version_digest([first]) != version_digest([other])
    assert version_digest([first]) != version_digest([first, other])
