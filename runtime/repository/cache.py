"""The local cache of versions, by digest of their content.

    <folder>/artifacts/<hex>/files/...       the version's files, read-only, under the names they have in the repository
    <folder>/artifacts/<hex>/content.json    the model's file name, and each file's size
    <folder>/staging/<owner>/<n>/...         copies under way; renamed into artifacts/ when whole
    <folder>/seen.json                       see seen.py

Several processes may share a folder. Each holds an advisory lock on its staging folder and on the artifacts that it
uses, so that the kernel tells the living from the dead: what nobody holds may be removed, by anyone.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from runtime.errors import RepositoryError
from runtime.repository.digest import DIGEST_PATTERN, FileDigest, version_digest
from runtime.repository.seen import SeenVersions


class CacheUnwritable(RepositoryError):
    """The cache's disk is full, read-only or not ours to write to."""

    reason = "CACHE_UNWRITABLE"


def _unwritable(error: OSError) -> CacheUnwritable:
    return CacheUnwritable(
        f"the model cache cannot be written: {error.strerror or type(error).__name__}; free space there, "
        "or give it another folder",
        detail=str(error),
    )


@dataclass(frozen=True, slots=True)
class CachedVersion:
    digest: str
    folder: str
    model_filename: str
    file_bytes: int


class Hold:
    """Keeps one artifact in the cache, in whichever process the cache is swept, until released or the process ends."""

    def __init__(self, descriptor: int) -> None:
        self._close = weakref.finalize(self, os.close, descriptor)

    def release(self) -> None:
        """Returns the hold; a second call does nothing."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class ArtifactCache:
    """Opening it removes what processes that ended left half-copied. CacheUnwritable if the folder cannot be used."""

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder).expanduser().absolute()
        self._artifacts = self._folder / "artifacts"
        staging = self._folder / "staging"
        try:
            self._artifacts.mkdir(parents=True, exist_ok=True)
            staging.mkdir(exist_ok=True)
            # Made and locked under one lock, lest another process sweeps it in between.
            with _locked(staging):
                for leftover in staging.iterdir():
                    _sweep(leftover)
                self._staging = Path(tempfile.mkdtemp(dir=staging))
                self._staging_lock = _lock(self._staging, fcntl.LOCK_EX)
        except OSError as error:
            raise _unwritable(error) from error
        self._numbers = itertools.count()
        self._publishing = threading.Lock()
        self._held: dict[str, Hold] = {}
        self.seen = SeenVersions(self._folder / "seen.json")
        self._finalizer = weakref.finalize(self, _dispose, self._staging, self._staging_lock, os.getpid())

    def close(self) -> None:
        """Removes this owner's staging folder and returns its holds; artifacts stay."""
        self._held.clear()
        self._finalizer()

    def find(self, digest: str) -> CachedVersion | None:
        """The artifact, whole, held by this cache until `keep` is called without it; None if it is not here."""
        hold = self.hold(digest)
        if hold is None:
            return None
        folder = self._artifacts / digest.removeprefix("sha256:")
        try:
            content = json.loads((folder / "content.json").read_bytes())
            sizes: dict[str, int] = content["files"]
            whole = all((folder / "files" / path).stat().st_size == size for path, size in sizes.items())
            found = CachedVersion(digest, str(folder / "files"), content["model_filename"], sum(sizes.values()))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            whole = False
        if not whole:  # nothing is synced to disk, so a power cut may leave names without content
            hold.release()
            if digest in self._held:
                self._held.pop(digest).release()
            return None
        self._held[digest] = hold
        return found

    def hold(self, digest: str) -> Hold | None:
        """A hold on the artifact for as long as its files are used; None if it is not here."""
        if DIGEST_PATTERN.fullmatch(digest) is None:
            return None
        folder = self._artifacts / digest.removeprefix("sha256:")
        try:
            descriptor = _lock(folder, fcntl.LOCK_SH)
        except OSError:
            return None
        hold = Hold(descriptor)
        try:
            same = os.path.samestat(os.fstat(descriptor), folder.stat())
        except OSError:
            same = False
        if not same:  # swept between being found and being held
            hold.release()
            return None
        return hold

    def keep(self, digests: Iterable[str]) -> tuple[str, ...]:
        """Removes all other artifacts that nobody holds, and names them; returns this cache's own holds on others."""
        kept = set(digests)
        for digest in [digest for digest in self._held if digest not in kept]:
            self._held.pop(digest).release()
        removed = [digest for digest, folder in self._folders().items() if digest not in kept and self._discard(folder)]
        self.seen.keep(self._folders())
        return tuple(removed)

    def _folders(self) -> dict[str, Path]:
        try:
            return {f"sha256:{folder.name}": folder for folder in sorted(self._artifacts.iterdir())}
        except OSError as error:
            raise _unwritable(error) from error

    def stage(self) -> Staging:
        """A place to copy a version to, used as a context: what is not published is removed at its end."""
        return Staging(self, self._staging / str(next(self._numbers)))

    def publish(self, staged: Path, digest: str) -> CachedVersion:
        """Moves a staged version, whole, to where `find` finds it; one that is there already is taken instead."""
        with self._publishing:  # models of the same files are loaded at once, and one would sweep what another has put
            return self._publish(staged, digest)

    def _publish(self, staged: Path, digest: str) -> CachedVersion:
        target = self._artifacts / digest.removeprefix("sha256:")
        for _ in range(3):  # another process may publish or sweep the same digest meanwhile
            if (found := self.find(digest)) is not None:
                return found
            try:
                if target.exists():
                    self._discard(target)
                staged.rename(target)
            except OSError as error:
                if not target.exists():
                    raise _unwritable(error) from error
        if (found := self.find(digest)) is not None:
            return found
        raise CacheUnwritable(
            "the model cache holds a damaged copy of this version that is in use; stop what serves it, then try again",
            detail=str(target),
        )

    def _discard(self, folder: Path) -> bool:
        try:
            descriptor = _lock(folder, fcntl.LOCK_EX)
        except OSError:  # held, gone, or on a file system that cannot tell: then it stays
            return False
        try:
            trash = self._staging / f"trash-{next(self._numbers)}"
            folder.rename(trash)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        shutil.rmtree(trash, ignore_errors=True)
        return True


