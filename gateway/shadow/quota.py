"""Whether this container has used up its share of the processor.

With a CPU quota, a core that the kernel sees idle is not free: what runs on it is taken from the workers' part, and
when the quota is used up all of the container stands still. The kernel counts that.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

PLACES = (Path("/sys/fs/cgroup/cpu.stat"), Path("/sys/fs/cgroup/cpu/cpu.stat"))  # of control groups v2, v1
COUNT = "nr_throttled"


class Quota:
    """Of the control group that the process sees as the root: its container's."""

    def __init__(self, places: Sequence[Path] = PLACES) -> None:
        self._places = places
        self._seen = self._count()

    def was_used_up(self) -> bool:
        """Since this was asked last. False where there is no quota, or nobody counts."""
        before, self._seen = self._seen, self._count()
        return self._seen > before

    def _count(self) -> int:
        for place in self._places:
            try:
                lines = place.read_text().splitlines()
            except OSError:
                continue
            for line in lines:
                name, _, value = line.partition(" ")
                if name == COUNT and value.isdigit():
                    return int(value)
        return 0
