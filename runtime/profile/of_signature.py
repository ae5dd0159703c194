"""A model's schema, from its graph and its settings."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping

from runtime.profile.schema import (
    CLASS,
    CONFIDENCE,
    MARGIN,
    PREDICTION,
    PROJECTIONS,
    REJECTED,
    Categories,
    Columns,
    Dense,
    Part,
    Predicted,
    Role,
    Sampled,
    Schema,
    Scores,
    Source,
    Text,
    Values,
    limits_of,
)
from runtime.repository.statistics_settings import MAX_CATEGORIES, FeatureSettings, StatisticsSettings
from runtime.types import ANY, Signature, TensorSpec

WHOLE = {"INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "BOOL"}
FLOATS = {"FP16", "BF16", "FP32", "FP64"}

SCORES = re.compile(r"(^|[_./-])(prob\w*|scores?|softmax|logits?)($|[_./-])|probab", re.IGNORECASE)
"""Names that exporters give to scores by class: probabilities, output_probability, scores, softmax_1."""

NAMES_KEYS = ("feature_names", "driftgate.feature_names")
"""Of the graph's metadata: a JSON list, or names with commas between them; for the first input of that many columns."""

CLASSES_KEY = "classes"
"""Of the graph's metadata: names of the classes, as NAMES_KEYS has those of features."""

UNNAMED_COLUMNS = 256
"""Inputs wider than this whose columns have no names are taken for embeddings."""

SAMPLED_COLUMNS = 256
"""Of an input too wide to be measured column by column, so many are, evenly spread."""

EACH_SCORE = 64
"""With more classes, the scores are summed up."""

MANY_FEATURES = 256
LG_K_FEW, LG_K_MANY = 12, 8
"""Distinct counts to 1.62 %; of more than MANY_FEATURES to 6.5 %, in a sixteenth of the memory."""

SAMPLE_VALUES = 65_536
"""Of the sample of rows: at most so many numbers."""


def column_names(signature: Signature, settings: StatisticsSettings) -> dict[str, list[str]]:
    """By input: the names of its columns, in their order, where settings or the graph have them."""
    return _names([(spec, _width(spec)) for spec in signature.inputs], settings.names, signature.metadata)


def schema_of(signature: Signature, settings: StatisticsSettings) -> Schema:
    """Which features there are and how each is measured. The same graph and settings give the same schema everywhere.

    Settings of features that are not there are told in `notes`; nothing is refused.
    """
    return _Maker(signature, settings).schema()


