"""What is a complete version.

    <root>/<model>/<version>/model.onnx      the version's folder holds the graph, its external data, anything else
    <root>/<model>/model.yaml                settings, optional
    <root>/<model>/profiles/<version>.profile    what live rows are compared with, optional; no part of the version

A version is complete when its model file is there and not empty, no file is a partial upload, every file that the
graph names is there, inside the folder and long enough, and nothing has changed for `settle_seconds`. Everything here
but `settled` is pure; reading is the caller's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from runtime.errors import IncompleteVersion
from runtime.repository.graph import ExternalFile

MODEL_FILENAME = "model.onnx"
PROFILES_FOLDER = "profiles"
MAX_PROFILE_BYTES = 64 * 1024 * 1024  # the widest schema there can be, 16,384 columns, takes a third of it
VERSION_LIMIT = 2**63 - 1  # an int64, as in the admin API and in other servers

PARTIAL_SUFFIXES = (".tmp", ".part", ".partial", ".crdownload", ".filepart", ".incomplete")
CLUTTER = frozenset({".DS_Store", ".gitattributes", ".gitignore", ".gitkeep", ".keep"})
"""Hidden files that nobody uploads a model through; they are no part of a version."""

SETTLE_ROUNDS = 5  # then the version is reported as incomplete, and the next scan tries it again

LABEL_PATTERN = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,62}")
"""What a label is called: never like a version's number."""

_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VERSION = re.compile(r"[1-9][0-9]{0,18}")
_UNUSABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class FileStat:
    """A file as its store lists it.

    `path` is relative to what was listed, "/" between parts. `modified_seconds` is Unix time, None if the store does
    not tell. `token` changes whenever the content may have changed; "" if the store has nothing of the kind.
    """

    path: str
    size_bytes: int
    modified_seconds: float | None = None
    token: str = ""


def is_model_name(name: str) -> bool:
    return _MODEL_NAME.fullmatch(name) is not None


def model_name_problem(name: str) -> str:
    return (
        f"folder {name[:140]!r} is not served: a model's name is 1 to 128 letters, digits, '.', '_' and '-', "
        "and starts with a letter or digit"
    )


def version_number(name: str) -> int | None:
    """The version that a folder's name means; None for any other folder."""
    if _VERSION.fullmatch(name) is None or int(name) > VERSION_LIMIT:
        return None
    return int(name)


def profile_path(model: str, version: int) -> str:
    return f"{model}/{PROFILES_FOLDER}/{version}.profile"


def is_partial(name: str) -> bool:
    """Whether a file of this name is an upload under way."""
    return name.startswith(".") or name.lower().endswith(PARTIAL_SUFFIXES)


def name_problem(name: str) -> str:
    """Why a file or folder of this name cannot be part of a version; "" if it can."""
    if _UNUSABLE.search(name):
        return f"the name {name[:140]!r} holds control characters or is not UTF-8"
    return ""


def listing_problem(files: Sequence[FileStat], model_filename: str) -> str:
    """What the names and sizes alone show to be missing; "" if nothing."""
    for file in files:
        if is_partial(PurePosixPath(file.path).name):
            return f"{file.path} is a partial upload; when none is under way, delete it"
    model = next((file for file in files if file.path == model_filename), None)
    if model is None:
        found = ", ".join(file.path for file in files[:5]) or "no files"
        return f"{model_filename} is missing; the folder holds {found}{', ...' if len(files) > 5 else ''}"
    return "" if model.size_bytes else f"{model_filename} is empty"


def inside_path(location: str) -> str | None:
    """`location`, as a graph spells it, as a path relative to the version's folder; None if it leads out of it."""
    path = PurePosixPath(location)
    if path.is_absolute() or ".." in path.parts or not path.parts or name_problem(location):
        return None
    return str(path)


def external_problem(needed: Iterable[ExternalFile], files: Iterable[FileStat]) -> str:
    """Which external data is missing, short or outside the folder; "" if none."""
    sizes = {file.path: file.size_bytes for file in files}
    for external in needed:
        location, tensor = external.location[:200], external.tensor
        path = inside_path(external.location)
        if path is None:
            return f"tensor {tensor!r} lies in {location!r}; external data must lie inside the version's folder"
        if path not in sizes:
            return f"tensor {tensor!r} lies in {location!r}, which is missing"
        if sizes[path] < external.needed_bytes:
            return (
                f"tensor {tensor!r} needs {external.needed_bytes} bytes of {location!r}, which has {sizes[path]}: "
                "its copy is not finished"
            )
    return ""


def settled(
    list_files: Callable[[], tuple[FileStat, ...]],
    settle_seconds: float,
    *,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> tuple[FileStat, ...]:
    """The listing once its newest file is `settle_seconds` old; IncompleteVersion if that does not come to pass.

    `clock` is Unix time. A time in the future is another machine's clock, so there the listing must stay as it is for
    `settle_seconds` instead.
    """
    files = list_files()
    for attempt in range(SETTLE_ROUNDS + 1):
        times = [file.modified_seconds for file in files if file.modified_seconds is not None]
        age_seconds = clock() - max(times) if times else settle_seconds
        if age_seconds >= settle_seconds:
            return files
        if attempt == SETTLE_ROUNDS:
            break
        sleep(settle_seconds - max(age_seconds, 0.0))
        before, files = files, list_files()
        if age_seconds < 0 and before == files:
            return files
    raise IncompleteVersion(
        f"its files are still being written; it is served once nothing has changed for {settle_seconds:g} s"
    )
