"""The part of the admin API that tells what was seen of inputs and outputs, and whether it has drifted."""

from __future__ import annotations

import asyncio
import functools

from gateway.control.audit import MAX_NAME, Actor
from gateway.control.drift_history import MAX_LOOKS
from gateway.control.drift_reports import drift_report, reference_of, timestamp
from gateway.control.feature_answers import FeatureAnswers, ranks, within
from gateway.control.observatory import Observatory, Seen
from gateway.control.reference_changes import ReferenceChanges
from gateway.errors import Precondition
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from runtime.errors import InvalidRequest, NotFound
from runtime.profile.summary import Summary
from runtime.profile.windows import Window

MAX_ANSWER_BYTES = 3_500 * 1024
"""gRPC clients take 4 MiB where they were told nothing else. What finds no room is left out, and said to be."""

MAX_SKETCHES_BYTES = 256 * 1024 * 1024
"""Sketches come whole or not at all. Clients have to accept such messages: `grpc.max_receive_message_length`."""

NAMED = 20
"""Names that an error counts up."""


class DriftAdmin:
    """One method per RPC, as in AdminService. Until `observe`, statistics are off."""

    _observatory: Observatory | None = None
    _references: ReferenceChanges | None = None

    def observe(self, observatory: Observatory) -> None:
        self._observatory = observatory
        self._references = ReferenceChanges(observatory)

    async def GetFeatures(self, request: pb.GetFeaturesRequest, _: Actor) -> pb.GetFeaturesResponse:
        return await asyncio.to_thread(self._features, request)

    def _features(self, request: pb.GetFeaturesRequest) -> pb.GetFeaturesResponse:
        seen = self._find(request.model, request.version)
        window, seconds = self._window(seen, request.window_seconds)
        live = window.summary if window.summary is not None else Summary.create(seen.schema)
        answers = FeatureAnswers(live, seen.reference.summary if seen.reference is not None else None)
        names = answers.names
        if request.feature:
            if request.feature not in names:
                raise NotFound(
                    f"no feature {request.feature[:MAX_NAME]!r} in {_named(seen)}; it has {_some(list(names))}",
                    field="feature",
                )
            names = (request.feature,)
        look = seen.watch.report if seen.watch is not None else None
        effects = {verdict.subject: verdict.effect for verdict in look.report.verdicts} if look is not None else {}
        features, notes = within(MAX_ANSWER_BYTES, names, answers, ranks(effects))
        return pb.GetFeaturesResponse(
            model=seen.key.model,
            version=seen.key.version,
            digest=seen.key.digest,
            window=_window(window, seconds),
            reference=reference_of(seen),
            features=features,
            notes=[*seen.schema.notes, *seen.notes, *notes],
            memory_bytes=seen.memory_bytes,
        )

    async def GetSketches(self, request: pb.GetSketchesRequest, _: Actor) -> pb.GetSketchesResponse:
        return await asyncio.to_thread(self._sketches, request)

    def _sketches(self, request: pb.GetSketchesRequest) -> pb.GetSketchesResponse:
        seen = self._find(request.model, request.version)
        window, seconds = self._window(seen, request.window_seconds)
        data = (window.summary if window.summary is not None else Summary.create(seen.schema)).encode()
        if len(data) > MAX_SKETCHES_BYTES:
            raise Precondition(
                f"the sketches of {_named(seen)} take {len(data):,} bytes, and an answer holds "
                f"{MAX_SKETCHES_BYTES:,}: lower statistics.max_features in model.yaml"
            )
        return pb.GetSketchesResponse(
            model=seen.key.model,
            version=seen.key.version,
            digest=seen.key.digest,
            window=_window(window, seconds),
            schema=seen.schema.to_json(),
            summary=data,
        )

    async def GetDrift(self, request: pb.GetDriftRequest, _: Actor) -> pb.GetDriftResponse:
        return await asyncio.to_thread(self._drift, request)

    def _drift(self, request: pb.GetDriftRequest) -> pb.GetDriftResponse:
        if not 0 <= request.history <= MAX_LOOKS:
            raise InvalidRequest(f"expected a history of 0 to {MAX_LOOKS}, got {request.history}", field="history")
        if request.subjects < 0:
            raise InvalidRequest(f"expected subjects of 0 (all) or more, got {request.subjects}", field="subjects")
        if request.version and not request.model:
            raise InvalidRequest("expected the model that the version is of, got nothing", field="model")
        if request.version:
            wanted = [self._find(request.model, request.version)]
        else:
            wanted = [seen for seen in self._seen(request.model) if seen.served and seen.is_newest]
        room = MAX_ANSWER_BYTES // max(len(wanted), 1)
        return pb.GetDriftResponse(
            reports=[
                drift_report(seen, history=request.history, subjects=request.subjects, most_bytes=room)
                for seen in wanted
            ]
        )

    async def SetReference(self, request: pb.SetReferenceRequest, actor: Actor) -> pb.SetReferenceResponse:
        seen = await asyncio.to_thread(self._find, request.model, request.version)
        if self._references is None:
            raise _off()
        find = functools.partial(self._find, request.model, seen.key.version)
        changed, audit_id = await self._references.set(find, request.kind, request.live_rows, actor)
        after = await asyncio.to_thread(find)
        return pb.SetReferenceResponse(reference=reference_of(after), changed=changed, audit_id=audit_id)

    def _find(self, model: str, version: int) -> Seen:
        """The version that was asked for, 0 being the default; of several of that number, the last one loaded."""
        if not model:
            raise InvalidRequest("expected a model's name, got nothing", field="model")
        if version < 0:
            raise InvalidRequest(
                f"expected a version of 1 or more, or 0 for the default, got {version}", field="version"
            )
        seen = [each for each in self._seen(model) if each.is_newest]
        found = [each for each in seen if (each.key.version == version if version else each.is_default)]
        if not found:
            wanted = f"version {version}" if version else "the default version"
            known = _some([str(each.key.version) for each in seen])
            raise NotFound(
                f"nothing was seen of {wanted} of model {model!r}; of its versions: {known}", field="version"
            )
        return found[0]

    def _seen(self, model: str) -> list[Seen]:
        observatory = self._observatory
        if observatory is None:
            raise _off()
        seen = observatory.seen(model)
        if model and not seen:
            known = sorted(observatory.known_models())
            if model not in known:
                raise NotFound(f"no model {model[:MAX_NAME]!r}; known models: {_some(known)}", field="model")
            raise NotFound(
                f"nothing was seen of model {model!r}: it is not served, or statistics.enabled is false in model.yaml",
                field="model",
            )
        return seen

    def _window(self, seen: Seen, seconds: int) -> tuple[Window[Summary], int]:
        observatory = self._observatory
        if observatory is None:
            raise _off()
        seconds = seconds or seen.drift_window_seconds
        if seconds not in observatory.windows_seconds:
            known = ", ".join(map(str, observatory.windows_seconds))
            raise InvalidRequest(f"expected a window of {known} seconds, got {seconds}", field="window_seconds")
        return observatory.window(seen.key, seconds), seconds


def _off() -> Precondition:
    return Precondition("nothing is measured: statistics.enabled is false in the gateway's configuration")


def _named(seen: Seen) -> str:
    return f"version {seen.key.version} of model {seen.key.model!r}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return (", ".join(name[:MAX_NAME] for name in names[:NAMED]) or "none") + more


def _window(window: Window[Summary], seconds: int) -> pb.Window:
    return pb.Window(
        seconds=seconds,
        start=timestamp(window.start_seconds),
        end=timestamp(window.end_seconds),
        rows=window.rows,
    )
