"""Changes of what a version is compared with: checked, made one at a time, and audited."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from gateway.control.audit import Actor
from gateway.control.observatory import Observatory, Seen
from gateway.errors import Precondition
from gateway.store.contract import AuditEntry
from runtime.errors import InvalidRequest, NotFound, ServingError

KINDS = ("profile", "live", "none")

LEAST_LIVE_ROWS = 1_000
"""With fewer rows a reference's own noise hides all but the largest changes (docs/drift.md)."""

MOST_LIVE_ROWS = 100_000_000


class ReferenceChanges:
    def __init__(self, observatory: Observatory) -> None:
        self._observatory = observatory
        self._lock = asyncio.Lock()

    async def set(self, find: Callable[[], Seen], kind: str, live_rows: int, actor: Actor) -> tuple[bool, int]:
        """Whether anything has changed, and the audit's id. What is refused or fails is audited, too.

        `find` is called on a thread, once no other change is under way.
        """
        _check(kind, live_rows)
        async with self._lock:
            return await self._set(await asyncio.to_thread(find), kind, live_rows, actor)

    async def _set(self, seen: Seen, kind: str, live_rows: int, actor: Actor) -> tuple[bool, int]:
        action = f"set reference {kind}"
        try:
            if seen.watch is None:
                raise Precondition("drift is not looked for: drift.enabled is false in model.yaml; set it first")
            if kind == "live":
                return await self._live(seen, live_rows, actor, action)
            if kind == "none":
                return await self._none(seen, actor, action)
            return await self._profile(seen, actor, action)
        except ServingError as error:
            outcome = "refused" if isinstance(error, (Precondition, NotFound)) else "failed"
            await self._observatory.record(_entry(seen, actor, action, outcome, error.message))
            raise

    async def _profile(self, seen: Seen, actor: Actor, action: str) -> tuple[bool, int]:
        profile = await self._observatory.profile(seen.key)
        if profile is None:
            raise NotFound(
                f"version {seen.key.version} of model {seen.key.model!r} has no profile in the repository: build one "
                f"with `driftgate profile build --model {seen.key.model} --version {seen.key.version} --data FILE`"
            )
        held = seen.reference
        if held is not None and held.digest == profile.digest and seen.gathering is None:
            return await self._unchanged(seen, actor, action, profile.digest)
        detail = f"{profile.digest}, {profile.rows:,} rows"
        return True, await self._observatory.use(seen.key, profile, _entry(seen, actor, action, "done", detail))

    async def _live(self, seen: Seen, rows: int, actor: Actor, action: str) -> tuple[bool, int]:
        if seen.gathering is not None and seen.gathering.rows_wanted == rows:
            return await self._unchanged(seen, actor, action, f"the next {rows:,} rows are being gathered")
        detail = f"the next {rows:,} rows"
        return True, await self._observatory.gather(seen.key, rows, _entry(seen, actor, action, "done", detail))

    async def _none(self, seen: Seen, actor: Actor, action: str) -> tuple[bool, int]:
        if seen.reference is None and seen.gathering is None:
            return await self._unchanged(seen, actor, action, "there is none")
        was = seen.reference.digest if seen.reference is not None else "one that was being gathered"
        entry = _entry(seen, actor, action, "done", f"it was {was}")
        return True, await self._observatory.use(seen.key, None, entry)

    async def _unchanged(self, seen: Seen, actor: Actor, action: str, detail: str) -> tuple[bool, int]:
        entry = _entry(seen, actor, action, "unchanged", f"it was already so: {detail}")
        return False, await self._observatory.record(entry)


def _check(kind: str, live_rows: int) -> None:
    if kind not in KINDS:
        raise InvalidRequest(f"expected a kind of {', '.join(KINDS)}, got {kind[:100]!r}", field="kind")
    if kind != "live" and live_rows:
        raise InvalidRequest(f"live_rows belong to kind live, got {live_rows} for {kind}", field="live_rows")
    if kind == "live" and not LEAST_LIVE_ROWS <= live_rows <= MOST_LIVE_ROWS:
        raise InvalidRequest(
            f"expected live_rows of {LEAST_LIVE_ROWS} to {MOST_LIVE_ROWS}, got {live_rows}", field="live_rows"
        )


def _entry(seen: Seen, actor: Actor, action: str, outcome: Any, detail: str) -> AuditEntry:
    return AuditEntry(
        actor=actor.name,
        peer=actor.peer,
        action=action,
        model=seen.key.model,
        version=seen.key.version,
        digest=seen.key.digest,
        outcome=outcome,
        detail=detail,
        reason=actor.reason,
    )
