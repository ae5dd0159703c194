"""Triton's `config.pbtxt` in the shape of model.yaml.

    max_batch_size                                  batching.max_batch_size
    dynamic_batching.max_queue_delay_microseconds   batching.max_queue_delay_seconds
    dynamic_batching.default_queue_policy
      .max_queue_size                               batching.max_queue_requests
    version_policy                                  versions
    instance_group.count, on CPUs                   instances
    optimization.graph.level                        session.graph_optimization
    parameters intra_op_thread_count,
      inter_op_thread_count, execution_mode,
      enable_mem_arena                              session.intra_op_threads, inter_op_threads, execution, memory_arena
    default_model_filename                          model_filename

What is declared of inputs and outputs is not needed: the graph says it. Whatever else a file sets is named in a
warning, with its line.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import Any

from google.protobuf import text_format

from gateway.wire.pb.inference import model_config_pb2 as pb
from runtime.errors import LoadError

FILENAME = "config.pbtxt"

_USED = frozenset(
    {
        "name",
        "platform",
        "backend",
        "max_batch_size",
        "input.name",
        "input.data_type",
        "input.dims",
        "output.name",
        "output.data_type",
        "output.dims",
        "dynamic_batching.max_queue_delay_microseconds",
        "dynamic_batching.default_queue_policy.max_queue_size",
        "version_policy.latest.num_versions",
        "version_policy.all",
        "version_policy.specific.versions",
        "instance_group.name",
        "instance_group.kind",
        "instance_group.count",
        "optimization.graph.level",
        "default_model_filename",
        "parameters.key",
        "parameters.value.string_value",
    }
)
_USED_MESSAGES = frozenset(path.rsplit(".", depth)[0] for path in _USED for depth in range(1, path.count(".") + 1))

_GRAPH_LEVELS = {-1: "basic", 0: "all", 1: "extended", 2: "disabled"}  # Triton's numbers, not ONNX Runtime's

_NESTING_LIMIT = 50  # messages and lists; the deepest field of Triton's own is within ten
_WARNINGS_LIMIT = 50

_CLOSING = {"{": "}", "<": ">", "[": "]"}
_TOKEN = re.compile(
    r"""[ \t\r\n\f\v]+
      | \#[^\n]*
      | (?P<text> "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*' )
      | (?P<word> [\w.+-]+ )
      | (?P<mark> . )""",
    re.VERBOSE | re.DOTALL,
)


def read_config_pbtxt(text: str) -> tuple[dict[str, Any], list[str]]:
    """(settings in model.yaml's shape, with `model_filename` if it is set; warnings).

    LoadError if `text` is not of Triton's format, or asks for what driftgate cannot be.
    """
    config = pb.ModelConfig()
    fields = _Outline(text).fields
    try:
        text_format.Parse(_without_unknown(text, fields), config)
    except text_format.ParseError as error:
        line, column = error.GetLine(), error.GetColumn()
        place = f"line {line}, column {column}: " if line is not None else ""
        raise LoadError(f"{FILENAME}: {place}{_reason(error)}", field=FILENAME) from error
    _check_backend(config)
    return _Reading(config, fields).run()


def _reason(error: text_format.ParseError) -> str:
    """The parser's words without the place, which it gives as "line:column : "."""
    return re.sub(r"^\d+:\d+ : ", "", str(error))[:300]


def _check_backend(config: pb.ModelConfig) -> None:
    for key, value, served in (
        ("backend", config.backend, "onnxruntime"),
        ("platform", config.platform, "onnxruntime_onnx"),
    ):
        if value not in ("", served):
            raise LoadError(f"{FILENAME} asks for {key} {value[:100]!r}; driftgate serves ONNX only", field=key)
    if config.max_batch_size < 0:
        raise LoadError(
            f"{FILENAME}: max_batch_size: expected 0 or more, got {config.max_batch_size}", field="max_batch_size"
        )


class _Reading:
    def __init__(self, config: pb.ModelConfig, fields: list[_Field]) -> None:
        self._config = config
        self._fields = fields
        self._paths = {field.path for field in fields}
        self._warnings: list[str] = []

    def run(self) -> tuple[dict[str, Any], list[str]]:
        self._name_unused()
        settings: dict[str, Any] = {}
        batching, session = self._batching(), self._session()
        if batching:
            settings["batching"] = batching
        if session:
            settings["session"] = session
        if (versions := self._versions()) is not None:
            settings["versions"] = versions
        if (instances := self._instances()) is not None:
            settings["instances"] = instances
        if self._config.default_model_filename:
            settings["model_filename"] = self._config.default_model_filename
        return settings, self._warnings

    def _warn(self, text: str) -> None:
        self._warnings.append(f"{FILENAME}: {text}")

    def _name_unused(self) -> None:
        unused: dict[str, int] = {}
        for field in self._fields:
            known = field.path in _USED or field.path in _USED_MESSAGES
            parents = field.path.split(".")[:-1]
            parent_named = any(".".join(parents[:depth]) in unused for depth in range(1, len(parents) + 1))
            if not known and not parent_named:
                unused.setdefault(field.path, field.line)
        for path, line in itertools.islice(unused.items(), _WARNINGS_LIMIT):
            self._warn(f"line {line}: {path[:200]} has no counterpart here and is ignored")
        if len(unused) > _WARNINGS_LIMIT:
            self._warn(f"{len(unused) - _WARNINGS_LIMIT} further fields are ignored")

    def _bounded(self, name: str, value: float, low: float, high: float) -> float:
        if low <= value <= high:
            return value
        nearest = low if value < low else high
        self._warn(f"{name} {value:g} is outside {low:g}..{high:g}; taken as {nearest:g}")
        return nearest

    def _batching(self) -> dict[str, Any]:
        config, batching = self._config, dict[str, Any]()
        # Without the line Triton decides from the graph, as driftgate does; only a written 0 forbids batching.
        if "max_batch_size" in self._paths:
            batching["max_batch_size"] = int(self._bounded("max_batch_size", config.max_batch_size, 0, 65_536))
        if config.max_batch_size > 1 and "dynamic_batching" not in self._paths:
            self._warn(
                "without dynamic_batching Triton would not merge requests; driftgate does, up to "
                f"{config.max_batch_size} rows (to prevent it, set batching.max_batch_size: 0 in model.yaml)"
            )
        dynamic = config.dynamic_batching
        if "dynamic_batching.max_queue_delay_microseconds" in self._paths:
            delay_seconds = dynamic.max_queue_delay_microseconds / 1e6
            batching["max_queue_delay_seconds"] = self._bounded("max_queue_delay (seconds)", delay_seconds, 0, 10)
        if "dynamic_batching.default_queue_policy.max_queue_size" in self._paths:
            size = dynamic.default_queue_policy.max_queue_size
            if size == 0:
                self._warn("max_queue_size 0 asks for a queue without bound; here every queue has one")
            else:
                batching["max_queue_requests"] = int(self._bounded("max_queue_size", size, 1, 1_000_000))
        return batching

    def _versions(self) -> Any:
        policy = self._config.version_policy
        match policy.WhichOneof("policy_choice"):
            case "all":
                return "all"
            case "latest":
                return {"latest": policy.latest.num_versions or 1}
            case "specific":
                versions = sorted({version for version in policy.specific.versions if version >= 1})
                if not versions:
                    raise LoadError(
                        f"{FILENAME}: version_policy.specific names no version of 1 or more", field="version_policy"
                    )
                return {"specific": versions}
        return None

    def _instances(self) -> int | None:
        groups = self._config.instance_group
        here = [group for group in groups if group.kind != pb.ModelInstanceGroup.KIND_GPU]
        if len(here) < len(groups):
            self._warn("instance_group of KIND_GPU is ignored; GPUs are asked for in model.yaml's execution_providers")
        if not here:
            return None
        return int(self._bounded("instance_group.count", sum(group.count or 1 for group in here), 1, 64))

    def _session(self) -> dict[str, Any]:
        session: dict[str, Any] = {}
        if "optimization.graph.level" in self._paths:
            level = self._config.optimization.graph.level
            if level in _GRAPH_LEVELS:
                session["graph_optimization"] = _GRAPH_LEVELS[level]
            else:
                self._warn(f"optimization.graph.level {level} is none of -1, 0, 1, 2, and is ignored")
        for key, parameter in sorted(self._config.parameters.items()):
            self._parameter(key, parameter.string_value.strip(), session)
        return session

    def _parameter(self, key: str, text: str, session: dict[str, Any]) -> None:
        number = int(text) if re.fullmatch(r"[0-9]{1,9}", text) else -1
        match key:
            case "intra_op_thread_count" | "inter_op_thread_count" if number > 0:
                session[key.replace("thread_count", "threads")] = int(self._bounded(key, number, 1, 256))
            case "intra_op_thread_count" | "inter_op_thread_count" if number == 0:
                self._warn(f"parameters {key} 0 asks for every core of the machine; here the default is 1 thread")
            case "execution_mode" if number in (0, 1):
                session["execution"] = "parallel" if number else "sequential"
            case "enable_mem_arena" if number in (0, 1):
                session["memory_arena"] = bool(number)
            case "intra_op_thread_count" | "inter_op_thread_count" | "execution_mode" | "enable_mem_arena":
                self._warn(f"parameters {key} has the value {text[:60]!r}, which is not understood and is ignored")
            case _:
                self._warn(f"parameters {key[:100]!r} has no counterpart here and is ignored")


@dataclass(slots=True)
class _Field:
    """A field that a text sets: its dotted path and line, and where in the text it begins and ends."""

    path: str
    line: int
    begin: int
    end: int = -1


class _Outline:
    """The fields of a text, at every depth.

    It judges brackets only. Protobuf judges the rest, but it neither names the unknown fields that it skips nor skips
    all of them (`model_warmup [ {` stops it), so they are found, and taken out, before it sees the text.
    """

    def __init__(self, text: str) -> None:
        self.fields: list[_Field] = []
        self._around: list[tuple[str, str, int]] = []  # (closing bracket, field's name, line) of messages and lists
        self._open: list[_Field | None] = [None]  # the field last begun at each depth
        self._pending = ""  # the field whose value comes next
        self._extension = False  # inside the brackets of an extension's name
        line = 1
        for match in _TOKEN.finditer(text):
            self._take(match.lastgroup or "", match.group(), line, match.start())
            line += match.group().count("\n")
        if self._around:
            _, name, opened = self._around[-1]
            raise LoadError(f"{FILENAME}: line {opened}: the bracket of {name[:100]} is never closed", field=name)
        self._end_field(len(text))

    def _take(self, kind: str, token: str, line: int, at: int) -> None:
        in_list = bool(self._around) and self._around[-1][0] == "]"
        if not kind or self._extension:
            self._extension = self._extension and token != "]"  # noqa: S105 - a token of the grammar
        elif token in _CLOSING and (self._pending or in_list):
            if len(self._around) >= _NESTING_LIMIT:
                raise LoadError(f"{FILENAME}: line {line}: nests deeper than {_NESTING_LIMIT}", field=FILENAME)
            self._around.append((_CLOSING[token], self._pending or self._around[-1][1], line))
            self._open.append(None)
            self._pending = ""
        elif token == "[":  # noqa: S105 - a token of the grammar
            self._extension = True
            self._begin_field("[extension]", line, at)
        elif token in _CLOSING.values():
            if not self._around or self._around[-1][0] != token:
                raise LoadError(f"{FILENAME}: line {line}: {token} closes nothing", field=FILENAME)
            self._end_field(at)
            self._around.pop()
            self._open.pop()
        elif kind == "word" and not self._pending and not in_list and token.isidentifier():
            self._begin_field(token, line, at)
        elif kind in ("word", "text"):
            self._pending = ""

    def _begin_field(self, name: str, line: int, at: int) -> None:
        self._end_field(at)
        outer = [name for closing, name, _ in self._around if closing != "]"]
        field = _Field(".".join([*outer, name]), line, at)
        self.fields.append(field)
        self._open[-1] = field
        self._pending = name

    def _end_field(self, at: int) -> None:
        if (field := self._open[-1]) is not None:
            field.end = at


def _without_unknown(text: str, fields: list[_Field]) -> str:
    """`text` with blanks for fields that Triton's config has and ours has not; what is left keeps its place."""
    kept, done = [], 0
    for field in fields:
        if field.begin >= done and not _is_known(field.path):
            kept += [text[done : field.begin], re.sub(r"[^\n]", " ", text[field.begin : field.end])]
            done = field.end
    return "".join([*kept, text[done:]])


def _is_known(path: str) -> bool:
    message: Any = pb.ModelConfig.DESCRIPTOR
    for name in path.split("."):
        if message is None or name not in message.fields_by_name:
            return False
        message = message.fields_by_name[name].message_type
    return True
