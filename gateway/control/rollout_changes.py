"""What a rollout makes of a model's desired state at its begin and at its end: pure steps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from gateway.control.desired import operators_route, pinned_by_names, require_served
from gateway.errors import Precondition
from gateway.routing.table import target_version
from gateway.store.contract import DesiredModel, DesiredVersion


@dataclass(frozen=True, slots=True)
class Before:
    """What a rollout will have to bring back if it fails. `had_candidate`: the candidate was served already."""

    default_target: str
    pinned_versions: tuple[int, ...]
    had_candidate: bool

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Before:
        """ValueError for what `to_json` did not write."""
        try:
            fields: dict[str, Any] = json.loads(text)
            return cls(
                str(fields["default_target"]), tuple(map(int, fields["pinned_versions"])), bool(fields["had_candidate"])
            )
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"what was before a rollout cannot be read: {text[:200]!r}") from error


def before_rollout(model: DesiredModel, candidate: int) -> Before:
    served = {version.version for version in model.versions} if model.served else set()
    return Before(model.default_target, model.pinned_versions, candidate in served)


def require_fit(model: DesiredModel, baseline: int, candidate: int) -> None:
    """Raises NotFound or Precondition where a rollout cannot begin."""
    require_served(model, baseline)
    if baseline == candidate:
        raise Precondition(f"version {baseline} of model {model.name!r} is the baseline already: roll out another one")
    if operators_route(model).split:
        raise Precondition(
            f"the route of model {model.name!r} has a split, and a rollout makes one of its own: take `split` out of "
            "the route first (driftgate route set)"
        )


def begun(model: DesiredModel, versions: Sequence[DesiredVersion], baseline: int) -> DesiredModel:
    """`versions`: those served, and the candidate. The default stays where it is, whatever is newest now."""
    return replace(
        model,
        versions=tuple(versions),
        pinned_versions=tuple(version.version for version in versions),
        default_target=model.default_target or str(baseline),
    )


def promoted(model: DesiredModel, baseline: int, candidate: int) -> DesiredModel:
    """The candidate is the default; the baseline stays loaded, for an instant way back.

    Raises NotFound if the candidate is not served.
    """
    require_served(model, candidate)
    target = model.default_target
    if target and target_version(target, model.labels) == candidate:
        return model
    if model.labels.get(target) == baseline:
        return replace(model, labels={**model.labels, target: candidate})
    return replace(model, default_target=str(candidate))


def taken_back(
    model: DesiredModel, baseline: int, candidate: int, before: Before, *, policy_selects: bool
) -> DesiredModel:
    """As it was before; a candidate that a label or the route has come to name meanwhile stays loaded.

    `policy_selects`: the policy in model.yaml would load the candidate. Then the versions are pinned, or the next look
    at the repository would bring what has failed live.
    """
    names = replace(model, default_target=before.default_target)
    stays = before.had_candidate or candidate in pinned_by_names(names)
    versions = tuple(version for version in model.versions if stays or version.version != candidate)
    numbers = tuple(version.version for version in versions)
    target = before.default_target
    leads_to = target_version(target, model.labels) if target else max(numbers, default=None)
    if leads_to not in numbers or (leads_to == candidate and not before.had_candidate):
        target = str(baseline)
    pinned = before.pinned_versions
    if not pinned and policy_selects and not before.had_candidate:
        pinned = tuple(number for number in numbers if number != candidate)
    return replace(model, versions=versions, default_target=target, pinned_versions=pinned)
