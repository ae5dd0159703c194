"""Which peers there are: each with settings that none of the others tried was clearly faster than, and the others."""

from __future__ import annotations

from bench.catalogue import ServerSpec
from bench.peers import mlserver, triton
from bench.peers.install import NotInstalled

NAMES = ("mlserver", "triton")
KEYS = ("mlserver", "triton", "triton-traced")

MLSERVER_TRIED = {
    "mlserver-batch-100us": mlserver.Settings(max_batch=64, max_batch_seconds=0.0001),
    "mlserver-batch-1ms": mlserver.Settings(max_batch=64, max_batch_seconds=0.001),
    "mlserver-batch-5ms": mlserver.Settings(max_batch=64, max_batch_seconds=0.005),
    "mlserver-batch-10ms": mlserver.Settings(max_batch=64, max_batch_seconds=0.01),
    "mlserver-batch-of-16": mlserver.Settings(max_batch=16, max_batch_seconds=0.005),
}
TRITON_TRIED = {
    "triton-pool-of-8": triton.Settings(pool=None),
    "triton-two": triton.Settings(instances=2),
    "triton-100us": triton.Settings(delay_us=100),
    "triton-preferred": triton.Settings(preferred=(16, 32, 64)),
    "triton-preferred-100us": triton.Settings(preferred=(16, 32), delay_us=100),
    "triton-unbatched": triton.Settings(batching=False),
}
TRACED_TRIED = {
    "triton-traced-pool-of-8": triton.Settings(pool=None),
    "triton-traced-queue": triton.Settings(queue=65_536),
}


TRIED = (*MLSERVER_TRIED, *TRITON_TRIED, *TRACED_TRIED)
"""Their keys; all keys begin with the peer's name."""


def set_up(wanted: frozenset[str]) -> tuple[list[ServerSpec], dict[str, str]]:
    """The peers of `wanted` that could be set up, and why others could not, by name."""
    specs: list[ServerSpec] = []
    missing = {}
    for name, make in (("mlserver", _mlserver), ("triton", _triton)):
        if any(key.startswith(name) for key in wanted):
            try:
                specs += [spec for spec in make() if spec.key in wanted]
            except NotInstalled as reason:
                missing[name] = str(reason)
    return specs, missing


def _mlserver() -> list[ServerSpec]:
    home = mlserver.home()
    chosen = mlserver.spec(home, "mlserver", "MLServer + onnxruntime", mlserver.Settings())
    return [chosen, *(mlserver.spec(home, key, key, settings) for key, settings in MLSERVER_TRIED.items())]


def _triton() -> list[ServerSpec]:
    home = triton.home()
    return [
        triton.spec(home, "triton", "Triton, Python backend", triton.Settings()),
        triton.spec(home, "triton-traced", "Triton, the same, traced", triton.Settings(), traced=True),
        *(triton.spec(home, key, key, settings) for key, settings in TRITON_TRIED.items()),
        *(triton.spec(home, key, key, settings, traced=True) for key, settings in TRACED_TRIED.items()),
    ]
