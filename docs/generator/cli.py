"""docs/reference/cli.md, from the click commands of gateway.cli."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

import gateway.cli
from gateway.cli import cli
from gateway.cli.options import ADMIN_VARIABLE, TOKEN_VARIABLE
from generator.markdown import NOTHING, code, heading, sentence, table

HEADERS = ("option", "value", "default", "meaning")
CONNECTION = ("admin", "token", "token_file", "ca", "certificate", "cert", "key")


def page() -> str:
    exits = (gateway.cli.__doc__ or "").split("\n\n")[0].removeprefix("The command line. ")
    parts = [heading("Command line", "gateway/cli"), sentence(exits) + "\n"]
    commands = list(_leaves(cli, ("driftgate",)))
    shared = _shared(commands)
    parts += [table(("command", "meaning"), [(_link(path), sentence(_help(c))) for path, c in commands])]
    parts += ["## Connection options\n", _connection_text(), table(HEADERS, [_row(option) for option in shared])]
    names: set[str | None] = {option.name for option in shared}
    for path, command in commands:
        parts.append(_section(path, command, names))
    return "\n".join(parts).rstrip("\n") + "\n"


def _connection_text() -> str:
    return (
        "Every command that talks to a running gateway has these. "
        f"{code(ADMIN_VARIABLE)} and {code(TOKEN_VARIABLE)} stand for `--admin` and `--token`. "
        "With any PEM file the connection is TLS.\n"
    )


def _leaves(group: click.Group, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _leaves(command, (*path, name))
        else:
            yield (*path, name), command


def _shared(commands: list[tuple[tuple[str, ...], click.Command]]) -> list[click.Option]:
    client = next(command for path, command in commands if path[-1] == "status")
    return [option for option in _options(client) if option.name in CONNECTION]


def _options(command: click.Command) -> list[click.Option]:
    return [parameter for parameter in command.params if isinstance(parameter, click.Option)]


def _section(path: tuple[str, ...], command: click.Command, shared: set[str | None]) -> str:
    arguments = [parameter for parameter in command.params if isinstance(parameter, click.Argument)]
    usage = " ".join([*path, "[OPTIONS]", *(_argument(argument) for argument in arguments)])
    options = _options(command)
    connects = {"admin", "token"} <= {option.name for option in options}
    own = [option for option in options if not (connects and option.name in shared)]
    parts = [f"## {' '.join(path)}\n", f"```\n{usage}\n```\n", sentence(_help(command)) + "\n"]
    parts.append(table(HEADERS, [_row(option) for option in own]))
    if connects:
        parts.append("And the [connection options](#connection-options).\n")
    if command.epilog:
        _, _, examples = command.epilog.partition(": ")
        lines = "\n".join(example.strip() for example in examples.split(";"))
        parts.append(f"```\n{lines}\n```\n")
    return "\n".join(parts)


def _argument(argument: click.Argument) -> str:
    name = (argument.metavar or str(argument.name)).upper()
    return name if argument.required else f"[{name}]"


def _row(option: click.Option) -> tuple[str, ...]:
    names = ", ".join(code(name) for name in (*option.opts, *option.secondary_opts))
    meaning = (option.help or "").split("  [")[0]
    repeatable = " Repeatable." if option.multiple and "repeatable" not in meaning else ""
    return names, _value(option), _default(option), sentence(meaning) + repeatable


def _value(option: click.Option) -> str:
    kind: Any = option.type
    if option.is_flag:
        return NOTHING
    if isinstance(kind, click.Choice):
        return ", ".join(code(str(choice)) for choice in kind.choices)
    return code(option.metavar or kind.name.upper())


def _default(option: click.Option) -> str:
    help_text = option.help or ""
    if help_text.endswith("]") and "  [" in help_text:
        return code(help_text.rpartition("  [")[2].rstrip("]"))
    if option.is_flag or not isinstance(option.default, (str, int, float)) or option.default == "":
        return NOTHING
    return code(f"{option.default:g}" if isinstance(option.default, float) else str(option.default))


def _help(command: click.Command) -> str:
    return command.help or command.short_help or ""


def _link(path: tuple[str, ...]) -> str:
    return f"[{code(' '.join(path))}](#{'-'.join(path)})"
