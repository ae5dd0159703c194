"""What a worker does next: desired versions and present ones → one action. Pure and idempotent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from runtime.versions.state import FINAL, VersionState


@dataclass(frozen=True, slots=True, order=True)
class InstanceKey:
    """One loading of one version: the same number with other content, or loaded anew, is another instance."""

    model: str
    version: int
    digest: str
    generation: int


@dataclass(frozen=True, slots=True)
class Load:
    key: InstanceKey


@dataclass(frozen=True, slots=True)
class Retire:
    key: InstanceKey


@dataclass(frozen=True, slots=True)
class Forget:
    key: InstanceKey


Action = Load | Retire | Forget


def next_action(desired: Iterable[InstanceKey], present: Mapping[InstanceKey, VersionState]) -> Action | None:
    """Availability first: what is wanted is loaded before what is not is retired.

    A failed instance is not tried again (another generation is); it is forgotten when it is no longer wanted. One
    that is wanted again while it drains is loaded anew once it is gone.
    """
    wanted = list(desired)
    for key in wanted:
        if key not in present:
            return Load(key)
    still_wanted = set(wanted)
    for key, state in present.items():
        if key in still_wanted:
            if state is VersionState.UNLOADED:
                return Forget(key)
            continue
        if state is VersionState.AVAILABLE:
            return Retire(key)
        if state in FINAL:
            return Forget(key)
    return None
