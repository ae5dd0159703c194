"""What a plan may judge a candidate by. Each gate is one comparison with the baseline over the same period."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from runtime.repository.fields import Section, as_tuple, null_as_empty, option

MAX_GATES = 64
MOST = 1e60
"""Of a mean and a margin: beyond it squares of squares are no float64 any more."""

NAME = 128  # characters of a metric's or a drift gate's name

Name = Annotated[str, Field(min_length=1, max_length=NAME)]


class ErrorGate(Section):
    """Share of requests that fail."""

    margin: float = option(
        0.005, "a share 0 <= margin < 1", "So much above the allowed rate is no harm.", ge=0, lt=1
    )  # fmt: skip
    ratio: float = option(
        1.0, "a number 1e-9 <= ratio <= 100", "The candidate may fail this many times as often.", ge=1e-9, le=100
    )  # fmt: skip


class QualityGate(ErrorGate):
    """Share of wrong answers among those whose true label has come."""


class LatencyGate(Section):
    """A quantile of the latency, in steps with weight."""

    quantile: float = option(0.99, "a number 0 < quantile < 1", "Which quantile.", gt=0, lt=1)
    ratio: float = option(
        1.2, "a number 1 <= ratio <= 100", "The candidate's may be this many times the baseline's.", ge=1, le=100
    )  # fmt: skip


class AgreementGate(Section):
    """Share of copied requests that both versions answer alike, in steps with copies."""

    min_share: float = option(
        0.99, "a share 1e-9 <= min_share <= 1 - 1e-9", "The least share that is allowed.", ge=1e-9, le=1 - 1e-9
    )  # fmt: skip


class MeanGate(Section):
    """Mean of a metric, such as a score."""

    name: Name = option(..., f"a text of 1 to {NAME} characters", "Which metric.")
    margin: float = option(
        ..., "a number 1e-60..1e60", "The means may differ by so much, in the metric's unit.", ge=1e-60, le=MOST
    )  # fmt: skip


class DriftGate(Section):
    """A verdict of the drift of the candidate against the baseline, which is tested outside, at `Plan.harm_level`."""

    name: Name


Gate = ErrorGate | QualityGate | LatencyGate | AgreementGate | MeanGate | DriftGate


def informed_by_replay(gate: Gate) -> bool:
    """Whether rows that both versions are asked anew say anything: they show failures and answers, and no more."""
    return isinstance(gate, AgreementGate | ErrorGate) and not isinstance(gate, QualityGate)


class Gates(Section):
    errors: Annotated[ErrorGate | None, BeforeValidator(null_as_empty)] = option(
        None, "a mapping of margin and ratio", "The share of requests that fail."
    )
    latency: Annotated[tuple[LatencyGate, ...], BeforeValidator(as_tuple), Field(max_length=MAX_GATES)] = option(
        (), "a list of mappings of quantile and ratio", "Quantiles of the latency."
    )
    agreement: Annotated[AgreementGate | None, BeforeValidator(null_as_empty)] = option(
        None, "a mapping of min_share", "Agreement with the baseline's answers."
    )
    means: Annotated[tuple[MeanGate, ...], BeforeValidator(as_tuple), Field(max_length=MAX_GATES)] = option(
        (), "a list of mappings of name and margin", "Means of metrics."
    )
    drift: Annotated[tuple[Name, ...], BeforeValidator(as_tuple), Field(max_length=MAX_GATES)] = option(
        (), f"a list of texts of 1 to {NAME} characters", "Drift against the baseline, such as inputs or predictions."
    )
    quality: Annotated[QualityGate | None, BeforeValidator(null_as_empty)] = option(
        None, "a mapping of margin and ratio", "Wrong answers, once labels come."
    )

    def named(self) -> dict[str, Gate]:
        """By the name that decisions use, in the order of the plan's reference."""
        found: list[tuple[str, Gate | None]] = [("errors", self.errors)]
        found += [(f"latency p{100 * gate.quantile:g}", gate) for gate in self.latency]
        found += [("agreement", self.agreement)]
        found += [(f"mean {gate.name}", gate) for gate in self.means]
        found += [(f"drift {name}", DriftGate(name=name)) for name in self.drift]
        found += [("quality", self.quality)]
        return {name: gate for name, gate in found if gate is not None}

    @property
    def count(self) -> int:
        single = sum(gate is not None for gate in (self.errors, self.agreement, self.quality))
        return single + len(self.latency) + len(self.means) + len(self.drift)
