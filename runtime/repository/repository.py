"""The model repository: what models and versions there are, and any version's files on local disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from runtime.errors import IncompleteVersion, LoadError, NotFound, RepositoryUnavailable
from runtime.repository.cache import ArtifactCache, CachedVersion
from runtime.repository.graph import ExternalFile, external_files_of
from runtime.repository.layout import (
    MAX_PROFILE_BYTES,
    MODEL_FILENAME,
    PROFILES_FOLDER,
    FileStat,
    external_problem,
    inside_path,
    is_model_name,
    listing_problem,
    model_name_problem,
    profile_path,
    settled,
    version_number,
)
from runtime.repository.manifest import Manifest
from runtime.repository.seen import signature_of
from runtime.repository.settings import ReadForeign, read_settings
from runtime.repository.source import Listing, Source, open_source, version_files
from runtime.types import Artifact


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model as a scan found it.

    `versions` are those that look complete by names and sizes, ascending; `incomplete` says of the others why not.
    With `problems`, which keep it from being served as its owner meant, `manifest` is the default one.
    """

    name: str
    root: str
    versions: tuple[int, ...]
    incomplete: dict[int, str]
    manifest: Manifest
    model_filename: str = MODEL_FILENAME
    warnings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scan:
    """`complete` is False if something could not be read: a model that is missing here may then still exist."""

    models: dict[str, ModelEntry] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    complete: bool = True


class ProfileExists(LoadError):
    """A version has another profile already."""

    reason = "PROFILE_EXISTS"


class ProfileTooLarge(LoadError):
    """What lies where a version's profile would is none."""

    reason = "PROFILE_TOO_LARGE"


