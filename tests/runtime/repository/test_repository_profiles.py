"""Profiles beside versions: read, written whole, and no part of what a version is."""

from __future__ import annotations

import os

import pytest
from repository_models import age, write_version

from runtime.errors import NotFound, RepositoryUnavailable
from runtime.repository import repository as module
from runtime.repository.cache import ArtifactCache
from runtime.repository.repository import ProfileExists, ProfileTooLarge, Repository


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "models"
    write_version(root, "loans", 1)
    return root


@pytest.fixture(params=["local", "memory"])
def repository(request, root, tmp_path):
    """On a local folder, and on a file system of fsspec."""
    cache = ArtifactCache(tmp_path / "cache")
    if request.param == "local":
        yield Repository([str(root)], cache)
    else:
        import fsspec

        memory = fsspec.filesystem("memory")
        memory.pipe_file(f"/{tmp_path.name}/loans/1/model.onnx", (root / "loans" / "1" / "model.onnx").read_bytes())
        yield Repository([f"memory://{tmp_path.name}"], cache, settle_seconds=0)
        memory.rm(f"/{tmp_path.name}", recursive=True)
    cache.close()


def test_what_was_written_is_read(repository):
    assert repository.profile("loans", 1) is None
    assert repository.write_profile("loans", 1, b"profile")
    assert repository.profile("loans", 1) == b"profile"
    assert repository.profile("loans", 2) is None
    assert repository.profile("fraud", 1) is None


def test_the_same_is_not_written_again_and_another_only_if_that_is_asked_for(repository):
    assert repository.write_profile("loans", 1, b"one")
    assert not repository.write_profile("loans", 1, b"one")
    with pytest.raises(ProfileExists):
        repository.write_profile("loans", 1, b"other")
    assert repository.profile("loans", 1) == b"one"
    assert repository.write_profile("loans", 1, b"other", replace=True)
    assert repository.profile("loans", 1) == b"other"


def test_a_scan_does_not_see_profiles_and_a_versions_digest_stays(repository):
    before, digest = repository.scan(), repository.fetch("loans", 1).digest
    repository.write_profile("loans", 1, b"profile")
    assert repository.scan() == before
    assert before.problems == ()
    assert before.models["loans"].warnings == ()
    assert repository.model("loans") == before.models["loans"]
    assert repository.fetch("loans", 1).digest == digest


def test_a_version_that_is_not_there_gets_none(repository):
    with pytest.raises(NotFound, match="has no version 2"):
        repository.write_profile("loans", 2, b"profile")
    with pytest.raises(NotFound, match="'fraud' is not in the repository"):
        repository.write_profile("fraud", 1, b"profile")
    with pytest.raises(NotFound):
        repository.model("fraud")


def test_a_file_too_large_for_a_profile_is_neither_read_nor_written(repository, monkeypatch):
    monkeypatch.setattr(module, "MAX_PROFILE_BYTES", 10)
    with pytest.raises(ProfileTooLarge):
        repository.write_profile("loans", 1, bytes(11))
    monkeypatch.undo()
    repository.write_profile("loans", 1, bytes(11))
    monkeypatch.setattr(module, "MAX_PROFILE_BYTES", 10)
    with pytest.raises(ProfileTooLarge):
        repository.profile("loans", 1)


def test_a_root_that_is_gone_is_unavailable(root, tmp_path):
    repository = Repository([str(root)], ArtifactCache(tmp_path / "cache"))
    repository.scan()
    root.rename(tmp_path / "elsewhere")
    for ask in (lambda: repository.profile("loans", 1), lambda: repository.write_profile("loans", 1, b"p")):
        with pytest.raises(RepositoryUnavailable):
            ask()


def test_a_file_where_the_folder_would_be_is_said(root, tmp_path):
    repository = Repository([str(root)], ArtifactCache(tmp_path / "cache"))
    (root / "loans" / "profiles").write_text("")
    with pytest.raises(RepositoryUnavailable, match=r"'loans/profiles/1\.profile' in the model repository cannot be"):
        repository.write_profile("loans", 1, b"profile")


def test_what_cannot_be_written_whole_leaves_what_was_there(root, tmp_path, monkeypatch):
    repository = Repository([str(root)], ArtifactCache(tmp_path / "cache"))
    repository.write_profile("loans", 1, b"one")

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RepositoryUnavailable, match="cannot be written: No space left on device"):
        repository.write_profile("loans", 1, b"other", replace=True)
    assert repository.profile("loans", 1) == b"one"
    assert [path.name for path in (root / "loans" / "profiles").iterdir()] == ["1.profile"]


def test_the_first_root_that_has_the_model_has_its_profiles(root, tmp_path):
    write_version(tmp_path / "second", "loans", 1)
    age(tmp_path, 60)
    repository = Repository([str(root), str(tmp_path / "second")], ArtifactCache(tmp_path / "cache"))
    repository.write_profile("loans", 1, b"profile")
    assert (root / "loans" / "profiles" / "1.profile").read_bytes() == b"profile"
    assert not (tmp_path / "second" / "loans" / "profiles").exists()
