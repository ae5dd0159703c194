"""A version that is loaded, warmed up and able to answer."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from runtime.batching.plan import BatchLimits
from runtime.batching.runner import BatchRunner, Delivery, Mark
from runtime.errors import LoadError
from runtime.malloc import trim_memory
from runtime.onnx.session import Session
from runtime.onnx.warmup import WarmUp, warm_up
from runtime.repository.manifest import Manifest
from runtime.types import Artifact, Signature
from runtime.versions.lease import Leases


class LoadedVersion:
    """Holds the session; requests reach it only under a lease."""

    def __init__(
        self, artifact: Artifact, manifest: Manifest, session: Session, ready: WarmUp, load_seconds: float, memory: int
    ) -> None:
        self.model = artifact.model
        self.version = artifact.version
        self.name = f"{artifact.model}/{artifact.version}"
        self.digest = artifact.digest
        self.file_bytes = artifact.file_bytes
        self.manifest = manifest
        self.signature: Signature = session.signature
        self.execution_providers = session.execution_providers
        self.warnings = (*session.warnings, *ready.warnings)
        self.max_rows = ready.max_rows
        self.load_seconds = load_seconds
        self.loaded_at_seconds = time.time()
        self.memory_bytes = memory
        self.leases = Leases()
        self._session: Session | None = session
        self._run_seconds = ready.run_seconds
        self.runner: BatchRunner | None = None

    def __repr__(self) -> str:
        return f"<LoadedVersion {self.name} {self.digest[:19]} {self.leases!r}>"

    @property
    def session(self) -> Session | None:
        """Of a version that is run by hand, under a lease; None once it is unloaded."""
        return self._session

    def start(self, delivery: Delivery | None, mark: Mark | None = None) -> None:
        """With a runner that hands its answers to `delivery`; None: whoever loaded the version runs it by hand."""
        if self._session is None:
            raise RuntimeError(f"{self.name} has been unloaded")
        if delivery is None:
            return
        batching = self.manifest.batching
        limits = BatchLimits(self.max_rows, batching.max_queue_delay_seconds, batching.max_queue_requests)
        self.runner = BatchRunner(
            self.name, self._session, limits, self.manifest.instances, self._run_seconds, delivery, mark
        )

    def unload(self) -> None:
        """Drops the session and gives its memory back. Only after the last lease."""
        if self.runner is not None:
            self.runner.close()
        self.runner = None
        self._session = None
        trim_memory()


def load_version(artifact: Artifact, manifest: Manifest, on_loaded: Callable[[], None]) -> LoadedVersion:
    """Loads, validates and warms up; `on_loaded` marks the step from loading to warming up.

    Raises LoadError; then nothing is left in memory.
    """
    started = time.perf_counter()
    before = resident_bytes()
    session: Session | None = None
    try:
        session = Session(Path(artifact.folder) / artifact.model_filename, manifest.session)
        on_loaded()
        ready = warm_up(session, Path(artifact.folder), manifest.warmup, manifest.batching.max_batch_size)
    except Exception as error:
        failure = error if isinstance(error, LoadError) else LoadError(f"loading failed: {type(error).__name__}")
        failure.detail = failure.detail or repr(error)
        failure.__traceback__ = failure.__context__ = None  # their frames hold the session
    else:
        memory = max(resident_bytes() - before, 0)
        return LoadedVersion(artifact, manifest, session, ready, time.perf_counter() - started, memory)
    session = None
    trim_memory()
    raise failure


def resident_bytes() -> int:
    """Resident memory of the calling process."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
