"""tritonclient's asyncio client, unmodified: unary calls, many at once, and its stream of answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton  # type: ignore[import-untyped]
import tritonclient.grpc.aio as triton_aio  # type: ignore[import-untyped]
from dataplane_client import TIMEOUT_SECONDS
from support.gateway import Gateway
from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped]

CONCURRENT = 64


def tensor(value: float, columns: int = 4) -> list[Any]:
    made = triton.InferInput("x", [1, columns], "FP32")
    made.set_data_from_numpy(np.full((1, columns), value, dtype=np.float32))
    return [made]


def talk(gateway: Gateway, dialogue: Callable[[Any], Awaitable[None]]) -> None:
    async def main() -> None:
        async with triton_aio.InferenceServerClient(gateway.grpc) as client:
            await asyncio.wait_for(dialogue(client), TIMEOUT_SECONDS)

    asyncio.run(main())


def test_every_unary_call(gateway: Gateway) -> None:
    async def dialogue(client: Any) -> None:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("versions", "canary")
        assert (await client.get_server_metadata()).name == "driftgate"
        assert list((await client.get_model_metadata("versions")).versions) == ["1", "2", "10"]
        assert (await client.get_model_config("narrow")).config.max_batch_size == 4
        assert (await client.get_inference_statistics("versions", "stable")).model_stats[0].version == "2"
        assert ("mlp", "1", "READY") in {
            (m.name, m.version, m.state) for m in (await client.get_model_repository_index()).models
        }
        await client.unload_model("spare")
        assert not await client.is_model_ready("spare")
        await client.load_model("spare")
        result = await client.infer("spare", tensor(1), request_id="aio")
        assert result.get_response().id == "aio"
        np.testing.assert_array_equal(result.as_numpy("y"), np.full((1, 4), 8, dtype=np.float32))

    talk(gateway, dialogue)


def test_many_requests_at_once_each_get_their_own_answer(gateway: Gateway) -> None:
    async def dialogue(client: Any) -> None:
        results = await asyncio.gather(*(client.infer("add_const", tensor(number)) for number in range(CONCURRENT)))
        for number, result in enumerate(results):
            np.testing.assert_array_equal(result.as_numpy("y"), np.full((1, 4), number + 1, dtype=np.float32))

    talk(gateway, dialogue)


def test_errors_carry_code_and_message(gateway: Gateway) -> None:
    async def dialogue(client: Any) -> None:
        with pytest.raises(InferenceServerException) as caught:
            await client.infer("add_const", tensor(1, columns=9))
        assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
        assert "expected [-1,4], got [1,9]" in caught.value.message()
        with pytest.raises(InferenceServerException) as caught:
            await client.infer("crawl", tensor(1, columns=64), client_timeout=0.02)
        assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"
        np.testing.assert_array_equal((await client.infer("add_const", tensor(0))).as_numpy("y"), [[1, 1, 1, 1]])

    talk(gateway, dialogue)


def test_stream_infer_answers_in_order_with_errors_between(gateway: Gateway) -> None:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        for number in range(50):
            yield {
                "model_name": "add_const" if number % 10 else "nowhere",
                "inputs": tensor(number),
                "request_id": str(number),
            }

    async def dialogue(client: Any) -> None:
        number = 0
        async for result, error in client.stream_infer(requests()):
            if number % 10:
                assert error is None
                assert result.get_response().id == str(number)
                np.testing.assert_array_equal(result.as_numpy("y"), np.full((1, 4), number + 1, dtype=np.float32))
            else:
                assert "no model 'nowhere'" in error.message()
            number += 1
        assert number == 50

    talk(gateway, dialogue)


def test_a_stream_can_be_cancelled(gateway: Gateway) -> None:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        yield {"model_name": "add_const", "inputs": tensor(1)}
        await asyncio.Event().wait()

    async def dialogue(client: Any) -> None:
        answers = client.stream_infer(requests())
        result, error = await anext(answers)
        assert error is None
        np.testing.assert_array_equal(result.as_numpy("y"), [[2, 2, 2, 2]])
        assert answers.cancel()

    talk(gateway, dialogue)
