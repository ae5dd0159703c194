"""The cache of versions: whole or absent, shared between processes, swept without pulling files from under anyone."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runtime.repository.cache import ArtifactCache, CachedVersion, CacheUnwritable
from runtime.repository.digest import folder_digest
from runtime.repository.layout import FileStat
from runtime.repository.seen import SeenVersions, signature_of


@pytest.fixture
def cache(tmp_path):
    cache = ArtifactCache(tmp_path / "cache")
    yield cache
    cache.close()


def put(cache: ArtifactCache, content: bytes = b"graph") -> CachedVersion:
    with cache.stage() as staging:
        staging.add("model.onnx", [content[:2], content[2:]])
        staging.add("data/w.bin", [b"weights"])
        return staging.publish("model.onnx")


def test_what_was_published_is_found_under_the_digest_of_its_content(cache):
    put_in = put(cache)
    assert cache.find(put_in.digest) == put_in
    assert folder_digest(Path(put_in.folder)) == put_in.digest
    assert (Path(put_in.folder) / "data" / "w.bin").read_bytes() == b"weights"
    assert (put_in.file_bytes, put_in.model_filename) == (12, "model.onnx")


def test_files_in_the_cache_are_read_only(cache):
    assert (Path(put(cache).folder) / "model.onnx").stat().st_mode & 0o777 == 0o444


def test_the_same_content_published_twice_is_kept_once(cache, tmp_path):
    assert put(cache) == put(cache)
    assert len(list((tmp_path / "cache" / "artifacts").iterdir())) == 1
    assert staged(tmp_path) == []


def staged(tmp_path: Path) -> list[Path]:
    return [path for owner in (tmp_path / "cache" / "staging").iterdir() for path in owner.iterdir()]


@pytest.mark.parametrize("digest", ["sha256:" + "0" * 64, "", "sha256:../..", "md5:1", "sha256:" + "A" * 64])
def test_what_is_not_there_is_not_found(cache, digest):
    assert cache.find(digest) is None
    assert cache.hold(digest) is None


def test_a_copy_that_fails_leaves_nothing(cache, tmp_path):
    def broken():
        yield b"half"
        raise ValueError("the network")

    with pytest.raises(ValueError, match="network"), cache.stage() as staging:
        staging.add("model.onnx", broken())
    assert staged(tmp_path) == []
    assert list((tmp_path / "cache" / "artifacts").iterdir()) == []


def damage(cached: CachedVersion) -> None:
    """As after a power cut, when files may be there by name and empty."""
    path = Path(cached.folder) / "model.onnx"
    path.chmod(0o644)
    path.write_bytes(b"")


def test_a_damaged_artifact_is_not_found_and_is_replaced_by_the_next_publish(cache):
    damaged = put(cache)
    damage(damaged)
    assert cache.find(damaged.digest) is None
    assert put(cache) == damaged
    assert (Path(damaged.folder) / "model.onnx").read_bytes() == b"graph"


def test_a_damaged_artifact_that_is_in_use_is_not_replaced(cache):
    damaged = put(cache)
    damage(damaged)
    with (
        cache.hold(damaged.digest),
        pytest.raises(CacheUnwritable, match="damaged copy of this version that is in use"),
    ):
        put(cache)


def test_sweeping_keeps_what_is_named_and_removes_the_rest(cache):
    kept, other = put(cache, b"kept"), put(cache, b"other")
    assert cache.keep([kept.digest]) == (other.digest,)
    assert cache.find(kept.digest) == kept
    assert cache.find(other.digest) is None
    assert not Path(other.folder).exists()


def test_sweeping_spares_what_is_held_until_it_is_released(cache):
    used = put(cache)
    with cache.hold(used.digest):
        assert cache.keep([]) == ()
        assert cache.find(used.digest) == used
    assert cache.keep([]) == (used.digest,)


def test_a_hold_can_be_released_twice(cache):
    hold = cache.hold(put(cache).digest)
    hold.release()
    hold.release()


def test_sweeping_spares_what_another_cache_on_the_folder_found(cache, tmp_path):
    """It may be about to load it."""
    other = ArtifactCache(tmp_path / "cache")
    used = put(cache)
    assert other.find(used.digest) == used
    assert cache.keep([]) == ()
    other.close()
    assert cache.keep([]) == (used.digest,)


def test_sweeping_spares_what_another_process_holds_until_it_ends(cache, tmp_path):
    used = put(cache)
    script = f"""
from runtime.repository.cache import ArtifactCache
cache = ArtifactCache({str(tmp_path / "cache")!r})
assert cache.find({used.digest!r})
print("holding", flush=True)
input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "holding\n"
        assert cache.keep([]) == ()
        child.kill()
        child.wait()
        assert cache.keep([]) == (used.digest,)


def test_copies_left_by_a_process_that_was_killed_are_removed_at_the_next_start(tmp_path):
    folder = tmp_path / "cache"
    script = f"""
import os
from runtime.repository.cache import ArtifactCache
staging = ArtifactCache({str(folder)!r}).stage().__enter__()
staging.add("model.onnx", [b"half"])
print("copying", flush=True)
os.kill(os.getpid(), 9)
"""
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert child.stdout == "copying\n"
    assert list((folder / "staging").rglob("model.onnx"))
    ArtifactCache(folder).close()
    assert list((folder / "staging").iterdir()) == []


