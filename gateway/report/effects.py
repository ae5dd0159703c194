"""What decides a verdict, of the messages of a DriftReport. Pure."""

from __future__ import annotations

from gateway.report.text import clean, number
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

DRIFTED, STABLE, NOT_ENOUGH = "drifted", "stable", "not enough data"


def deciding(verdict: pb.DriftVerdict) -> pb.DriftFinding | None:
    """The finding that comes first; None where there is none."""
    return verdict.findings[0] if verdict.findings else None


def strongest(finding: pb.DriftFinding) -> pb.DriftEffect | None:
    """The effect that is most thresholds above what chance gives, as verdicts are ranked."""
    return max(finding.effects, key=_rank, default=None)


def deciding_effect(verdict: pb.DriftVerdict) -> pb.DriftEffect | None:
    finding = deciding(verdict)
    return strongest(finding) if finding is not None else None


def of_aspect(verdict: pb.DriftVerdict | None, aspect: str) -> pb.DriftFinding | None:
    return next((f for f in verdict.findings if f.aspect == aspect), None) if verdict is not None else None


def in_thresholds(value: float, effect: pb.DriftEffect) -> float:
    return value / effect.threshold if effect.threshold > 0 else 0.0


def value_text(effect: pb.DriftEffect) -> str:
    """As "0.31 σ"."""
    return _with_unit(effect.value, effect)


def bracket_text(effect: pb.DriftEffect) -> str:
    """As "0.3 to 0.6"; empty where bins leave nothing open."""
    low, high = (number(value, 3) for value in (effect.low, effect.high))
    return "" if low == high else f"{low} to {high}"


def threshold_text(effect: pb.DriftEffect) -> str:
    return _with_unit(effect.threshold, effect)


def chance_text(effect: pb.DriftEffect) -> str:
    """What chance gives on average."""
    return _with_unit(effect.floor, effect, 2)


def critical_text(effect: pb.DriftEffect) -> str:
    """What chance does not pass."""
    return _with_unit(effect.critical, effect, 2)


def wants_attention(verdict: pb.DriftVerdict) -> bool:
    return verdict.alarmed or verdict.alarmed_by_evidence or verdict.decision == DRIFTED


def _rank(effect: pb.DriftEffect) -> float:
    return in_thresholds(max(effect.low - effect.floor, 0.0), effect)


def _with_unit(value: float, effect: pb.DriftEffect, digits: int = 3) -> str:
    unit = clean(effect.unit, 20)
    return f"{number(value, digits)} {unit}" if unit and not unit.startswith("(") else number(value, digits)
