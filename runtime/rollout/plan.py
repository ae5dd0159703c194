"""A rollout's plan, validated as a whole: every problem is named at once, with its path and what is allowed.

How the error level is shared out
- Harm: `alpha` is the probability that a candidate that is no worse than allowed is stopped by any gate in any step. It
  is divided evenly over all pairs of a step and a gate in force in it; each has its own test, begun with the step.
- Safety: `promotion_alpha` is the probability that a candidate that is worse than allowed by one gate passes as safe.
  It needs no division: promotion needs all gates in all steps, so the one that it fails would have to err.
- The fast path (`hard`) is a rule of the plan and no test.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError, model_validator

from runtime.repository.fields import Section, as_tuple, integer, null_as_empty, option
from runtime.rollout.gates import AgreementGate, Gate, Gates, LatencyGate, QualityGate, informed_by_replay
from runtime.rollout.problems import PlanError, explained

MAX_STEPS = 32
MAX_SECONDS = 90 * 86_400.0


def _version(value: Any) -> Any:
    """YAML takes 3 for a number, and whoever wrote it means the version."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Version = Annotated[str, BeforeValidator(_version), Field(min_length=1, max_length=64)]


def _seconds(default: float | None, meaning: str) -> Any:
    expected = f"seconds 0..{MAX_SECONDS:.0f}"
    return option(default, expected, meaning, ge=0, le=MAX_SECONDS)


class Step(Section):
    """So much traffic for the candidate, for so long."""

    weight_percent: float = option(
        0.0, "a percentage 0 <= weight_percent < 100", "Of the requests that it answers to clients.", ge=0, lt=100
    )  # fmt: skip
    shadow_percent: float = option(
        0.0, "a percentage 0..100", "Of the baseline's requests that are copied to it and compared.", ge=0, le=100
    )  # fmt: skip
    min_duration_seconds: float = _seconds(300.0, "Not passed before.")
    min_requests: int = integer(1_000, 0, 10**12, "Not passed before the candidate has answered so many.")
    max_duration_seconds: float | None = _seconds(None, "Without a conclusion by then, `at_max_duration` decides.")

    @model_validator(mode="after")
    def _agrees(self) -> Step:
        if self.weight_percent == 0 and self.shadow_percent == 0:
            raise ValueError("expected weight_percent or shadow_percent above 0: the candidate gets no traffic")
        if self.max_duration_seconds is not None and self.max_duration_seconds < self.min_duration_seconds:
            raise ValueError(
                f"expected max_duration_seconds >= min_duration_seconds ({self.min_duration_seconds:g}), "
                f"got {self.max_duration_seconds:g}"
            )
        return self

    @property
    def is_shadow(self) -> bool:
        return self.weight_percent == 0

    def has(self, gate: Gate) -> bool:
        """Whether the gate is in force: copies wait behind requests, so their latency says nothing."""
        if isinstance(gate, LatencyGate | QualityGate):
            return self.weight_percent > 0
        return self.shadow_percent > 0 if isinstance(gate, AgreementGate) else True


class HardLimits(Section):
    """Rolls back at the next look, whatever else the plan says."""

    crashes: int = integer(1, 1, 1_000, "Processes that the candidate has ended in one step.")
    errors: int = integer(10, 1, 10**6, "Errors among its first requests of a step, unless the baseline fails as well.")
    first_requests: int = integer(50, 1, 10**6, "How many requests are its first.")

    @model_validator(mode="after")
    def _agrees(self) -> HardLimits:
        if self.errors > self.first_requests:
            raise ValueError(f"expected errors <= first_requests ({self.first_requests}), got {self.errors}")
        return self


