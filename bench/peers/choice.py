"""Which peers there are, each with the settings that were the fastest here, and those that were tried."""

from __future__ import annotations

from bench.catalogue import ServerSpec
from bench.peers import mlserver, triton
from bench.peers.install import Home, NotInstalled

NAMES = ("mlserver", "triton")
KEYS = ("mlserver", "triton", "triton-traced")

_MLSERVER = mlserver.Settings()
_TRITON = triton.Settings()
_TRITON_TRACED = triton.Settings()

MLSERVER_TRIED = {
    "mlserver-batch-100us": mlserver.Settings(max_batch=64, max_batch_seconds=0.0001),
    "mlserver-batch-1ms": mlserver.Settings(max_batch=64, max_batch_seconds=0.001),
    "mlserver-batch-5ms": mlserver.Settings(max_batch=64, max_batch_seconds=0.005),
}
TRITON_TRIED = {
    "triton-pool": triton.Settings(pool=64),
    "triton-two": triton.Settings(instances=2),
    "triton-100us": triton.Settings(delay_us=100),
    "triton-preferred": triton.Settings(preferred=(16, 32, 64)),
    "triton-preferred-100us": triton.Settings(preferred=(16, 32), delay_us=100),
    "triton-unbatched": triton.Settings(batching=False),
}
TRACED_TRIED = {"triton-traced-queue": triton.Settings(queue=65_536)}
"""By default 2,048 spans may wait for their export."""


def chosen() -> tuple[list[ServerSpec], dict[str, str]]:
    """The peers that could be set up, and why others could not, by name."""
    specs, missing = [], {}
    try:
        specs.append(mlserver.spec(mlserver.home(), "mlserver", "MLServer + onnxruntime", _MLSERVER))
    except NotInstalled as reason:
        missing["mlserver"] = str(reason)
    try:
        home = triton.home()
    except NotInstalled as reason:
        missing["triton"] = str(reason)
    else:
        specs.append(triton.spec(home, "triton", "Triton, Python backend", _TRITON))
        specs.append(triton.spec(home, "triton-traced", "Triton, traced", _TRITON_TRACED, traced=True))
    return specs, missing


def tried() -> list[ServerSpec]:
    """The chosen and all other settings. Raises NotInstalled."""
    one, other = mlserver.home(), triton.home()
    specs, _ = chosen()
    specs += [mlserver.spec(one, key, key, settings) for key, settings in MLSERVER_TRIED.items()]
    specs += _of_triton(other, TRITON_TRIED, traced=False)
    return specs + _of_triton(other, TRACED_TRIED, traced=True)


def _of_triton(home: Home, settings: dict[str, triton.Settings], *, traced: bool) -> list[ServerSpec]:
    return [triton.spec(home, key, key, each, traced=traced) for key, each in settings.items()]
