"""Which digest a version's files had when they last looked as they look now.

Files that their store lists with the same names, sizes and change tokens are not read again. The record is one small
JSON file, replaced atomically; if it is lost or unreadable, versions are hashed once more, so it never fails anything.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from runtime.repository.layout import FileStat


def signature_of(files: Sequence[FileStat]) -> str:
    """Equal for equal listings; "" if the store says too little to trust that."""
    if not all(file.token for file in files):
        return ""
    lines = (f"{file.path}\0{file.size_bytes}\0{file.token}\0" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


class SeenVersions:
    """One entry per version: (root, model, version) → (signature, digest). Safe to share between threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def find(self, root: str, model: str, version: int, signature: str) -> str | None:
        """The digest recorded for this version under this very signature."""
        known = self._load().get(_key(root, model, version))
        return known[1] if known is not None and signature and known[0] == signature else None

    def remember(self, root: str, model: str, version: int, signature: str, digest: str) -> None:
        with self._lock:
            self._store(self._load() | {_key(root, model, version): (signature, digest)})

    def keep(self, digests: Iterable[str]) -> None:
        """Forgets the entries of all other digests."""
        kept = set(digests)
        with self._lock:
            entries = self._load()
            left = {key: entry for key, entry in entries.items() if entry[1] in kept}
            if len(left) < len(entries):
                self._store(left)

    def _load(self) -> dict[str, tuple[str, str]]:
        try:
            raw = json.loads(self._path.read_bytes())
            return {str(key): (str(signature), str(digest)) for key, (signature, digest) in raw.items()}
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            return {}

    def _store(self, entries: dict[str, tuple[str, str]]) -> None:
        temporary = self._path.with_name(f"{self._path.name}.{os.getpid()}.{threading.get_ident()}")
        with contextlib.suppress(OSError):
            temporary.write_text(json.dumps(entries, indent=0, sort_keys=True))
            temporary.replace(self._path)


def _key(root: str, model: str, version: int) -> str:
    # A root may hold credentials, which have no business in a file.
    return f"{hashlib.sha256(root.encode()).hexdigest()[:16]}/{model}/{version}"
