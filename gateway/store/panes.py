"""What a store keeps of what was measured: panes, how far they were collected, drift's state, references.

It raises what `contract` says. Panes and marks of collection are written together, once a tick: so a row is never
counted twice, whatever ends control between storing a pane and letting go of it in the worker's memory.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypeVar

from gateway.store.contract import AuditEntry, AuditRecord, require_int64, require_text
from runtime.profile.levels import Levels
from runtime.profile.pane import Mergeable, Pane, PaneChanges
from runtime.profile.windows import Windows

MAX_REFERENCE_BYTES = 64 << 20
"""A profile of 10,000 features has about 40 MB. SQLite and PostgreSQL both hold more in one value."""
MAX_REFERENCES = 1_000
"""One for each version that is looked at, and room for those that were: 64 GB at the very most."""
MAX_DRIFT_STATE_BYTES = 8 << 20
"""Alarms and looks of 10,000 features, with room: it is written as a whole."""
MAX_SLOT_BYTES = 200

T = TypeVar("T", bound=Mergeable)


@dataclass(frozen=True, slots=True)
class VersionKey:
    """The version that something was measured of. `digest` is "sha256:<hex>": other files are another version."""

    model: str
    version: int
    digest: str

    def __post_init__(self) -> None:
        require_text("model", self.model)
        require_int64("version", self.version)
        require_text("digest", self.digest)


@dataclass(frozen=True, slots=True)
class Tick:
    """What has changed since the tick before. Times are whole seconds since the epoch.

    `panes`: what `Windows.changes` says of each version. `collected`: by slot, the serial up to which its panes are in
    `panes` of this tick or an earlier one; a slot's name is no other slot's of any worker, now or later. `forgotten`:
    slots that are gone. `drift`: JSON of each version whose state has to be kept.

    `retain_seconds`: panes that end longer ago are removed, whose ever they are, and drift states that no tick has had
    for so long. `Levels.retain_seconds` keeps all that windows show. The drift state of a version that is served and
    does not change has to come again before that.
    """

    now_seconds: int
    retain_seconds: int
    panes: Mapping[VersionKey, PaneChanges] = field(default_factory=dict)
    collected: Mapping[str, int] = field(default_factory=dict)
    forgotten: Collection[str] = ()
    drift: Mapping[VersionKey, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.retain_seconds < 1:
            raise ValueError(f"retain_seconds: expected 1 or more, got {self.retain_seconds}")
        for slot, serial in self.collected.items():
            require_text("collected", slot)
            if not 0 < len(slot.encode()) <= MAX_SLOT_BYTES:
                raise ValueError(f"collected: expected slots of 1 to {MAX_SLOT_BYTES} bytes, got {slot[:300]!r}")
            require_int64(f"collected[{slot!r}]", serial)
        for version, state in self.drift.items():
            require_text(f"drift of {version}", state)
            size = len(state.encode())
            if size > MAX_DRIFT_STATE_BYTES:
                raise ValueError(f"drift of {version}: expected {MAX_DRIFT_STATE_BYTES} bytes or less, got {size}")


@dataclass(frozen=True, slots=True)
class Reference:
    """What live rows of a version are compared with. `digest` is of `payload`, which is opaque here.

    `about`: what people want to know of it.
    """

    version: VersionKey
    kind: str
    digest: str
    payload: bytes = field(repr=False)
    about: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        require_text("kind", self.kind)
        require_text("digest", self.digest)


@dataclass(frozen=True, slots=True)
class StoredReference(Reference):
    """`set_at` is the time of its audit record."""

    set_at: datetime = field(kw_only=True)


class PaneStore(Protocol):
    """Durable: what a method returned survives a kill and a loss of power.

    A loss of power so costs the panes that workers have not closed, and the ticks not written yet; panes and marks are
    of the same tick always. Every method may be called from any thread, blocks while it reads or writes, and raises
    StoreUnavailable, StoreCorrupt or StoreError; then nothing of the call was written.
    """

    def put_tick(self, tick: Tick) -> None:
        """Writes all of it or nothing, in one transaction. The same tick again changes nothing more."""

    def load_panes(self, version: VersionKey) -> list[Pane]:
        """By length, then by time."""

    def load_collected(self) -> dict[str, int]:
        """The serial of every slot that is not forgotten."""

    def load_drift(self, version: VersionKey) -> str:
        """An empty text where none is kept."""

    def get_reference(self, version: VersionKey) -> StoredReference | None:
        pass

    def list_references(self) -> list[VersionKey]:
        """The versions that have a reference, in order."""

    def put_reference(self, reference: Reference, *, audit: AuditEntry) -> AuditRecord:
        """Replaces the version's reference.

        Raises InvalidRequest for a payload above MAX_REFERENCE_BYTES, and where MAX_REFERENCES versions have one.
        """

    def delete_reference(self, version: VersionKey, *, audit: AuditEntry) -> AuditRecord:
        """Forgets the version's reference; where there is none, only the audit is written."""


def load_windows(
    store: PaneStore, version: VersionKey, levels: Levels, decode: Callable[[bytes], T], now_seconds: float
) -> Windows[T]:
    """The version's windows as the last tick left them, grown older.

    From then on, every tick: put `changes()` of all windows into a `Tick`; when it is stored, tell them by `saved`.
    """
    windows = Windows(levels, decode)
    windows.restore(store.load_panes(version), now_seconds)
    return windows
