"""The metrics of driftgate as data: metrics.yaml, read and checked as a whole."""

from __future__ import annotations

import functools
import re
from enum import StrEnum
from importlib import resources
from typing import Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from gateway.telemetry.conventions import ATTRIBUTES, METRIC, Attribute
from runtime.shm.series_layout import CLASSIC_SECONDS

FILE = "metrics.yaml"
NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")
UNIT = re.compile(r"s|By|1|\{[a-z_]+\}")
SYNCHRONOUS = ("series.", "durations.")
"""Sources that are counted at the moment something happens; the others are looked at when a snapshot is taken."""


class MetricsInvalid(ValueError):
    """metrics.yaml is not what it has to be: a bug, found when the gateway starts."""


class Kind(StrEnum):
    COUNTER = "counter"
    UP_DOWN_COUNTER = "up_down_counter"
    GAUGE = "gauge"
    EXPONENTIAL_HISTOGRAM = "exponential_histogram"


class Instrument(BaseModel):
    """One metric, as metrics.yaml declares it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=f"^{NAME.pattern}$")
    kind: Kind = Field(alias="instrument")
    unit: str = Field(pattern=f"^({UNIT.pattern})$")
    description: str = Field(pattern=r"\.$")
    attributes: tuple[str, ...]
    source: str
    prometheus_buckets: Literal["counted", "none"] | tuple[int, int] | None = None

    @model_validator(mode="after")
    def _buckets(self) -> Self:
        if (self.kind is Kind.EXPONENTIAL_HISTOGRAM) != (self.prometheus_buckets is not None):
            raise ValueError(f"{self.name}: prometheus_buckets belong to exponential histograms, and to each of them")
        if isinstance(self.prometheus_buckets, tuple) and self.prometheus_buckets[0] > self.prometheus_buckets[1]:
            raise ValueError(f"{self.name}: expected prometheus_buckets [low, high], got {self.prometheus_buckets}")
        return self

    @property
    def is_observed(self) -> bool:
        """Whether OpenTelemetry would call the instrument asynchronous."""
        return not self.source.startswith(SYNCHRONOUS)

    @property
    def in_prometheus(self) -> bool:
        return self.prometheus_buckets != "none"

    @property
    def bounds(self) -> tuple[float, ...]:
        """Of the classic buckets, without +Inf; () where there are none."""
        if self.prometheus_buckets in (None, "none"):
            return ()
        if isinstance(self.prometheus_buckets, str):
            return CLASSIC_SECONDS
        low, high = self.prometheus_buckets
        return tuple(2.0**exponent for exponent in range(low, high + 1))


class _OwnAttribute(BaseModel):
    model_config = ConfigDict(extra="forbid")

    key: str = Field(pattern=f"^{NAME.pattern}$")
    kind: Literal["string", "int", "double", "bool"]
    text: str = Field(pattern=r"\.$")


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    attributes: tuple[_OwnAttribute, ...]
    metrics: tuple[Instrument, ...]

    @field_validator("metrics")
    @classmethod
    def _names(cls, metrics: tuple[Instrument, ...]) -> tuple[Instrument, ...]:
        names = [metric.name for metric in metrics]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{name} is declared more than once")
            if any(other.startswith(f"{name}.") for other in names):
                raise ValueError(f"{name} is a metric and a namespace of others")
        return metrics

    @model_validator(mode="after")
    def _attributes(self) -> Self:
        shared = {attribute.key: attribute for attribute in ATTRIBUTES}
        own = [attribute.key for attribute in self.attributes]
        for key in own:
            if key in shared or own.count(key) > 1:
                raise ValueError(f"attribute {key} is declared more than once")
        for metric in self.metrics:
            for key in metric.attributes:
                if key not in own and (key not in shared or METRIC not in shared[key].on):
                    raise ValueError(f"{metric.name}: no metric may carry an attribute {key}")
        return self


def parse(text: str) -> tuple[tuple[Instrument, ...], tuple[Attribute, ...]]:
    """The instruments, and the attributes that only they carry. Raises MetricsInvalid, naming every fault."""
    try:
        file = _File.model_validate(yaml.safe_load(text))
    except (yaml.YAMLError, ValidationError) as error:
        raise MetricsInvalid(f"{FILE}: {error}") from error
    own = tuple(Attribute(a.key, a.kind, (METRIC,), a.text) for a in file.attributes)
    return file.metrics, own


@functools.cache
def load() -> tuple[tuple[Instrument, ...], tuple[Attribute, ...]]:
    """What the package holds. Raises MetricsInvalid."""
    return parse((resources.files(__package__) / FILE).read_text(encoding="utf-8"))


def instruments() -> tuple[Instrument, ...]:
    """In the order of the file."""
    return load()[0]
