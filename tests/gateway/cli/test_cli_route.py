"""`driftgate route`: what is asked, and how routes, changes and explanations read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from canned_gateway import CannedGateway, duration, without_colours
from click.testing import CliRunner, Result
from google.protobuf.json_format import ParseDict

from gateway.cli import cli
from gateway.routing.router import Router
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from runtime.routing.document import RouteError, parse_route, to_json

Driftgate = Callable[..., Result]

TEXT = """
sticky: {metadata: x-user-id}
salt: spring
rules:
  - name: testers
    when: {x-tier: gold, x-user-id: {prefix: ""}}
    to: canary
  - name: europe
    when: {x-region: {regex: "eu-.*"}}
    split: {stable: 50, challenger: {to: 7, weight: 50}}
split: {stable: 95, challenger: {to: 7, weight: 5}}
shadows: [{to: 8, of: stable, percent: 10, inputs: true, redact: [age]}, {to: 9, worst: 0}]
"""
ROUTE = to_json(parse_route(TEXT))


def share(variant: str, target: str, share: float, before: float) -> pb.VariantShare:
    return pb.VariantShare(variant=variant, target=target, share=share, share_before=before)


def shown(**fields: Any) -> pb.GetRouteResponse:
    shares = [share("stable", "stable", 0.95, 0.95), share("challenger", "7", 0.05, 0.05)]
    return pb.GetRouteResponse(**({"model": "iris", "route": ROUTE, "effective": ROUTE, "shares": shares} | fields))


def test_a_route_is_shown_with_its_shares_as_bars(gateway: CannedGateway, driftgate: Driftgate) -> None:
    gateway.answers["GetRoute"] = shown(problems=["rules[0].to: version 3 is not ready: loading"])
    result = driftgate("route", "show", "iris")
    assert (result.exit_code, result.stderr) == (0, "")
    assert gateway.request == pb.GetRouteRequest(model="iris")
    assert result.stdout.splitlines() == [
        "iris",
        "  sticky   metadata x-user-id",
        "  salt     spring",
        "  rules    testers  x-tier is gold          to canary",
        "                    x-user-id is sent",
        "           europe   x-region matches eu-.*  stable 50.00%, challenger (to 7) 50.00%",
        "  split    stable      to stable  ████████████████████████████    95.00%",
        "           challenger  to 7       ██                               5.00%",
        "  shadows  8  10% of the runs of stable; the 16 worst disagreements are kept with inputs but for age",
        "           9  100% of all runs",
        "  problem  rules[0].to: version 3 is not ready: loading",
    ]


def test_no_route_and_a_rollout_are_said(gateway: CannedGateway, driftgate: Driftgate) -> None:
    gateway.answers["GetRoute"] = shown(route="", effective="", shares=[share("default", "newest", 1, 1)])
    assert driftgate("route", "show", "iris").stdout.splitlines() == [
        "iris", "  no route: the default answers",
        f"  default  default  to newest  {'█' * 30}  100.00%",
    ]  # fmt: skip
    effective = to_json(parse_route("split: {baseline: {to: 1, weight: 100}, candidate: {to: 2, weight: 0}}"))
    shares = [share("baseline", "1", 1, 1), share("candidate", "2", 0, 0)]
    gateway.answers["GetRoute"] = shown(route="", effective=effective, rollout_id=7, shares=shares)
    lines = driftgate("route", "show", "iris").stdout.splitlines()
    assert lines[0] == "iris  rollout 7 takes the split (driftgate rollout status)"
    assert lines[2] == f"         candidate  to 2{' ' * 36}0.00%"


def test_a_route_fits_a_terminal_of_80_cells(gateway: CannedGateway, terminal: Callable[..., str]) -> None:
    gateway.answers["GetRoute"] = shown()
    lines = terminal(80, "route", "show", "iris", "--admin", gateway.address)
    assert "████" in lines
    shown_lines = [line.rstrip() for line in without_colours(lines).splitlines()]
    assert max(map(len, shown_lines)) <= 80
    assert "           europe   x-region matches eu-.*  stable 50.00%, challenger (to 7)" in shown_lines


def test_a_route_as_yaml_is_a_file_that_is_the_same_route(gateway: CannedGateway, driftgate: Driftgate) -> None:
    gateway.answers["GetRoute"] = shown()
    text = driftgate("route", "show", "iris", "--yaml").stdout
    assert parse_route(text) == parse_route(TEXT)
    assert "stable: 95\n" in text
    gateway.answers["GetRoute"] = shown(route="")
    assert driftgate("route", "show", "iris", "--yaml").stdout == "# no route: the default answers\n"


def test_a_route_of_a_newer_gateway_is_shown_as_it_is(gateway: CannedGateway, driftgate: Driftgate) -> None:
    gateway.answers["GetRoute"] = shown(effective='{"unknown":1}')
    assert driftgate("route", "show", "iris").stdout.splitlines() == ["iris", '{"unknown":1}']


def changed(**fields: Any) -> pb.SetRouteResponse:
    values: dict[str, Any] = {
        "route": ROUTE, "effective": ROUTE, "changed": True, "audit_id": 17, "duration": duration(0.012),
        "shares": [
            share("stable", "stable", 0.8, 0.95), share("challenger", "7", 0.2, 0.05), share("same", "1", 1e-5, 1e-5),
            share("gone", "2", 0, 0.99999),
        ],
    }  # fmt: skip
    return pb.SetRouteResponse(**(values | fields))


@pytest.mark.parametrize("source", ["-", "file"])
def test_a_route_is_set_from_a_file_or_standard_input_and_shares_are_compared(
    gateway: CannedGateway, driftgate: Driftgate, tmp_path: Path, source: str
) -> None:
    gateway.answers["SetRoute"] = changed(warnings=["rules[1] (b) never applies"])
    file = tmp_path / "route.yaml"
    file.write_text(TEXT)
    if source == "-":
        result = CliRunner().invoke(
            cli, ["route", "set", "iris", "-", "--reason", "trial", "--admin", gateway.address], input=TEXT
        )
    else:
        result = driftgate("route", "set", "iris", str(file), "--reason", "trial")
    assert (result.exit_code, result.stderr) == (0, "")
    assert gateway.request == pb.SetRouteRequest(model="iris", route=TEXT, reason="trial")
    assert result.stdout.splitlines() == [
        "iris: changed, audit 17, took 12 ms",
        "  stable      to stable   95.00%  →  80.00%   -15.00  ████████████",
        "  challenger  to 7         5.00%  →  20.00%   +15.00  ███",
        "  same        to 1        <0.01%  →  <0.01%           ▏",
        "  gone        to 2       >99.99%  →   0.00%  -100.00",
        "  warning  rules[1] (b) never applies",
    ]


def test_a_dry_run_and_a_deletion_ask_for_just_that(
    gateway: CannedGateway, driftgate: Driftgate, tmp_path: Path
) -> None:
    file = tmp_path / "route.yaml"
    file.write_text(TEXT)
    gateway.answers["SetRoute"] = changed(changed=False, audit_id=0)
    result = driftgate("route", "set", "iris", str(file), "--dry-run")
    assert gateway.request == pb.SetRouteRequest(model="iris", route=TEXT, dry_run=True)
    assert result.stdout.startswith("iris: dry run, nothing has changed\n")
    gateway.asked.clear()
    result = driftgate("route", "set", "iris", "--delete")
    assert gateway.request == pb.SetRouteRequest(model="iris")
    assert result.stdout.startswith("iris: unchanged, it was already so, took 12 ms\n")


def test_every_problem_of_a_route_has_a_line(gateway: CannedGateway, driftgate: Driftgate, tmp_path: Path) -> None:
    file = tmp_path / "route.yaml"
    file.write_text(TEXT)
    gateway.answers["SetRoute"] = RouteError("the route", ["salt: expected\x1b a text", "split.9: no version 9; 1, 2"])
    result = driftgate("route", "set", "iris", str(file))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [
        "error: INVALID_ARGUMENT: the route has 2 problems:",
        "  salt: expected\\x1b a text",
        "  split.9: no version 9; 1, 2",
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "has nothing in it; to have no route, give --delete"),
        (b"# a comment\n\n  # and another\n", "has nothing in it"),
        (b"salt: \xff", "is no UTF-8 text"),
        (b"#" * (1024 * 1024 + 1), "is longer than 1048576 bytes"),
    ],
)
def test_a_file_that_is_no_route_is_refused_before_anything_is_asked(
    gateway: CannedGateway, driftgate: Driftgate, tmp_path: Path, content: bytes, says: str
) -> None:
    file = tmp_path / "route.yaml"
    file.write_bytes(content)
    result = driftgate("route", "set", "iris", str(file))
    assert (result.exit_code, gateway.asked) == (1, [])
    assert says in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["route"],
        ["route", "show"],
        ["route", "show", "iris", "--yaml", "--json"],
        ["route", "set", "iris"],
        ["route", "set", "iris", "-", "--delete"],
        ["route", "set", "iris", "/nowhere/route.yaml"],
        ["route", "explain", "iris", "--metadata", "x-user"],
        ["route", "explain", "iris", "--metadata", "=x"],
        ["route", "explain", "iris", "--parameter", "a=1", "--parameter", "a=2"],
    ],
    ids=" ".join,
)
def test_wrong_arguments_are_usage_errors_and_nothing_is_asked(
    gateway: CannedGateway, driftgate: Driftgate, arguments: list[str]
) -> None:
    result = driftgate(*arguments)
    assert (result.exit_code, gateway.asked) == (2, [])
    assert result.stderr.startswith("Usage: ")


def explained(**fields: Any) -> pb.ExplainRouteResponse:
    story = Router("iris", parse_route(TEXT)).explain("", [("x-region", "eu-1"), ("x-user-id", "user-7")])
    values: dict[str, Any] = {
        "version": 7, "digest": "sha256:" + "ab" * 32, "target": "7", "variant": "europe/challenger",
        "reason": "sticky", "lines": story.lines(), "document": json.dumps(story.document()), "shadows": [8, 9],
    }  # fmt: skip
    return pb.ExplainRouteResponse(**(values | fields))


def test_an_explanation_tells_the_story_the_version_and_its_copies(
    gateway: CannedGateway, driftgate: Driftgate
) -> None:
    answer = gateway.answers["ExplainRoute"] = explained()
    result = driftgate(
        "route", "explain", "iris", "--metadata", "x-region=eu-1", "--metadata", "x-user-id=user=7", "--parameter",
        "n=12", "--version", "stable", "--request-id", "r-1",
    )  # fmt: skip
    assert (result.exit_code, result.stderr) == (0, "")
    assert gateway.request == pb.ExplainRouteRequest(
        model="iris",
        version="stable",
        metadata=[
            pb.MetadataEntry(key="x-region", value="eu-1"),
            pb.MetadataEntry(key="x-user-id", value="user=7"),
        ],
        parameters={"n": "12"},
        request_id="r-1",
    )
    assert result.stdout.splitlines() == [
        *answer.lines,
        "  answered by version 7, digest abababababab",
        "  a copy may go to version 8",
        "  a copy may go to version 9",
    ]


def test_what_cannot_answer_is_said(gateway: CannedGateway, driftgate: Driftgate) -> None:
    gateway.answers["ExplainRoute"] = explained(version=0, unavailable="version 7 is not served", shadows=[])
    assert driftgate("route", "explain", "iris").stdout.splitlines()[-1] == "  no answer: version 7 is not served"
    gateway.answers["ExplainRoute"] = explained(unavailable="version 7 is ready on 1 of 2 workers", shadows=[])
    assert driftgate("route", "explain", "iris").stdout.splitlines()[-2:] == [
        "  answered by version 7, digest abababababab", "  version 7 is ready on 1 of 2 workers",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "method", "answer"),
    [
        (["show", "iris"], "GetRoute", shown()),
        (["set", "iris", "--delete"], "SetRoute", changed()),
        (["explain", "iris"], "ExplainRoute", explained()),
    ],
)
def test_json_is_the_whole_answer(
    gateway: CannedGateway, driftgate: Driftgate, arguments: list[str], method: str, answer: Any
) -> None:
    gateway.answers[method] = answer
    document = json.loads(driftgate("route", *arguments, "--json").stdout)
    assert ParseDict(document, type(answer)()) == answer