class Plan(Section):
    model: Annotated[str, Field(min_length=1, max_length=256)] = option(..., "a model's name", "The model.")
    candidate: Version = option(..., "a version's number or a label", "The version that is to go live.")
    baseline: Version = option(
        ..., "a version's number or a label", "The version that it is compared with, and that a rollback leads to."
    )
    steps: Annotated[tuple[Step, ...], BeforeValidator(as_tuple), Field(min_length=1, max_length=MAX_STEPS)] = option(
        ...,
        f"a list of 1 to {MAX_STEPS} steps",
        "In order: those with copies only, then rising weights. Then it is live.",
    )
    gates: Annotated[Gates, BeforeValidator(null_as_empty)] = option(..., "a mapping", "What it is judged by.")
    hard: Annotated[HardLimits, BeforeValidator(null_as_empty)] = Field(
        default_factory=HardLimits,
        description="What ends it at the next look.",
        json_schema_extra={"expected": "a mapping"},
    )
    alpha: float = option(
        0.05, "a probability 1e-9..0.5", "Of stopping a candidate that is no worse than allowed, ever.", ge=1e-9, le=0.5
    )  # fmt: skip
    promotion_alpha: float = option(
        0.05, "a probability 1e-9..0.5", "Of taking a candidate for safe that is worse than allowed.", ge=1e-9, le=0.5
    )  # fmt: skip
    promote_on: Literal["evidence", "no_harm"] = option(
        "no_harm", "evidence or no_harm", "What passes a step: safety shown by every gate, or no harm shown by any."
    )
    on_passed: Literal["promote", "hold"] = option("promote", "promote or hold", "What follows a passed step.")
    on_harm: Literal["roll_back", "hold"] = option(
        "roll_back", "roll_back or hold", "What follows harm shown by a gate."
    )
    at_max_duration: Literal["inconclusive", "hold", "wait", "replay"] = option(
        "inconclusive",
        "inconclusive, hold, wait or replay",
        "What follows a step that is too long without a conclusion; replay: rows from before it decide.",
    )
    clustered_requests: int = integer(
        1, 1, 4096, "So many requests may share their fate, such as those of one batch: evidence is divided by it."
    )

    @property
    def digest(self) -> str:
        return "sha256:" + hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        return json.dumps(self.model_dump(mode="json", exclude_none=True), sort_keys=True, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> Plan:
        """Raises PlanError."""
        return read_plan(json.loads(text))

    def in_force(self, step: int) -> dict[str, Gate]:
        """Gates by name."""
        return {name: gate for name, gate in self.gates.named().items() if self.steps[step].has(gate)}

    @property
    def harm_level(self) -> float:
        """The error level of one gate in one step. A drift gate's verdicts must keep it over all looks of a step."""
        return self.alpha / sum(len(self.in_force(step)) for step in range(len(self.steps)))


def read_plan(document: Mapping[str, Any]) -> Plan:
    """A plan from what a YAML or JSON document says; raises PlanError with all problems."""
    if not isinstance(document, Mapping):
        raise PlanError([f"expected a mapping of settings, got {type(document).__name__}"])
    plan, problems, wrong = None, list[str](), set[str]()
    try:
        plan = Plan.model_validate(document)
    except ValidationError as error:
        problems = explained(error, Plan)
        wrong = {str(item["loc"][0]) for item in error.errors() if item["loc"]}
    steps = plan.steps if plan else _part(tuple[Step, ...], "steps", document, wrong)
    gates = plan.gates if plan else _part(Gates, "gates", document, wrong)
    problems += _disagreements(steps, gates, document)
    if problems or plan is None:
        raise PlanError(problems)
    return plan


def _part(kind: Any, key: str, document: Mapping[str, Any], wrong: set[str]) -> Any:
    """A section by itself, if nothing is wrong with it, so that what others have wrong hides no problem of it."""
    if key in wrong:
        return None
    return TypeAdapter(Annotated[kind, BeforeValidator(as_tuple)]).validate_python(document.get(key) or {})


def _disagreements(
    steps: tuple[Step, ...] | None, gates: Gates | None, document: Mapping[str, Any]
) -> list[str]:  # fmt: skip
    """What is wrong between settings that are right by themselves."""
    found = []
    if document.get("candidate") is not None and _version(document["candidate"]) == _version(document.get("baseline")):
        found.append(f"candidate: expected another version than the baseline, got {_version(document['candidate'])!r}")
    for at, (before, after) in enumerate(zip(steps or (), (steps or ())[1:], strict=False), 1):
        if after.is_shadow and not before.is_shadow:
            found.append(f"steps[{at}]: expected steps with copies only before those with weight")
        elif not after.is_shadow and after.weight_percent <= before.weight_percent:
            found.append(
                f"steps[{at}].weight_percent: expected more than the step before ({before.weight_percent:g}), "
                f"got {after.weight_percent:g}"
            )
    if gates is not None:
        found += _about_gates(gates, steps, document)
    return found


def _about_gates(gates: Gates, steps: tuple[Step, ...] | None, document: Mapping[str, Any]) -> list[str]:
    found, named = [], gates.named()
    if not named:
        return ["gates: expected at least one gate"]
    if len(named) < gates.count:
        found.append("gates: expected each quantile, mean and drift once")
    for name, gate in named.items():
        if steps and not any(step.has(gate) for step in steps):
            found.append(f"gates: {name} is in force in no step: it needs {_needs(gate)}")
    for at, step in enumerate(steps or ()):
        if not any(step.has(gate) for gate in named.values()):
            found.append(f"steps[{at}]: no gate is in force; expected one of errors, means, drift, or what it can show")
    if document.get("at_max_duration") == "replay":
        found += [
            f"steps[{at}]: at_max_duration: replay needs gates.errors or gates.agreement in force in a step with "
            "max_duration_seconds, for replayed rows show nothing else"
            for at, step in enumerate(steps or ())
            if step.max_duration_seconds is not None
            and not any(informed_by_replay(gate) for gate in named.values() if step.has(gate))
        ]
    if document.get("promote_on") == "evidence":
        for key, rates in (("errors", gates.errors), ("quality", gates.quality)):
            if rates is not None and rates.margin == 0 and rates.ratio <= 1:
                found.append(f"gates.{key}: promote_on: evidence needs a margin above 0 or a ratio above 1")
        found += [
            f"gates.latency[{at}].ratio: promote_on: evidence needs a ratio of at least {2 ** (1 / 16):.3f}"
            for at, gate in enumerate(gates.latency)
            if gate.ratio < 2 ** (1 / 16)
        ]
    return found


def _needs(gate: Gate) -> str:
    return "shadow_percent above 0" if isinstance(gate, AgreementGate) else "weight_percent above 0"
