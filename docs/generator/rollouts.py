"""The generated blocks of docs/rollouts.md: the diagram of phases, and a plan's settings."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from generator.markdown import NOTHING, code, sentence, table
from runtime.rollout import phase
from runtime.rollout.gates import AgreementGate, ErrorGate, Gates, LatencyGate, MeanGate, QualityGate
from runtime.rollout.plan import HardLimits, Plan, Step

SECTIONS: dict[str, type[BaseModel]] = {
    "": Plan,
    "steps[].": Step,
    "gates.": Gates,
    "gates.errors.": ErrorGate,
    "gates.latency[].": LatencyGate,
    "gates.agreement.": AgreementGate,
    "gates.means[].": MeanGate,
    "gates.quality.": QualityGate,
    "hard.": HardLimits,
}


def diagram() -> str:
    return f"```mermaid\n{phase.mermaid()}\n```"


def settings() -> str:
    rows = [_row(path + name, field) for path, kind in SECTIONS.items() for name, field in kind.model_fields.items()]
    return table(("setting", "allowed", "default", "meaning"), rows)


def _row(path: str, field: FieldInfo) -> tuple[str, ...]:
    extra = field.json_schema_extra
    expected = str(extra["expected"]) if isinstance(extra, dict) else ""
    default = "needed" if field.is_required() else _default(field.get_default())
    return code(path), expected, default, sentence(field.description or "")


def _default(value: Any) -> str:
    if value is None or value == () or not isinstance(value, str | float | int):
        return NOTHING  # a section has the defaults of its own lines
    return code(value if isinstance(value, str) else json.dumps(value))
