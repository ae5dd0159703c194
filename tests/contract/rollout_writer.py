"""A process that saves a look after the other until it is killed: `rollout_writer.py URL`.

Each look counts the state up by one, and its decision says the state it led to; every fifth one moves. It goes on from
what the store holds, and prints each number when it is stored.
"""

from __future__ import annotations

import sys
from contextlib import closing

from gateway.store.contract import AuditEntry
from gateway.store.rollouts import NewDecision, NewRollout, RolloutChange
from gateway.store.sql import open_store

ENTRY = AuditEntry("system", "", "rollout", "iris", 3, "", "done", "it moved", "")
MOVES_EVERY = 5


def main(url: str) -> None:
    with closing(open_store(url, lock_timeout_seconds=30)) as store:
        found = store.rollouts.under_way()
        if not found:
            found = [store.rollouts.create(NewRollout("iris", 2, 3, "{}", "0", ""), audit=ENTRY)[0]]
        number = int(found[0].state)
        while True:
            number += 1
            moved = number % MOVES_EVERY == 0
            decision = NewDecision(float(number), moved, str(number), ENTRY if moved else None)
            store.rollouts.save(found[0].id, RolloutChange(str(number), [decision]))
            print(number, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
