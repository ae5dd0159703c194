"""The shadows of a route's document.

shadows:
  - to: 8                 # the version or label that gets copies
    percent: 10           # of the runs whose requests are copied; left out: 100
    of: stable            # only of requests that this version or label answered; left out: of all others
    tolerance: {absolute: 1e-6, relative: 1e-4}     # floats that differ by no more agree
    worst: 16             # so many of the worst disagreements are kept
    inputs: true          # with their inputs,
    redact: [age, name]   # but for these features
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from runtime.routing.reading import Reader, encodes, plain, under
from runtime.routing.route import Shadow

SHADOWS_LIMIT = 4
"""Each runs what it gets a copy of once more."""

WORST_LIMIT = 256
"""Disagreements that are kept of a pair of versions, each with its inputs if these are asked for."""

REDACTED_LIMIT = 256
REDACTED_NAME_LIMIT = 256
"""Characters of a feature's name, as in model.yaml."""

_KEYS = ("to", "percent", "of", "tolerance", "worst", "inputs", "redact")
LEAST_PERCENT = 1e-6
"""One run of a hundred million."""

_PERCENT = f"a number {LEAST_PERCENT:g}..100"
_TOLERANCE = "a number of 0 or more"


def read_shadows(reader: Reader, document: object, path: str, limit: int) -> tuple[Shadow, ...]:
    if document is None:
        return ()
    if not isinstance(document, list) or len(document) > limit:
        count = f"{len(document)} shadows" if isinstance(document, list) else document
        reader.wrong(path, f"a list of at most {limit} shadows", count)
        return ()
    shadows = []
    first: dict[str, int] = {}
    for index, item in enumerate(document):
        shadow = _shadow(reader, item, f"{path}[{index}]")
        if shadow.target and shadow.target in first:
            taken = f"{shadow.target!r} is already the target of shadow {first[shadow.target]}"
            reader.problems.append(f"{path}[{index}].to: {taken}: give each target once")
        first.setdefault(shadow.target, index)
        shadows.append(shadow)
    return tuple(shadows)


def shadow_document(shadow: Shadow) -> dict[str, Any]:
    """What `read_shadows` reads back as an equal shadow; what is as by default is left out."""
    standard = Shadow(shadow.target)
    document: dict[str, Any] = {"to": shadow.target}
    if shadow.share != standard.share:
        document["percent"] = plain(_percent(shadow.share))
    if shadow.of:
        document["of"] = shadow.of
    pairs = (("absolute", shadow.absolute, standard.absolute), ("relative", shadow.relative, standard.relative))
    tolerance = {name: plain(value) for name, value, usual in pairs if value != usual}
    if tolerance:
        document["tolerance"] = tolerance
    if shadow.worst != standard.worst:
        document["worst"] = shadow.worst
    if shadow.inputs:
        document["inputs"] = True
    if shadow.redact:
        document["redact"] = list(shadow.redact)
    return document


def _percent(share: float) -> float:
    """The percentage that `share` was read from, as far as there is one: 100 * (7 / 100) is not 7."""
    exact = share * 100
    candidates = (float(f"{exact:.15g}"), exact, math.nextafter(exact, 0), math.nextafter(exact, 200))
    return next((percent for percent in candidates if percent / 100 == share), exact)


def _shadow(reader: Reader, document: object, path: str) -> Shadow:
    fields = reader.known(document, path, _KEYS)
    if not isinstance(document, dict):
        return Shadow("")
    target = reader.target(fields.get("to"), under(path, "to"))
    of = reader.target(fields["of"], under(path, "of")) if fields.get("of") is not None else ""
    if target and of == target:
        reader.problems.append(f"{under(path, 'of')}: {of!r} would get copies of its own requests: name another")
    percent = _number(
        reader, fields.get("percent"), under(path, "percent"), _PERCENT, 100.0, least=LEAST_PERCENT, most=100
    )
    worst, inputs = fields.get("worst"), fields.get("inputs")
    if worst is not None and not (type(worst) is int and 0 <= worst <= WORST_LIMIT):
        reader.wrong(under(path, "worst"), f"an integer 0..{WORST_LIMIT}", worst)
        worst = None
    if inputs is not None and not isinstance(inputs, bool):
        reader.wrong(under(path, "inputs"), "true or false", inputs)
        inputs = None
    absolute, relative = _tolerance(reader, fields.get("tolerance"), under(path, "tolerance"))
    redact = _redacted(reader, fields.get("redact"), under(path, "redact"))
    standard = Shadow(target)
    return Shadow(
        target, percent / 100, of, absolute, relative, standard.worst if worst is None else worst, bool(inputs), redact
    )


def _tolerance(reader: Reader, document: object, path: str) -> tuple[float, float]:
    standard = Shadow("")
    fields: Mapping[Any, Any] = {} if document is None else reader.known(document, path, ("absolute", "relative"))
    absolute, relative = (
        _number(reader, fields.get(name), under(path, name), _TOLERANCE, usual, least=0, most=1e308)
        for name, usual in (("absolute", standard.absolute), ("relative", standard.relative))
    )
    return absolute, relative


def _redacted(reader: Reader, document: object, path: str) -> tuple[str, ...]:
    if document is None:
        return ()
    if not isinstance(document, list) or len(document) > REDACTED_LIMIT:
        count = f"{len(document)} names" if isinstance(document, list) else document
        reader.wrong(path, f"a list of at most {REDACTED_LIMIT} names of features", count)
        return ()
    names: list[str] = []
    for index, name in enumerate(document):
        if not isinstance(name, str) or not 1 <= len(name) <= REDACTED_NAME_LIMIT or not encodes(name):
            reader.wrong(f"{path}[{index}]", f"a name of 1 to {REDACTED_NAME_LIMIT} characters", name)
        elif name in names:
            reader.problems.append(f"{path}[{index}]: {name!r} is given twice")
        else:
            names.append(name)
    return tuple(names)


def _number(
    reader: Reader, value: object, path: str, expected: str, usual: float, *, least: float, most: float
) -> float:
    """`usual` in place of what is left out, or wrong."""
    if value is None:
        return usual
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        reader.wrong(path, expected, value)
        return usual
    return float(value)
