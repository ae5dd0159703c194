"""docs/reference/configuration.md, from the fields of gateway.config.Config."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from gateway.cli.serve import serve
from gateway.config import ADDRESS, ENVIRONMENT_PREFIX, NOT_SETTINGS, Config
from generator.markdown import NOTHING, code, heading, number, sentence, table

HEADERS = ("setting", "environment variable", "flag", "allowed", "default", "meaning")

INTRODUCTION = """
Settings come from three places. Flags go over environment variables, environment variables over the file given by
`--config` (or `DRIFTGATE_CONFIG`), and the file over the defaults. The result is validated as a whole before anything
starts; every problem is named at once, with its path and what is allowed. `driftgate config check` prints the result.

In the file a section is a mapping: `limits.max_in_flight` is the key `max_in_flight` in the mapping `limits`. In the
environment its parts are joined by two underscores, and members of a list are separated by commas. An unknown key in
the file, or an unknown variable that begins with `DRIFTGATE_`, is an error.
"""

RULES = """
## Rules across settings
- `models` is required.
- An `admin` address other than loopback needs `admin_token_file`, or `admin_tls` with `client_ca`.
- `repository_control: token` needs `admin_token_file`. The token has 16 characters or more.
- Files named in the settings must be readable at start.

## Variables that are not settings
| variable | read by | meaning |
| --- | --- | --- |
| `DRIFTGATE_CONFIG` | `driftgate serve`, `driftgate config check` | The settings file, as `--config`. |
| `DRIFTGATE_ADMIN` | commands that talk to a gateway | Its admin API, as `--admin`. It is not the setting `admin`. |
| `DRIFTGATE_TOKEN` | commands that talk to a gateway | The bearer token, as `--token`. |
| `OTEL_...` | `driftgate serve` | What is exported, where to and how: [all of them](otel-variables.md). |
| `XDG_STATE_HOME` | `driftgate serve` | Where the default `state_dir` lies; without it `~/.local/state`. |
| `NUMBA_CACHE_DIR` | `driftgate serve` | Where [compiled kernels](../how-to/deployment.md#compiled-kernels) are kept. |
| `NO_COLOR` | `driftgate` | Not empty: no colours at a terminal. |
"""


def page() -> str:
    parts = [heading("Configuration", "gateway/config.py and gateway/cli/serve.py"), INTRODUCTION]
    flags = _flags()
    plain = {name: field for name, field in Config.model_fields.items() if _section(field) is None}
    parts += ["## Settings\n", table(HEADERS, [_row((name,), field, flags) for name, field in plain.items()])]
    for name, field in Config.model_fields.items():
        section = _section(field)
        if section is not None:
            optional = " Absent by default." if field.default is None else ""
            parts += [f"## {name}\n", f"{sentence(field.description or '')}{optional}\n"]
            rows = [_row((name, key), inner, flags) for key, inner in section.model_fields.items()]
            parts.append(table(HEADERS, rows))
    return "\n".join(parts).rstrip("\n") + "\n" + RULES


def _flags() -> dict[str, str]:
    options = [parameter for parameter in serve.params if isinstance(parameter, click.Option) and parameter.name]
    return {str(option.name): option.opts[0] for option in options}


def _section(field: FieldInfo) -> type[BaseModel] | None:
    kinds = [field.annotation, *get_args(field.annotation)]
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _row(path: tuple[str, ...], field: FieldInfo, flags: dict[str, str]) -> tuple[str, ...]:
    variable = ENVIRONMENT_PREFIX + "__".join(path).upper()
    settable = variable not in NOT_SETTINGS and get_origin(field.annotation) is not dict
    return (
        code(".".join(path)),
        code(variable) if settable else NOTHING,
        code(flags.get(path[0], "") if len(path) == 1 else ""),
        _allowed(field),
        _default(field),
        sentence(field.description or ""),
    )


def _allowed(field: FieldInfo) -> str:
    kind: Any = field.annotation
    if get_origin(kind) is Literal:
        return ", ".join(code(choice) for choice in get_args(kind))
    if get_origin(kind) is types.UnionType:
        kind = next(option for option in get_args(kind) if option is not type(None))
    if kind in (int, float):
        least = next(item.ge for item in field.metadata if hasattr(item, "ge"))
        most = next(item.le for item in field.metadata if hasattr(item, "le"))
        return f"{'integer' if kind is int else 'number'}, {number(least)} to {number(most)}"
    if kind is bool:
        return "`true`, `false`"
    if get_origin(kind) is dict:
        return "mapping"
    if get_origin(kind) is tuple:
        most = next((item.max_length for item in field.metadata if hasattr(item, "max_length")), None)
        return "list of folders or URLs" if most is None else f"list of names, at most {most}"
    if kind is Path:
        return "path"
    if kind is str:
        return "HOST:PORT" if ADDRESS.match(str(field.default)) else "text"
    raise SystemExit(f"docs/generator/configuration.py: what may stand in a setting of type {kind}?")


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "required"
    if field.default in (None, (), {}):
        return "none"
    return code(str(field.default).lower() if isinstance(field.default, bool) else str(field.default))
