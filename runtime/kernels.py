"""The one place where numba compiles: explicit signatures, at import, kept on disk for the next process.

The compiled code goes beside the sources or, where these cannot be written, into the user's cache directory
(NUMBA_CACHE_DIR names another). Where neither can be written, each process compiles anew, and says so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import numba
from numba.core import types
from numba.extending import intrinsic

log = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])


def kernel(*signatures: Any, nogil: bool = False) -> Callable[[F], F]:
    """Compiles for `signatures` when the module is imported. No Python objects, no exceptions: indices are checked by
    the shell that calls it."""

    def compile_(function: F) -> F:
        options = {"nogil": nogil, "boundscheck": False, "error_model": "numpy"}
        try:
            compiled: F = numba.njit(list(signatures), cache=True, **options)(function)
        except RuntimeError as error:
            if "cannot cache" not in str(error):
                raise
            log.warning("%s is compiled anew at each start: %s; set NUMBA_CACHE_DIR", function.__name__, error)
            compiled = numba.njit(list(signatures), **options)(function)
        return compiled

    return compile_


def inline(function: F) -> F:
    """A helper of kernels, compiled into each of them."""
    compiled: F = numba.njit(inline="always", error_model="numpy", boundscheck=False)(function)
    return compiled


@intrinsic
def fence(_context: Any) -> Any:
    """Nothing moves across it, in the compiler or the processor: what was written before is seen before."""

    def generate(_context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        builder.fence("seq_cst")
        return _context.get_dummy_value()

    return types.none(), generate
