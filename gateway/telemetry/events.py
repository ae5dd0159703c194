"""The log events: what each says and when, as data; and the log that holds them until they are exported.

An event is an OpenTelemetry log record with a name. Its attributes are declared here or, where spans and metrics carry
them too, in conventions.py. The reference is generated.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gateway.telemetry.conventions import ATTRIBUTES, EVENT, Attribute

log = logging.getLogger(__name__)

MAX_WAITING = 2048  # events; at the default interval of export, more than any operator causes
MAX_TEXT = 4096  # characters of a body or an attribute; the rest is cut off
MAX_ATTRIBUTES = 32
MAX_ITEMS = 128  # of a list
MAX_ITEM_TEXT = 128  # characters
MAX_KEY = 256  # characters
INT64 = range(-(2**63), 2**63)  # what an attribute's integer holds; others become text
# Together they keep the largest event below the 3.5 MiB that an export may have, at four bytes a character.

Value = str | bool | int | float | Sequence[str] | Sequence[int]

_conventional = {attribute.key: attribute for attribute in ATTRIBUTES}

FIELDS: dict[str, Attribute] = {
    "model": _conventional["driftgate.model.name"],
    "version": _conventional["driftgate.model.version"],
    "digest": _conventional["driftgate.model.digest"],
    "worker": _conventional["driftgate.worker"],
    "code": _conventional["rpc.response.status_code"],
    "refusal": _conventional["driftgate.refusal.reason"],
    "pid": Attribute("process.pid", "int", (EVENT,), "The process."),
    "previous_pid": Attribute("driftgate.process.previous_pid", "int", (EVENT,), "The process in whose place it is."),
    "action": Attribute("driftgate.change.action", "string", (EVENT,), "load, unload, set label canary, ..."),
    "actor": Attribute("driftgate.change.actor", "string", (EVENT,), "Who asked for the change, as in the audit."),
    "outcome": Attribute("driftgate.change.outcome", "string", (EVENT,), "refused or failed."),
    "audit": Attribute("driftgate.change.audit_id", "int", (EVENT,), "The change's record in the audit."),
    "seconds": Attribute("driftgate.change.duration", "double", (EVENT,), "Seconds that the change took."),
    "versions": Attribute("driftgate.route.versions", "int[]", (EVENT,), "The versions that are served; absent: none."),
    "versions_before": Attribute("driftgate.route.previous.versions", "int[]", (EVENT,), "The same, before."),
    "default": Attribute("driftgate.route.default", "int", (EVENT,), "The version that is the default; absent: none."),
    "default_before": Attribute("driftgate.route.previous.default", "int", (EVENT,), "The default before."),
    "target": Attribute(
        "driftgate.route.default_target", "string", (EVENT,), "What the default is set to: a version, a label, newest."
    ),
    "target_before": Attribute("driftgate.route.previous.default_target", "string", (EVENT,), "The same, before."),
    "labels": Attribute("driftgate.route.labels", "string[]", (EVENT,), "The labels, as stable=2; absent: none."),
    "labels_before": Attribute("driftgate.route.previous.labels", "string[]", (EVENT,), "The same, before."),
    "route": Attribute(
        "driftgate.route.document", "string", (EVENT,), "The operators' route as JSON; {}: none, the default alone."
    ),
    "route_before": Attribute("driftgate.route.previous.document", "string", (EVENT,), "The same, before."),
    "error": Attribute("driftgate.error.message", "string", (EVENT,), "What was wrong."),
    "count": Attribute("driftgate.event.count", "int", (EVENT,), "How many the event stands for."),
    "window": Attribute("driftgate.event.window", "double", (EVENT,), "Seconds in which these came."),
    "subject": _conventional["driftgate.drift.subject"],
    "role": _conventional["driftgate.drift.role"],
    "aspect": _conventional["driftgate.drift.aspect"],
    "measure": _conventional["driftgate.drift.measure"],
    "value": Attribute("driftgate.drift.value", "double", (EVENT,), "The measure's value, in its own unit."),
    "threshold": Attribute("driftgate.drift.threshold", "double", (EVENT,), "From which value on a change matters."),
    "p": Attribute("driftgate.drift.p", "double", (EVENT,), "p-value, corrected for all hypotheses and looks."),
    "by": Attribute("driftgate.drift.by", "string", (EVENT,), "window: a look at one; evidence: that of all panes."),
    "since": Attribute("driftgate.drift.since", "double", (EVENT,), "Unix time from which on, in seconds."),
    "drift_window": Attribute("driftgate.drift.window", "double", (EVENT,), "Seconds of the window."),
    "rows": Attribute("driftgate.drift.rows", "int", (EVENT,), "Rows of the window."),
    "reference": Attribute(
        "driftgate.drift.reference", "string", (EVENT,), "Digest of the reference; of service: the time before."
    ),
    "verdict": Attribute("driftgate.drift.verdict", "string", (EVENT,), "All of it in a sentence."),
    "rollout": Attribute("driftgate.rollout.id", "int", (EVENT,), "The rollout's number."),
    "baseline": Attribute("driftgate.rollout.baseline", "int", (EVENT,), "The version it is compared with."),
    "phase": _conventional["driftgate.rollout.phase"],
    "phase_before": Attribute("driftgate.rollout.previous.phase", "string", (EVENT,), "The same, before."),
    "step": Attribute("driftgate.rollout.step", "int", (EVENT,), "The step, from 1; absent: before the first."),
    "step_before": Attribute("driftgate.rollout.previous.step", "int", (EVENT,), "The same, before."),
    "weight": Attribute("driftgate.rollout.weight", "double", (EVENT,), "The candidate's share of requests, 0..1."),
    "copies": Attribute("driftgate.rollout.copies", "double", (EVENT,), "The share that is copied to it, 0..1."),
    "reason": Attribute("driftgate.rollout.reason", "string", (EVENT,), "What was decided, and why, in a sentence."),
    "readings": Attribute(
        "driftgate.rollout.readings", "string[]", (EVENT,), "What the gates say; where it ends by some, those alone."
    ),
    "evidence": Attribute(
        "driftgate.rollout.evidence", "string", (EVENT,),
        "JSON: counts of both versions in the step, and by gate evidence for harm and for safety, of what is needed.",
    ),
    "signal": Attribute(
        "driftgate.telemetry.signal", "string", (EVENT,),
        "What was dropped: spans, metrics (data points), logs (log records), access_log (lines).",
    ),
}  # fmt: skip
"""By the names under which events are emitted."""


@dataclass(frozen=True, slots=True)
class EventKind:
    """One entry of the catalogue. `fields`: names of FIELDS; `body`: a format string over them.

    `level`: of Python's logging. `logged`: the process log says it by this event; else a line of its own does.
    """

    name: str
    level: int
    text: str
    body: str
    fields: tuple[str, ...]
    logged: bool = True


VERSION_LOADED = EventKind(
    "driftgate.version.loaded", logging.INFO,
    "A version is in the memory of every worker, and from now on served.",
    "version {version} of {model!r} is loaded on every worker",
    ("model", "version", "digest"), logged=False,
)  # fmt: skip
VERSION_SWAPPED = EventKind(
    "driftgate.version.swapped", logging.INFO,
    "A change of the versions that are served, or of the one that is the default; every worker has taken it up.",
    "{model!r} is served by {versions} (before: {versions_before}), by default {default} (before: {default_before})",
    ("model", "versions", "versions_before", "default", "default_before", "action", "actor", "audit", "seconds"),
    logged=False,
)  # fmt: skip
ROUTE_CHANGED = EventKind(
    "driftgate.route.changed", logging.INFO,
    "A change of the labels, of what the default is set to, or of the operators' route.",
    "{model!r} has the labels {labels} (before: {labels_before}), the default {target} (before: {target_before}) and "
    "the route {route} (before: {route_before})",
    (
        "model", "labels", "labels_before", "target", "target_before", "route", "route_before", "action", "actor",
        "audit", "seconds",
    ),
    logged=False,
)  # fmt: skip
CHANGE_REFUSED = EventKind(
    "driftgate.change.refused", logging.WARNING,
    "A change that an operator, a client or the gateway itself asked for was refused, or failed; nothing has changed.",
    "{action} {model!r} by {actor} {outcome}: {error}",
    ("model", "action", "actor", "outcome", "error"),
)  # fmt: skip
CHANGES_REFUSED = EventKind(
    "driftgate.changes.refused", logging.WARNING,
    "Further changes that one actor asked for were refused or failed, after the first few within a few seconds.",
    "{count} more changes by {actor} were refused or failed in {window:.1f} s; the audit has each",
    ("actor", "count", "window"),
)  # fmt: skip
LOAD_FAILED = EventKind(
    "driftgate.version.load_failed", logging.ERROR,
    "A worker could not load a version.",
    "worker {worker} cannot load version {version} of {model!r}: {error}",
    ("model", "version", "digest", "worker", "error"), logged=False,
)  # fmt: skip
WORKER_DIED = EventKind(
    "driftgate.worker.died", logging.ERROR,
    "A worker ended without having been told to; it is started again.",
    "worker {worker} (pid {pid}) ended unexpectedly",
    ("worker", "pid"), logged=False,
)  # fmt: skip
SHADOW_DIED = EventKind(
    "driftgate.shadow.died", logging.ERROR,
    "The process that answers copies ended without having been told to; it is started again. Clients notice nothing.",
    "the shadow process (pid {pid}) ended unexpectedly",
    ("pid",), logged=False,
)  # fmt: skip
SHADOW_RESTARTED = EventKind(
    "driftgate.shadow.restarted", logging.INFO,
    "The process that answers copies is there again.",
    "the shadow process is there again: pid {pid} after {previous_pid}",
    ("pid", "previous_pid"),
)  # fmt: skip
SHADOW_LOAD_FAILED = EventKind(
    "driftgate.shadow.load_failed", logging.ERROR,
    "The process that answers copies could not load a version.",
    "the shadow process cannot load version {version} of {model!r}: {error}",
    ("model", "version", "digest", "error"), logged=False,
)  # fmt: skip
VERSION_CRASHED = EventKind(
    "driftgate.version.crashed", logging.ERROR,
    "A process died in a run, a load or a warm-up of a version; where of several at once, each is named.",
    "version {version} of {model!r} was being run or loaded by {count} processes that died of it",
    ("model", "version", "count"),
)  # fmt: skip
WORKER_RESTARTED = EventKind(
    "driftgate.worker.restarted", logging.INFO,
    "A worker is there again, in a new process.",
    "worker {worker} is there again: pid {pid} in place of {previous_pid}",
    ("worker", "pid", "previous_pid"), logged=False,
)  # fmt: skip
CONTROL_RESTARTED = EventKind(
    "driftgate.control.restarted", logging.WARNING,
    "The control process ended unexpectedly and is there again; workers served on meanwhile.",
    "control is there again, as pid {pid}",
    ("pid",),
)  # fmt: skip
REQUESTS_REFUSED = EventKind(
    "driftgate.requests.refused", logging.WARNING,
    "Requests got an error; one event stands for all of a model, code and reason, at most every 10 s.",
    "{count} requests to model {model} got {code} ({refusal}) in {window:.1f} s",
    ("model", "code", "refusal", "count", "window"),
)  # fmt: skip
REPOSITORY_PROBLEM = EventKind(
    "driftgate.repository.problem", logging.WARNING,
    "The model repository, or a part of it, cannot be read.",
    "repository: {error}; what is loaded is served on",
    ("error",),
)  # fmt: skip
TELEMETRY_DROPPED = EventKind(
    "driftgate.telemetry.dropped", logging.WARNING,
    "Telemetry found no room, or no receiver, and is lost. Of logs, only the process log tells.",
    "telemetry was lost: {count} of {signal} in {window:.1f} s, since {error}",
    ("signal", "count", "window", "error"),
)  # fmt: skip

_OF_DRIFT = (
    "model", "version", "digest", "subject", "role", "aspect", "measure", "value", "threshold", "p", "by",
    "drift_window", "rows", "reference", "verdict",
)  # fmt: skip
DRIFT_DETECTED = EventKind(
    "driftgate.drift.detected", logging.WARNING,
    "A feature, an output, all features together, or how a version answers, has drifted, often enough in a row.",
    "version {version} of {model!r} has drifted, by {by}: {verdict}",
    (*_OF_DRIFT, "since"),
)  # fmt: skip
DRIFT_CLEARED = EventKind(
    "driftgate.drift.cleared", logging.INFO,
    "An alarm has ended: there was no drift any more, often enough in a row, or the reference is another one.",
    "the alarm of {subject} in version {version} of {model!r}, by {by}, has ended: {verdict}",
    _OF_DRIFT,
)  # fmt: skip

ROLLOUT_DECIDED = EventKind(
    "driftgate.rollout.decided", logging.INFO,
    "A rollout has moved: to its next step, on hold, live, or back. Of a rollback the severity is WARN.",
    "rollout {rollout} of {model!r} ({baseline} → {version}), {phase_before} → {phase}: {reason}",
    (
        "model", "version", "digest", "rollout", "baseline", "phase", "phase_before", "step", "step_before", "weight",
        "copies", "reason", "readings", "evidence", "actor", "audit",
    ),
)  # fmt: skip

CATALOGUE: tuple[EventKind, ...] = (
    VERSION_LOADED,
    VERSION_SWAPPED,
    ROUTE_CHANGED,
    CHANGE_REFUSED,
    CHANGES_REFUSED,
    LOAD_FAILED,
    WORKER_DIED,
    VERSION_CRASHED,
    WORKER_RESTARTED,
    SHADOW_DIED,
    SHADOW_RESTARTED,
    SHADOW_LOAD_FAILED,
    CONTROL_RESTARTED,
    REQUESTS_REFUSED,
    REPOSITORY_PROBLEM,
    TELEMETRY_DROPPED,
    DRIFT_DETECTED,
    DRIFT_CLEARED,
    ROLLOUT_DECIDED,
)


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One log record to be exported. `name` "": a line of the process log. Ids are empty without a request."""

    name: str
    level: int
    body: str
    attributes: Mapping[str, Value] = field(default_factory=dict)
    unix_ns: int = 0
    observed_unix_ns: int = 0
    trace_id: bytes = b""
    span_id: bytes = b""
    trace_flags: int = 0


