"""Whether a plan can be rolled out here and now: every problem at once, and what will probably not go as hoped."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from gateway.control.rollout_rows import DRIFT_GATES
from gateway.control.rollout_state import RolloutState
from gateway.errors import Precondition
from gateway.store.contract import DesiredModel
from runtime.errors import InvalidRequest
from runtime.profile.kept_rows import unkept
from runtime.profile.schema import Schema
from runtime.profile.summary import is_numeric
from runtime.repository.layout import version_number
from runtime.repository.repository import Scan
from runtime.rollout.plan import Plan
from runtime.routing.document import parse_route

LONG_SECONDS = 7 * 86_400.0
"""A step that takes longer at the present rate is worth a warning."""

RATE_SECONDS = 60.0
"""What the present rate is taken over."""

MAX_SAMPLES = 64
SHOWN = 20


class DesiredState(Protocol):
    """What `Changes` offers."""

    @property
    def desired(self) -> Mapping[str, DesiredModel]: ...
    @property
    def scan(self) -> Scan: ...


@dataclass(frozen=True, slots=True)
class Settings:
    """What the gateway can do. `shadow`: there is a process that runs copies. `statistics`: features are measured."""

    shadow: bool = True
    statistics: bool = True


@dataclass(frozen=True, slots=True)
class Checked:
    """The plan's versions as numbers, and warnings."""

    baseline: int
    candidate: int
    warnings: tuple[str, ...] = ()


class Rates:
    """Requests a second by model, over the last minute. One thread."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, dict[str, int]]] = deque(maxlen=MAX_SAMPLES)

    def add(self, at_seconds: float, requests: dict[str, int]) -> None:
        """All requests since the gateway's start, by model; `at_seconds` on a clock that does not go back."""
        self._samples.append((at_seconds, requests))
        while len(self._samples) > 2 and at_seconds - self._samples[1][0] >= RATE_SECONDS:
            self._samples.popleft()

    def of(self, model: str) -> float | None:
        """None: it is not known yet."""
        if len(self._samples) < 2:
            return None
        (began, before), (ended, after) = self._samples[0], self._samples[-1]
        if ended - began < 1.0:
            return None
        return max(after.get(model, 0) - before.get(model, 0), 0) / (ended - began)


