"""A model's settings as the repository has them: model.yaml, another server's file, or both."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from runtime.errors import LoadError
from runtime.repository.document import DOCUMENT_LIMIT_BYTES, read_document
from runtime.repository.layout import MODEL_FILENAME, is_partial
from runtime.repository.manifest import Manifest, ManifestError, manifest_of
from runtime.repository.source import Source

MANIFEST_FILENAME = "model.yaml"
FOREIGN_FILENAME = "config.pbtxt"

ReadForeign = Callable[[str], tuple[dict[str, Any], list[str]]]
"""Text of the other server's file → (settings in model.yaml's shape, and `model_filename`; warnings), or LoadError."""

_SECTIONS = ("batching", "session", "warmup")


@dataclass(frozen=True, slots=True)
class Settings:
    """With `problems`, the manifest is the default one: nothing is served by half of what its owner wrote."""

    manifest: Manifest
    model_filename: str = MODEL_FILENAME
    warnings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def read_settings(source: Source, model: str, filenames: set[str], read_foreign: ReadForeign | None) -> Settings:
    """The settings of `model`, whose folder holds `filenames`. RepositoryUnavailable if a file cannot be read."""
    warnings: list[str] = []
    problems: list[str] = []
    foreign: dict[str, Any] = {}
    own: dict[Any, Any] = {}
    if FOREIGN_FILENAME in filenames:
        if read_foreign is None:
            warnings.append(f"{FOREIGN_FILENAME} is not read here")
        else:
            try:
                foreign, notes = read_foreign(_text(source, model, FOREIGN_FILENAME))
                warnings += notes
            except LoadError as error:
                problems.append(error.message)
    model_filename = foreign.pop("model_filename", MODEL_FILENAME)
    if not re.fullmatch(r"[^/\\\x00-\x1f]{1,255}", model_filename) or is_partial(model_filename):
        problems.append(f"the model's file name {model_filename!r} must be that of a file in the version's folder")
        model_filename = MODEL_FILENAME
    name = f"{model}/{FOREIGN_FILENAME}"
    unreadable: list[str] = []
    if MANIFEST_FILENAME in filenames:
        name = f"{model}/{MANIFEST_FILENAME}"
        try:
            own, unreadable = read_document(_text(source, model, MANIFEST_FILENAME))
        except ManifestError as error:
            problems.append(error.message)
    if foreign and own:
        warnings.append(_both_warning(foreign, own))
    try:
        manifest = manifest_of(_merge(foreign, own), name, unreadable)
    except ManifestError as error:
        problems.append(error.message)
    if problems:
        manifest = Manifest()
    return Settings(manifest, model_filename, tuple(warnings), tuple(problems))


def _text(source: Source, model: str, filename: str) -> str:
    content = source.read(f"{model}/{filename}", DOCUMENT_LIMIT_BYTES + 1) or b""
    if len(content) > DOCUMENT_LIMIT_BYTES:
        raise ManifestError(f"{model}/{filename}", [f"the file is longer than {DOCUMENT_LIMIT_BYTES} bytes"])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{model}/{filename}", [f"byte {error.start} is not UTF-8"]) from error


def _merge(foreign: dict[str, Any], own: dict[Any, Any]) -> dict[Any, Any]:
    merged = dict(foreign) | own
    for section in _SECTIONS:
        theirs, ours = foreign.get(section), own.get(section)
        if isinstance(theirs, dict) and (ours is None or isinstance(ours, dict)):
            merged[section] = theirs | (ours or {})
    return merged


def _both_warning(foreign: dict[str, Any], own: dict[Any, Any]) -> str:
    twice = []
    for key, theirs in foreign.items():
        ours = own.get(key)
        if key in _SECTIONS and isinstance(theirs, dict) and isinstance(ours, dict):
            twice += [f"{key}.{inner}" for inner in theirs if inner in ours]
        elif key in own and not (key in _SECTIONS and ours is None):
            twice.append(key)
    both = f"{MANIFEST_FILENAME} and {FOREIGN_FILENAME} are both read"
    if not twice:
        return f"{both}; they set nothing twice"
    return f"{both}; {MANIFEST_FILENAME} wins for {', '.join(sorted(twice))}"
