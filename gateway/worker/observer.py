"""What a worker keeps of inputs and outputs: each version's summary, in the pane that is open.

Called after the replies have been handed over. Each version's panes have one writer at a time, under the slot's lock.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from runtime.profile.of_signature import schema_of
from runtime.profile.summary import Summary
from runtime.shm.panes_slot import PaneSlot
from runtime.shm.panes_writer import PaneWriter
from runtime.versions.policy import InstanceKey
from runtime.versions.version import LoadedVersion

log = logging.getLogger(__name__)

Array = npt.NDArray[Any]


class VersionObserver:
    """Of one loaded version. `output_names`: in the signature's order."""

    def __init__(self, name: str, output_names: Sequence[str], slot: PaneSlot[Summary]) -> None:
        self._name = name
        self._output_names = tuple(output_names)
        self._slot = slot
        self._broken = False

    def observe(self, inputs: Mapping[str, Array], outputs: Sequence[int], answers: Sequence[Array], rows: int) -> None:
        """A run's tensors; `outputs`: of which outputs `answers` are. Raises nothing: what fails is counted, and told
        once.
        """
        if not rows or not inputs:
            return
        names = self._output_names
        slot = self._slot
        summary = slot.enter()
        if summary is None:
            return
        kept = 0
        try:
            summary.observe(inputs, {names[at]: answer for at, answer in zip(outputs, answers, strict=True)}, rows)
            kept = rows
        except Exception:
            if not self._broken:
                self._broken = True
                log.exception("runs of %s are not measured whole; told once", self._name)
        finally:
            slot.leave(kept, time.time_ns())

    def end(self) -> None:
        """The version has been unloaded."""
        self._slot.end()


class Observers:
    """Makes a version's observer when it is loaded, and ends it when it has been unloaded."""

    def __init__(self, writer: PaneWriter | None) -> None:
        self._writer = writer
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
        names = [spec.name for spec in version.signature.outputs]
        observer = self._observers[key] = VersionObserver(version.name, names, slot)
        return observer

    def end(self, key: InstanceKey) -> None:
        observer = self._observers.pop(key, None)
        if observer is not None:
            observer.end()

    def tick(self) -> None:
        """Now and then: what idle versions have seen is handed over too."""
        if self._writer is not None:
            self._writer.tick()

    def close(self) -> None:
        """Nothing is answered any more: control gets what is left."""
        self._observers.clear()
        if self._writer is not None:
            self._writer.close()
