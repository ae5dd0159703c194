"""Which answers are compared: those of a version that answered a client, and those of its shadow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]

SHED_REASONS = ("queue_full", "too_large", "late", "no_shadow", "incompatible", "lost")
"""Why a copy was thrown away before the shadow answered it."""


@dataclass(frozen=True, slots=True, order=True)
class PairKey:
    model: str
    primary: int
    primary_digest: str
    shadow: int
    shadow_digest: str


@dataclass(frozen=True, slots=True)
class PairSettings:
    """As `runtime.routing.route.Shadow` has them."""

    absolute: float = 1e-6
    relative: float = 1e-4
    worst: int = 16
    inputs: bool = False
    redact: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Copy:
    """One run of the primary: its requests, what they asked, what they were answered.

    `inputs`: by name, as the run got them, requests one after another on axis 0 where `batched`; else it is one request
    of tensors without rows. BYTES are arrays of str objects. `outputs`: by name, what the primary answered. `rows`: of
    each request, `request_ids` likewise. `run_ns`: how long the primary ran.
    """

    unix_ns: int
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    rows: tuple[int, ...]
    request_ids: tuple[str, ...]
    run_ns: int
    batched: bool = True