class _Maker:
    def __init__(self, signature: Signature, settings: StatisticsSettings) -> None:
        self._settings = settings
        self._inputs = [(spec, _width(spec)) for spec in signature.inputs]
        self._outputs = [(spec, _width(spec)) for spec in signature.outputs]
        self._metadata = signature.metadata
        self._named = _names(self._inputs, settings.names, signature.metadata)
        bare = Counter(name for spec, width in self._inputs for name in self._bare(spec, width))
        self._twice = {name for name, count in bare.items() if count > 1}
        self._taken = {CONFIDENCE, MARGIN, CLASS, REJECTED, PREDICTION} | _sums(signature)
        self._notes: list[str] = []
        self._used: set[str] = set()
        columns = sum(width for _, width in self._inputs)
        self._lg_k = LG_K_FEW if columns <= MANY_FEATURES else LG_K_MANY

    def schema(self) -> Schema:
        room = self._settings.max_features
        scores = self._scores()
        if scores is not None:
            self._taken.update(f"{scores.tensor}[{name}]" for name in scores.classes)
        inputs: list[Part] = []
        for spec, width in self._inputs:
            parts, room = self._tensor(spec, width, "input", room)
            inputs += parts
        inputs = _together(inputs, {spec.name: _rows_axis(spec) for spec, _ in self._inputs})
        room = self._settings.max_features  # of its own: a wide input must not take the outputs' place
        outputs: list[Part] = []
        for spec, width in self._outputs:
            if scores is None or spec.name != scores.tensor:
                parts, room = self._tensor(spec, width, "output", room)
                outputs += parts
        labelled = any(isinstance(part, Values | Categories) for part in outputs)
        if scores is not None:
            outputs.append(self._scores_part(scores, counted=not labelled))
        for name in sorted(self._settings.features.keys() - self._used):
            self._notes.append(f"statistics.features.{name}: the model has no feature of this name")
        prediction = _prediction(outputs)
        return Schema((*inputs, *outputs), prediction, self._sample(inputs, prediction), tuple(self._notes))

    def _bare(self, spec: TensorSpec, width: int) -> list[str]:
        if spec.name in self._named:
            return self._named[spec.name]
        return [spec.name] if width == 1 else [f"{spec.name}[{column}]" for column in range(min(width, 16_384))]

    def _names_of(self, spec: TensorSpec, width: int, role: Role) -> list[str]:
        """Each once in the schema: with the tensor's name before it, or `output`, or a number behind it if need be."""
        before = spec.name if role == "input" else "output"
        names = []
        for bare in self._bare(spec, width):
            name = f"{before}.{bare}" if bare in self._taken or (role == "input" and bare in self._twice) else bare
            if name in self._taken:
                name = next(other for i in itertools.count(2) if (other := f"{name}#{i}") not in self._taken)
            self._taken.add(name)
            names.append(name)
        return names

    def _of(self, name: str) -> FeatureSettings:
        settings = self._settings.features.get(name)
        if settings is None:
            return FeatureSettings()
        self._used.add(name)
        return settings

    def _tensor(self, spec: TensorSpec, width: int, role: Role, room: int) -> tuple[list[Part], int]:
        """The parts of a tensor, and how many columns may still be measured one by one."""
        if role == "output" and any(spec.name == of_input.name for of_input, _ in self._inputs):
            self._notes.append(f"{spec.name}: the output is the input of this name, and is measured as such")
            return [], room
        whole = self._of(spec.name)
        if whole.kind == "ignored":
            self._notes.append(f"{spec.name}: not measured, as model.yaml says")
            return [], room
        if spec.datatype == "BYTES":
            return self._texts(spec, width, role), room
        if width == 0 or _is_deep(spec) or (whole.kind == "dense" and width > 1):
            return [Dense(role, spec.name, spec.datatype, width)], room
        if width > UNNAMED_COLUMNS and spec.name not in self._named:
            self._notes.append(
                f"{spec.name}: {width} columns without names are taken for an embedding, and each row is summed up; "
                f"statistics.names.{spec.name} in model.yaml gives them names"
            )
            return [Dense(role, spec.name, spec.datatype, width)], room
        names = self._names_of(spec, width, role)
        if width > room:
            few = min(room, SAMPLED_COLUMNS)
            self._notes.append(
                f"{spec.name}: of its {width} columns {few}, evenly spread, are measured one by one, and each row is "
                f"summed up (statistics.max_features is {self._settings.max_features})"
            )
            picked = [at * width // few for at in range(few)] if few else []
            parts = self._numbers(spec, picked, [names[at] for at in picked], role, all_columns=False)
            return [*parts, Dense(role, spec.name, spec.datatype, width)], room - few
        return self._numbers(spec, list(range(width)), names, role, all_columns=True), room - width

    def _numbers(
        self, spec: TensorSpec, columns: list[int], names: list[str], role: Role, *, all_columns: bool
    ) -> list[Part]:
        plain: list[tuple[int, str]] = []
        parts: list[Part] = []
        limits = {}
        for column, name in zip(columns, names, strict=True):
            settings = self._of(name)
            if settings.kind == "ignored":
                all_columns = False
            elif settings.categories and not isinstance(settings.categories[0], str) and spec.datatype != "BF16":
                all_columns = False
                parts.append(Categories(role, name, spec.name, column, settings.categories, settings.missing))
            elif self._is_named(spec, role, name, settings):
                all_columns = False
                parts.append(Values(role, name, spec.name, column, texts=False, missing=settings.missing))
            else:
                plain.append((column, name))
                found = limits_of(*settings.range, settings.missing)
                if any(limit is not None for limit in found):
                    limits[name] = found
            if settings.kind == "text" or (settings.categories and isinstance(settings.categories[0], str)):
                self._notes.append(f"statistics.features.{name}: its values are numbers, and are measured as such")
        if plain:
            source = Source(spec.name, None if all_columns else tuple(column for column, _ in plain))
            kept = tuple(name for _, name in plain)
            parts.insert(0, Columns(role, spec.datatype, (source,), kept, self._lg_k, limits))
        return parts

    def _is_named(self, spec: TensorSpec, role: Role, name: str, settings: FeatureSettings) -> bool:
        """Whether a column's numbers are names: by its settings, else whole numbers among outputs are labels."""
        if settings.kind == "categorical" and spec.datatype == "BF16":
            self._notes.append(f"statistics.features.{name}: BF16 has no names for categories, so it is numeric")
            return False
        if settings.kind is not None:
            return settings.kind == "categorical"
        return role == "output" and spec.datatype in WHOLE - {"BOOL"}

    def _texts(self, spec: TensorSpec, width: int, role: Role) -> list[Part]:
        if width == 0 or width > SAMPLED_COLUMNS:
            (name,) = self._names_of(spec, 1, role)[:1] or [spec.name]
            return [Values(role, name, spec.name, -1, texts=True)]
        parts: list[Part] = []
        for column, name in enumerate(self._names_of(spec, width, role)):
            settings = self._of(name)
            if settings.kind == "text":
                parts.append(Text(role, name, spec.name, column))
            elif settings.categories:
                parts.append(Categories(role, name, spec.name, column, tuple(map(str, settings.categories))))
            elif settings.kind != "ignored":
                parts.append(Values(role, name, spec.name, column, texts=True))
        return parts

    def _scores(self) -> _Scored | None:
        """The output of scores by class: the one that settings name, else the only one that is called so."""
        floats = [(spec, width) for spec, width in self._outputs if spec.datatype in FLOATS and not _is_deep(spec)]
        wanted = self._settings.scores
        found = [(s, w) for s, w in floats if (s.name == wanted if wanted else w >= 2 and SCORES.search(s.name))]
        if wanted and not found:
            self._notes.append(f"statistics.scores: the model has no output {wanted} of numbers in columns")
        if len(found) != 1 or found[0][1] < 2:
            return None
        ((spec, width),) = found
        if width > MAX_CATEGORIES:
            self._notes.append(f"{spec.name}: {width} scores are not taken for classes: {MAX_CATEGORIES} at most are")
            return None
        kind = self._settings.features[spec.name].kind if spec.name in self._settings.features else None
        return _Scored(spec, self._classes(width)) if kind in (None, "numeric") else None

    def _scores_part(self, scores: _Scored, *, counted: bool) -> Scores:
        return Scores(
            scores.tensor,
            scores.classes,
            each=len(scores.classes) <= EACH_SCORE,
            counted=counted,
            reject_below=self._settings.reject_below,
            lg_k=self._lg_k,
            datatype=scores.datatype,
        )

    def _classes(self, width: int) -> tuple[str, ...]:
        """Of the settings, else of the graph's metadata, else numbers; each once."""
        given = self._settings.classes
        found = given or tuple(names_in(self._metadata.get(CLASSES_KEY, "")))
        if len(found) == width == len(set(found)):
            return found
        if given:
            self._notes.append(f"statistics.classes: expected {width} names that differ, got {len(given)}")
        return tuple(map(str, range(width)))

    def _sample(self, inputs: Iterable[Part], prediction: Predicted | None) -> Sampled:
        names = [name for part in inputs if isinstance(part, Columns) for name in part.names]
        if len(names) > SAMPLED_COLUMNS:
            names = [names[at * len(names) // SAMPLED_COLUMNS] for at in range(SAMPLED_COLUMNS)]
        if not names:
            return Sampled(0, ())
        rows = min(self._settings.sample_rows, SAMPLE_VALUES // (len(names) + (prediction is not None)))
        return Sampled(rows, tuple(names) if rows else ())


class _Scored:
    def __init__(self, spec: TensorSpec, classes: tuple[str, ...]) -> None:
        self.tensor, self.datatype, self.classes = spec.name, spec.datatype, classes


def _sums(signature: Signature) -> set[str]:
    """Names that the sums of dense rows have or might have, which no column gets."""
    sums = ("norm", "mean", "zeros", *(f"projection{i}" for i in range(PROJECTIONS)))
    return {f"{spec.name}.{of}" for spec in (*signature.inputs, *signature.outputs) for of in sums}


def _is_deep(spec: TensorSpec) -> bool:
    """An image, a sequence of vectors: more than rows and columns, with more than one number in a row."""
    return len(spec.shape) > 2 and _width(spec) != 1


def _width(spec: TensorSpec) -> int:
    """Numbers in a row; 0: it varies."""
    if spec.any_rank:
        return 0
    width = 1
    for size in spec.shape[1:]:
        if size == ANY:
            return 0
        width *= size
    return width


def _names(
    inputs: list[tuple[TensorSpec, int]], given: Mapping[str, tuple[str, ...]], metadata: Mapping[str, str]
) -> dict[str, list[str]]:
    """Names of columns by tensor, where there are as many as columns and each is there once."""
    named: dict[str, list[str]] = {}
    for spec, width in inputs:
        names = list(given.get(spec.name, ()))
        if not names:
            names = next(
                (n for key in NAMES_KEYS if len(n := names_in(metadata.get(key, ""))) == width and width > 1), []
            )
            if names in named.values():
                names = []
        if len(names) == width and len(set(names)) == width and all(names):
            named[spec.name] = names
    return named


def names_in(text: str) -> list[str]:
    """Of a JSON list, or with commas between them; none where it is neither."""
    if text.lstrip().startswith("["):
        try:
            names = json.loads(text)
        except ValueError:
            return []
        return [str(name)[:256] for name in names] if isinstance(names, list) else []
    return [name.strip()[:256] for name in text.split(",")] if text.strip() else []


def _rows_axis(spec: TensorSpec) -> tuple[int, ...]:
    """Equal for tensors that may have the same rows: () for a scalar, else the size of axis 0, or ANY."""
    return spec.shape[:1]


def _together(parts: list[Part], axes: Mapping[str, tuple[int, ...]]) -> list[Part]:
    """Columns of one datatype in one part, so that a model of thirty inputs costs as much as one of thirty columns.

    `axes`: of each input; a scalar that belongs to the whole request has no rows to lie beside.
    """
    wide = [part for part in parts if isinstance(part, Columns)]
    joined: list[Part] = []
    alike = [(part.datatype, axes[part.sources[0].tensor]) for part in wide]
    for kind in dict.fromkeys(alike):
        same = [part for part, its in zip(wide, alike, strict=True) if its == kind]
        if len(same) == 1:
            joined.append(same[0])
            continue
        sources = tuple(
            Source(part.sources[0].tensor, part.sources[0].columns or tuple(range(len(part.names)))) for part in same
        )
        names = tuple(name for part in same for name in part.names)
        limits = {name: limit for part in same for name, limit in part.limits.items()}
        joined.append(Columns("input", same[0].datatype, sources, names, same[0].lg_k, limits))
    return [*joined, *(part for part in parts if not isinstance(part, Columns))]


def _prediction(outputs: list[Part]) -> Predicted | None:
    """The score of the second of two classes, the greatest of more, or the first number that the model gives."""
    for part in outputs:
        if isinstance(part, Scores):
            return Predicted(part.tensor, 1 if len(part.classes) == 2 else -1)
    for part in outputs:
        if isinstance(part, Columns):
            source = part.sources[0]
            return Predicted(source.tensor, source.columns[0] if source.columns else 0)
    for part in outputs:
        if isinstance(part, Values | Categories) and not getattr(part, "texts", False) and part.column >= 0:
            declared = getattr(part, "declared", (0,))
            if not isinstance(declared[0], str):
                return Predicted(part.tensor, part.column)
    return None
