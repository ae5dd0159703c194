"""A watch's last look as the admin API answers it."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from gateway.control.drift_watch import LookReport
from gateway.control.feature_answers import FRAME_BYTES
from gateway.control.observatory import Seen
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from runtime.drift.verdict import Effect, Finding, Verdict


def timestamp(seconds: float) -> Timestamp:
    """Unix time, to the microsecond."""
    stamp = Timestamp()
    stamp.FromMicroseconds(round(seconds * 1e6))
    return stamp


def reference_of(seen: Seen) -> pb.Reference | None:
    """None where there is none, and none is being gathered."""
    held, gathering = seen.reference, seen.gathering
    if held is None and gathering is None:
        return None
    message = pb.Reference()
    if held is not None:
        message = pb.Reference(
            kind=held.kind,
            digest=held.digest,
            rows=held.summary.rows,
            created_at=timestamp(held.created_at_seconds),
            set_at=timestamp(held.set_at_seconds),
            about=held.about,
        )
    if gathering is not None:
        message.rows_gathered, message.rows_wanted = gathering.rows, gathering.rows_wanted
    return message


def problem_of(seen: Seen) -> str:
    """Why features are not compared with anything; "" where they are."""
    if seen.watch is None:
        return "drift is not looked for: drift.enabled is false in model.yaml"
    if seen.reference is None and seen.gathering is not None:
        gathering = seen.gathering
        return f"{gathering.rows:,} of the {gathering.rows_wanted:,} rows that are to be the reference are gathered"
    if seen.reference is None:
        return (
            "no reference: set one by SetReference, from the profile that `driftgate profile build` writes beside the "
            "version, or of the next live rows"
        )
    return "" if seen.watch.report is not None else "no look yet: no rows have come since the reference was set"


def drift_report(seen: Seen, *, history: int, subjects: int, most_bytes: int) -> pb.DriftReport:
    """`history`: looks of the past at most; `subjects`: verdicts at most, 0: all; as many as `most_bytes` hold."""
    report = pb.DriftReport(
        model=seen.key.model, version=seen.key.version, digest=seen.key.digest, problem=problem_of(seen)
    )
    reference = reference_of(seen)
    if reference is not None:
        report.reference.CopyFrom(reference)
    watch = seen.watch
    if watch is None:
        return report
    look = watch.report
    report.decision = (look.decision if look is not None else watch.decision).value
    if look is not None:
        _add_look(report, look)
    if history:
        past = watch.past(history)
        report.history_subjects.extend(past.subjects)
        for at, (time, rows, decision) in enumerate(zip(past.times_seconds, past.rows, past.decisions, strict=True)):
            effects = past.effects[at].tolist()
            report.history.append(pb.DriftLook(time=timestamp(time), rows=rows, decision=decision, effects=effects))
    if look is not None:
        _add_verdicts(report, look, subjects, most_bytes)
    return report


def _add_look(report: pb.DriftReport, look: LookReport) -> None:
    found = look.report
    report.window.seconds = round(found.end_seconds - found.start_seconds)
    report.window.start.CopyFrom(timestamp(found.start_seconds))
    report.window.end.CopyFrom(timestamp(found.end_seconds))
    report.window.rows = look.rows
    report.looked_at.CopyFrom(timestamp(look.looked_at_seconds))
    report.hypotheses = found.hypotheses
    report.level = found.level
    report.looks = found.looks
    report.guarantee = found.guarantee
    report.notes.extend(look.notes)


def _add_verdicts(report: pb.DriftReport, look: LookReport, subjects: int, most_bytes: int) -> None:
    """Those that rank first, and what was not compared, while there is room."""
    wanted = look.verdicts[: subjects or None]
    room = most_bytes - report.ByteSize()
    for verdict in wanted:
        message = verdict_of(verdict, look)
        room -= message.ByteSize() + FRAME_BYTES
        if room < 0:
            break
        report.verdicts.append(message)
    left = len(wanted) - len(report.verdicts)
    if left:
        report.notes.append(f"{left} of {len(wanted)} verdicts, of the least effects, find no room in this answer")
    for line in look.report.uncompared:
        room -= len(line.encode("utf-8", "replace")) + FRAME_BYTES
        if room < 0:
            more = len(look.report.uncompared) - len(report.uncompared)
            report.notes.append(f"{more} more features are not compared, for which there is no room in this answer")
            break
        report.uncompared.append(line)


def verdict_of(verdict: Verdict, look: LookReport) -> pb.DriftVerdict:
    since = verdict.since_seconds if verdict.alarmed else look.evidence_since.get(verdict.subject)
    first = [verdict.finding, *(finding for finding in verdict.findings if finding is not verdict.finding)]
    message = pb.DriftVerdict(
        subject=verdict.subject,
        role=verdict.role.value,
        decision=verdict.decision.value,
        alarmed=verdict.alarmed,
        effect=verdict.effect,
        findings=[_finding(finding, look.report.level) for finding in first],
        text=verdict.sentence(),
        log_evidence=max(look.log_evidence.get(verdict.subject, 0.0), 0.0),
        alarmed_by_evidence=verdict.subject in look.evidence_since,
        compared_with=verdict.reference,
    )
    if since is not None:
        message.since.CopyFrom(timestamp(since))
    return message


def _finding(finding: Finding, level: float) -> pb.DriftFinding:
    return pb.DriftFinding(
        aspect=finding.aspect.value,
        p=finding.p,
        p_adjusted=finding.p_adjusted,
        reference_rows=finding.reference_rows,
        live_rows=finding.live_rows,
        note=finding.note,
        effects=[_effect(effect) for effect in finding.effects],
        decision=finding.decide(level).value,
    )


def _effect(effect: Effect) -> pb.DriftEffect:
    return pb.DriftEffect(
        measure=effect.measure,
        value=effect.value,
        low=effect.low,
        high=effect.high,
        floor=effect.floor,
        critical=effect.critical,
        threshold=effect.threshold,
        unit=effect.unit,
    )
