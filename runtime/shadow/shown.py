"""What is kept to read of a row that disagrees: its outputs, and its inputs where the route asks for them.

All texts are bounded, for they are kept by the dozen in each pane and sent each second.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.profile.parts import rows_of
from runtime.shadow.outputs import ComparableOutputs
from runtime.shadow.pair import PairSettings

Array = npt.NDArray[Any]

MOST_NUMBERS = 8
"""Of an output's row."""

MOST_CHARACTERS = 200
"""Of an output's row, of one input's text."""

MOST_INPUT_BYTES = 4_096
"""Of a row's inputs as JSON; features beyond it are counted, not named."""

REDACTED = "(redacted)"

_PLACE = re.compile(r"(0|[1-9][0-9]*)\]")
_NUMBER = re.compile(r"(?<!\w)[-+]?\.?[0-9][\w.+-]*")


class Redaction:
    """`names`: features by name, or by tensor and name or place ("x.age", "x[3]"), or whole inputs and outputs.

    A name that is nowhere may be a misspelt one: then no input and no output is shown at all.
    """

    def __init__(self, names: Sequence[str], outputs: ComparableOutputs) -> None:
        self._names = frozenset(names)
        known = {*outputs.outputs, *outputs.inputs, *outputs.ignored}
        for tensor, columns in outputs.input_names.items():
            for place, name in enumerate(columns):
                known.update(_aliases(tensor, name, place))
        self.unknown = tuple(sorted(name for name in self._names - known if not _is_place(name, outputs)))

    @property
    def withheld(self) -> str:
        """Why nothing is shown; "" if it is."""
        names = ", ".join(self.unknown)[:MOST_CHARACTERS]
        return f"redact names features that the model has not: {names}" if names else ""

    def in_place_of(self, output: str) -> str:
        """What is shown for an output's values and classes; "": they themselves."""
        return self.withheld or (REDACTED if output in self._names else "")

    def hides(self, tensor: str, name: str, place: int) -> bool:
        return tensor in self._names or not self._names.isdisjoint(_aliases(tensor, name, place))

    def is_of_columns(self, tensor: str, columns: Sequence[str]) -> bool:
        """Whether any of the input's columns is hidden, by name or by place."""
        by_place = any(name.startswith(f"{tensor}[") for name in self._names)
        return by_place or any(self.hides(tensor, name, -1) for name in columns)


def _aliases(tensor: str, name: str, place: int) -> tuple[str, str, str]:
    return name, f"{tensor}.{name}", f"{tensor}[{place}]"


def _is_place(name: str, outputs: ComparableOutputs) -> bool:
    """Whether it is "tensor[3]" of an input; how many columns there are is not known of all."""
    tensor, bracket, place = name.partition("[")
    return bool(bracket) and tensor in outputs.inputs and _PLACE.fullmatch(place) is not None


def inputs_text(
    inputs: Mapping[str, Array], row: int, outputs: ComparableOutputs, redaction: Redaction, *, batched: bool
) -> str:
    """A row's inputs as JSON, by feature; null: redacted. NaN and infinities are texts."""
    if redaction.withheld:
        return _json({"(withheld)": redaction.withheld})
    shown: dict[str, Any] = {}
    used, left_out = 2, 0
    for name, value in _features(inputs, row, outputs, redaction, batched=batched):
        size = len(_json({name: value})) + 1
        if left_out or used + size > MOST_INPUT_BYTES:
            left_out += 1
            continue
        shown[name] = value
        used += size
    if left_out:
        shown["(left out)"] = left_out
    return _json(shown)


def _features(
    inputs: Mapping[str, Array], row: int, outputs: ComparableOutputs, redaction: Redaction, *, batched: bool
) -> Iterator[tuple[str, Any]]:
    taken: set[str] = set()
    for tensor, array in inputs.items():
        values = rows_of(array if batched else array.reshape(1, -1), outputs.inputs.get(tensor, ""))
        if row >= len(values):
            continue  # it has no rows: it belongs to the run
        names = outputs.input_names.get(tensor, ())
        width = values.shape[1]
        strange = len(names) not in (0, width) or (not batched and array.ndim > 0 and array.shape[0] != 1)
        lost = strange and redaction.is_of_columns(tensor, names)  # it is not known which of these numbers they are
        for place, value in enumerate(values[row].tolist()):
            bare = names[place] if len(names) == width else (tensor if width == 1 else f"{tensor}[{place}]")
            name = f"{tensor}.{bare}" if bare in taken else bare
            taken.add(name)
            yield name, None if lost or redaction.hides(tensor, bare, place) else _plain(value)


def failure_text(why: str, inputs: Mapping[str, Array], settings: PairSettings) -> str:
    """What a library says of a failed run, without what it may quote of the inputs, where these are not to be kept.

    Texts that inputs hold, and all numbers that stand alone: a library says "idx=17" and "{17}" of values.
    """
    if settings.inputs and not settings.redact:
        return why
    for array in inputs.values():
        if array.dtype == np.dtype(object):
            for text in {text for text in array.ravel().tolist() if text and text in why}:
                why = re.sub(rf"(?<!\w){re.escape(text)}(?!\w)", REDACTED, why)
    return _NUMBER.sub("#", why)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value[:MOST_CHARACTERS] if isinstance(value, str) else value


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=True, allow_nan=False)  # lone surrogates are escaped


def row_text(values: Array) -> str:
    """A row of an output: any[width]."""
    flat = values.reshape(-1)
    some = [_number(value) for value in flat[:MOST_NUMBERS].tolist()]
    more = [f"and {flat.size - MOST_NUMBERS} more"] if flat.size > MOST_NUMBERS else []
    return ", ".join(some + more)[:MOST_CHARACTERS]


def scores_text(scores: Array, classes: Sequence[str], place: int) -> str:
    """scores: [classes] of a row; place: of the greatest, -1 where there is none."""
    if place < 0:
        return row_text(scores)
    return f"{classes[place][:MOST_CHARACTERS]} ({_number(float(scores[place]))})"


def _number(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.7g}"  # two floats of 32 bits that differ by the tolerance differ here


def kind_text(array: Array | None) -> str:
    """Of an output that cannot be compared."""
    if array is None:
        return "no such output"
    dtype = "texts" if array.dtype == np.dtype(object) else str(array.dtype)
    return f"{dtype}{list(array.shape)}"
