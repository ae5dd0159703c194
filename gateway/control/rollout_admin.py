"""The part of the admin API that starts, moves, ends and tells of rollouts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from google.protobuf.message import Message

from gateway.control.audit import Actor
from gateway.control.rollout_messages import decision_message, rollout_message, update_message
from gateway.control.rollout_views import RolloutNews, RolloutsApi
from gateway.errors import Precondition
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from runtime.errors import InvalidRequest, NotReady
from runtime.repository.document import read_document
from runtime.rollout.decide import WrongPlan
from runtime.rollout.decision import Verb
from runtime.rollout.phase import FINAL, NotPossible
from runtime.rollout.plan import Plan, read_plan
from runtime.rollout.problems import PlanError

MAX_ROLLOUTS = 1000
MAX_DECISIONS = 1000

MAX_ANSWER_BYTES = 3_500 * 1024
"""gRPC clients take 4 MiB where they were told nothing else. A longer list ends there; its rest is asked for anew."""

MAX_PROBLEM_BYTES = 900
"""Of an error's message, which is cut at 1,000. `driftgate rollout check` tells those that find no room."""

LOOK_AGAIN_SECONDS = 10.0
"""A watcher that read so slowly that it lost the end learns of it by then."""

VERBS = {
    pb.CommandRolloutRequest.VERB_PAUSE: Verb.PAUSE,
    pb.CommandRolloutRequest.VERB_RESUME: Verb.RESUME,
    pb.CommandRolloutRequest.VERB_PROMOTE: Verb.PROMOTE,
    pb.CommandRolloutRequest.VERB_ABORT: Verb.ABORT,
}
M = TypeVar("M", bound=Message)


class RolloutAdmin:
    """One method per RPC, as in AdminService. Until `use_rollouts`, there are none yet."""

    closing: asyncio.Event
    """Set when the admin server stops: streams end."""

    _rollouts: RolloutsApi | None = None

    def use_rollouts(self, api: RolloutsApi) -> None:
        self._rollouts = api

    async def StartRollout(self, request: pb.StartRolloutRequest, actor: Actor) -> pb.StartRolloutResponse:
        api = self._api
        plan = await asyncio.to_thread(_plan, request.plan)  # a MiB of YAML takes seconds
        with _refused():
            view, warnings = await (api.check(plan) if request.dry_run else api.start(plan, actor))
        return pb.StartRolloutResponse(rollout=rollout_message(view), warnings=warnings)

    async def CommandRollout(self, request: pb.CommandRolloutRequest, actor: Actor) -> pb.CommandRolloutResponse:
        api, verb = self._api, VERBS.get(request.verb)
        if verb is None:
            expected = "VERB_PAUSE, VERB_RESUME, VERB_PROMOTE or VERB_ABORT"
            raise InvalidRequest(f"expected {expected}, got {_verb_name(request.verb)}", field="verb")
        rollout_id = _find(api, request, under_way=True)
        with _refused():
            view = await api.command(rollout_id, verb, actor)
        return pb.CommandRolloutResponse(rollout=rollout_message(view))

    async def GetRollout(self, request: pb.GetRolloutRequest, _: Actor) -> pb.GetRolloutResponse:
        api = self._api
        with _refused():
            view = await api.view(_find(api, request))
        return pb.GetRolloutResponse(rollout=rollout_message(view))

    async def ListRollouts(self, request: pb.ListRolloutsRequest, _: Actor) -> pb.ListRolloutsResponse:
        api = self._api
        limit = _limit(request.limit, 100, MAX_ROLLOUTS)
        if request.before_id < 0:
            raise InvalidRequest(f"expected a before_id of 0 or more, got {request.before_id}", field="before_id")
        with _refused():
            views = await api.listed(request.model, limit, request.before_id)
        return pb.ListRolloutsResponse(rollouts=_within(map(rollout_message, views)))

    async def WatchRollout(self, request: pb.WatchRolloutRequest, _: Actor) -> AsyncIterator[pb.RolloutUpdate]:
        api = self._api
        rollout_id = _find(api, request)
        with _refused(), api.watching(rollout_id) as told:  # before what is so now: no news may fall between
            news = RolloutNews(await api.view(rollout_id))
            while True:
                yield update_message(news)
                if news.view.rollout.phase in FINAL:
                    return
                found = await _next(told, self.closing)
                if found is None and self.closing.is_set():
                    return
                news = found if found is not None else RolloutNews(await api.view(rollout_id))

    async def ListRolloutDecisions(
        self, request: pb.ListRolloutDecisionsRequest, _: Actor
    ) -> pb.ListRolloutDecisionsResponse:
        api = self._api
        limit = _limit(request.limit, MAX_DECISIONS, MAX_DECISIONS)
        if request.after < 0:
            raise InvalidRequest(f"expected an after of 0 or more, got {request.after}", field="after")
        rollout_id = _find(api, request)
        with _refused():
            view = await api.view(rollout_id)
            decisions = await api.decisions(rollout_id, limit, request.after)
        messages = (decision_message(decision, with_evidence=request.with_evidence) for decision in decisions)
        return pb.ListRolloutDecisionsResponse(rollout=rollout_message(view), decisions=_within(messages))

    @property
    def _api(self) -> RolloutsApi:
        if self._rollouts is None:
            raise NotReady("rollouts are not ready: the gateway is starting; try again in a moment")
        return self._rollouts


