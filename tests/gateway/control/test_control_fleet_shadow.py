"""The process that answers copies in control's fleet: told the same as workers, heard, and never counted among them."""

from __future__ import annotations

import asyncio
import threading

from control_fleet import WAIT_SECONDS, linked, worker_at

from gateway.messages import ComparisonReport, ModelOrder, VersionOrder


def order(version: int) -> ModelOrder:
    served = VersionOrder(
        version=version,
        digest=f"sha256:{version}",
        generation=1,
        folder="",
        model_filename="",
        file_bytes=0,
        manifest={},
    )
    return ModelOrder(model="m", serve=(served,))


def test_it_is_told_and_heard_and_is_no_worker() -> None:
    async def scene() -> None:
        async with linked() as made:
            with worker_at(made.address, -1, role="shadow"), worker_at(made.address, 0):
                assert await made.fleet.until(
                    lambda: made.fleet.shadow is not None and len(made.fleet.workers) == 1, WAIT_SECONDS
                )
                revision = made.fleet.order([order(1)])
                assert await made.fleet.until(
                    lambda: made.fleet.shadow is not None and made.fleet.shadow.revision == revision, WAIT_SECONDS
                )
                shadow = made.fleet.shadow
                assert shadow is not None
                assert [key.version for key in shadow.reports] == [1]
                assert set(made.fleet.workers) == {0}
                (key,) = shadow.reports
                assert set(made.fleet.reports_of(key)) <= {0}, "its reports are not a worker's"
            assert await made.fleet.until(lambda: made.fleet.shadow is None, WAIT_SECONDS)

    asyncio.run(scene())


def test_readiness_and_all_at_do_not_wait_for_it() -> None:
    async def scene() -> None:
        async with linked() as made:
            with worker_at(made.address, -1, role="shadow"):
                assert await made.fleet.until(lambda: made.fleet.shadow is not None, WAIT_SECONDS)
                assert made.fleet.workers == {}
                assert made.fleet.all_at(made.fleet.order([order(1)])), "there is no worker to wait for"

    asyncio.run(scene())


def test_a_failed_load_and_a_new_process_have_events_of_their_own() -> None:
    async def scene() -> None:
        async with linked() as made:
            with worker_at(made.address, -1, pid=1, failing=(2,), role="shadow"):
                assert await made.fleet.until(lambda: made.fleet.shadow is not None, WAIT_SECONDS)
                made.fleet.order([order(2)])
                failed = await made.found("driftgate.shadow.load_failed")
                assert "it is broken" in str(failed.attributes)
            assert await made.fleet.until(lambda: made.fleet.shadow is None, WAIT_SECONDS)
            with worker_at(made.address, -1, pid=2, role="shadow"):
                again = await made.found("driftgate.shadow.restarted")
                assert dict(again.attributes)["process.pid"] == 2

    asyncio.run(scene())


def test_what_it_compared_comes_to_whoever_wants_it_and_is_delivered_only_once_control_has_been_heard() -> None:
    async def scene() -> None:
        async with linked() as made:
            taken: list[ComparisonReport] = []
            made.fleet.on_comparison = taken.append
            message = ComparisonReport(counters="memory", pairs=())
            outcomes: list[bool] = []
            with worker_at(made.address, -1, role="shadow") as shadow:
                assert await made.fleet.until(lambda: made.fleet.shadow is not None, WAIT_SECONDS)
                shadow.link.deliver(message, outcomes.append)
                assert outcomes == [False], "control has not said a word yet"
                made.fleet.order([order(1)])
                assert await made.fleet.until(
                    lambda: made.fleet.shadow is not None and bool(made.fleet.shadow.reports), WAIT_SECONDS
                )
                sent = threading.Event()
                shadow.link.deliver(message, lambda ok: (outcomes.append(ok), sent.set())[-1])
                assert await made.fleet.until(lambda: bool(taken), WAIT_SECONDS)
                assert await asyncio.to_thread(sent.wait, WAIT_SECONDS)
            assert (taken, outcomes) == ([message], [False, True])
            shadow.link.deliver(message, outcomes.append)
            assert outcomes[-1] is False

    asyncio.run(scene())
