"""The digest of a version: one name for the content of all its files.

    digest = "sha256:" + hex(sha256(record ++ record ++ ...)), one record per file, in ascending order of path
    record = path (UTF-8, relative, "/" between parts) ++ 0x00 ++ size (8 bytes, little-endian) ++ sha256(content)

Paths hold no NUL and a record's tail is of fixed length, so no two sets of files share an encoding. Times, owners and
permissions do not count: a copy of a version has the digest of the original.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

CHUNK_BYTES = 1 << 20  # large enough that Python's share of hashing and copying vanishes

DIGEST_PATTERN = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class FileDigest:
    """`path` relative to the version's folder; `sha256` is 32 bytes."""

    path: str
    size_bytes: int
    sha256: bytes


def version_digest(files: Iterable[FileDigest]) -> str:
    total = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.path):
        total.update(file.path.encode() + b"\0" + file.size_bytes.to_bytes(8, "little") + file.sha256)
    return f"sha256:{total.hexdigest()}"


def file_digest(path: Path, relative: str) -> FileDigest:
    content = hashlib.sha256()
    size_bytes = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            content.update(chunk)
            size_bytes += len(chunk)
    return FileDigest(relative, size_bytes, content.digest())


def folder_digest(folder: Path) -> str:
    """The digest of every regular file under `folder`, hidden ones too: what an auditor recomputes."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return version_digest(file_digest(path, path.relative_to(folder).as_posix()) for path in paths)
