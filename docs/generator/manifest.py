"""docs/reference/model-yaml.md, from the fields of runtime.repository.manifest.Manifest."""

from __future__ import annotations

import inspect
import json
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gateway.wire import pbtxt
from generator.markdown import code, heading, sentence, table
from runtime.repository.document import DOCUMENT_LIMIT_BYTES
from runtime.repository.manifest import Manifest
from runtime.repository.policy import VersionPolicy
from runtime.routing.route import Route

HEADERS = ("setting", "allowed", "default", "meaning")

INTRODUCTION = f"""
A model's settings stand in `<root>/<model>/model.yaml`. The file is optional, and so is each line of it. A file with
anything wrong in it is refused as a whole, and every problem is named at once. Keys are given once, YAML aliases are
not allowed, and the file has at most {DOCUMENT_LIMIT_BYTES:,} bytes.

`labels`, `default` and `route` are taken when a model is loaded for the first time. From then on they are the
operators': a later change of these lines in the file changes nothing. All other settings are read again at each load.
What a route may say: [route](route.md).
"""


def page() -> str:
    parts = [heading("model.yaml", "runtime/repository/manifest.py and gateway/wire/pbtxt.py"), INTRODUCTION]
    plain = {name: field for name, field in Manifest.model_fields.items() if _section(field) is None}
    parts += ["## Settings\n", table(HEADERS, [_row((name,), field) for name, field in plain.items()])]
    for name, field in Manifest.model_fields.items():
        section = _section(field)
        if section is not None:
            parts += [f"## {name}\n", sentence(field.description or "") + "\n"]
            parts.append(table(HEADERS, [_row((name, key), inner) for key, inner in section.model_fields.items()]))
    parts += ["## config.pbtxt\n", _foreign()]
    return "\n".join(parts).rstrip("\n") + "\n"


def _section(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _row(path: tuple[str, ...], field: FieldInfo) -> tuple[str, ...]:
    extra = field.json_schema_extra
    expected = str(extra["expected"]) if isinstance(extra, dict) else ""
    return code(".".join(path)), expected, code(_yaml(field.get_default())), sentence(field.description or "")


def _yaml(value: Any) -> str:
    """A default as an author would write it."""
    if isinstance(value, VersionPolicy):
        return f"{{latest: {value.count}}}"
    if isinstance(value, Route):
        return "{}"
    if isinstance(value, tuple):
        return "[" + ", ".join(name for name, _ in value) + "]"
    if value == "":
        return "''"
    return value if isinstance(value, str) else json.dumps(value)


def _foreign() -> str:
    """The mapping as the module that does it describes it."""
    mapping = (inspect.getdoc(pbtxt) or "").split("\n\n")[1]
    return (
        "Triton's `config.pbtxt` is read from the same folder. Left, what it sets; right, the setting of `model.yaml` "
        "that it becomes:\n\n"
        f"```\n{inspect.cleandoc(mapping)}\n```\n\n"
        "Where both files set the same, `model.yaml` wins, and a warning names what. What `config.pbtxt` declares of "
        "inputs and outputs is not needed: the graph says it. Whatever else it sets is named in a warning, with its "
        "line. A `backend` other than `onnxruntime`, or a `platform` other than `onnxruntime_onnx`, is refused.\n"
    )
