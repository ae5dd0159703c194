"""What the metrics tell of a rollout, from what is shown of it."""

from __future__ import annotations

from gateway.control.rollout_views import RolloutView
from gateway.telemetry.rollout_measures import RolloutFigures
from runtime.rollout.phase import FINAL
from runtime.rollout.rollout import route


def figures_of(view: RolloutView) -> RolloutFigures:
    """Of one that has ended: phase, step and weight alone."""
    rollout, wanted = view.rollout, route(view.plan, view.rollout)
    figures = RolloutFigures(
        view.model, view.candidate, rollout.phase.value, rollout.step + 1, wanted.weight_percent / 100,
        wanted.shadow_percent / 100,
    )  # fmt: skip
    if rollout.phase in FINAL:
        return figures
    counts = rollout.counts
    arms = {"candidate": counts.candidate, "baseline": counts.baseline}
    evidence = {}
    for reading in view.last.readings if view.last is not None else ():
        evidence[reading.gate, "harm"] = reading.harm / reading.harm_needed
        evidence[reading.gate, "safety"] = reading.safe / reading.safe_needed
    return RolloutFigures(
        figures.model, figures.version, figures.phase, figures.step, figures.weight, figures.copies,
        {name: arm.requests for name, arm in arms.items()}, {name: arm.errors for name, arm in arms.items()}, evidence,
    )  # fmt: skip
