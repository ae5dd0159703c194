"""The sections of the configuration about copies to shadows, and about rollouts."""

from __future__ import annotations

from pydantic import Field

from gateway.config_section import Section


class ShadowSettings(Section):
    """Copies of requests that shadow versions answer, in a process of their own that only uses idle cores."""

    enabled: bool = Field(
        True, description="Have the process that runs shadows; off: routes and rollouts cannot ask for copies."
    )
    queue_bytes_per_worker: int = Field(
        16 * 1024 * 1024,
        ge=1024 * 1024,
        le=2**31,
        description="Copies that wait; what finds no room is shed, and counted.",
    )
    late_seconds: float = Field(
        5.0, ge=0.1, le=600, description="A copy that has waited so long is thrown away, and counted."
    )


class RolloutSettings(Section):
    """How rollouts are looked at."""

    tick_seconds: float = Field(1.0, ge=0.1, le=60, description="Between two looks at a rollout.")
