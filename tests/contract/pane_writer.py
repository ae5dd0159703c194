"""A process that writes a tick after the other until it is killed: `pane_writer.py URL`.

Each tick collects the next pane of one slot, one row for each of two versions, ten seconds after the tick before. It
goes on from what the store holds, and prints each serial when it is stored.
"""

from __future__ import annotations

import sys
from contextlib import closing
from itertools import count

from window_payloads import Numbers

from gateway.store.panes import Tick, VersionKey, load_windows
from gateway.store.sql import open_store
from runtime.profile.levels import Levels

LEVELS = Levels(10, (60, 600, 3600, 86400))
VERSIONS = (VersionKey("iris", 1, "sha256:1"), VersionKey("wine", 2, "sha256:2"))
BEGAN = 1_700_006_400
SLOT = "worker-0/1"


def time_of(serial: int) -> int:
    return BEGAN + 10 * serial


def main(url: str) -> None:
    with closing(open_store(url, lock_timeout_seconds=30)) as store:
        stored = store.panes.load_collected().get(SLOT, 0)
        windows = {
            version: load_windows(store.panes, version, LEVELS, Numbers.decode, time_of(stored)) for version in VERSIONS
        }
        for serial in count(stored + 1):
            now = time_of(serial)
            for each in windows.values():
                each.add(now - 10, now, Numbers.of([serial % 40]), now)
            changes = {version: each.changes() for version, each in windows.items()}
            drift = dict.fromkeys(VERSIONS, str(serial))
            store.panes.put_tick(Tick(now, LEVELS.retain_seconds, panes=changes, collected={SLOT: serial}, drift=drift))
            for version, each in windows.items():
                each.saved(changes[version])
            print(serial, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
