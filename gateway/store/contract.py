"""What a store keeps, promises and raises.

    ServingError (runtime.errors)
    └── StoreError             the store failed in a way that has no name yet
        ├── StoreUnavailable   the store cannot be read or written now: directory, disk, permissions, lock, closed
        ├── StoreConflict      the model's revision is not the expected one; read it again, then decide again
        ├── RolloutConflict    the model has a rollout already that has not ended
        ├── StoreCorrupt       what the store finds on disk is not what a store wrote
        └── StoreVersionError  a newer driftgate wrote the store; this one would misread it

Errors of operations name no path in their message, for a client may see them; `detail` has it. Errors of opening do:
they are raised at start, to the operator who chose the path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol, get_args

from runtime.errors import ServingError

MAX_INT64 = 2**63 - 1
"""The widest integer of the protocol and of the databases."""

Outcome = Literal["done", "failed", "refused", "unchanged"]


class StoreError(ServingError):
    reason = "STORE_FAILED"


class StoreUnavailable(StoreError):
    reason = "STORE_UNAVAILABLE"


class StoreConflict(StoreError):
    """`found_revision` is 0 where the model does not exist."""

    reason = "STORE_CONFLICT"

    def __init__(self, model: str, *, expected_revision: int, found_revision: int) -> None:
        super().__init__(
            f"expected revision {expected_revision} of model {model!r}, found {found_revision}: "
            "another change came first; read the model again and retry"
        )
        self.model = model
        self.expected_revision = expected_revision
        self.found_revision = found_revision


class RolloutConflict(StoreError):
    """`rollout_id`: of the one that is under way."""

    reason = "ROLLOUT_CONFLICT"

    def __init__(self, model: str, rollout_id: int) -> None:
        super().__init__(
            f"rollout {rollout_id} of model {model!r} is under way, and a model has one at a time: "
            "wait for its end, or abort it"
        )
        self.rollout_id = rollout_id


class StoreCorrupt(StoreError):
    reason = "STORE_CORRUPT"


class StoreVersionError(StoreError):
    reason = "STORE_TOO_NEW"


@dataclass(frozen=True, slots=True)
class DesiredVersion:
    """One version to serve. `digest` is "sha256:<hex>"; `generation` grows when the same version is loaded again.

    `settings` is what it was loaded with, in model.yaml's form and made of JSON's types: a restart loads it the same
    way, whatever has become of the repository.
    """

    version: int
    digest: str
    generation: int
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        require_int64("version", self.version)
        require_int64("generation", self.generation)
        require_text("digest", self.digest)


@dataclass(frozen=True, slots=True)
class DesiredModel:
    """What every worker should hold of one model.

    `pinned_versions` is an operator's explicit choice over the policy (empty: the policy chooses); `default_target` is
    what an empty model_version means: a version number, a label, or "" for the newest served. `revision` counts the
    writes of this row from 1; 0: never stored. `name` is any text here, for a refused request has a name too; only
    storing the model asks for a proper one. `route` is the operators' route as JSON (`runtime.routing.document`), "":
    none.
    """

    name: str
    served: bool
    versions: tuple[DesiredVersion, ...] = ()
    labels: Mapping[str, int] = field(default_factory=dict)
    default_target: str = ""
    pinned_versions: tuple[int, ...] = ()
    revision: int = 0
    route: str = ""

    def __post_init__(self) -> None:
        require_text("default_target", self.default_target)
        require_text("route", self.route)
        require_int64("revision", self.revision)
        for label, version in self.labels.items():
            require_text("labels", label)
            require_int64(f"labels[{label!r}]", version)
        for version in self.pinned_versions:
            require_int64("pinned_versions", version)


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One change, or the attempt at one.

    `version` 0: the model as a whole, below 0: what a refused caller asked for; `model` "": the gateway as a whole.
    Texts come from clients and file names, and an odd character in one must not cost the record: what a database
    cannot hold (NUL, lone surrogates) is replaced by its escape at construction.
    """

    actor: str
    peer: str
    action: str
    model: str
    version: int
    digest: str
    outcome: Outcome
    detail: str
    reason: str

    def __post_init__(self) -> None:
        if self.outcome not in get_args(Outcome):
            raise ValueError(f"outcome: expected one of {', '.join(get_args(Outcome))}, got {self.outcome!r}")
        if not -MAX_INT64 - 1 <= self.version <= MAX_INT64:
            raise ValueError(f"version: expected an integer in -2**63..2**63-1, got {self.version}")
        for name in ("actor", "peer", "action", "model", "digest", "detail", "reason"):
            object.__setattr__(self, name, _storable(getattr(self, name)))


@dataclass(frozen=True, slots=True)
class AuditRecord(AuditEntry):
    """An entry as stored. A higher `id` was written later, with gaps allowed; `time` is UTC, of the writer's clock."""

    id: int
    time: datetime


class Store(Protocol):
    """Desired state and audit, durable: what a method returned survives a kill and a loss of power.

    Every method may be called from any thread, blocks while it reads or writes, and raises StoreUnavailable,
    StoreCorrupt or StoreError; then nothing of the call was written. A model and its audit record are written together
    or not at all.
    """

    def load_models(self) -> dict[str, DesiredModel]:
        """Every model by name, in the order of names."""

    def put_model(self, desired: DesiredModel, *, expected_revision: int, audit: AuditEntry) -> AuditRecord:
        """Replaces the model whole; its revision becomes `expected_revision` + 1, whatever `desired.revision` is.

        0 expects that the model does not exist. Raises StoreConflict where another revision is found, and ValueError
        for a name that is empty or has NUL or lone surrogates.
        """

    def delete_model(self, name: str, *, expected_revision: int, audit: AuditEntry) -> AuditRecord:
        """Forgets the model; its audit stays.

        Raises StoreConflict as `put_model` does, also for an unknown model, and ValueError for `expected_revision` 0.
        """

    def append_audit(self, entry: AuditEntry) -> AuditRecord:
        """Records what changed no model here: refusals, failures."""

    def list_audit(self, model: str = "", limit: int = 100, before_id: int = 0) -> list[AuditRecord]:
        """At most `limit` records, newest first: of `model` ("": all), older than `before_id` (0: from the newest).

        Raises ValueError for a limit below 1 or a negative id.
        """

    def close(self) -> None:
        """Waits for the call in progress and lets go of the database. May be repeated; other calls then raise."""


def require_name(name: str) -> None:
    """For stores: raises the ValueError that `put_model` promises."""
    if not name:
        raise ValueError("name: expected the name of a model, got an empty string")
    require_text("name", name)


def require_int64(name: str, value: int) -> None:
    if not 0 <= value <= MAX_INT64:
        raise ValueError(f"{name}: expected an integer in 0..2**63-1, got {value}")


def require_text(name: str, value: str) -> None:
    if _storable(value) != value:
        raise ValueError(f"{name}: expected text without NUL and lone surrogates, got {value!r}")


def _storable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")
