"""A model under measurement: its graph, rows to send, and what the answers must be by another library's account."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

OPSET = 18
SEED = 6


@dataclass(frozen=True, slots=True)
class Subject:
    """`rows`: by input, [n, ...], the same n for all; `truth`: by output, what scikit-learn or numpy says of rows[:m].

    `profile`: whether the rows are many and like enough to be the profile that live rows are compared with.
    """

    name: str
    title: str
    graph: bytes
    rows: dict[str, np.ndarray]
    truth: dict[str, np.ndarray]
    profile: bool = True

    @property
    def count(self) -> int:
        return len(next(iter(self.rows.values())))

    def take(self, first: int, count: int) -> dict[str, np.ndarray]:
        """`count` rows from `first` on, beginning anew at the end; C-contiguous."""
        at = (first + np.arange(count)) % self.count
        return {name: np.ascontiguousarray(values[at]) for name, values in self.rows.items()}
