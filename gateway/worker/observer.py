"""What a worker keeps of inputs and outputs: each version's summary, in the pane that is open.

Called after the replies have been handed over. Rows are put aside and measured together, FEW_ROWS and more at once:
most of what it costs to measure a row is to begin. What is put aside is measured after TICK_SECONDS of the worker at
the latest, and is lost, like the pane, when the worker is killed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.profile.of_signature import schema_of
from runtime.profile.summary import Summary
from runtime.shm.panes_slot import PaneSlot
from runtime.shm.panes_writer import PaneWriter
from runtime.types import ANY, Signature
from runtime.versions.policy import InstanceKey
from runtime.versions.version import LoadedVersion

log = logging.getLogger(__name__)

Array = npt.NDArray[Any]

FEW_ROWS = 128
"""Rows are put aside until there are so many: a row of 30 features then costs half of what it does 16 at a time."""

FEW_NUMBERS = 65_536
"""A run of more numbers in its inputs is measured at once: putting it aside would save nothing, and hold memory."""


class VersionObserver:
    """Of one loaded version. Thread-safe."""

    def __init__(self, name: str, signature: Signature, slot: PaneSlot[Summary]) -> None:
        self._name = name
        self._output_names = tuple(spec.name for spec in signature.outputs)
        self._slot = slot
        self._lock = threading.Lock()
        self._broken = False
        self._few_rows = _rows_together(signature)
        self._rows = 0
        self._outputs: Sequence[int] = ()
        self._runs: list[tuple[Mapping[str, Array], Sequence[Array], int]] = []

    def observe(self, inputs: Mapping[str, Array], outputs: Sequence[int], answers: Sequence[Array], rows: int) -> None:
        """A run's tensors; `outputs`: of which outputs `answers` are. They are kept for a while, and must not change.

        Raises nothing: what fails is told once.
        """
        if not rows or not inputs:
            return
        with self._lock:
            if outputs != self._outputs:
                self._measure()
                self._outputs = outputs
            self._runs.append((inputs, answers, rows))
            self._rows += rows
            if self._rows >= self._few_rows:
                self._measure()

    def flush(self) -> None:
        """Measures what was put aside."""
        if self._runs:
            with self._lock:
                self._measure()

    def end(self) -> None:
        """The version has been unloaded."""
        self.flush()
        self._slot.end()

    def _measure(self) -> None:
        if not self._runs:
            return
        runs, rows = self._runs, self._rows
        self._runs, self._rows = [], 0
        try:
            if len(runs) == 1:
                inputs, answers, _ = runs[0]
            else:
                inputs = {name: np.concatenate([run[0][name] for run in runs]) for name in runs[0][0]}
                answers = [np.concatenate([run[1][at] for run in runs]) for at in range(len(self._outputs))]
            outputs = {self._output_names[at]: answer for at, answer in zip(self._outputs, answers, strict=True)}
            summary = self._slot.enter()
        except Exception as error:
            self._tell(error)
            return
        try:
            summary.observe(inputs, outputs, rows)
        except Exception as error:
            self._slot.abandon()  # a part of the features may have seen the rows
            self._tell(error)
        else:
            self._slot.leave(rows, time.time_ns())

    def _tell(self, error: Exception) -> None:
        if not self._broken:
            self._broken = True
            log.error("runs of %s cannot be measured; this is told once", self._name, exc_info=error)


def _rows_together(signature: Signature) -> int:
    """How many rows are put aside; 1: none, where rows of two runs may differ in shape, or are large."""
    numbers = 0
    for spec in (*signature.inputs, *signature.outputs):
        if spec.any_rank or not spec.shape or spec.shape[0] != ANY or ANY in spec.shape[1:]:
            return 1
        numbers += int(np.prod(spec.shape[1:], dtype=np.int64))
    return max(1, min(FEW_ROWS, FEW_NUMBERS // max(numbers, 1)))


class Observers:
    """Makes a version's observer when it is loaded, and ends it when it has been unloaded."""

    def __init__(self, writer: PaneWriter | None) -> None:
        self._writer = writer
        self._lock = threading.Lock()
        self._observers: dict[InstanceKey, VersionObserver] = {}

    def of(self, key: InstanceKey, version: LoadedVersion) -> VersionObserver | None:
        """None where nothing is to be measured, or there is no room; then it is counted, and told."""
        settings = version.manifest.statistics
        if self._writer is None or not settings.enabled:
            return None
        schema = schema_of(version.signature, settings)
        if not schema.features:
            return None
        slot = self._writer.slot(
            key.model,
            key.version,
            key.generation,
            key.digest,
            schema.to_json().encode("utf-8", "surrogatepass"),
            schema.size_bytes,
            lambda memory: Summary.create(schema, memory),
        )
        if slot is None:
            return None
        observer = VersionObserver(version.name, version.signature, slot)
        with self._lock:
            self._observers[key] = observer
        return observer

    def end(self, key: InstanceKey) -> None:
        with self._lock:
            observer = self._observers.pop(key, None)
        if observer is not None:
            observer.end()

    def tick(self) -> None:
        """Now and then: what idle versions have seen is handed over too."""
        if self._writer is None:
            return
        self._flush()
        self._writer.tick()

    def close(self) -> None:
        """Nothing is answered any more: control gets what is left."""
        if self._writer is not None:
            self._flush()
            self._writer.close()

    def _flush(self) -> None:
        with self._lock:
            observers = list(self._observers.values())
        for observer in observers:
            observer.flush()
