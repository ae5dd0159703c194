"""What should be served: pure steps from the store's rows to the workers' orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gateway.errors import Precondition
from gateway.messages import ModelOrder, VersionOrder
from gateway.store.contract import DesiredModel, DesiredVersion
from runtime.errors import NotFound
from runtime.repository.layout import version_number
from runtime.repository.manifest import Manifest
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


def pinned_by_names(model: DesiredModel) -> tuple[int, ...]:
    """Versions that a label or the default names, as far as they are served."""
    served = {version.version for version in model.versions}
    named = set(model.labels.values())
    number = version_number(model.default_target)
    if number is not None:
        named.add(number)
    return tuple(sorted(named & served))


def with_label(model: DesiredModel, label: str, version: int) -> DesiredModel:
    """Raises NotFound unless the version is served."""
    _require_served(model, version)
    return replace(model, labels={**model.labels, label: version})


def without_label(model: DesiredModel, label: str) -> DesiredModel:
    """Raises NotFound, or Precondition while the default names the label."""
    if label not in model.labels:
        raise NotFound(f"model {model.name!r} has no label {label[:100]!r}; it has {_listed(sorted(model.labels))}")
    if model.default_target == label:
        raise Precondition(f"label {label!r} is the default of model {model.name!r}: set another default first")
    return replace(model, labels={name: version for name, version in model.labels.items() if name != label})


def with_default(model: DesiredModel, target: str) -> DesiredModel:
    """`target`: a version, a label, or "" for the newest served. Raises NotFound."""
    number = version_number(target)
    if number is not None:
        _require_served(model, number)
    elif target and target not in model.labels:
        raise NotFound(f"model {model.name!r} has no label {target[:100]!r}; it has {_listed(sorted(model.labels))}")
    return replace(model, default_target=target)


def without_version(model: DesiredModel, version: int) -> DesiredModel:
    """Raises NotFound, or Precondition while a label or the default names the version."""
    _require_served(model, version)
    names = [label for label, named in model.labels.items() if named == version]
    if model.default_target == str(version):
        names.append("the default")
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
) -> ModelOrder:
    """What workers are told. A served version without files is named as unavailable, not ordered."""
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
        labels=dict(model.labels),
        default_target=model.default_target,
        unavailable=lacking,
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


def _require_served(model: DesiredModel, version: int) -> None:
    served = [v.version for v in model.versions] if model.served else []
    if version not in served:
        raise NotFound(
            f"version {version} of model {model.name!r} is not served; served: {_listed(served)}: load it first"
        )


def _listed(items: Sequence[object]) -> str:
    return ", ".join(str(item) for item in items[-20:]) or "none"