class Checks:
    """`busy(model)`: why there cannot be a rollout of it now, ""; `schema(model, version)`: what is measured."""

    def __init__(
        self,
        state: DesiredState,
        settings: Settings,
        busy: Callable[[str], str],
        schema: Callable[[str, int], Schema | None],
        rates: Rates,
    ) -> None:
        self._state = state
        self._settings = settings
        self._busy = busy
        self._schema = schema
        self._rates = rates

    def check(self, plan: Plan, lost_series: int) -> Checked:
        """Raises Precondition with every problem. `lost_series`: that found no room in a worker's page."""
        problems: list[str] = []
        model = self._state.desired.get(plan.model)
        baseline = candidate = 0
        if model is None or not model.served:
            known = ", ".join(sorted(name for name, each in self._state.desired.items() if each.served)[:SHOWN])
            problems.append(f"model: expected a model that is served, got {plan.model!r}; served: {known or 'none'}")
        else:
            baseline, candidate = self._versions(plan, model, problems)
            self._check_route(model, problems)
        if busy := self._busy(plan.model):
            problems.append(busy)
        self._check_gates(plan, baseline, problems)
        if plan.at_max_duration == "replay" and not (self._settings.shadow and self._settings.statistics):
            problems.append(
                "at_max_duration: replay needs statistics.enabled, for the rows that it keeps, and shadow.enabled, for "
                "the process that runs them; one is off in the gateway's configuration"
            )
        if lost_series:
            problems.append(
                f"{lost_series:,} series of requests found no room in the workers' pages, so a candidate's requests "
                "may not be counted: restart the gateway as a whole"
            )
        if problems:
            count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
            raise Precondition(f"the plan cannot be rolled out here, {count}: {'; '.join(problems)}")
        return Checked(baseline, candidate, (*self._warnings(plan), *self._about_replay(plan, baseline)))

    def _versions(self, plan: Plan, model: DesiredModel, problems: list[str]) -> tuple[int, int]:
        served = [version.version for version in model.versions]
        entry = self._state.scan.models.get(plan.model)
        there = set(entry.versions if entry is not None else ()) | set(served)
        baseline = self._number("baseline", plan.baseline, model, problems)
        candidate = self._number("candidate", plan.candidate, model, problems)
        if baseline and baseline not in served:
            problems.append(f"baseline: expected a version that is served, got {baseline}; served: {_listed(served)}")
        if candidate and candidate not in there:
            incomplete = entry.incomplete.get(candidate) if entry is not None else None
            why = f"is incomplete: {incomplete}" if incomplete else "is not in the repository"
            problems.append(f"candidate: version {candidate} {why}; the model has {_listed(sorted(there))}")
        if baseline and baseline == candidate:
            problems.append(f"candidate: expected another version than the baseline; both are {baseline}")
        return baseline, candidate

    def _number(self, key: str, target: str, model: DesiredModel, problems: list[str]) -> int:
        """0: there is no such version or label."""
        number = version_number(target)
        found = number if number is not None else model.labels.get(target)
        if found is None:
            problems.append(
                f"{key}: expected a version or a label, got {target[:100]!r}; labels: {_listed(sorted(model.labels))}"
            )
        return found or 0

    def _check_route(self, model: DesiredModel, problems: list[str]) -> None:
        try:
            split = parse_route(model.route).split if model.route else ()
        except InvalidRequest as error:
            problems.append(f"the model's route cannot be read: {error.message}")
            return
        if split:
            problems.append(
                f"the model's route has a split of its own ({_listed([variant.name for variant in split])}): "
                "take it out first, for a rollout splits the traffic itself"
            )

    def _check_gates(self, plan: Plan, baseline: int, problems: list[str]) -> None:
        gates = plan.gates
        if gates.quality is not None:
            problems.append("gates.quality: no labels are collected, so it would never say anything: leave it out")
        copies = [at for at, step in enumerate(plan.steps) if step.shadow_percent > 0]
        if copies and not self._settings.shadow:
            where = ", ".join(f"steps[{at}]" for at in copies)
            problems.append(f"{where}: copies need shadow.enabled, which is off in the gateway's configuration")
        unknown = [name for name in gates.drift if name not in DRIFT_GATES]
        if unknown:
            problems.append(f"gates.drift: expected {' or '.join(DRIFT_GATES)}, got {_listed(unknown)}")
        if (gates.drift or gates.means) and not self._settings.statistics:
            problems.append("gates.drift and gates.means need statistics.enabled, which is off in the configuration")
        elif gates.drift or gates.means:
            self._check_measured(plan, baseline, problems)

    def _check_measured(self, plan: Plan, baseline: int, problems: list[str]) -> None:
        schema = self._schema(plan.model, baseline) if baseline else None
        if schema is None:
            if baseline:
                problems.append(
                    f"gates.drift and gates.means: nothing is measured of version {baseline}: see statistics in its "
                    "model.yaml, or try again in a moment where it was loaded just now"
                )
            return
        known = sorted(feature.name for feature in schema.features if is_numeric(feature.kind))
        for at, gate in enumerate(plan.gates.means):
            if gate.name not in known:
                problems.append(
                    f"gates.means[{at}].name: expected a numeric feature or output, got {gate.name!r}; "
                    f"there are {_listed(known)}"
                )
        only_copies = [at for at, step in enumerate(plan.steps) if step.is_shadow]
        if only_copies and plan.promote_on == "evidence":
            where = ", ".join(f"steps[{at}]" for at in only_copies)
            problems.append(
                f"{where}: with promote_on: evidence, gates.drift and gates.means would hold a step of copies for "
                "ever, as rows of copies are not measured: leave out these gates, or that step"
            )

    def _about_replay(self, plan: Plan, baseline: int) -> list[str]:
        schema = self._schema(plan.model, baseline) if plan.at_max_duration == "replay" else None
        why = unkept(schema) if schema is not None else ""
        return [f"at_max_duration: rows of version {baseline} cannot be replayed: {why}"] if why else []

    def _warnings(self, plan: Plan) -> list[str]:
        warnings = []
        rate = self._rates.of(plan.model)
        for at, step in enumerate(plan.steps):
            share = (step.shadow_percent if step.is_shadow else step.weight_percent) / 100
            if rate is None or not step.min_requests:
                continue
            seconds = step.max_duration_seconds if step.max_duration_seconds is not None else LONG_SECONDS
            expected = rate * share * seconds
            if expected < step.min_requests:
                warnings.append(
                    f"steps[{at}]: at the present {rate:,.1f} requests/s, {100 * share:g} % are about {expected:,.0f} "
                    f"in {seconds:,.0f} s, and min_requests is {step.min_requests:,}"
                )
        if (plan.gates.drift or plan.gates.means) and any(step.is_shadow for step in plan.steps):
            warnings.append(
                "gates.drift and gates.means say nothing in steps of copies: rows of copies are not measured"
            )
        return warnings


def busy_text(rollout_id: int, plan: Plan, state: RolloutState) -> str:
    """Why a model's versions and default cannot be changed now, and what to do."""
    phase, step = state.rollout.phase.value, state.rollout.step
    where = f"{phase}, step {step + 1} of {len(plan.steps)}" if step >= 0 else phase
    return (
        f"rollout {rollout_id} of model {plan.model!r} is under way ({where}): wait for its end, "
        f"or abort it (driftgate rollout abort {rollout_id})"
    )


def _listed(items: list[str] | list[int]) -> str:
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return (", ".join(map(str, items[:SHOWN])) or "none") + more
