"""The repository over real folders and object stores: what it finds, and that it never hands out half a version."""

import itertools
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import onnxruntime as ort
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st
from repository_models import ManualClock, age, save_external, small_model, write_version

from runtime.errors import IncompleteVersion, LoadError, NotFound, RepositoryUnavailable
from runtime.repository.cache import ArtifactCache
from runtime.repository.digest import folder_digest
from runtime.repository.manifest import Manifest
from runtime.repository.repository import Repository
from runtime.repository.source import LocalSource

FIRST_BYTES = small_model().SerializeToString()
_names = itertools.count()


@pytest.fixture
def cache(tmp_path):
    cache = ArtifactCache(tmp_path / "cache")
    yield cache
    cache.close()


@pytest.fixture
def root(tmp_path):
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.fixture
def repository(root, cache):
    return Repository([str(root)], cache)


@pytest.fixture
def memory_root():
    """An object store in this process's memory, empty, at a URL of its own."""
    url = f"memory://bucket{next(_names)}/models"
    fs = fsspec.filesystem("memory")
    yield url, fs, url.removeprefix("memory:/")
    fs.rm(url.removeprefix("memory:/"), recursive=True)


class Reads:
    """Counts the bytes that are read of a version's files."""

    def __init__(self, monkeypatch):
        self.bytes = 0
        original = LocalSource.chunks

        def counted(source, path):
            for chunk in original(source, path):
                self.bytes += len(chunk)
                yield chunk

        monkeypatch.setattr(LocalSource, "chunks", counted)


def test_a_scan_finds_models_and_their_complete_versions(root, repository):
    for version in (10, 2, 1):
        write_version(root, "loans", version)
    write_version(root, "fraud")
    scan = repository.scan()
    assert {name: entry.versions for name, entry in scan.models.items()} == {"fraud": (1,), "loans": (1, 2, 10)}
    assert (scan.problems, scan.complete) == ((), True)
    entry = scan.models["loans"]
    assert (entry.root, entry.manifest, entry.warnings, entry.problems) == (str(root), Manifest(), (), ())


def test_what_is_no_model_and_no_version_is_passed_over(root, repository):
    write_version(root, "loans", 3)
    for name in ("loans/01", "loans/0", "loans/latest", "loans/.4", ".git/1", "notes!"):
        (root / name).mkdir(parents=True)
    (root / "README.md").write_text("hello")
    (root / "loans" / "7").write_text("a file")
    scan = repository.scan()
    assert list(scan.models) == ["loans"]
    assert scan.models["loans"].versions == (3,)
    (problem,) = scan.problems
    assert "folder 'notes!' is not served: a model's name is 1 to 128 letters" in problem


def test_incomplete_versions_are_named_with_what_they_lack(root, repository):
    write_version(root, "loans", 1)
    (root / "loans" / "2").mkdir()
    write_version(root, "loans", 3).joinpath("model.onnx").write_bytes(b"")
    write_version(root, "loans", 4).joinpath("w.bin.part").write_bytes(b"x")
    write_version(root, "loans", 5).joinpath("dangling").symlink_to("nowhere")
    entry = repository.scan().models["loans"]
    assert entry.versions == (1,)
    assert entry.incomplete == {
        2: "model.onnx is missing; the folder holds no files",
        3: "model.onnx is empty",
        4: "w.bin.part is a partial upload; when none is under way, delete it",
        5: "dangling is neither a file nor a folder (a broken link?)",
    }


def test_a_model_without_versions_is_a_problem(root, repository):
    (root / "loans").mkdir()
    assert "no version: the model's folder needs one named by a number" in repository.scan().models["loans"].problems[0]


