"""Where a repository's files are read from: a local folder, or any file system or object store that fsspec knows.

Both kinds answer alike: None for what is not there, RepositoryUnavailable for what cannot be read. Messages name what
was read relative to the root; the root and the library's own words go into `detail`.
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn, Protocol

from runtime.errors import IncompleteVersion, RepositoryUnavailable
from runtime.repository.digest import CHUNK_BYTES
from runtime.repository.layout import CLUTTER, FileStat, name_problem

DEPTH_LIMIT = 8  # folders below a version's; a link to a parent folder would go on for ever
FILES_LIMIT = 20_000

# What stores call the time of the last write, and what they call a name of the content (fsspec leaves both to them).
_TIME_KEYS = ("mtime", "LastModified", "last_modified", "updated", "modified", "created")
_TOKEN_KEYS = ("ETag", "etag", "md5Hash", "content_md5", "checksum", "generation", "mtime", "LastModified", "updated")


class Listing:
    """One folder: names of folders, files (with names as paths), and names of what is neither."""

    __slots__ = ("files", "folders", "others")

    def __init__(self) -> None:
        self.folders: list[str] = []
        self.files: list[FileStat] = []
        self.others: list[str] = []

    def sort(self) -> Listing:
        self.folders.sort()
        self.files.sort(key=lambda file: file.path)
        self.others.sort()
        return self


class Source(Protocol):
    """One root. Paths are relative to it, "/" between parts, "" for the root itself."""

    @property
    def name(self) -> str:
        """The root as an operator may see it: without credentials."""

    def listing(self, path: str) -> Listing | None:
        """The folder's content, read anew; None if there is no such folder."""

    def read(self, path: str, limit_bytes: int) -> bytes | None:
        """At most `limit_bytes` from the file's start; None if there is no such file."""

    def chunks(self, path: str) -> Iterator[bytes]:
        """The file's content; IncompleteVersion if it is gone."""

    def contains(self, folder: str, path: str) -> bool:
        """Whether `path`, links followed, lies inside `folder`."""

    def write(self, path: str, content: bytes) -> None:
        """The file as a whole, in place of what was there: nobody sees half of it. Makes its folder."""


def open_source(root: str) -> Source:
    """The source of `root`; reads nothing, so a root that cannot be read is reported by whoever lists it."""
    if re.match(r"(file|local)://", root):
        import fsspec.core

        return LocalSource(fsspec.core.url_to_fs(root)[1])
    return RemoteSource(root) if "://" in root else LocalSource(root)


def version_files(source: Source, folder: str) -> tuple[FileStat, ...] | None:
    """Every file that belongs to the version in `folder`, paths relative to it, ascending; None if it is gone.

    Hidden folders and clutter do not count (a Kubernetes volume keeps its bookkeeping in them). IncompleteVersion for
    what cannot be part of a version.
    """
    found: list[FileStat] = []
    pending = [""]
    while pending:
        below = pending.pop()
        listing = source.listing(f"{folder}/{below}".rstrip("/"))
        if listing is None:
            if not below:
                return None
            raise IncompleteVersion(f"the folder {below!r} vanished while it was read")
        prefix = f"{below}/" if below else ""
        for name in (*listing.folders, *(file.path for file in listing.files), *listing.others):
            if problem := name_problem(name):
                raise IncompleteVersion(problem)
        if listing.others:
            raise IncompleteVersion(f"{prefix}{listing.others[0]} is neither a file nor a folder (a broken link?)")
        found += [
            FileStat(prefix + file.path, file.size_bytes, file.modified_seconds, file.token)
            for file in listing.files
            if file.path not in CLUTTER
        ]
        pending += [prefix + name for name in listing.folders if not name.startswith(".")]
        if prefix.count("/") > DEPTH_LIMIT:
            raise IncompleteVersion(f"its folders nest deeper than {DEPTH_LIMIT}")
        if len(found) + len(pending) > FILES_LIMIT:
            raise IncompleteVersion(f"it has more than {FILES_LIMIT} files")
    return tuple(sorted(found, key=lambda file: file.path))


