"""How a shadow's answers differ from those that clients got: counts of one pair of versions, mergeable.

Guarantee: all counts, extremes, and the worst disagreements are exact; quantiles of differences and times as
`runtime.sketch.exponential` promises.
Memory: about 10 KB for each output and for the times, MOST_PAIRS pairs of classes for each output, `settings.worst`
disagreements.
Merge: the same bytes in any order and any tree, but for the means of differences, which are equal up to rounding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from runtime.shadow.codec import read_comparison, write_comparison
from runtime.shadow.compare import Compared, Judge
from runtime.shadow.outputs import ComparableOutputs
from runtime.shadow.pair import SHED_REASONS, Copy, PairKey, PairSettings
from runtime.shadow.shown import failure_text
from runtime.shadow.tally import OutputTally
from runtime.shadow.worst import Disagreement, Worst
from runtime.sketch.block import Block
from runtime.sketch.errors import NotMergeable
from runtime.sketch.exponential import ExponentialHistogram
from runtime.sketch.layout import BlockShape

Array = npt.NDArray[Any]

TIMES = BlockShape(2, 0)
"""Seconds of a run: the primary's, the shadow's."""

MOST_OUTPUTS = 256
"""Beyond them outputs are not counted one by one; whether rows agree is still decided by all."""

MOST_TOLERANCES = 8
MAX_FAILURE_CHARACTERS = 400


class PairComparison:
    """`outputs` None: it can be merged and read, not compared with. One thread at a time."""

    def __init__(self, key: PairKey, settings: PairSettings, outputs: ComparableOutputs | None = None) -> None:
        self.key = key
        self._settings = settings
        self._judge = Judge(outputs, settings) if outputs is not None else None
        self.tolerances = {(settings.absolute, settings.relative)}
        self.compared = 0
        self.agreed = 0
        self.failed = 0
        self.sheds: dict[str, int] = {}
        self.refused: dict[str, int] = {}
        """Copies that workers threw away themselves, by reason: the ring's counts, which control adds."""
        self.compared_rows = 0
        self.agreed_rows = 0
        self.primary_ns = 0
        self.shadow_ns = 0
        self.first_ns = 0
        self.last_ns = 0
        self.failure: tuple[int, str] = (0, "")
        """When the shadow last failed, and how."""
        self.outputs: dict[str, OutputTally] = {}
        self.times = Block.create(TIMES)
        self.worst = Worst(settings.worst)

    def compare(self, copy: Copy, answers: Mapping[str, Array], run_ns: int) -> Compared:
        """Counts what the shadow answered to a run of the primary, which took it `run_ns`.

        answers: by name, as `copy.outputs`. Those of other shapes and types are counted as such; nothing is raised.
        """
        if self._judge is None:
            raise ValueError("expected a comparison that knows the model's outputs, got one that was read from bytes")
        compared = self._judge.judge(copy, answers, self._tally, self.worst)
        self.compared += len(copy.rows)
        self.agreed += compared.agreed
        self.compared_rows += compared.rows
        self.agreed_rows += compared.agreed_rows
        self.primary_ns += copy.run_ns
        self.shadow_ns += run_ns
        self.times.observe(np.array([[copy.run_ns * 1e-9, run_ns * 1e-9]]))
        self._at(copy.unix_ns)
        return compared

    def fail(self, copy: Copy, why: str) -> None:
        """The shadow gave an error in place of an answer. What `why` quotes of inputs is kept where they are."""
        self.failed += len(copy.rows)
        text = failure_text(why, copy.inputs, self._settings)[:MAX_FAILURE_CHARACTERS]
        self.failure = max(self.failure, (copy.unix_ns, text))
        self._at(copy.unix_ns)

    def shed(self, reason: str, requests: int) -> None:
        """Copies that the shadow process took from the ring and threw away unanswered.

        Raises ValueError for a reason that is none of SHED_REASONS.
        """
        _add(self.sheds, reason, requests)

    def refuse(self, requests: Mapping[str, int]) -> None:
        """Copies that never came to the shadow process, by reason. Raises ValueError as `shed` does."""
        for reason, count in requests.items():
            _add(self.refused, reason, count)

    def merge(self, other: PairComparison) -> None:
        """Adds what `other` has seen. Raises NotMergeable for another pair."""
        if other.key != self.key:
            raise NotMergeable(f"expected a comparison of {self.key}, got one of {other.key}")
        for name in ("compared", "agreed", "failed", "compared_rows", "agreed_rows", "primary_ns", "shadow_ns"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for reason, requests in other.sheds.items():
            self.shed(reason, requests)
        self.refuse(other.refused)
        self.tolerances = set(sorted(self.tolerances | other.tolerances)[:MOST_TOLERANCES])
        for moment in (other.first_ns, other.last_ns):
            self._at(moment)
        self.failure = max(self.failure, other.failure)
        self.times.merge(other.times)
        self.worst.merge(other.worst)
        for name, tally in sorted(other.outputs.items()):
            if name in self.outputs:
                self.outputs[name].merge(tally)
            else:
                self.outputs[name] = tally.copy()
        for name in sorted(self.outputs)[MOST_OUTPUTS:]:
            del self.outputs[name]

    def copy(self) -> PairComparison:
        """Of what was counted; it cannot be compared with."""
        copy = PairComparison(self.key, PairSettings(worst=self.worst.most))
        copy.tolerances = set(self.tolerances)
        copy.merge(self)
        return copy

    @property
    def is_empty(self) -> bool:
        return not self.rows

    @property
    def requests(self) -> int:
        """That the shadow has answered, or failed on."""
        return self.compared + self.failed

    @property
    def rows(self) -> int:
        """What windows count: requests of every fate, so that a pane of nothing but shed ones is kept."""
        return self.requests + sum(self.shed_requests.values())

    @property
    def shed_requests(self) -> dict[str, int]:
        """By reason, whoever threw them away."""
        return dict(sorted((Counter(self.sheds) + Counter(self.refused)).items()))

    @property
    def latency_ratio(self) -> float:
        """The shadow's time over the primary's, of the same runs; NaN where there were none."""
        return self.shadow_ns / self.primary_ns if self.primary_ns else float("nan")

    def run_seconds(self, *, shadow: bool) -> ExponentialHistogram:
        return self.times.histogram(int(shadow))

    @property
    def disagreements(self) -> Iterator[Disagreement]:
        """From the worst."""
        return iter(self.worst.kept)

    def to_bytes(self) -> bytes:
        return write_comparison(self)

    encode = to_bytes

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Raises Malformed for anything that `to_bytes` has not written, or in another version."""
        return read_comparison(data, cls)

    def _tally(self, name: str) -> OutputTally:
        tally = self.outputs.get(name)
        if tally is None:
            tally = OutputTally()
            if len(self.outputs) < MOST_OUTPUTS:
                self.outputs[name] = tally
        return tally

    def _at(self, unix_ns: int) -> None:
        if unix_ns:
            self.first_ns = min(self.first_ns or unix_ns, unix_ns)
            self.last_ns = max(self.last_ns, unix_ns)

    def __repr__(self) -> str:
        pair = f"{self.key.model} {self.key.primary}->{self.key.shadow}"
        return f"PairComparison({pair}, compared={self.compared}, agreed={self.agreed}, failed={self.failed})"


def _add(counts: dict[str, int], reason: str, requests: int) -> None:
    if reason not in SHED_REASONS:
        raise ValueError(f"expected one of {', '.join(SHED_REASONS)}, got {reason!r}")
    if requests:
        counts[reason] = counts.get(reason, 0) + requests
