"""Versions as control orders them and as processes report them ↔ the runtime's values."""

from __future__ import annotations

from gateway.messages import LoadedInfo, TensorInfo, VersionOrder, VersionReport
from runtime.repository.manifest import manifest_of
from runtime.types import Artifact, Signature, TensorSpec
from runtime.versions.manager import Instance, VersionTarget
from runtime.versions.version import LoadedVersion


def version_target(model: str, order: VersionOrder) -> VersionTarget:
    artifact = Artifact(
        model=model,
        version=order.version,
        digest=order.digest,
        folder=order.folder,
        file_bytes=order.file_bytes,
        model_filename=order.model_filename,
    )
    return VersionTarget(artifact, manifest_of(order.manifest, f"{model}/model.yaml"), order.generation)


def report(instance: Instance) -> VersionReport:
    key = instance.key
    loaded = instance.loaded
    return VersionReport(
        model=key.model,
        version=key.version,
        digest=key.digest,
        generation=key.generation,
        state=instance.state.name,
        reason=instance.reason,
        loaded=_info(loaded) if loaded is not None else None,
    )


def _info(loaded: LoadedVersion) -> LoadedInfo:
    signature: Signature = loaded.signature
    return LoadedInfo(
        inputs=tuple(_tensor(spec) for spec in signature.inputs),
        outputs=tuple(_tensor(spec) for spec in signature.outputs),
        load_seconds=loaded.load_seconds,
        loaded_at_seconds=loaded.loaded_at_seconds,
        memory_bytes=loaded.memory_bytes,
        file_bytes=loaded.file_bytes,
        execution_providers=loaded.execution_providers,
        max_rows=loaded.max_rows,
        warnings=loaded.warnings,
    )


def _tensor(spec: TensorSpec) -> TensorInfo:
    return TensorInfo(name=spec.name, datatype=spec.datatype, shape=spec.shape)
