"""Load where h2load is not installed: closed-loop `grpc.aio` calls in a process of their own.

It spends more CPU on a request than a fast server does, so its rates are a floor: the table says when it was the limit.
Usage: python -m bench.client PORT CONNECTIONS STREAMS SECONDS REQUEST_FILE; prints a Burst as JSON.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import grpc.aio
import numpy as np

from bench.sample import MESSAGE_PREFIX_BYTES, Burst, Load, LoadFailed, percentiles_ms
from bench.servers import HOST, PATH

OVERRUN_SECONDS = 20.0
CALL_TIMEOUT_SECONDS = 10.0
OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)
"""Channels to one address share a connection unless told not to."""


class Tally:
    def __init__(self) -> None:
        self.latencies_us: list[int] = []
        self.failed = 0
        self.reply_bytes = 0


async def _repeat(channel: grpc.aio.Channel, request: bytes, end: float, tally: Tally) -> None:
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(PATH)
    while (start := time.perf_counter()) < end:
        try:
            reply = await call(request, timeout=CALL_TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError:
            tally.failed += 1
            continue
        finish = time.perf_counter()
        if finish <= end:
            tally.latencies_us.append(round((finish - start) * 1e6))
            tally.reply_bytes += MESSAGE_PREFIX_BYTES + len(reply)


async def drive(port: int, load: Load, seconds: float, request: bytes) -> Burst:
    channels = [grpc.aio.insecure_channel(f"{HOST}:{port}", options=OWN_CONNECTION) for _ in range(load.connections)]
    tally = Tally()
    try:
        await asyncio.gather(*(channel.channel_ready() for channel in channels))
        end = time.perf_counter() + seconds
        await asyncio.gather(*(_repeat(each, request, end, tally) for each in channels for _ in range(load.streams)))
    finally:
        await asyncio.gather(*(channel.close() for channel in channels))
    p50_ms, p99_ms = percentiles_ms(np.array(tally.latencies_us, np.int64))
    answered = len(tally.latencies_us)
    return Burst(
        requests=answered + tally.failed,
        failed=tally.failed,
        reply_bytes=tally.reply_bytes,
        requests_per_second=answered / seconds,
        p50_ms=p50_ms,
        p99_ms=p99_ms,
    )


class BundledClient:
    """Sends `request`, a gRPC message without its prefix, over and over."""

    name = "bundled grpc.aio client"

    def __init__(self, request: bytes, folder: Path) -> None:
        self._request_file = folder / "client.request"
        self._request_file.write_bytes(request)

    def __call__(self, port: int, load: Load, seconds: float) -> Burst:
        arguments = map(str, (port, load.connections, load.streams, seconds, self._request_file))
        command = [sys.executable, "-m", "bench.client", *arguments]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=seconds + OVERRUN_SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise LoadFailed(f"the client did not end within {OVERRUN_SECONDS:.0f} s of its duration") from error
        if done.returncode:
            raise LoadFailed(f"the client ended with {done.returncode}: {done.stderr.strip()[-500:]}")
        burst = Burst(**json.loads(done.stdout))
        if not burst.requests:
            raise LoadFailed("the client completed no request")
        return burst


def main() -> None:
    port, connections, streams, seconds, request_file = sys.argv[1:]
    load = Load(connections=int(connections), streams=int(streams))
    burst = asyncio.run(drive(int(port), load, float(seconds), Path(request_file).read_bytes()))
    sys.stdout.write(json.dumps(asdict(burst)))


if __name__ == "__main__":
    main()