def test_a_forked_child_that_exits_leaves_its_parents_copies_alone(tmp_path):
    script = f"""
import os
from runtime.repository.cache import ArtifactCache
cache = ArtifactCache({str(tmp_path / "cache")!r})
with cache.stage() as staging:
    staging.add("model.onnx", [b"graph"])
    if (child := os.fork()) == 0:
        os._exit(cache.close() or 0)
    os.waitpid(child, 0)
    print(cache.find(staging.publish("model.onnx").digest) is not None)
"""
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert child.stdout == "True\n", child.stderr


def test_copies_under_way_elsewhere_survive_a_start(cache, tmp_path):
    with cache.stage() as staging:
        staging.add("model.onnx", [b"graph"])
        ArtifactCache(tmp_path / "cache").close()
        assert cache.find(staging.publish("model.onnx").digest) is not None


def test_a_disk_that_takes_no_more_is_said_so(tmp_path):
    """The process's own limit on file sizes stands in for the disk's."""
    script = f"""
import resource
from runtime.repository.cache import ArtifactCache, CacheUnwritable
cache = ArtifactCache({str(tmp_path / "cache")!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    with cache.stage() as staging:
        staging.add("model.onnx", [b"x" * 80_000, b"x" * 80_000])
except CacheUnwritable as error:
    print(error.message)
print(list(cache._staging.iterdir()))
"""
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert child.stdout.splitlines() == [
        "the model cache cannot be written: File too large; free space there, or give it another folder",
        "[]",
    ], child.stderr


def test_a_folder_that_cannot_be_made_is_said_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheUnwritable, match="the model cache cannot be written: Not a directory") as caught:
        ArtifactCache(tmp_path / "file" / "cache")
    assert str(tmp_path) not in caught.value.message


FILES = (FileStat("a", 1, 5.0, "t1"), FileStat("b", 2, 5.0, "t2"))


def test_a_version_that_was_seen_is_recognised_by_its_listing(tmp_path):
    seen = SeenVersions(tmp_path / "seen.json")
    seen.remember("root", "m", 1, signature_of(FILES), "sha256:1")
    again = SeenVersions(tmp_path / "seen.json")
    assert again.find("root", "m", 1, signature_of(FILES)) == "sha256:1"
    assert again.find("root", "m", 2, signature_of(FILES)) is None
    assert again.find("other", "m", 1, signature_of(FILES)) is None


@pytest.mark.parametrize(
    "changed", [FileStat("a", 2, 5.0, "t1"), FileStat("a", 1, 5.0, "t3"), FileStat("c", 1, 5.0, "t1")]
)
def test_any_change_of_a_listing_makes_a_version_unseen(tmp_path, changed):
    seen = SeenVersions(tmp_path / "seen.json")
    seen.remember("root", "m", 1, signature_of(FILES), "sha256:1")
    assert seen.find("root", "m", 1, signature_of((changed, FILES[1]))) is None


def test_a_store_without_change_tokens_is_never_trusted(tmp_path):
    seen = SeenVersions(tmp_path / "seen.json")
    signature = signature_of((FileStat("a", 1, 5.0),))
    seen.remember("root", "m", 1, signature, "sha256:1")
    assert seen.find("root", "m", 1, signature) is None


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"a": 1}', b'{"a": ["x"]}', b"\xff"])
def test_a_damaged_record_is_as_good_as_none(tmp_path, content):
    (tmp_path / "seen.json").write_bytes(content)
    seen = SeenVersions(tmp_path / "seen.json")
    assert seen.find("root", "m", 1, signature_of(FILES)) is None
    seen.remember("root", "m", 1, signature_of(FILES), "sha256:1")
    assert seen.find("root", "m", 1, signature_of(FILES)) == "sha256:1"


def test_a_root_with_credentials_is_not_written_to_disk(tmp_path):
    seen = SeenVersions(tmp_path / "seen.json")
    seen.remember("s3://key:secret@bucket", "m", 1, signature_of(FILES), "sha256:1")
    assert "secret" not in (tmp_path / "seen.json").read_text()


def test_sweeping_forgets_what_it_removed(cache):
    kept, other = put(cache, b"kept"), put(cache, b"other")
    cache.seen.remember("r", "m", 1, signature_of(FILES), kept.digest)
    cache.seen.remember("r", "m", 2, signature_of(FILES), other.digest)
    cache.keep([kept.digest])
    assert cache.seen.find("r", "m", 1, signature_of(FILES)) == kept.digest
    assert cache.seen.find("r", "m", 2, signature_of(FILES)) is None


def test_models_of_the_same_files_may_be_published_at_once(tmp_path):
    for number in range(40):
        cache = ArtifactCache(tmp_path / str(number))
        together = threading.Barrier(4)

        def publish(cache=cache, together=together):
            with cache.stage() as staging:
                staging.add("model.onnx", [b"the same"])
                together.wait()
                return staging.publish("model.onnx")

        with ThreadPoolExecutor(4) as pool:
            found = {future.result().digest for future in [pool.submit(publish) for _ in range(4)]}
        assert len(found) == 1
        assert cache.find(found.pop()) is not None
        cache.close()
