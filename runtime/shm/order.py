"""Order between what two processes see of the memory that they share."""

from __future__ import annotations

from numba import void

from runtime.kernels import fence, kernel


@kernel(void())
def order():  # type: ignore[no-untyped-def]
    """What this process has read and written before is done before what it reads and writes next."""
    fence()