def test_a_folder_linked_into_place_is_read_like_any_other(root, repository, tmp_path):
    """Deployments swap links; Kubernetes mounts volumes as links into hidden folders."""
    elsewhere = write_version(tmp_path / "elsewhere", "x", 1)
    (root / "loans" / "1").mkdir(parents=True)
    shutil.copytree(elsewhere, root / "loans" / "1" / "..2025")
    (root / "loans" / "1" / "..data").symlink_to("..2025")
    (root / "loans" / "1" / "model.onnx").symlink_to("..data/model.onnx")
    (root / "loans" / "2").symlink_to(elsewhere)
    age(root, 60)
    assert repository.scan().models["loans"].versions == (1, 2)
    assert repository.fetch("loans", 1).digest == repository.fetch("loans", 2).digest


def test_a_fetched_version_is_a_copy_that_onnxruntime_runs(root, repository):
    folder = write_version(root, "loans", 4)
    save_external(folder, small_model(), "data/weights.bin")
    age(folder, 60)
    artifact = repository.fetch("loans", 4)
    assert (artifact.model, artifact.version, artifact.model_filename) == ("loans", 4, "model.onnx")
    assert artifact.digest == folder_digest(folder) == folder_digest(Path(artifact.folder))
    assert artifact.file_bytes == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    shutil.rmtree(root)
    assert ort.InferenceSession(f"{artifact.folder}/{artifact.model_filename}").get_inputs()[0].name == "x"


def test_the_same_content_has_the_same_digest_whatever_it_is_called(root, repository):
    write_version(root, "loans", 1)
    write_version(root, "fraud", 7, age_seconds=500)
    assert repository.fetch("loans", 1).digest == repository.fetch("fraud", 7).digest
    write_version(root, "loans", 2, scale=3.0)
    assert repository.fetch("loans", 2).digest != repository.fetch("loans", 1).digest


def test_clutter_is_no_part_of_a_version(root, repository):
    plain = repository.fetch("loans", 1).digest if write_version(root, "loans", 1) else ""
    folder = write_version(root, "loans", 2)
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "w.tmp").write_bytes(b"x")
    assert repository.fetch("loans", 2).digest == plain


def test_an_unchanged_version_is_not_read_again_even_after_a_restart(root, repository, cache, tmp_path, monkeypatch):
    write_version(root, "loans", 1)
    first = repository.fetch("loans", 1)
    reads = Reads(monkeypatch)
    assert repository.fetch("loans", 1) == first
    cache.close()
    assert Repository([str(root)], ArtifactCache(tmp_path / "cache")).fetch("loans", 1) == first
    assert reads.bytes == 0


def test_a_version_that_was_swept_from_the_cache_is_read_again(root, repository, cache):
    write_version(root, "loans", 1)
    first = repository.fetch("loans", 1)
    assert cache.keep([]) == (first.digest,)
    assert repository.fetch("loans", 1) == first
    assert (Path(first.folder) / "model.onnx").exists()


