"""`driftgate serve` and `driftgate config check`."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import click
import pytest
import yaml
from click.testing import CliRunner, Result

from gateway.cli import cli
from gateway.cli.serve import check, serve
from gateway.config import Config, load_config

Run = Callable[..., subprocess.CompletedProcess[str]]


def _check(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(cli, ["config", "check", *arguments], env=environment)


@pytest.mark.parametrize("command", [("serve",), ("config", "check")], ids=" ".join)
def test_every_problem_is_named_at_once(process: Run, tmp_path: Path, command: tuple[str, ...]) -> None:
    file = tmp_path / "driftgate.yaml"
    file.write_text("limits: {max_in_flight: 0}\nspeed: high\n")
    done = process(*command, "--config", str(file), "--grpc", "nowhere", "--workers", "999")
    assert done.returncode == 2
    assert done.stdout == ""
    first, *problems = done.stderr.splitlines()
    assert first == "error: the configuration has 5 problems:"
    assert sorted(problem.split(":")[0].strip() for problem in problems) == [
        "grpc", "limits.max_in_flight", "models", "speed", "workers"
    ]  # fmt: skip


def test_flags_lie_over_the_environment_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "driftgate.yaml"
    file.write_text("models: [from-file]\nworkers: 1\nthreads: 3\nlog_level: error\n")
    result = _check("--config", str(file), "--workers", "4", DRIFTGATE_WORKERS="2", DRIFTGATE_LOG_LEVEL="debug")
    shown = yaml.safe_load(result.stdout)
    assert (shown["models"], shown["threads"], shown["log_level"], shown["workers"]) == (["from-file"], 3, "debug", 4)


def test_every_flag_reaches_its_setting() -> None:
    result = _check(
        "--models", "a", "--models", "b", "--grpc", "127.0.0.1:1", "--http", "127.0.0.1:2", "--admin", "[::1]:3",
        "--workers", "5", "--transport", "public", "--state-dir", "state", "--log-level", "warning",
        "--log-format", "json", "--json",
    )  # fmt: skip
    given = {
        "models": ["a", "b"], "grpc": "127.0.0.1:1", "http": "127.0.0.1:2", "admin": "[::1]:3", "workers": 5,
        "transport": "public", "state_dir": "state", "log_level": "warning", "log_format": "json",
    }  # fmt: skip
    assert json.loads(result.stdout) == Config(models=("x",)).model_dump(mode="json") | given


def test_the_file_is_named_by_the_environment_too(tmp_path: Path) -> None:
    file = tmp_path / "driftgate.yaml"
    file.write_text("models: [here]\n")
    assert yaml.safe_load(_check(DRIFTGATE_CONFIG=str(file)).stdout)["models"] == ["here"]


def test_a_file_that_is_not_there_is_a_problem_of_the_configuration(tmp_path: Path) -> None:
    result = _check("--config", str(tmp_path / "none.yaml"), "--models", "m")
    assert result.exit_code == 2
    assert "none.yaml: cannot be read: No such file" in result.stderr


def test_what_check_prints_is_a_config_file_that_means_the_same(tmp_path: Path) -> None:
    file = tmp_path / "driftgate.yaml"
    file.write_text(_check("--models", "models", "--workers", "3").stdout)
    assert load_config(file, environment={}) == Config(models=("models",), workers=3)


def test_choices_and_defaults_in_the_help_are_those_of_the_configuration() -> None:
    for command in (serve, check):
        for option in command.params:
            assert isinstance(option, click.Option)
            field = Config.model_fields.get(str(option.name))
            if field is None:
                assert option.name in {"file", "as_json"}
                continue
            if isinstance(option.type, click.Choice):
                assert tuple(option.type.choices) == get_args(field.annotation)
            if not field.is_required() and field.default is not None:
                assert str(option.help).endswith(f"  [{field.default}]")


def test_serve_exits_with_the_supervisors_status(process: Run, tmp_path: Path) -> None:
    """The real supervisor, which refuses a port that is taken."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = process(
            "serve", "--models", str(tmp_path), "--state-dir", str(tmp_path / "state"), "--workers", "1",
            "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--admin", address,
        )  # fmt: skip
    assert done.returncode == 2
    assert f"cannot listen on admin address {address}" in done.stderr


SECRET = "word-that-nobody-sees"
HEADERS = "OTEL_EXPORTER_OTLP_HEADERS"


def test_credentials_are_not_printed_and_what_stands_for_them_is_no_value(tmp_path: Path) -> None:
    """A file made of what check prints is refused, where it would send something else in their place."""
    file = tmp_path / "driftgate.yaml"
    otel = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:4318?key={SECRET}",
        HEADERS: f"authorization={SECRET}",
        "OTEL_EXPORTER_OTLP_LOGS_HEADERS": "",
    }
    file.write_text(yaml.safe_dump({"models": ["m"], "telemetry": {"otel": otel}}))
    result = _check("--config", str(file))
    assert (result.exit_code, result.stderr) == (0, "")
    assert SECRET not in result.stdout
    assert yaml.safe_load(result.stdout)["telemetry"]["otel"] == {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318?...", HEADERS: "...",
        "OTEL_EXPORTER_OTLP_LOGS_HEADERS": "",
    }  # fmt: skip
    file.write_text(result.stdout)
    assert f"{HEADERS}: member 1: expected key=value" in _check("--config", str(file)).stderr


@pytest.mark.parametrize("command", [("serve",), ("config", "check")], ids=" ".join)
@pytest.mark.parametrize(
    "text",
    [
        f"telemetry: {{otel: {{{HEADERS}: authorization={SECRET}, ENDPOINT: x}}}}",
        f"telemetry: {{otel: '{HEADERS}=authorization={SECRET}'}}",
        f"telemetry: [{{otel: {{{HEADERS}: authorization={SECRET}}}}}]",
        f"telemetry: {{otel: {{{HEADERS}: a={SECRET}: b}}}}",
        f"telemetry:\n  otel:\n    {HEADERS}: authorization={SECRET}: b",
    ],
    ids=["a wrong key beside it", "a text", "a list", "a mapping as header", "no YAML"],
)
def test_what_is_wrong_beside_credentials_does_not_show_them(
    process: Run, tmp_path: Path, command: tuple[str, ...], text: str
) -> None:
    file = tmp_path / "driftgate.yaml"
    file.write_text(text)
    done = process(*command, "--config", str(file), "--models", "m")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert SECRET not in done.stdout + done.stderr


def test_check_shows_what_has_no_effect(tmp_path: Path) -> None:
    file = tmp_path / "driftgate.yaml"
    file.write_text("models: [m]\ntelemetry: {otel: {OTEL_TRACES_SAMPLER: sometimes, OTEL_SERVICE_NAM: x}}\n")
    result = _check("--config", str(file))
    assert result.exit_code == 0
    mistyped, unknown = result.stderr.splitlines()
    assert mistyped == "warning: OTEL_SERVICE_NAM: there is no such variable here, so it has no effect"
    assert unknown.startswith("warning: OTEL_TRACES_SAMPLER: expected one of always_on, always_off, ")
    assert yaml.safe_load(result.stdout)["models"] == ["m"]
