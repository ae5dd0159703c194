"""A model's settings: `<model>/model.yaml`.

Every setting has a default, so the file is optional and so is each line of it. A file with anything wrong in it is
refused as a whole, and every problem is named at once.
"""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from runtime.errors import LoadError
from runtime.repository.document import describe, read_document
from runtime.repository.fields import Section, as_tuple, integer, null_as_empty, option, section
from runtime.repository.layout import LABEL_PATTERN, VERSION_LIMIT, is_partial, version_number
from runtime.repository.policy import VersionPolicy
from runtime.repository.statistics_settings import DriftSettings, StatisticsSettings
from runtime.routing.document import read_route
from runtime.routing.route import Route

BATCH_LIMIT_ROWS = 65_536
ROUTE_WRONG = "route_wrong"
PROBLEMS_LIMIT = 100  # in one message; a file with more is not a manifest


class ManifestError(LoadError):
    """A model.yaml with problems; `problems` holds one line for each: where, what is expected, what came."""

    reason = "MANIFEST_INVALID"

    def __init__(self, source: str, problems: list[str]) -> None:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(f"{source} has {count}:\n" + ";\n".join(problems[:PROBLEMS_LIMIT]), field=source)
        self.problems = tuple(problems)


def _integers_as_text(value: Any) -> Any:
    """Integers as their digits, which is how they were written; other scalars lose what was written (1.10, yes)."""
    value = null_as_empty(value)
    if not isinstance(value, dict):
        return value
    return {key: str(item) if type(item) is int else item for key, item in value.items()}


def _as_policy(value: Any) -> Any:
    match value:
        case "all" | "latest":
            return VersionPolicy(value)
        case {"latest": count, **rest} if not rest and _is_version(count):
            return VersionPolicy("latest", count=count)
        case {"specific": [*versions], **rest} if not rest and versions and all(map(_is_version, versions)):
            return VersionPolicy("specific", versions=tuple(sorted(set(versions))))
    return value


def _is_version(value: Any) -> bool:
    return type(value) is int and 1 <= value <= VERSION_LIMIT


def _as_default(value: Any) -> Any:
    text = str(value) if type(value) is int else value
    if isinstance(text, str) and text and version_number(text) is None and LABEL_PATTERN.fullmatch(text) is None:
        raise ValueError
    return text


def _as_route(value: Any) -> Any:
    """A route has problems of its own, each with its place: they go along with the error."""
    if isinstance(value, Route):
        return value
    route, problems = read_route(value, "route")
    if problems:
        raise PydanticCustomError(ROUTE_WRONG, "the route is wrong", {"problems": problems})
    return route


def _as_file_name(value: Any) -> Any:
    if isinstance(value, str) and (not re.fullmatch(r"[^/\\\x00-\x1f]{1,255}", value) or is_partial(value)):
        raise ValueError
    return value


def _as_providers(value: Any) -> Any:
    if not isinstance(value, list) or not value:
        raise ValueError
    providers: list[tuple[str, dict[str, str]]] = []
    for item in value:
        match item:
            case str() if item:
                providers.append((item, {}))
            case dict() if len(item) == 1:
                ((name, options),) = item.items()
                options = _integers_as_text(options)
                if not isinstance(options, dict) or not name or not isinstance(name, str):
                    raise ValueError
                if not all(isinstance(text, str) for pair in options.items() for text in pair):
                    raise ValueError
                providers.append((name, options))
            case _:
                raise ValueError
    return tuple(providers)


Version = Annotated[int, Field(ge=1, le=VERSION_LIMIT)]
Label = Annotated[str, Field(pattern=rf"\A{LABEL_PATTERN.pattern}\z")]
Labels = Annotated[dict[Label, Version], BeforeValidator(null_as_empty)]
Texts = Annotated[dict[str, str], BeforeValidator(_integers_as_text)]
BatchSize = Annotated[int, Field(ge=1, le=BATCH_LIMIT_ROWS)]
BatchSizes = Annotated[tuple[BatchSize, ...], BeforeValidator(as_tuple)]
Providers = Annotated[tuple[tuple[str, dict[str, str]], ...], BeforeValidator(_as_providers)]


class BatchingSettings(Section):
    max_batch_size: int | None = integer(
        None, 0, BATCH_LIMIT_ROWS, "Rows per run at most; 0 never batches, null leaves it to the graph."
    )
    max_queue_delay_seconds: float = option(
        0.0, "a number of seconds 0..10", "How long a request may wait for others to share its run.", ge=0, le=10
    )
    max_queue_requests: int = integer(1024, 1, 1_000_000, "Requests that may wait; further ones are refused.")


class SessionSettings(Section):
    intra_op_threads: int = integer(1, 1, 256, "Threads that share one operator.")
    inter_op_threads: int = integer(1, 1, 256, "Threads that share one graph, if execution is parallel.")
    execution: Literal["sequential", "parallel"] = option(
        "sequential", "'sequential' or 'parallel'", "Whether operators of one graph run one after another."
    )
    graph_optimization: Literal["disabled", "basic", "extended", "all"] = option(
        "all", "'disabled', 'basic', 'extended' or 'all'", "How far ONNX Runtime rewrites the graph at load."
    )
    memory_arena: bool = option(True, "true or false", "Whether freed tensors' memory is kept for the next run.")
    spinning: bool = option(False, "true or false", "Whether idle threads spin: quicker to start, at a core's cost.")
    execution_providers: Providers = option(
        (("CPUExecutionProvider", {}),),
        "a list of provider names, or of {name: {option: text}}",
        "ONNX Runtime's execution providers, in order of preference.",
    )
    config: Texts = option(
        {}, "a mapping of text to text", "ONNX Runtime's session config entries.", items="a text (put it in quotes)"
    )