def test_a_version_overwritten_in_place_has_a_new_digest(root, repository):
    """Even with the size and the time of the old file."""
    folder = write_version(root, "loans", 1, scale=2.0)
    stat = (folder / "model.onnx").stat()
    first = repository.fetch("loans", 1)
    (folder / "model.onnx").write_bytes(small_model(3.0).SerializeToString())
    os.utime(folder / "model.onnx", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (folder / "model.onnx").stat().st_size == stat.st_size
    second = repository.fetch("loans", 1)
    assert second.digest == folder_digest(folder) != first.digest


@pytest.mark.parametrize(
    ("name", "version", "message"),
    [
        ("fraud", 1, "model 'fraud' is not in the repository"),
        ("loans", 9, "model 'loans' has no version 9 in the repository; its newest are: 1, 2"),
        ("loans", -1, "has no version -1"),
        ("../models/loans", 1, "is not in the repository"),
        ("README", 1, "is not in the repository"),
    ],
)
def test_what_is_not_there_is_not_found(root, repository, name, version, message):
    write_version(root, "loans", 1)
    write_version(root, "loans", 2)
    (root / "README").write_text("hello")
    with pytest.raises(NotFound, match=message):
        repository.fetch(name, version)


def test_files_still_being_written_are_waited_for(root, cache):
    write_version(root, "loans", 1, age_seconds=0)
    clock = ManualClock(time.time())
    repository = Repository([str(root)], cache, settle_seconds=30, clock=clock, sleep=clock.sleep)
    assert repository.fetch("loans", 1).version == 1
    assert len(clock.slept) == 1
    assert 29 < clock.slept[0] <= 30


def test_a_version_whose_upload_goes_on_is_incomplete(root, cache):
    folder = write_version(root, "loans", 1, age_seconds=0)
    clock = ManualClock(time.time())

    def write_on():
        (folder / "model.onnx").write_bytes(FIRST_BYTES)
        os.utime(folder / "model.onnx", (clock.now, clock.now))

    clock.on_sleep = write_on
    repository = Repository([str(root)], cache, settle_seconds=2, clock=clock, sleep=clock.sleep)
    with pytest.raises(IncompleteVersion, match="version 1 of model 'loans' is incomplete: its files are still being"):
        repository.fetch("loans", 1)
    assert sum(clock.slept) <= 10


def test_a_version_that_changes_while_it_is_copied_is_incomplete(root, repository, monkeypatch):
    folder = write_version(root, "loans", 1)
    (folder / "vocabulary.txt").write_bytes(b"a")
    age(folder, 60)
    original = LocalSource.chunks

    def chunks(source, path):
        if path.endswith("vocabulary.txt"):
            (folder / "model.onnx").write_bytes(small_model(5.0).SerializeToString())
        return original(source, path)

    monkeypatch.setattr(LocalSource, "chunks", chunks)
    with pytest.raises(IncompleteVersion, match="changed while they were read"):
        repository.fetch("loans", 1)


def test_a_file_cut_short_between_listing_and_copying_is_incomplete(root, repository, monkeypatch):
    folder = write_version(root, "loans", 1)
    original = LocalSource.chunks

    def chunks(source, path):
        (folder / "model.onnx").write_bytes(FIRST_BYTES[:100])
        return original(source, path)

    monkeypatch.setattr(LocalSource, "chunks", chunks)
    with pytest.raises(IncompleteVersion, match=rf"model\.onnx changed from {len(FIRST_BYTES)} to 100 bytes"):
        repository.fetch("loans", 1)


def test_a_version_fetched_by_many_threads_at_once_is_one_artifact(root, repository, tmp_path):
    write_version(root, "loans", 1)
    with ThreadPoolExecutor(8) as pool:
        artifacts = list(pool.map(lambda _: repository.fetch("loans", 1), range(32)))
    assert len(set(artifacts)) == 1
    assert len(list((tmp_path / "cache" / "artifacts").iterdir())) == 1


def test_missing_external_data_is_noticed_before_anything_large_is_copied(root, repository, monkeypatch):
    folder = write_version(root, "loans", 1)
    save_external(folder, small_model())
    (folder / "weights.bin").rename(folder / "other.bin")
    age(folder, 60)
    reads = Reads(monkeypatch)
    with pytest.raises(IncompleteVersion, match=r"lies in 'weights\.bin', which is missing"):
        repository.fetch("loans", 1)
    assert reads.bytes == (folder / "model.onnx").stat().st_size


def test_external_data_linked_out_of_the_folder_is_refused(root, repository, tmp_path):
    folder = write_version(root, "loans", 1)
    save_external(folder, small_model())
    (folder / "weights.bin").rename(tmp_path / "weights.bin")
    (folder / "weights.bin").symlink_to(tmp_path / "weights.bin")
    age(folder, 60)
    with pytest.raises(IncompleteVersion, match=r"'weights\.bin' is a link that leads out of the version's folder"):
        repository.fetch("loans", 1)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_half_copied_folder_is_never_served(tmp_path_factory, data):
    """Whatever part of the files has arrived, under whatever temporary names: all of it, or IncompleteVersion."""
    base = tmp_path_factory.mktemp("half")
    whole = base / "whole"
    whole.mkdir()
    save_external(whole, small_model())
    folder = base / "models" / "loans" / "1"
    folder.mkdir(parents=True)
    complete = True
    for name in ("model.onnx", "weights.bin"):
        content = (whole / name).read_bytes()
        arrived = data.draw(st.sampled_from(["all", "part", "none"]), name)
        if arrived == "all":
            (folder / name).write_bytes(content)
            continue
        complete = False
        if arrived == "part":
            pattern = data.draw(st.sampled_from(["{}", ".{}.Xa81bc", "{}.part", "{}.tmp", "{}.filepart"]))
            end = data.draw(st.integers(0, len(content) - 1))
            (folder / pattern.format(name)).write_bytes(content[:end])
    age(folder, 60)
    cache = ArtifactCache(base / "cache")
    try:
        artifact = Repository([str(base / "models")], cache).fetch("loans", 1)
    except IncompleteVersion as error:
        assert not complete, error  # noqa: PT017 - either outcome may be right
        assert list((base / "cache" / "artifacts").iterdir()) == []
    else:
        assert complete
        assert artifact.digest == folder_digest(whole)
    finally:
        cache.close()
        shutil.rmtree(base)


def test_a_root_that_vanishes_is_a_problem_and_no_exception(root, repository):
    write_version(root, "loans", 1)
    digest = repository.fetch("loans", 1).digest
    root.rename(root.with_name("gone"))
    scan = repository.scan()
    assert scan.models == {}
    assert not scan.complete
    assert scan.problems == (f"{root}: the model repository does not exist",)
    with pytest.raises(RepositoryUnavailable) as caught:
        repository.fetch("loans", 1)
    assert str(root) not in caught.value.message
    assert repository.cached("loans", 1, digest).digest == digest


def test_a_restart_without_the_repository_serves_from_the_cache(root, repository, cache, tmp_path):
    write_version(root, "loans", 1)
    artifact = repository.fetch("loans", 1)
    cache.close()
    shutil.rmtree(root)
    again = Repository([str(root)], ArtifactCache(tmp_path / "cache"))
    assert again.cached("loans", 1, artifact.digest) == artifact
    assert again.cached("loans", 1, "sha256:" + "0" * 64) is None


def test_a_root_that_is_a_file_cannot_be_read(root, cache):
    (root / "file").write_text("")
    scan = Repository([str(root / "file")], cache).scan()
    assert scan.problems == (f"{root}/file: the model repository cannot be read: Not a directory",)


def test_the_first_root_that_has_a_model_wins(tmp_path, cache):
    write_version(tmp_path / "a", "loans", 1, scale=2.0)
    write_version(tmp_path / "b", "loans", 2, scale=3.0)
    write_version(tmp_path / "b", "fraud", 1)
    repository = Repository([str(tmp_path / "a"), str(tmp_path / "b")], cache)
    scan = repository.scan()
    assert scan.models["loans"].versions == (1,)
    assert scan.models["fraud"].root == str(tmp_path / "b")
    assert scan.problems == (f"{tmp_path}/b: model 'loans' is taken from {tmp_path}/a instead",)
    with pytest.raises(NotFound):
        repository.fetch("loans", 2)


def test_another_root_does_not_step_in_for_one_that_cannot_be_read(tmp_path, cache):
    """A share that is down for a minute must not change which model answers."""
    write_version(tmp_path / "a", "loans", 1, scale=2.0)
    write_version(tmp_path / "b", "loans", 1, scale=3.0)
    write_version(tmp_path / "b", "fraud", 1)
    repository = Repository([str(tmp_path / "a"), str(tmp_path / "b")], cache)
    first = repository.fetch("loans", 1)
    repository.scan()
    (tmp_path / "a").rename(tmp_path / "away")
    scan = repository.scan()
    assert list(scan.models) == ["fraud"]
    assert "belongs to a root that cannot be read now" in scan.problems[1]
    with pytest.raises(RepositoryUnavailable):
        repository.fetch("loans", 1)
    assert repository.fetch("fraud", 1).model == "fraud"
    (tmp_path / "away").rename(tmp_path / "a")
    assert repository.fetch("loans", 1) == first


def test_an_object_store_is_a_root_like_any_other(memory_root, cache, tmp_path):
    url, fs, base = memory_root
    local = write_version(tmp_path / "local", "loans", 3)
    save_external(local, small_model())
    fs.put(str(local), f"{base}/loans/3", recursive=True)
    fs.pipe(f"{base}/loans/model.yaml", b"instances: 3")
    repository = Repository([url], cache, settle_seconds=0)
    entry = repository.scan().models["loans"]
    assert (entry.versions, entry.manifest.instances) == ((3,), 3)
    artifact = repository.fetch("loans", 3)
    assert artifact.digest == folder_digest(local)
    fs.pipe(f"{base}/loans/3/weights.bin", b"short")
    with pytest.raises(IncompleteVersion, match=r"'weights\.bin', which has 5"):
        repository.fetch("loans", 3)


def test_files_just_put_into_an_object_store_are_waited_for(memory_root, cache):
    url, fs, base = memory_root
    fs.pipe(f"{base}/loans/1/model.onnx", FIRST_BYTES)
    clock = ManualClock(time.time())
    Repository([url], cache, settle_seconds=30, clock=clock, sleep=clock.sleep).fetch("loans", 1)
    assert clock.slept
    assert 29 < clock.slept[0] <= 30


class CachingStore(MemoryFileSystem):
    """Remembers listings until told otherwise, as fsspec's object stores do."""

    protocol = "cachingstore"
    listings: ClassVar[dict[str, list[dict[str, Any]]]] = {}

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("cachingstore://", "memory://"))

    def ls(self, path, detail=True, **kwargs):
        return self.listings.setdefault(path, super().ls(path, detail, **kwargs))

    def invalidate_cache(self, path=None):
        self.listings.clear()


