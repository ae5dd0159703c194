"""Request records as numpy sees them. Their layout is in record_layout.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.shm.record_layout import FIELDS, OFFSETS, RECORD_BYTES


def _dtype() -> np.dtype[Any]:
    """The same bytes for numpy; byte strings are uint8 arrays, so that trailing zeros stay."""
    numbers = {"Q": "<u8", "I": "<u4", "H": "<u2", "B": "u1"}
    formats = [numbers[form] if form in numbers else ("u1", (int(form[:-1]),)) for _, form in FIELDS]
    return np.dtype(
        {"names": list(OFFSETS), "formats": formats, "offsets": list(OFFSETS.values()), "itemsize": RECORD_BYTES}
    )


RECORD: np.dtype[Any] = _dtype()

Records = npt.NDArray[Any]
"""RECORD[n], C-contiguous."""