class EventLog:
    """At most `capacity` events, oldest first; what comes when it is full is dropped, and told to `on_drop`.

    With a capacity of 0 nobody exports events: none is kept, and none is missed. Thread-safe.
    """

    def __init__(self, capacity: int = MAX_WAITING, on_drop: Callable[[], None] = lambda: None) -> None:
        self.capacity = capacity
        self._on_drop = on_drop
        self._waiting: deque[LogEvent] = deque()
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def emit(self, kind: EventKind, **fields: Value | None) -> None:
        """`fields`: a value for each of the kind's; None: it does not apply. Raises TypeError for other fields."""
        event = _made(kind, fields)
        self.offer(event)
        if kind.logged:
            _log(event)

    def offer(self, event: LogEvent) -> bool:
        """False: it is not kept."""
        if not self.capacity:
            return False
        event = _bounded(event)
        with self._lock:
            if len(self._waiting) < self.capacity:
                self._waiting.append(event)
                return True
        self._on_drop()
        return False

    def take(self, most: int) -> list[LogEvent]:
        """The oldest; they are no longer in the log."""
        with self._lock:
            return [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]


def log_only(kind: EventKind, **fields: Value | None) -> None:
    """As `emit`, for an event that is not to be exported."""
    _log(_made(kind, fields))