class Repository:
    """Roots in order of precedence: local folders, or any fsspec URL. Safe to share between threads.

    A model belongs to the first root that has it, and does so while that root cannot be read: another root's model of
    the same name does not take its place. `clock` is Unix time.
    """

    def __init__(
        self,
        roots: Sequence[str],
        cache: ArtifactCache,
        read_foreign: ReadForeign | None = None,
        settle_seconds: float = 1.0,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._sources = [(root, open_source(root)) for root in roots]
        self._cache = cache
        self._read_foreign = read_foreign
        self._settle_seconds = settle_seconds
        self._clock = clock
        self._sleep = sleep
        self._owners: dict[str, str] = {}

    def scan(self) -> Scan:
        """What is there now. Never raises for what a root holds or fails to: that is in `problems`."""
        models: dict[str, ModelEntry] = {}
        problems: list[str] = []
        failed: set[str] = set()
        claimed: dict[str, Source] = {}
        for root, source in self._sources:
            try:
                names = _model_folders(source)
            except RepositoryUnavailable as error:
                problems.append(f"{source.name}: {error.message}")
                failed.add(root)
                continue
            for name in names:
                if not is_model_name(name):
                    problems.append(f"{source.name}: {model_name_problem(name)}")
                elif name in claimed:
                    problems.append(f"{source.name}: model {name!r} is taken from {claimed[name].name} instead")
                elif self._owners.get(name) in failed:
                    problems.append(f"{source.name}: model {name!r} belongs to a root that cannot be read now")
                else:
                    claimed[name] = source
                    self._owners[name] = root
                    try:
                        models[name] = self._entry(source, name)
                    except RepositoryUnavailable as error:
                        problems.append(f"{source.name}: {error.message}")
                        failed.add(root)
        return Scan(models, tuple(problems), complete=not failed)

    def fetch(self, name: str, version: int) -> Artifact:
        """The version's files, whole and unchanging, in the cache.

        NotFound, IncompleteVersion (try again after the next scan), RepositoryUnavailable, or CacheUnwritable. Waits
        while files still change, for a few `settle_seconds` at most.
        """
        root, source, listing = self._locate(name)
        if str(version) not in listing.folders:
            raise self._no_version(name, version, listing)
        settings = read_settings(source, name, {file.path for file in listing.files}, self._read_foreign)
        try:
            cached = self._fetch(root, source, name, version, settings.model_filename)
        except IncompleteVersion as error:
            whole = f"version {version} of model {name!r} is incomplete: {error.message}"
            raise IncompleteVersion(whole, detail=error.detail, field=error.field) from error
        return _artifact(name, version, cached, settings.model_filename)

    def cached(self, name: str, version: int, digest: str) -> Artifact | None:
        """The artifact of that digest if the cache has it; the repository is not asked."""
        found = self._cache.find(digest)
        return None if found is None else _artifact(name, version, found, found.model_filename)

    def model(self, name: str) -> ModelEntry:
        """One model, as a scan would find it, without looking at the others. NotFound, or RepositoryUnavailable."""
        _, source, _ = self._locate(name)
        return self._entry(source, name)

    def profile(self, name: str, version: int) -> bytes | None:
        """The version's profile as it is stored; None if there is none, or no such model.

        RepositoryUnavailable, or ProfileTooLarge for a file beyond MAX_PROFILE_BYTES.
        """
        try:
            _, source, listing = self._locate(name)
        except NotFound:
            return None
        if PROFILES_FOLDER not in listing.folders:
            return None
        return _read_profile(source, profile_path(name, version))

    def write_profile(self, name: str, version: int, content: bytes, *, replace: bool = False) -> bool:
        """Puts a profile beside the version; False if the same one was there. Whoever reads sees all of it or none.

        NotFound for a version that is not there, ProfileExists for another profile unless `replace`,
        ProfileTooLarge, or RepositoryUnavailable.
        """
        _, source, listing = self._locate(name)
        if str(version) not in listing.folders:
            raise self._no_version(name, version, listing)
        path = profile_path(name, version)
        if len(content) > MAX_PROFILE_BYTES:
            raise ProfileTooLarge(f"a profile may have {MAX_PROFILE_BYTES} bytes, got {len(content)}")
        present = None if replace else _read_profile(source, path)
        if present == content:
            return False
        if present is not None:
            raise ProfileExists(f"version {version} of model {name!r} has another profile already")
        source.write(path, content)
        return True

    def _entry(self, source: Source, name: str) -> ModelEntry:
        listing = source.listing(name) or Listing()
        settings = read_settings(source, name, {file.path for file in listing.files}, self._read_foreign)
        versions: list[int] = []
        incomplete: dict[int, str] = {}
        for version in _versions(listing):
            try:
                files = version_files(source, f"{name}/{version}")
                problem = "its folder is gone" if files is None else listing_problem(files, settings.model_filename)
            except IncompleteVersion as error:
                problem = error.message
            if problem:
                incomplete[version] = problem
            else:
                versions.append(version)
        problems = settings.problems
        if not versions and not incomplete:
            problems += (f"no version: the model's folder needs one named by a number, with {settings.model_filename}",)
        return ModelEntry(
            name=name,
            root=source.name,
            versions=tuple(versions),
            incomplete=incomplete,
            manifest=settings.manifest,
            model_filename=settings.model_filename,
            warnings=(*settings.warnings, *_missing_warnings(settings.manifest, versions)),
            problems=problems,
        )

    def _locate(self, name: str) -> tuple[str, Source, Listing]:
        unavailable: RepositoryUnavailable | None = None
        for root, source in self._sources if is_model_name(name) else ():
            try:
                listing = source.listing(name)
                if listing is None:
                    _model_folders(source)  # raises if the root itself is gone
            except RepositoryUnavailable as error:
                unavailable = error
                if self._owners.get(name) == root:
                    break
                continue
            if listing is not None:
                return root, source, listing
        if unavailable is not None:
            raise unavailable
        raise NotFound(f"model {name[:128]!r} is not in the repository")

    @staticmethod
    def _no_version(name: str, version: int, listing: Listing) -> NotFound:
        there = ", ".join(map(str, _versions(listing)[-10:])) or "none"
        return NotFound(f"model {name!r} has no version {version} in the repository; its newest are: {there}")

    def _fetch(self, root: str, source: Source, name: str, version: int, model_filename: str) -> CachedVersion:
        folder = f"{name}/{version}"

        def list_files() -> tuple[FileStat, ...]:
            files = version_files(source, folder)
            if files is None:
                raise IncompleteVersion("its folder is gone")
            if problem := listing_problem(files, model_filename):
                raise IncompleteVersion(problem)
            return files

        files = settled(list_files, self._settle_seconds, clock=self._clock, sleep=self._sleep)
        signature = f"{model_filename}:{known}" if (known := signature_of(files)) else ""
        digest = self._cache.seen.find(root, name, version, signature)
        if digest is not None and (found := self._cache.find(digest)) is not None:
            return found
        with self._cache.stage() as staging:
            # The graph first: it says what else must be there, before gigabytes are copied in vain.
            for file in sorted(files, key=lambda file: file.path != model_filename):
                size_bytes = staging.add(file.path, source.chunks(f"{folder}/{file.path}"))
                if size_bytes != file.size_bytes:
                    raise IncompleteVersion(f"{file.path} changed from {file.size_bytes} to {size_bytes} bytes")
                if file.path == model_filename:
                    needed = external_files_of(staging.path(model_filename), model_filename)
                    if problem := external_problem(needed, files) or _escape_problem(source, folder, needed):
                        raise IncompleteVersion(problem)
            if list_files() != files:
                raise IncompleteVersion("its files changed while they were read")
            cached = staging.publish(model_filename)
        if signature:
            self._cache.seen.remember(root, name, version, signature, cached.digest)
        return cached


def _model_folders(source: Source) -> list[str]:
    listing = source.listing("")
    if listing is None:
        raise RepositoryUnavailable("the model repository does not exist", detail=source.name)
    return [name for name in listing.folders if not name.startswith(".")]


def _read_profile(source: Source, path: str) -> bytes | None:
    content = source.read(path, MAX_PROFILE_BYTES + 1)
    if content is not None and len(content) > MAX_PROFILE_BYTES:
        raise ProfileTooLarge(f"{path} has more than {MAX_PROFILE_BYTES} bytes, so it is no profile")
    return content


def _versions(listing: Listing) -> list[int]:
    return sorted(version for folder in listing.folders if (version := version_number(folder)) is not None)


def _missing_warnings(manifest: Manifest, versions: Sequence[int]) -> list[str]:
    there = ", ".join(map(str, versions)) or "none"
    warnings = []
    if missing := manifest.versions.missing(versions):
        warnings.append(f"versions names {', '.join(map(str, missing))}, not in the repository; there are: {there}")
    for label, version in sorted(manifest.labels.items()):
        if version not in versions:
            warnings.append(f"labels.{label} is version {version}, not in the repository; there are: {there}")
    return warnings


def _escape_problem(source: Source, folder: str, needed: Sequence[ExternalFile]) -> str:
    for external in needed:
        if not source.contains(folder, f"{folder}/{inside_path(external.location)}"):
            return f"external data {external.location!r} is a link that leads out of the version's folder"
    return ""


def _artifact(name: str, version: int, cached: CachedVersion, model_filename: str) -> Artifact:
    return Artifact(name, version, cached.digest, cached.folder, cached.file_bytes, model_filename)
