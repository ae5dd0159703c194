"""The one place where numba compiles: explicit signatures, at import, kept on disk for the next process.

The compiled code goes into a folder named by a digest of the sources that kernels draw on:
numba itself would notice a change of the kernel's own file only, and not of a constant or a helper that it imports. The
folder is beside the sources or, where these cannot be written, in the user's cache directory (NUMBA_CACHE_DIR names
another). Where none can be written, each process compiles anew, and says so. A folder that turns out to be damaged, or
on a disk that is full, is removed: this process compiles without it, and the next one makes another.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
import numpy.ma  # noqa: F401  # numba asks for it at a process's first call of a kernel: 6 ms that a request would wait
from llvmlite import ir
from numba.core import config, types
from numba.extending import intrinsic

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parent
SOURCES = (
    "kernels.py",
    "shm/*.py",
    "sketch/*.py",
    "profile/*_kernels.py",
    "shadow/*_kernels.py",
    "../gateway/telemetry/span*.py",
    "../bench/generator/*.py",
)
FOLDER = "kernels-"
KEPT = 4  # folders of earlier sources beside the present one

Kernel = Callable[..., Any]


def _leave_linear_algebra_out() -> None:
    """Where scipy is installed, numba's arrays import its linear algebra: 0.1 s and 18 MiB in each process.

    Only products of matrices need it, and no kernel has one. Whoever uses scipy imports it as ever.
    """
    if "scipy.linalg" in sys.modules:
        return
    sys.modules["scipy.linalg"] = None  # type: ignore[assignment]  # so that its import fails
    try:
        importlib.import_module("numba.np.arraymath")
    finally:
        del sys.modules["scipy.linalg"]


_leave_linear_algebra_out()


def kernel(*signatures: Any, nogil: bool = False, allocates: bool = True) -> Callable[[Kernel], Any]:
    """Compiles for `signatures` when the module is imported.

    A kernel takes no Python objects and raises nothing: indices are checked by the shell that calls it. One that makes
    no array should say so (`allocates`): calls of it by other kernels then count no references, which takes about 20 ns
    for each array.
    """

    def compile_(function: Kernel) -> Any:
        def compiled(*, cache: bool) -> Any:
            njit: Any = numba.njit
            options = {"cache": cache, "nogil": nogil, "boundscheck": False, "error_model": "numpy"}
            return njit(list(signatures), _nrt=allocates, **options)(function)

        if _store.folder is not None:
            try:
                return compiled(cache=True)
            except Exception as error:  # numba reads and writes its files as if nothing could be wrong with them
                _store.give_up(error)
        return compiled(cache=False)

    return compile_


def inline(function: Kernel) -> Any:
    """A helper of kernels, compiled into each of them."""
    return numba.njit(inline="always", error_model="numpy", boundscheck=False)(function)


def _fence(_context: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.none(), generate


fence: Any = intrinsic(_fence)
"""In a kernel: nothing moves across it, in the compiler or the processor: what was written before is seen before."""


def _leading_zeros(_context: Any, word: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 0))  # 0: defined for a word of 0, too

    return word(word), generate


leading_zeros: Any = intrinsic(_leading_zeros)
"""In a kernel: how many of an integer's upper bits are 0, as an integer of its type."""


def _digest() -> str:
    digest = hashlib.sha256(numba.__version__.encode())
    for pattern in SOURCES:
        for file in sorted(ROOT.glob(pattern)):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _places() -> Iterator[Path]:
    if named := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(named)
        return
    yield ROOT / "__pycache__"
    yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "driftgate"


def _choose_folder() -> Path | None:
    """The first place that can be written to; older folders there are removed, as far as they can be."""
    name = FOLDER + _digest()
    for place in _places():
        folder = place / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
                file.write(b"room")
        except (OSError, RuntimeError):  # RuntimeError: there is no home
            continue
        earlier = sorted(place.glob(FOLDER + "*"), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in [path for path in earlier if path != folder][KEPT:]:
            shutil.rmtree(old, ignore_errors=True)
        return folder
    return None


class _Store:
    """Where compiled code is kept; `folder` None: nowhere."""

    def __init__(self) -> None:
        self.folder = _choose_folder()
        if self.folder is None:
            log.warning(
                "kernels are compiled anew at each start: no folder for them can be written; set NUMBA_CACHE_DIR"
            )
        else:
            config.CACHE_DIR = str(self.folder)  # type: ignore[attr-defined]  # made from the environment

    def give_up(self, error: Exception) -> None:
        log.warning("kernels are compiled anew, and %s is removed: it cannot be used (%r)", self.folder, error)
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder = None


_store = _Store()