class WarmupSettings(Section):
    enabled: bool = option(True, "true or false", "Whether a version is run before it takes requests.")
    batch_sizes: BatchSizes | None = option(
        None,
        "a list of batch sizes, or null",
        "Rows of each warm-up run; null leaves them to the graph.",
        items=f"an integer 1..{BATCH_LIMIT_ROWS}",
    )
    file: Annotated[str, BeforeValidator(_as_file_name)] = option(
        "warmup.npz", "the name of a file in the version's folder", "Inputs to warm up with, if it is there."
    )
    free_axis_size: int = integer(8, 1, 4096, "Size of axes that the graph leaves open, where the file gives none.")
    runs: int = integer(1, 1, 100, "Runs per batch size.")
    limit_seconds: float = option(
        120.0, "a number of seconds 0.1..3600", "A warm-up that takes longer is stopped, and the load refused.",
        ge=0.1, le=3600,
    )  # fmt: skip


Batching = Annotated[BatchingSettings, BeforeValidator(null_as_empty)]
Session = Annotated[SessionSettings, BeforeValidator(null_as_empty)]
Warmup = Annotated[WarmupSettings, BeforeValidator(null_as_empty)]
Statistics = Annotated[StatisticsSettings, BeforeValidator(null_as_empty)]
Drift = Annotated[DriftSettings, BeforeValidator(null_as_empty)]


class Manifest(Section):
    versions: Annotated[VersionPolicy, BeforeValidator(_as_policy)] = option(
        VersionPolicy(),
        "all, latest, {latest: how many} or {specific: [versions]}, with numbers of 1 and more",
        "Which versions are served.",
    )
    labels: Labels = option(
        {},
        "a mapping of label to version",
        "Names for versions, which requests may use in place of numbers.",
        items="a version: an integer of 1 or more",
        keys="a label: a letter, then up to 62 letters, digits, '.', '_' or '-'",
    )
    default: Annotated[str, BeforeValidator(_as_default)] = option(
        "", "a version's number, a label, or ''", "What answers requests that name no version; '' is the newest served."
    )
    route: Annotated[Route, BeforeValidator(_as_route)] = option(
        Route(),
        "a route",
        "Where requests go that name no version, and who gets copies of them; {} is the default alone.",
    )
    batching: Batching = section(BatchingSettings, "How requests share runs.")
    session: Session = section(SessionSettings, "How ONNX Runtime runs the graph.")
    warmup: Warmup = section(WarmupSettings, "What runs before a version takes requests.")
    statistics: Statistics = section(StatisticsSettings, "What is measured of inputs and outputs.")
    drift: Drift = section(DriftSettings, "When live traffic counts as having left the reference.")
    instances: int = integer(1, 1, 64, "Runs that may be under way at once in each worker.")
    description: str = option("", "a text", "For people.")
    metadata: Texts = option({}, "a mapping of text to text", "For other tools.", items="a text (put it in quotes)")


def parse_manifest(text: str, source: str) -> Manifest:
    """The manifest in `text`; ManifestError, with every problem, under the name `source`."""
    document, problems = read_document(text)
    return manifest_of(document, source, problems)


def manifest_of(document: dict[Any, Any], source: str, problems: list[str] | None = None) -> Manifest:
    """The manifest that a document's mapping means; ManifestError if it, or `problems` before it, say otherwise."""
    found = list(problems or ())
    try:
        manifest = Manifest.model_validate(document)
    except ValidationError as error:
        found += _problems(error)
    if found:
        raise ManifestError(source, found)
    return manifest


def _problems(error: ValidationError) -> list[str]:
    found = []
    for item in error.errors(include_url=False):
        location, value = item["loc"], item["input"]
        if item["type"] == ROUTE_WRONG:
            found += item["ctx"]["problems"]
            continue
        section, field, rest = _find(location)
        if field is None:
            found.append(_unknown_key(section, location))
            continue
        texts = field.json_schema_extra
        expected = texts.get("expected", "") if isinstance(texts, dict) else ""
        if rest and isinstance(texts, dict):
            expected = texts["keys" if rest[-1] == "[key]" else "items"]
        found.append(f"{_path(location)}: expected {expected}, got {describe(value)}")
    return found


def _find(location: tuple[int | str, ...]) -> tuple[type[BaseModel], FieldInfo | None, tuple[int | str, ...]]:
    """(the section that `location` leads to, its field, what is left of `location` inside the field's value)."""
    section: type[BaseModel] = Manifest
    for depth, part in enumerate(location):
        field = section.model_fields.get(str(part))
        if field is None:
            return section, None, ()
        inner = field.annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)) or depth + 1 == len(location):
            return section, field, location[depth + 1 :]
        section = inner
    return section, None, ()


def _unknown_key(section: type[BaseModel], location: tuple[int | str, ...]) -> str:
    known = list(section.model_fields)
    close = difflib.get_close_matches(str(location[-1])[:100], known, 1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{_path(location)}: unknown key; {hint}known keys are {', '.join(known)}"


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for part in location:
        if part == "[key]":
            continue
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += ("." if path else "") + (part if re.fullmatch(r"[\w.-]{1,100}", part) else describe(part))
    return path
