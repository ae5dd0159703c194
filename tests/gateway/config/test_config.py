"""Configuration: flags over environment over file over defaults, and every problem named at once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from gateway.config import Config, ConfigError, Telemetry, is_loopback, load_config


def load(file: Path | None = None, flags: dict[str, Any] | None = None, **environment: str) -> Config:
    return load_config(file, flags, {f"DRIFTGATE_{name}": value for name, value in environment.items()})


def problems(file: Path | None = None, flags: dict[str, Any] | None = None, **environment: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(file, flags, **environment)
    assert all(problem in str(caught.value) for problem in caught.value.problems)
    assert not any("\n" in problem for problem in caught.value.problems)
    return caught.value.problems


def written(folder: Path, settings: Any) -> Path:
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


def test_models_are_all_that_is_needed() -> None:
    config = load(flags={"models": ("models",)})
    assert (config.models, config.grpc, config.http, config.admin) == (
        ("models",), "0.0.0.0:8001", "0.0.0.0:8002", "127.0.0.1:8003"
    )  # fmt: skip
    assert config.worker_count() == len(os.sched_getaffinity(0))


def test_without_models_it_says_the_three_ways_to_name_them() -> None:
    assert problems() == ["models: is required (--models, DRIFTGATE_MODELS or the file)"]


def test_flags_win_over_environment_over_file_setting_by_setting(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        {"models": ["file"], "workers": 1, "threads": 1, "limits": {"max_in_flight": 1, "max_metadata_bytes": 2048}},
    )
    config = load(
        file,
        {"workers": 3, "transport": None},
        WORKERS="2", THREADS="2", MODELS="a,s3://b/c", LIMITS__MAX_IN_FLIGHT="20", TRANSPORT="public",
    )  # fmt: skip
    assert (config.models, config.workers, config.threads, config.transport) == (("a", "s3://b/c"), 3, 2, "public")
    assert (config.limits.max_in_flight, config.limits.max_metadata_bytes) == (20, 2048)


def test_one_root_may_be_written_without_a_list(tmp_path: Path) -> None:
    assert load(written(tmp_path, {"models": "here"})).models == ("here",)


def test_an_empty_file_and_variables_of_the_command_line_set_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("# nothing\n")
    flags = {"models": ("m",)}
    assert load(tmp_path / "config.yaml", flags, ADMIN="host:1", TOKEN="t", CONFIG="f") == load(flags=flags)


def test_lists_in_the_environment_are_separated_by_commas() -> None:
    config = load(MODELS="a,b", TELEMETRY__METADATA_ATTRIBUTES="x-tenant, x-order")
    assert (config.models, config.telemetry.metadata_attributes) == (("a", "b"), ("x-tenant", "x-order"))


@pytest.mark.parametrize("names", ["x-tenant,X-Tenant", "x-tenant,", "x" * 129])
def test_metadata_that_becomes_attributes_is_named_once_and_has_a_name(names: str) -> None:
    (problem,) = problems(MODELS="a", TELEMETRY__METADATA_ATTRIBUTES=names)
    assert problem.startswith("telemetry.metadata_attributes: expected names of 1 to 128 characters, each once")


def test_every_problem_of_every_source_is_named_at_once(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        {
            "models": [], "workers": -1, "grpc": "8001", "http": "h:99999", "transport": "quic", "colour": "red",
            "limits": {"max_in_flight": 0, "max_inflight": 5}, "drain": {"grace_seconds": "soon"},
            "tls": {"certificate": str(tmp_path / "no.pem")},
        },
    )  # fmt: skip
    found = problems(file, LOG_LEVEL="loud", NO_SUCH="1", RESTART__NONE="1")
    assert [problem.split(":", 1)[0] for problem in found] == [
        "DRIFTGATE_NO_SUCH", "models", "grpc", "http", "workers", "transport", "tls.certificate", "tls.key",
        "limits.max_in_flight", "limits.max_inflight", "drain.grace_seconds", "restart.none", "log_level", "colour",
    ]  # fmt: skip
    by_path = dict(problem.split(": ", 1) for problem in found)
    assert by_path["models"] == "expected at least one folder or URL, got []"
    assert by_path["http"] == (
        "expected HOST:PORT with a port 0..65535, as 127.0.0.1:8001 or [::1]:8001, got 'h:99999'"
    )
    assert by_path["workers"] == "input should be greater than or equal to 0, got -1"
    assert by_path["transport"] == "input should be 'auto', 'queue' or 'public', got 'quic'"
    assert by_path["tls.certificate"].startswith("cannot be read: No such file or directory")
    assert by_path["limits.max_inflight"] == "there is no such setting"
    assert by_path["DRIFTGATE_NO_SUCH"].startswith("there is no setting of this name; known: models, grpc,")


def test_rules_over_several_settings_are_checked_although_others_are_wrong() -> None:
    found = problems(flags={"models": ("m",), "admin": "0.0.0.0:8003", "workers": -1, "repository_control": "token"})
    assert found == [
        "workers: input should be greater than or equal to 0, got -1",
        (
            "admin: 0.0.0.0:8003 is not loopback, so the admin API needs admin_token_file or admin_tls with client_ca "
            "(mTLS)"
        ),
        "repository_control: 'token' needs admin_token_file",
    ]


def test_a_guard_that_is_broken_itself_is_not_also_called_missing(tmp_path: Path) -> None:
    token = tmp_path / "token"
    flags = {"models": ("m",), "admin": "0.0.0.0:8003", "repository_control": "token", "admin_token_file": token}
    assert problems(flags=flags) == [f"admin_token_file: cannot be read: No such file or directory, got {token!r}"]
    token.write_text("short\n")
    assert problems(flags=flags) == [f"admin_token_file: the token must have 16 characters or more, got {token!r}"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"- 1\n", "expected a mapping of settings, got a list"),
        (b"models: [", "is not YAML:"),
        (b"\xff\xfe\x00", "is not YAML:"),
        (b"caf\xe9: 1", "is not YAML:"),
        (b"1: 2\n", "1: "),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(content)
    found = problems(file, {"models": ("m",)})
    assert len(found) == 1
    assert says in found[0]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    file = tmp_path / "none.yaml"
    assert problems(file, {"models": ("m",)}) == [f"{file}: cannot be read: No such file or directory"]
    assert problems(tmp_path, {"models": ("m",)}) == [f"{tmp_path}: cannot be read: Is a directory"]


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("localhost:1", True),
        ("[::1]:1", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
        ("127.0.0.1.example.com:1", False),
        ("localhost.example.com:1", False),
        ("127.0.0.1", False),
    ],
)
def test_only_loopback_addresses_are_loopback(address: str, *, loopback: bool) -> None:
    assert is_loopback(address) is loopback


@pytest.mark.parametrize("admin", ["0.0.0.0:8003", "[::]:8003", "gateway.example:8003"])
def test_an_admin_port_beyond_loopback_needs_a_token_or_client_certificates(tmp_path: Path, admin: str) -> None:
    token, pem = tmp_path / "token", tmp_path / "pem"
    token.write_text("0123456789abcdef  \nsecond line\n")
    pem.write_text("any")
    base = {"models": ("m",), "admin": admin}
    tls = {"certificate": pem, "key": pem}
    assert len(problems(flags=base)) == 1
    assert len(problems(flags={**base, "admin_tls": tls})) == 1, "TLS alone lets anyone in"
    assert load(flags={**base, "admin_token_file": token}).admin_token() == "0123456789abcdef"
    assert load(flags={**base, "admin_tls": {**tls, "client_ca": pem}}).admin_token() == ""


def test_state_lives_where_it_is_configured_or_in_a_folder_of_its_own_per_set_of_roots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load(flags={"models": ("m",), "state_dir": tmp_path}).state_folder() == tmp_path
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    here, absolute, other = (load(flags={"models": (root,)}).state_folder() for root in ("m", str(tmp_path / "m"), "n"))
    assert here == absolute != other
    assert here.parent == tmp_path / "state" / "driftgate"
    assert not here.exists(), "asking makes nothing"
    remote = load(flags={"models": ("s3://bucket/m",)}).state_folder()
    monkeypatch.chdir("/")
    assert load(flags={"models": ("s3://bucket/m",)}).state_folder() == remote


def test_a_configuration_cannot_be_changed_and_survives_the_way_to_a_child() -> None:
    config = load(flags={"models": ("m",), "workers": 3, "limits": {"max_in_flight": 9}})
    with pytest.raises(ValidationError, match="frozen"):
        config.workers = 4  # type: ignore[misc]  # that is the point
    assert Config.model_validate_json(config.model_dump_json()) == config


def test_an_empty_variable_of_the_environment_leaves_the_configured_one() -> None:
    telemetry = Telemetry(otel={"OTEL_SERVICE_NAME": "ours", "OTEL_SDK_DISABLED": "true"})
    given = {"OTEL_SERVICE_NAME": " ", "OTEL_SDK_DISABLED": "false", "PATH": "/bin"}
    assert telemetry.environment(given) == {"OTEL_SERVICE_NAME": "ours", "OTEL_SDK_DISABLED": "false"}
