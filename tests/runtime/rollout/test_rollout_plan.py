"""Plans are read as a whole, and everything that is wrong with one is said at once."""

from __future__ import annotations

import pytest
import yaml
from rollout_samples import FIVE, SHADOW, TWENTY, document, plan_of

from runtime.rollout.plan import Plan, read_plan
from runtime.rollout.problems import PlanError

YAML = """
model: fraud
candidate: "3"
baseline: "2"
steps:
  - {shadow_percent: 10, min_duration_seconds: 600}
  - {weight_percent: 5, shadow_percent: 10, max_duration_seconds: 3600}
  - {weight_percent: 20}
gates:
  errors:
  latency: [{quantile: 0.5, ratio: 1.5}, {quantile: 0.99}]
  agreement: {min_share: 0.98}
  means: [{name: score, margin: 0.02}]
  drift: [inputs, predictions]
  quality: {margin: 0.01}
"""


def test_a_plan_reads_from_yaml_and_goes_through_json_unchanged() -> None:
    plan = read_plan(yaml.safe_load(YAML))
    assert Plan.from_json(plan.to_json()) == plan
    assert Plan.from_json(plan.to_json()).digest == plan.digest
    assert plan.digest != plan_of().digest
    assert plan.gates.errors is not None  # a section without lines is one with defaults


def test_gates_are_in_force_where_a_step_can_show_them() -> None:
    plan = read_plan(yaml.safe_load(YAML))
    everywhere = ["errors", "mean score", "drift inputs", "drift predictions"]
    served = ["latency p50", "latency p99", "quality"]
    assert sorted(plan.in_force(0)) == sorted([*everywhere, "agreement"])
    assert sorted(plan.in_force(1)) == sorted([*everywhere, *served, "agreement"])
    assert sorted(plan.in_force(2)) == sorted([*everywhere, *served])


def test_the_error_level_is_shared_evenly_over_gates_and_steps() -> None:
    plan = read_plan(yaml.safe_load(YAML))
    assert plan.harm_level * (5 + 8 + 7) == pytest.approx(plan.alpha)


def problems(**changes: object) -> list[str]:
    with pytest.raises(PlanError) as refused:
        read_plan(document(**changes))
    return list(refused.value.problems)


def test_all_problems_are_named_at_once_with_path_expectation_and_what_came() -> None:
    assert problems(
        model=3,
        alfa=1,
        alpha=2,
        steps=[FIVE | {"max_duration_seconds": 3}, {}, FIVE | {"weight_percent": 100}, 7],
        gates={"latency": [{"ratio": "x"}], "agreement": 3, "mean": 1},
        hard={"errors": 100},
        promote_on="maybe",
        candidate="1",
    ) == [
        "model: expected a model's name, got 3",
        "steps[0]: expected max_duration_seconds >= min_duration_seconds (60), got 3",
        "steps[1]: expected weight_percent or shadow_percent above 0: the candidate gets no traffic",
        "steps[2].weight_percent: expected a percentage 0 <= weight_percent < 100, got 100",
        "steps[3]: expected a mapping, got 7",
        "gates.latency[0].ratio: expected a number 1 <= ratio <= 100, got 'x'",
        "gates.agreement: expected a mapping of min_share, got 3",
        "gates.mean: unknown key; did you mean means? known keys are errors, latency, agreement, means, drift, quality",
        "hard: expected errors <= first_requests (50), got 100",
        "alpha: expected a probability 1e-9..0.5, got 2",
        "promote_on: expected evidence or no_harm, got 'maybe'",
        "alfa: unknown key; did you mean alpha? known keys are " + ", ".join(Plan.model_fields),
        "candidate: expected another version than the baseline, got '1'",
    ]


def test_a_problem_in_one_section_hides_no_disagreement_of_others() -> None:
    found = problems(
        model=3,
        steps=[FIVE, SHADOW, TWENTY, FIVE],
        gates={"errors": {"margin": 0}, "latency": [{}, {"ratio": 1.01}]},
        promote_on="evidence",
    )
    assert found == [
        "model: expected a model's name, got 3",
        "steps[1]: expected steps with copies only before those with weight",
        "steps[3].weight_percent: expected more than the step before (20), got 5",
        "gates: expected each quantile, mean and drift once",
        "gates.errors: promote_on: evidence needs a margin above 0 or a ratio above 1",
        "gates.latency[1].ratio: promote_on: evidence needs a ratio of at least 1.044",
    ]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"gates": None}, "gates: expected at least one gate"),
        ({"steps": []}, "steps: expected a list of 1 to 32 steps, got []"),
        ({"steps": [SHADOW], "gates": {"errors": {}, "latency": [{}]}}, "latency p99 is in force in no step"),
        ({"steps": [FIVE], "gates": {"errors": {}, "agreement": {}}}, "agreement is in force in no step"),
        ({"steps": [SHADOW, FIVE], "gates": {"latency": [{}]}}, "steps[0]: no gate is in force"),
        ({"gates": {"means": [{"name": "score"}]}}, "gates.means[0].margin: missing; expected a number 1e-60..1e60"),
        ({"clustered_requests": 0}, "clustered_requests: expected an integer 1..4096, got 0"),
        (
            {"gates": {"means": [{"name": "score", "margin": 1e300}]}},
            "expected a number 1e-60..1e60, got 1e+300",
        ),
        ({"gates": {"agreement": {"min_share": 1 - 1e-16}}}, "agreement.min_share: expected a share 1e-9 <= min_share"),
        ({"gates": {"errors": {"ratio": 1e-320}}}, "gates.errors.ratio: expected a number 1e-9 <= ratio <= 100"),
        ({"alpha": True}, "alpha: expected a probability 1e-9..0.5, got true"),
    ],
)
def test_what_could_never_judge_or_is_out_of_range_is_refused(changes: dict[str, object], problem: str) -> None:
    assert any(problem in line for line in problems(**changes))


@pytest.mark.parametrize("value", [None, [], "plan", 3])
def test_what_is_no_mapping_is_no_plan(value: object) -> None:
    with pytest.raises(PlanError, match="expected a mapping of settings"):
        read_plan(value)  # type: ignore[arg-type]
