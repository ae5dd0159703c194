"""What a store keeps of rollouts: each with its state between two looks, and what was decided.

It raises what `contract` says. A state, the decisions that led to it and their audit are written together: so whatever
ends control, the state that is found again is the one that the last decision left.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from gateway.store.contract import AuditEntry, AuditRecord, require_int64, require_name, require_text

MAX_TEXT_BYTES = 16 << 20
"""Of a plan, a state or a decision: counts and evidence of 64 gates take less than a hundredth of it."""


@dataclass(frozen=True, slots=True)
class NewRollout:
    """`plan`, `state`, `before`: JSON, opaque here. `before`: what the end of the rollout has to bring back."""

    model: str
    baseline: int
    candidate: int
    plan: str
    state: str
    before: str

    def __post_init__(self) -> None:
        require_name(self.model)
        require_int64("baseline", self.baseline)
        require_int64("candidate", self.candidate)
        for name in ("plan", "state", "before"):
            require_document(name, getattr(self, name))


@dataclass(frozen=True, slots=True)
class StoredRollout(NewRollout):
    """A higher `id` was created later. `ended_at` None: it is under way. `settled`: what its end asks for is done."""

    id: int
    created_at: datetime
    ended_at: datetime | None
    settled: bool


@dataclass(frozen=True, slots=True)
class NewDecision:
    """`data`: JSON, opaque here. `moved`: it is kept for good; of the others the last one is. `audit`: None of a look
    that moved nothing.
    """

    at_seconds: float
    moved: bool
    data: str
    audit: AuditEntry | None = None

    def __post_init__(self) -> None:
        require_document("data", self.data)
        if self.moved != (self.audit is not None):
            raise ValueError("expected an audit entry with a decision that moved something, and with no other")


@dataclass(frozen=True, slots=True)
class StoredDecision:
    """`number`: from 1, rising within the rollout, with gaps where looks moved nothing. `audit_id` 0: it has none."""

    number: int
    at_seconds: float
    moved: bool
    data: str
    audit_id: int


@dataclass(frozen=True, slots=True)
class RolloutChange:
    """`before` None: as it was. `ended`, `settled`: from now on; neither is ever taken back."""

    state: str
    decisions: Sequence[NewDecision] = ()
    before: str | None = None
    ended: bool = False
    settled: bool = False

    def __post_init__(self) -> None:
        require_document("state", self.state)
        if self.before is not None:
            require_document("before", self.before)


class RolloutStore(Protocol):
    """Durable: what a method returned survives a kill and a loss of power.

    Every method may be called from any thread, blocks while it reads or writes, and raises StoreUnavailable,
    StoreCorrupt or StoreError; then nothing of the call was written.
    """

    def create(self, rollout: NewRollout, *, audit: AuditEntry) -> tuple[StoredRollout, AuditRecord]:
        """Raises RolloutConflict while another one of the model has not ended, or has not been settled."""

    def save(self, rollout_id: int, change: RolloutChange) -> list[StoredDecision]:
        """The change's decisions as stored. Raises NotFound for an unknown id."""

    def under_way(self) -> list[StoredRollout]:
        """Those that have not ended, or have not been settled, in the order of their creation."""

    def get(self, rollout_id: int) -> StoredRollout | None:
        pass

    def newest(self) -> dict[str, int]:
        """By model, the id of the one that was created last."""

    def listed(self, model: str = "", limit: int = 100, before_id: int = 0) -> list[StoredRollout]:
        """At most `limit`, newest first: of `model` ("": all), older than `before_id` (0: from the newest).

        Raises ValueError for a limit below 1 or a negative id.
        """

    def decisions(self, rollout_id: int, limit: int = 1_000, after: int = 0) -> list[StoredDecision]:
        """At most `limit`, in their order, those after the number `after`. Raises ValueError as `listed` does."""

    def last_decisions(self, rollout_ids: Collection[int]) -> dict[int, StoredDecision]:
        """The last one of each that has any."""


def require_document(name: str, text: str) -> None:
    require_text(name, text)
    size = len(text.encode())
    if size > MAX_TEXT_BYTES:
        raise ValueError(f"{name}: expected {MAX_TEXT_BYTES} bytes or less, got {size}")
