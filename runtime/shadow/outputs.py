"""Which outputs of a model predict a class, and what its inputs' columns are called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from runtime.profile.of_signature import column_names, schema_of
from runtime.profile.schema import Categories, Scores, Values
from runtime.repository.statistics_settings import StatisticsSettings
from runtime.types import Signature

MAX_LABEL_COLUMNS = 16
"""Of one output: the labels of a row together are its class. With more of them two rows hardly ever have the same."""


class Predicts(Enum):
    """How an output says a row's class."""

    NOTHING = "nothing"
    LABEL = "label"
    SCORES = "scores"


@dataclass(frozen=True, slots=True)
class ComparableOutput:
    """`columns`: of LABEL, where the labels are. `classes`: of SCORES, the name of each column's class."""

    name: str
    datatype: str
    predicts: Predicts = Predicts.NOTHING
    columns: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ComparableOutputs:
    """`ignored`: outputs that model.yaml asks not to measure; they are not compared. `input_names`: names of an input's
    columns, where settings or the graph have them. `inputs`: datatypes by name.
    """

    outputs: Mapping[str, ComparableOutput]
    ignored: frozenset[str] = frozenset()
    inputs: Mapping[str, str] = field(default_factory=dict)
    input_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def predict(self) -> bool:
        """Whether any output says a class: then rows agree by that alone."""
        return any(output.predicts is not Predicts.NOTHING for output in self.outputs.values())


def comparable_outputs(signature: Signature, settings: StatisticsSettings) -> ComparableOutputs:
    """By the same rules by which statistics find labels and scores: `runtime.profile.of_signature`."""
    labels: dict[str, list[int]] = {}
    scores: dict[str, tuple[str, ...]] = {}
    for part in schema_of(signature, settings).parts:
        if isinstance(part, Scores):
            scores[part.tensor] = part.classes
        elif isinstance(part, Values | Categories) and part.role == "output" and part.column >= 0:
            labels.setdefault(part.tensor, []).append(part.column)
    outputs = {}
    for spec in signature.outputs:
        output = ComparableOutput(spec.name, spec.datatype)
        columns = tuple(labels.get(spec.name, ()))
        if spec.name in scores:
            output = replace(output, predicts=Predicts.SCORES, classes=scores[spec.name])
        elif 0 < len(columns) <= MAX_LABEL_COLUMNS:
            output = replace(output, predicts=Predicts.LABEL, columns=columns)
        outputs[spec.name] = output
    ignored = {name for name in outputs if name in settings.features and settings.features[name].kind == "ignored"}
    return ComparableOutputs(
        {name: output for name, output in outputs.items() if name not in ignored},
        frozenset(ignored),
        {spec.name: spec.datatype for spec in signature.inputs},
        {name: tuple(names) for name, names in column_names(signature, settings).items()},
    )