def _made(kind: EventKind, fields: Mapping[str, Value | None]) -> LogEvent:
    if fields.keys() != set(kind.fields):
        raise TypeError(f"{kind.name} has the fields {', '.join(kind.fields)}; got {', '.join(fields)}")
    body = kind.body.format_map({name: _readable(value) for name, value in fields.items()})
    attributes = {FIELDS[name].key: value for name, value in fields.items() if value is not None}
    now = time.time_ns()
    return LogEvent(kind.name, kind.level, body, attributes, now, now)


def _log(event: LogEvent) -> None:
    log.log(event.level, "%s", event.body, extra={"event_name": event.name, **event.attributes})


def _readable(value: Value | None) -> str | int | float:
    """As a body shows it."""
    if value is None:
        return "none"
    if isinstance(value, str | int | float):
        return value
    return ", ".join(map(str, value)) or "none"


def _bounded(event: LogEvent) -> LogEvent:
    first = list(event.attributes.items())[:MAX_ATTRIBUTES]
    attributes = {key[:MAX_KEY]: _cut(value) for key, value in first}
    return replace(event, body=event.body[:MAX_TEXT], attributes=attributes)


def _cut(value: Value) -> Value:
    if isinstance(value, str):
        return value[:MAX_TEXT]
    if isinstance(value, int) and value not in INT64:
        return str(value)[:MAX_TEXT]
    if isinstance(value, int | float):
        return value
    return [item[:MAX_ITEM_TEXT] if isinstance(item, str) else item for item in value[:MAX_ITEMS]]  # type: ignore[return-value]