def _plan(text: str) -> Plan:
    """Raises InvalidRequest with every problem of the document, or of the plan in it."""
    if not text.strip():
        raise InvalidRequest("expected a rollout's plan as YAML or JSON, got nothing", field="plan")
    document, problems = read_document(text)
    if problems:
        raise _invalid(problems)
    try:
        return read_plan(document)
    except PlanError as error:
        raise _invalid(error.problems) from None


def _invalid(problems: Iterable[str]) -> InvalidRequest:
    """On one line; those that find no room are counted."""
    lines = list(problems)
    shown, size = list[str](), 0
    for line in lines:
        size += len(line.encode()) + 2
        if shown and size > MAX_PROBLEM_BYTES:
            break
        shown.append(line)
    hidden = len(lines) - len(shown)
    more = f"; and {hidden} more, which driftgate rollout check tells" if hidden else ""
    count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
    return InvalidRequest(f"the plan has {count}: {'; '.join(shown)}{more}", field="plan")


@contextmanager
def _refused() -> Iterator[None]:
    """What rollouts refuse in their own words, as errors that clients are told."""
    try:
        yield
    except PlanError as error:
        raise _invalid(error.problems) from None
    except NotPossible as error:
        raise Precondition(str(error)) from None
    except WrongPlan as error:
        raise Precondition(f"what is stored of this rollout does not belong together, start another: {error}") from None


def _find(api: RolloutsApi, request: Any, *, under_way: bool = False) -> int:
    """The rollout that `request` means, by one of its `id` and `model`."""
    if request.id < 0:
        raise InvalidRequest(f"expected a rollout's id of 1 or more, got {request.id}", field="id")
    if bool(request.id) == bool(request.model):
        got = f"both ({request.id} and {request.model[:128]!r})" if request.id else "neither"
        raise InvalidRequest(f"expected a rollout's id or a model's name, got {got}", field="model")
    return api.find(request.id, request.model, under_way=under_way)


def _limit(asked: int, default: int, most: int) -> int:
    if not 0 <= asked <= most:
        raise InvalidRequest(f"expected a limit of 0 ({default}) to {most}, got {asked}", field="limit")
    return asked or default


def _within(messages: Iterable[M]) -> list[M]:
    """As many as one answer holds, and one at least."""
    found, size = list[M](), 0
    for message in messages:
        size += message.ByteSize()
        if found and size > MAX_ANSWER_BYTES:
            break
        found.append(message)
    return found


async def _next(told: asyncio.Queue[RolloutNews], closing: asyncio.Event) -> RolloutNews | None:
    """None: there was nothing for a while, or the server closes."""
    tasks = [asyncio.ensure_future(told.get()), asyncio.ensure_future(closing.wait())]
    news, _ = tasks
    try:
        await asyncio.wait(tasks, timeout=LOOK_AGAIN_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        return news.result() if news.done() and not closing.is_set() else None  # type: ignore[return-value]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _verb_name(verb: int) -> str:
    known = pb.CommandRolloutRequest.Verb
    return known.Name(verb) if verb in known.values() else str(verb)