class LocalSource:
    def __init__(self, root: str) -> None:
        self._root = Path(root).expanduser().absolute()

    @property
    def name(self) -> str:
        return str(self._root)

    def listing(self, path: str) -> Listing | None:
        listing = Listing()
        try:
            with os.scandir(self._root / path) as entries:
                for entry in entries:
                    self._add(entry, listing)
        except FileNotFoundError:
            return None
        except OSError as error:
            if isinstance(error, NotADirectoryError) and path:
                return None
            self._unavailable(path, error)
        return listing.sort()

    @staticmethod
    def _add(entry: os.DirEntry[str], listing: Listing) -> None:
        try:
            stat = entry.stat()  # of a link's target
            if entry.is_dir():
                listing.folders.append(entry.name)
            elif entry.is_file():
                token = f"{stat.st_mtime_ns}:{stat.st_ctime_ns}:{stat.st_ino}:{stat.st_dev}"
                listing.files.append(FileStat(entry.name, stat.st_size, stat.st_mtime, token))
            else:
                listing.others.append(entry.name)
        except OSError:  # gone since, or a link to nothing or to itself
            listing.others.append(entry.name)

    def read(self, path: str, limit_bytes: int) -> bytes | None:
        try:
            with (self._root / path).open("rb") as file:
                return file.read(limit_bytes)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._unavailable(path, error)

    def chunks(self, path: str) -> Iterator[bytes]:
        try:
            with (self._root / path).open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    yield chunk
        except FileNotFoundError:
            raise _vanished(path) from None
        except OSError as error:
            self._unavailable(path, error)

    def contains(self, folder: str, path: str) -> bool:
        return (self._root / path).resolve().is_relative_to((self._root / folder).resolve())

    def write(self, path: str, content: bytes) -> None:
        target = self._root / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            # Beside its destination, so that the renaming stays on one file system; hidden, so that it is no model.
            descriptor, staged = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=target.parent)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                Path(staged).chmod(0o644)
                Path(staged).replace(target)
            except BaseException:  # Ctrl-C too leaves nothing behind
                Path(staged).unlink(missing_ok=True)
                raise
        except OSError as error:
            self._unavailable(path, error, "written")

    def _unavailable(self, path: str, error: OSError, what: str = "read") -> NoReturn:
        _unavailable(path, error.strerror or type(error).__name__, f"{self._root}: {error}", error, what)


class RemoteSource:
    def __init__(self, root: str) -> None:
        self._url = root
        self._opened: tuple[Any, str] | None = None

    @property
    def name(self) -> str:
        return re.sub(r"//[^/@]*@", "//***@", self._url).split("?")[0]

    def listing(self, path: str) -> Listing | None:
        try:
            fs, full = self._open(path)
            fs.invalidate_cache()
            items = fs.ls(full, detail=True)
            if len(items) == 1 and items[0]["name"] == full and items[0].get("type") == "file":
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        except FileNotFoundError:
            return None
        except Exception as error:  # every store raises its own, and this is where they stop
            if isinstance(error, NotADirectoryError) and path:
                return None
            self._unavailable(path, error)
        listing = Listing()
        for item in items:
            whole = str(item["name"]).rstrip("/")
            name = PurePosixPath(whole).name
            if whole == full.rstrip("/"):  # an object store's marker of the folder itself
                continue
            if item.get("type") == "directory":
                listing.folders.append(name)
            elif item.get("type") == "file":
                listing.files.append(FileStat(name, int(item.get("size") or 0), _modified_seconds(item), _token(item)))
            else:
                listing.others.append(name)
        return listing.sort()

    def read(self, path: str, limit_bytes: int) -> bytes | None:
        try:
            fs, full = self._open(path)
            with fs.open(full, "rb") as file:
                return bytes(file.read(limit_bytes))
        except FileNotFoundError:
            return None
        except Exception as error:
            self._unavailable(path, error)

    def chunks(self, path: str) -> Iterator[bytes]:
        try:
            fs, full = self._open(path)
            with fs.open(full, "rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    yield chunk
        except FileNotFoundError:
            raise _vanished(path) from None
        except Exception as error:
            self._unavailable(path, error)

    def contains(self, folder: str, path: str) -> bool:
        return path.startswith(f"{folder}/")  # object stores have no links

    def write(self, path: str, content: bytes) -> None:
        try:
            fs, full = self._open(path)
            fs.makedirs(PurePosixPath(full).parent.as_posix(), exist_ok=True)
            fs.pipe_file(full, content)  # object stores show a file once it is whole
        except Exception as error:
            self._unavailable(path, error, "written")

    def _open(self, path: str) -> tuple[Any, str]:
        if self._opened is None:
            import fsspec.core  # the stores' libraries take long to import

            self._opened = fsspec.core.url_to_fs(self._url)
        fs, base = self._opened
        return fs, f"{base.rstrip('/')}/{path}".rstrip("/") if path else base

    def _unavailable(self, path: str, error: Exception, what: str = "read") -> NoReturn:
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        elif isinstance(error, ImportError | ValueError):
            reason = str(error)  # fsspec names the protocol, or the package that it lacks
        else:
            reason = type(error).__name__
        _unavailable(path, reason, f"{self.name}: {type(error).__name__}: {error}", error, what)


def _vanished(path: str) -> IncompleteVersion:
    return IncompleteVersion(f"{PurePosixPath(path).name} vanished while it was read")


def _unavailable(path: str, reason: str, detail: str, error: Exception, done: str) -> NoReturn:
    what = f"{path!r} in the model repository" if path else "the model repository"
    raise RepositoryUnavailable(f"{what} cannot be {done}: {reason}", detail=detail) from error


def _modified_seconds(item: dict[str, Any]) -> float | None:
    for key in _TIME_KEYS:
        value = item.get(key)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
        if isinstance(value, str):
            try:
                return datetime.fromisoformat(value).timestamp()
            except ValueError:
                continue
    return None


def _token(item: dict[str, Any]) -> str:
    return next((f"{key}={item[key]}" for key in _TOKEN_KEYS if item.get(key)), "")