def test_a_new_version_shows_although_the_store_remembers_listings(memory_root, cache):
    url, fs, base = memory_root
    fsspec.register_implementation("cachingstore", CachingStore, clobber=True)
    repository = Repository([url.replace("memory", "cachingstore")], cache, settle_seconds=0)
    fs.pipe(f"{base}/loans/1/model.onnx", FIRST_BYTES)
    assert repository.scan().models["loans"].versions == (1,)
    fs.pipe(f"{base}/loans/2/model.onnx", FIRST_BYTES)
    assert repository.scan().models["loans"].versions == (1, 2)


def test_an_object_store_without_the_prefix_is_a_root_that_does_not_exist(cache):
    repository = Repository(["memory://nothing-here"], cache)
    assert repository.scan().problems == ("memory://nothing-here: the model repository does not exist",)
    with pytest.raises(RepositoryUnavailable):
        repository.fetch("loans", 1)


def test_a_file_url_is_a_local_root(root, cache):
    write_version(root, "loans", 1)
    repository = Repository([f"file://{root}"], cache)
    assert repository.scan().models["loans"].root == str(root)
    assert repository.fetch("loans", 1).digest == folder_digest(root / "loans" / "1")


@pytest.mark.parametrize(("url", "reason"), [("zork://x", "zork"), ("s3://user:secret@bucket/x?token=t", "s3")])
def test_a_root_of_an_unknown_kind_is_a_problem_without_its_credentials(cache, url, reason):
    scan = Repository([url], cache).scan()
    (problem,) = scan.problems
    assert reason in problem
    assert "cannot be read" in problem
    assert "secret" not in problem
    assert "token" not in problem
    assert not scan.complete


