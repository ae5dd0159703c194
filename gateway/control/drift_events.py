"""An alarm that was raised or cleared, as a log event."""

from __future__ import annotations

from gateway.control.drift_watch import Change
from gateway.telemetry.events import DRIFT_CLEARED, DRIFT_DETECTED, EventLog, Value

NO_VERDICT = "nothing is compared any more"


def announce_drift(events: EventLog, change: Change) -> None:
    verdict = change.verdict
    effect = verdict.finding.strongest if verdict is not None else None
    fields: dict[str, Value | None] = {
        "model": change.version.model,
        "version": change.version.version,
        "digest": change.version.digest,
        "subject": change.subject,
        "role": verdict.role.value if verdict is not None else None,
        "aspect": verdict.finding.aspect.value if verdict is not None else None,
        "measure": effect.measure if effect is not None else None,
        "value": effect.value if effect is not None else None,
        "threshold": effect.threshold if effect is not None else None,
        "p": verdict.finding.p_adjusted if verdict is not None else None,
        "by": change.by,
        "drift_window": change.window_seconds,
        "rows": change.rows,
        "reference": verdict.reference if verdict is not None else change.reference,
        "verdict": verdict.sentence() if verdict is not None else NO_VERDICT,
    }
    if change.raised:
        events.emit(DRIFT_DETECTED, **fields, since=change.since_seconds)
    else:
        events.emit(DRIFT_CLEARED, **fields)
