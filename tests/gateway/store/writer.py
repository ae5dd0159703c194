"""A process that writes to a store and says so: `writer.py loop|race URL MODEL [ATTEMPTS]`.

loop: puts the model again and again until killed; prints each revision once it is committed.
race: prints "ready", waits for a line, then tries to be the one that writes each of ATTEMPTS revisions; prints those it
wrote.
"""

from __future__ import annotations

import sys
from itertools import count

from gateway.store.contract import AuditEntry, DesiredModel, DesiredVersion, StoreConflict
from gateway.store.sql import open_store


def main(mode: str, url: str, name: str, attempts: str = "0") -> None:
    store = open_store(url, lock_timeout_seconds=30)
    models = store.load_models()
    revision = models[name].revision if name in models else 0
    if mode == "race":
        print("ready", flush=True)
        sys.stdin.readline()
    for expected in count(revision) if mode == "loop" else range(revision, revision + int(attempts)):
        version = DesiredVersion(version=expected + 1, digest=f"sha256:{expected:064x}", generation=1)
        entry = AuditEntry("writer", "", "load", name, version.version, version.digest, "done", "x" * 3_000, "")
        try:
            store.put_model(DesiredModel(name, True, (version,)), expected_revision=expected, audit=entry)
        except StoreConflict:
            continue
        print(expected + 1, flush=True)
    store.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