class Staging:
    """One version while it is copied into the cache: each file is hashed as it passes."""

    def __init__(self, cache: ArtifactCache, folder: Path) -> None:
        self._cache = cache
        self._folder = folder
        self._files = folder / "files"
        self._digests: list[FileDigest] = []

    def __enter__(self) -> Self:
        try:
            self._files.mkdir(parents=True)
        except OSError as error:
            raise _unwritable(error) from error
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def path(self, relative: str) -> Path:
        return self._files / relative

    def add(self, relative: str, chunks: Iterable[bytes]) -> int:
        """Copies one file to `relative` and returns its size in bytes. `chunks` raise no OSError of their own."""
        target = self.path(relative)
        content = hashlib.sha256()
        size_bytes = 0
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                for chunk in chunks:
                    file.write(chunk)
                    content.update(chunk)
                    size_bytes += len(chunk)
                file.flush()
                os.fsync(file.fileno())  # the state that names this content is synced too
            target.chmod(0o444)
        except OSError as error:
            raise _unwritable(error) from error
        self._digests.append(FileDigest(relative, size_bytes, content.digest()))
        return size_bytes

    def publish(self, model_filename: str) -> CachedVersion:
        """Makes what was added an artifact under its digest."""
        sizes = {file.path: file.size_bytes for file in self._digests}
        try:
            (self._folder / "content.json").write_text(json.dumps({"model_filename": model_filename, "files": sizes}))
        except OSError as error:
            raise _unwritable(error) from error
        return self._cache.publish(self._folder, version_digest(self._digests))


def _lock(folder: Path, kind: int) -> int:
    """A descriptor that holds the lock while it is open; OSError if the folder is gone or locked otherwise."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Waits its turn: whoever holds this lock holds it for a moment."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sweep(leftover: Path) -> None:
    try:
        descriptor = _lock(leftover, fcntl.LOCK_EX)
    except BlockingIOError:  # its owner lives
        return
    except OSError:
        leftover.unlink(missing_ok=True)
        return
    shutil.rmtree(leftover, ignore_errors=True)
    os.close(descriptor)


def _dispose(staging: Path, descriptor: int, owner_pid: int) -> None:
    if os.getpid() == owner_pid:  # a forked child has the object too, but not the right
        shutil.rmtree(staging, ignore_errors=True)
    os.close(descriptor)