def foreign(settings, *warnings):
    return lambda text: (dict(settings), [*warnings, f"read {len(text)} characters"])


def test_settings_of_another_server_are_read_through_the_given_reader(root, cache):
    folder = write_version(root, "loans", 1)
    (folder / "model.onnx").rename(folder / "net.onnx")
    (root / "loans" / "config.pbtxt").write_text("12345")
    reader = foreign({"instances": 3, "model_filename": "net.onnx"}, "a note")
    repository = Repository([str(root)], cache, reader)
    entry = repository.scan().models["loans"]
    assert (entry.manifest.instances, entry.model_filename, entry.versions) == (3, "net.onnx", (1,))
    assert entry.warnings == ("a note", "read 5 characters")
    artifact = repository.fetch("loans", 1)
    assert artifact.model_filename == "net.onnx"
    assert repository.cached("loans", 1, artifact.digest) == artifact


def test_model_yaml_wins_over_another_server_key_by_key_and_says_so(root, cache):
    write_version(root, "loans", 1)
    (root / "loans" / "config.pbtxt").write_text("")
    (root / "loans" / "model.yaml").write_text("versions: {latest: 2}\nbatching: {max_batch_size: 4}\nsession:\n")
    reader = foreign(
        {
            "versions": {"specific": [9]},
            "batching": {"max_batch_size": 8, "max_queue_requests": 7},
            "session": {"intra_op_threads": 2},
        }
    )
    entry = Repository([str(root)], cache, reader).scan().models["loans"]
    assert str(entry.manifest.versions) == "latest(2)"
    assert entry.manifest.batching.model_dump() == {
        "max_batch_size": 4,
        "max_queue_delay_seconds": 0.0,
        "max_queue_requests": 7,
    }
    assert entry.manifest.session.intra_op_threads == 2
    assert entry.warnings[-1] == (
        "model.yaml and config.pbtxt are both read; model.yaml wins for batching.max_batch_size, versions"
    )


