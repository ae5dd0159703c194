"""The sections `statistics` and `drift` of model.yaml: what is measured, and what counts as drift."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from runtime.repository.fields import Section, as_tuple, integer, null_as_empty, option

MAX_NAMED = 16_384
"""Names of features in one model.yaml."""

MAX_CATEGORIES = 4_096
MAX_NAME = 256
"""Characters of a feature's name."""


def _as_range(value: Any) -> Any:
    """[low, high], where null is no bound."""
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError
    low, high = (
        default if bound is None else bound for bound, default in zip(value, (-math.inf, math.inf), strict=True)
    )
    if any(isinstance(bound, bool) or not isinstance(bound, int | float) for bound in (low, high)) or not low <= high:
        raise ValueError
    return float(low), float(high)


def _as_categories(value: Any) -> Any:
    if value == []:  # none are declared
        return ()
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_CATEGORIES or len(set(map(str, value))) != len(value):
        raise ValueError
    if not (all(isinstance(name, str) for name in value) or all(_is_int64(name) for name in value)):
        raise ValueError
    return tuple(value)


def _is_int64(value: Any) -> bool:
    return type(value) is int and -(1 << 63) <= value < 1 << 63


def _as_number(value: Any) -> Any:
    return float(value) if type(value) is int else value


Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
Names = Annotated[tuple[Name, ...], BeforeValidator(as_tuple), Field(max_length=MAX_NAMED)]
Range = Annotated[tuple[float, float], BeforeValidator(_as_range)]
Categories = Annotated[tuple[str, ...] | tuple[int, ...], BeforeValidator(_as_categories)]
Number = Annotated[float, BeforeValidator(_as_number), Field(allow_inf_nan=False)]
Kind = Literal["numeric", "categorical", "text", "dense", "ignored"]


class FeatureSettings(Section):
    """One feature's. Its kind by default: numbers are numeric, booleans boolean, strings categorical."""

    kind: Kind | None = None
    range: Range = (-math.inf, math.inf)
    missing: Number | None = None
    categories: Categories = ()


FEATURE = (
    "a mapping of any of kind (numeric, categorical, text, dense, ignored), range ([low, high]), "
    "missing (the number that stands for a missing value) and categories (a list of texts or of integers)"
)


class StatisticsSettings(Section):
    enabled: bool = option(True, "true or false", "Whether inputs and outputs are measured.")
    names: Annotated[dict[str, Names], BeforeValidator(null_as_empty)] = option(
        {}, "a mapping of tensor to a list of names", "Names of a tensor's columns; the graph may have them too.",
        items=f"a list of up to {MAX_NAMED} texts of 1 to {MAX_NAME} characters",
    )  # fmt: skip
    features: Annotated[dict[str, FeatureSettings], BeforeValidator(null_as_empty)] = option(
        {}, "a mapping of feature to its settings", "Kind, allowed range, missing value and categories of features.",
        items=FEATURE,
    )  # fmt: skip
    scores: str = option("", "the name of an output", "The output with one score for each class; '': by its name.")
    classes: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = option(
        (), "a list of texts", "Names of the classes, in the order of the scores."
    )
    reject_below: Annotated[float, BeforeValidator(_as_number)] | None = option(
        None, "a number 0..1, or null", "Predictions less confident than this are counted as rejected.", ge=0, le=1
    )
    max_features: int = integer(
        1024, 1, 16_384, "Columns that are measured one by one; of wider inputs a sample is, and a summary of each row."
    )
    sample_rows: int = integer(
        512, 0, 16_384, "Rows of each pane that are kept as they are, for tests of all features together; 0: none."
    )


def _as_thresholds(value: Any) -> Any:
    value = null_as_empty(value)
    if not isinstance(value, dict):
        return value
    return {name: float(bound) if type(bound) is int else bound for name, bound in value.items()}


Measure = Literal["psi", "js_distance", "ks", "wasserstein", "rate", "correlation", "separation"]
Positive = Annotated[float, Field(gt=0, le=1e9)]


class DriftSettings(Section):
    enabled: bool = option(True, "true or false", "Whether live traffic is compared with the reference.")
    window_seconds: int | None = option(
        None, "one of the gateway's statistics.windows_seconds, or null", "The window looked at; null: the gateway's.",
        ge=1, le=31_536_000,
    )  # fmt: skip
    level: float = option(
        0.05, "a number between 0 and 1", "Probability of any false alarm within a day of looks.", gt=0, lt=1
    )
    thresholds: Annotated[dict[Measure, Positive], BeforeValidator(_as_thresholds)] = option(
        {},
        "a mapping of measure to a number above 0",
        "From which effect on a change matters.",
        items="a number above 0",
        keys="psi, js_distance, ks, wasserstein, rate, correlation or separation",
    )
    raise_looks: int = integer(2, 1, 1000, "Looks with drift in a row that raise an alarm.")
    clear_looks: int = integer(6, 1, 1000, "Looks without drift in a row that clear it.")
    classifier: bool = option(True, "true or false", "Whether all features together are tested, on the rows kept.")
