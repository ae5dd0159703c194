"""What the admin API asks of whoever gathers what was seen: windows, watches, references."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from gateway.control.drift_watch import DriftWatch
from gateway.store.contract import AuditEntry
from gateway.store.panes import VersionKey
from runtime.profile.reference import Profile
from runtime.profile.schema import Schema
from runtime.profile.summary import Summary
from runtime.profile.windows import Window
from runtime.repository.statistics_settings import DriftSettings

ReferenceKind = Literal["profile", "live", "none"]


@dataclass(frozen=True, slots=True)
class Served:
    """What the desired state says of a version."""

    settings: DriftSettings
    is_default: bool


@dataclass(frozen=True, eq=False)
class HeldReference:
    """What a version is compared with. `kind`: profile or live; `digest`: of its content."""

    kind: str
    digest: str
    summary: Summary
    created_at_seconds: float
    set_at_seconds: float
    about: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, profile: Profile, set_at_seconds: float) -> HeldReference:
        return cls(
            profile.kind, profile.digest, profile.summary, profile.created_at_seconds, set_at_seconds, profile.about
        )


@dataclass(frozen=True, slots=True)
class Gathering:
    """Live rows that are being gathered for a reference."""

    rows: int
    rows_wanted: int


@dataclass(frozen=True, eq=False)
class Seen:
    """One version of which something was seen, at one moment.

    `is_newest`: of those of this number, it was loaded last. `served`: it is being served. `watch` None: drift is not
    looked for (drift.enabled in model.yaml). `memory_bytes`: of its panes and windows, in all processes.
    """

    key: VersionKey
    schema: Schema
    is_newest: bool = True
    served: bool = True
    is_default: bool = False
    drift_window_seconds: int = 600
    watch: DriftWatch | None = None
    reference: HeldReference | None = None
    gathering: Gathering | None = None
    memory_bytes: int = 0
    notes: tuple[str, ...] = ()


class Observatory(Protocol):
    """Methods that are not coroutines are called on threads beside the event loop."""

    @property
    def windows_seconds(self) -> tuple[int, ...]: ...

    def known_models(self) -> Collection[str]:
        """All that the gateway knows, measured or not."""

    def seen(self, model: str) -> list[Seen]:
        """Of one model or ("") of all; by model, then version, then load."""

    def window(self, key: VersionKey, window_seconds: int) -> Window[Summary]:
        """Raises NotFound where the version has gone since."""

    async def profile(self, key: VersionKey) -> Profile | None:
        """The one beside the version in the repository; None where there is none. Raises ServingError."""

    async def use(self, key: VersionKey, profile: Profile | None, audit: AuditEntry) -> int:
        """Compares with it from now on; None: with nothing. Ends a gathering. Answers the audit's id."""

    async def gather(self, key: VersionKey, rows: int, audit: AuditEntry) -> int:
        """Makes the next rows, so many or some more, the reference. Until they are there, the one that is stays."""

    async def record(self, audit: AuditEntry) -> int:
        """What has changed nothing. Answers the audit's id."""