def test_a_manifest_with_problems_gives_the_default_one_and_the_problems(root, repository):
    write_version(root, "loans", 1)
    (root / "loans" / "model.yaml").write_text("instances: 0\nzork: 1")
    entry = repository.scan().models["loans"]
    assert entry.manifest == Manifest()
    assert entry.versions == (1,)
    (problem,) = entry.problems
    assert problem.startswith(
        "loans/model.yaml has 2 problems:\ninstances: expected an integer 1..64, got 0;\nzork: unknown"
    )


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"a: \xff", "byte 3 is not UTF-8"), (b"#" * (1 << 20) + b"\n#", "the file is longer than 1048576 bytes")],
)
def test_a_manifest_that_is_no_text_or_too_long_is_a_problem(root, repository, content, problem):
    write_version(root, "loans", 1)
    (root / "loans" / "model.yaml").write_bytes(content)
    assert repository.scan().models["loans"].problems == (f"loans/model.yaml has 1 problem:\n{problem}",)


def test_another_server_file_that_cannot_be_served_is_a_problem(root, cache):
    write_version(root, "loans", 1)
    (root / "loans" / "config.pbtxt").write_text("")
    (root / "loans" / "model.yaml").write_text("instances: 5")

    def refuse(text):
        raise LoadError("config.pbtxt asks for backend 'python'; driftgate serves ONNX only")

    entry = Repository([str(root)], cache, refuse).scan().models["loans"]
    assert entry.problems == ("config.pbtxt asks for backend 'python'; driftgate serves ONNX only",)
    assert entry.manifest == Manifest()


@pytest.mark.parametrize("name", ["../x.onnx", "a/b", ".x", "", "x.tmp"])
def test_a_model_file_name_that_is_none_is_a_problem(root, cache, name):
    write_version(root, "loans", 1)
    (root / "loans" / "config.pbtxt").write_text("")
    entry = Repository([str(root)], cache, foreign({"model_filename": name})).scan().models["loans"]
    assert entry.model_filename == "model.onnx"
    assert "must be that of a file in the version's folder" in entry.problems[0]


def test_versions_and_labels_that_name_what_is_not_there_are_warned_of(root, repository):
    write_version(root, "loans", 1)
    (root / "loans" / "model.yaml").write_text("versions: {specific: [1, 8]}\nlabels: {stable: 1, next: 9}")
    assert repository.scan().models["loans"].warnings == (
        "versions names 8, not in the repository; there are: 1",
        "labels.next is version 9, not in the repository; there are: 1",
    )
