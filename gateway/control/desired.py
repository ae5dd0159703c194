"""What should be served: pure steps from the store's rows to the workers' orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from gateway.errors import Precondition
from gateway.messages import ModelOrder, VersionOrder
from gateway.routing.table import target_version
from gateway.store.contract import DesiredModel, DesiredVersion
from runtime.errors import NotFound
from runtime.repository.layout import version_number
from runtime.repository.manifest import Manifest
from runtime.routing.document import RouteError, from_json, to_json
from runtime.routing.route import Route
from runtime.types import Artifact


@dataclass(frozen=True, slots=True)
class Candidate:
    """A version that could be served: its files, and the settings it would be loaded with."""

    artifact: Artifact
    settings: Mapping[str, Any]


def choose_versions(
    model: str, available: Sequence[int], manifest: Manifest, wanted: Sequence[int], keep: Sequence[int]
) -> tuple[int, ...]:
    """`wanted`, or what the manifest's policy selects, plus the versions in `keep` that are still there.

    `keep` holds the versions that labels and the default name: a label pins its version. Raises NotFound.
    """
    if wanted:
        missing = [version for version in wanted if version not in available]
        if missing:
            raise NotFound(
                f"model {model!r} has no complete version {', '.join(map(str, missing))} in the repository; "
                f"it has {_listed(available)}"
            )
        chosen = set(wanted)
    else:
        chosen = set(manifest.versions.select(available))
    if not chosen:
        raise NotFound(
            f"model {model!r} has no version to serve: the policy {manifest.versions} selects none of "
            f"{_listed(available)}"
        )
    return tuple(sorted(chosen | set(keep)))


def next_versions(
    before: DesiredModel | None,
    candidates: Mapping[int, Candidate],
    *,
    force: bool,
    last_generation: int,
) -> tuple[DesiredVersion, ...]:
    """Same content and settings keep their generation, so nothing is loaded twice; all else gets a new one.

    `last_generation` was given out last, if only for a load that failed: what workers say of that one is not said of
    the next.
    """
    present = {v.version: v for v in before.versions} if before is not None and before.served else {}
    past = [v.generation for v in before.versions] if before is not None else []
    generation = max([*past, last_generation]) + 1
    chosen = []
    for version, candidate in sorted(candidates.items()):
        old = present.get(version)
        digest, settings = candidate.artifact.digest, candidate.settings
        if old is not None and (old.digest, old.settings) == (digest, settings) and not force:
            chosen.append(old)
        else:
            chosen.append(DesiredVersion(version, digest, generation, settings))
    return tuple(chosen)


@dataclass(frozen=True, slots=True)
class Names:
    """What leads to versions."""

    labels: Mapping[str, int]
    default_target: str
    route: str


def names_at_load(before: DesiredModel | None, manifest: Manifest, versions: Sequence[int]) -> Names:
    """The operators' names, or at a model's first load the manifest's. Raises Precondition where they lead nowhere."""
    if before is not None:
        labels = {name: v for name, v in before.labels.items() if v in versions}
        _require_targets(operators_route(before), versions, labels, "the route", "change the route, or load these too")
        target = before.default_target
        if target and target_version(target, labels) not in versions:
            target = ""
        return Names(labels, target, before.route)
    labels = {name: v for name, v in manifest.labels.items() if v in versions}
    target = manifest.default
    if target and target_version(target, labels) not in versions:
        raise Precondition(
            f"model.yaml's default is {target!r}, which means none of the versions to be served "
            f"({', '.join(map(str, versions))}): change default, labels or versions"
        )
    _require_targets(manifest.route, versions, labels, "model.yaml's route", "change route, labels or versions")
    return Names(labels, target, route_text(manifest.route))


def _require_targets(
    route: Route, versions: Sequence[int], labels: Mapping[str, int], whose: str, what_to_do: str
) -> None:
    problems = route.unknown_targets(versions, labels)
    if problems:
        raise Precondition(f"{whose} leads to what would not be served ({what_to_do}):\n" + ";\n".join(problems))


def operators_route(model: DesiredModel) -> Route:
    """RouteError where the store holds what is none."""
    return _read(model.route)


@lru_cache(256)
def _read(text: str) -> Route:
    return from_json(text) if text else Route()


def route_text(route: Route) -> str:
    """As the store holds it, and as workers are told: "" for the default alone."""
    return to_json(route) if route != Route() else ""


def route_places(model: DesiredModel, version: int) -> list[str]:
    """Where the operators' route names a version by its number."""
    return [f"route.{place}" for place, target in operators_route(model).targets() if target == str(version)]


