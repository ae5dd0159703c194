"""One run's answers beside the shadow's: which rows and requests agree. docs/shadows.md has the rules.

An output whose axis 0 is not the run's rows belongs to the run as a whole: it is one row, which all its requests have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.shadow.answers import Answered, OutputRules
from runtime.shadow.outputs import ComparableOutput, ComparableOutputs, Predicts
from runtime.shadow.pair import Copy, PairSettings
from runtime.shadow.shown import Redaction, inputs_text
from runtime.shadow.tally import OutputTally
from runtime.shadow.worst import Disagreement, Worst

Array = npt.NDArray[Any]

MAX_ID_CHARACTERS = 128


@dataclass(frozen=True, slots=True)
class Compared:
    """Of one run. `agreed`: requests of which all rows agree."""

    rows: int
    agreed_rows: int
    agreed: int


class Judge:
    """Compares runs of one pair by the rules of its route; counts go to tallies."""

    def __init__(self, outputs: ComparableOutputs, settings: PairSettings) -> None:
        self._outputs = outputs
        self._settings = settings
        self._redaction = Redaction(settings.redact, outputs)
        self._rules = {name: self._rules_of(output) for name, output in outputs.outputs.items()}

    def judge(
        self, copy: Copy, answers: Mapping[str, Array], tally: Callable[[str], OutputTally], worst: Worst
    ) -> Compared:
        rows = sum(copy.rows) if copy.batched else 1
        found = [
            (self._rules.get(name) or self._rules_of(ComparableOutput(name, ""))).compare(
                array, answers.get(name), rows if copy.batched else -1, tally(name)
            )
            for name, array in copy.outputs.items()
            if name not in self._outputs.ignored
        ]
        deciding = [each for each in found if each.predicts] or found
        agrees = np.ones(rows, np.bool_)
        for each in deciding:
            agrees &= each.agrees  # one row of the run as a whole is every row's
        wrong = np.flatnonzero(~agrees)
        if not len(wrong):
            return Compared(rows, rows, len(copy.rows))
        requests, within = _places(copy, wrong)
        self._keep_worst(copy, deciding, wrong, requests, within, worst)
        failed = len(set(requests)) if copy.batched else len(copy.rows)
        return Compared(rows, rows - len(wrong), len(copy.rows) - failed)

    def _rules_of(self, output: ComparableOutput) -> OutputRules:
        settings = self._settings
        return OutputRules(output, settings.absolute, settings.relative, self._redaction.in_place_of(output.name))

    def _keep_worst(
        self,
        copy: Copy,
        deciding: list[Answered],
        wrong: Array,
        requests: Sequence[int],
        within: Sequence[int],
        worst: Worst,
    ) -> None:
        """wrong: the rows of the run that disagree; of each the request, and the place in it."""
        severity, which = _severities(deciding, wrong)
        bar = worst.bar(copy.unix_ns)
        if not severity.max() >= bar:
            return
        ranked = sorted(
            (-float(severity[at]), copy.request_ids[requests[at]], within[at], at)
            for at in np.flatnonzero(severity >= bar).tolist()
        )
        found = []
        for minus, request_id, row, at in ranked[: worst.most]:
            each = deciding[which[at]]
            of_run = int(wrong[at])
            first, second = each.texts(of_run if len(each.agrees) > 1 else 0)
            inputs = self._inputs_of(copy, of_run)
            identity = request_id[:MAX_ID_CHARACTERS]
            found.append(Disagreement(copy.unix_ns, identity, row, each.output.name, -minus, first, second, inputs))
        worst.add(found)

    def _inputs_of(self, copy: Copy, row: int) -> str:
        if not self._settings.inputs:
            return ""
        return inputs_text(copy.inputs, row, self._outputs, self._redaction, batched=copy.batched)


def _severities(deciding: list[Answered], wrong: Array) -> tuple[Array, Array]:
    """Of each row that disagrees: how badly, and the place of the first output that shows it. Scores show more than
    labels do: they come first.
    """
    severity, which = np.full(len(wrong), -1.0), np.zeros(len(wrong), np.int64)
    margins = next((each.severity for each in deciding if each.has_margins), None)
    for at in sorted(range(len(deciding)), key=lambda at: (deciding[at].output.predicts is Predicts.SCORES, -at)):
        each = deciding[at]
        its = margins if margins is not None and each.is_flip else each.severity
        disagrees = ~_of_rows(each.agrees, wrong)
        severity[disagrees] = _of_rows(its, wrong)[disagrees]
        which[disagrees] = at
    return severity, which


def _of_rows(values: Array, rows: Array) -> Array:
    """Of an output of the run as a whole the one value, for each row."""
    return values[rows] if len(values) > 1 else np.repeat(values, len(rows))


def _places(copy: Copy, rows: Array) -> tuple[list[int], list[int]]:
    """Of rows of the run, ascending: the request, and the row within it."""
    if not copy.batched or len(copy.rows) == 1:
        return [0] * len(rows), rows.tolist()
    ends = np.cumsum(copy.rows)
    requests: list[int] = np.searchsorted(ends, rows, side="right").tolist()
    starts = [int(ends[at]) - copy.rows[at] for at in requests]
    return requests, [row - start for row, start in zip(rows.tolist(), starts, strict=True)]