def pinned_by_names(model: DesiredModel) -> tuple[int, ...]:
    """Versions that a label, the default or the route names, as far as they are served."""
    served = {version.version for version in model.versions}
    targets = [model.default_target, *(target for _, target in operators_route(model).targets())]
    numbers = {number for target in targets if (number := version_number(target)) is not None}
    return tuple(sorted(served & (numbers | set(model.labels.values()))))


def with_route(model: DesiredModel, route: Route) -> DesiredModel:
    """Raises RouteError, with a problem for each target that the model does not serve."""
    versions = [version.version for version in model.versions] if model.served else []
    problems = route.unknown_targets(versions, model.labels)
    if problems:
        raise RouteError(f"the route of model {model.name!r}", problems)
    return replace(model, route=route_text(route))


def with_label(model: DesiredModel, label: str, version: int) -> DesiredModel:
    """Raises NotFound unless the version is served."""
    require_served(model, version)
    return replace(model, labels={**model.labels, label: version})


def without_label(model: DesiredModel, label: str) -> DesiredModel:
    """Raises NotFound, or Precondition while the default or the route names the label."""
    if label not in model.labels:
        raise NotFound(f"model {model.name!r} has no label {label[:100]!r}; it has {_listed(sorted(model.labels))}")
    if model.default_target == label:
        raise Precondition(f"label {label!r} is the default of model {model.name!r}: set another default first")
    places = [f"route.{place}" for place, target in operators_route(model).targets() if target == label]
    if places:
        raise Precondition(
            f"label {label!r} of model {model.name!r} is named by {', '.join(places)}: point these elsewhere first"
        )
    return replace(model, labels={name: version for name, version in model.labels.items() if name != label})


def with_default(model: DesiredModel, target: str) -> DesiredModel:
    """`target`: a version, a label, or "" for the newest served. Raises NotFound."""
    number = version_number(target)
    if number is not None:
        require_served(model, number)
    elif target and target not in model.labels:
        raise NotFound(f"model {model.name!r} has no label {target[:100]!r}; it has {_listed(sorted(model.labels))}")
    return replace(model, default_target=target)


def without_version(model: DesiredModel, version: int) -> DesiredModel:
    """Raises NotFound, or Precondition while a label, the default or the route names the version."""
    require_served(model, version)
    names = [label for label, named in model.labels.items() if named == version]
    if model.default_target == str(version):
        names.append("the default")
    names += route_places(model, version)
    if names:
        raise Precondition(
            f"version {version} of model {model.name!r} is named by {', '.join(sorted(names))}: "
            "point these at another version first"
        )
    left = tuple(v for v in model.versions if v.version != version)
    return replace(model, versions=left, served=bool(left), pinned_versions=tuple(v.version for v in left))


def model_order(
    model: DesiredModel,
    candidates: Mapping[tuple[int, str], Candidate],
    prepare: Sequence[tuple[DesiredVersion, Candidate]],
    prepare_on: int,
    unavailable: Mapping[int, str],
    route: Route,
    *,
    prepare_on_shadow: bool = False,
    replay: Sequence[int] = (),
) -> ModelOrder:
    """What workers are told. A served version without files is named as unavailable, not ordered.

    `route`: the operators', with what a rollout under way makes of it.
    """
    serve, lacking = [], dict(unavailable)
    if model.served:
        for version in model.versions:
            candidate = candidates.get((version.version, version.digest))
            if candidate is None:
                lacking[version.version] = "its files are neither in the repository nor in the cache"
            else:
                serve.append(version_order(version, candidate))
    for order in serve:
        lacking.pop(order.version, None)
    return ModelOrder(
        model=model.name,
        serve=tuple(serve),
        prepare=tuple(version_order(version, candidate) for version, candidate in prepare),
        prepare_on=prepare_on,
        prepare_on_shadow=prepare_on_shadow,
        labels=dict(model.labels),
        default_target=model.default_target,
        unavailable=lacking,
        route=route_text(route),
        replay=tuple(replay),
    )


def version_order(version: DesiredVersion, candidate: Candidate) -> VersionOrder:
    artifact = candidate.artifact
    return VersionOrder(
        version=version.version,
        digest=version.digest,
        generation=version.generation,
        folder=artifact.folder,
        model_filename=artifact.model_filename,
        file_bytes=artifact.file_bytes,
        manifest=dict(version.settings),
    )


def require_served(model: DesiredModel, version: int) -> None:
    """Raises NotFound."""
    served = [v.version for v in model.versions] if model.served else []
    if version not in served:
        raise NotFound(
            f"version {version} of model {model.name!r} is not served; served: {_listed(served)}: load it first"
        )


def _listed(items: Sequence[object]) -> str:
    return ", ".join(str(item) for item in items[-20:]) or "none"
