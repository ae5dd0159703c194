"""`driftgate drift` and `driftgate reference`."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from canned_gateway import CannedGateway, refuse, without_colours
from click.testing import Result
from rich.console import Console
from support.drift_answers import PROFILE_DIGEST, Answers, stamp, without_reference
from support.drift_scenes import orders

from gateway.cli.columns import Column
from gateway.cli.drift import HISTORY_LOOKS
from gateway.cli.drift_table import COLUMNS, drift_screen
from gateway.control.drift_history import MAX_LOOKS
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from runtime.errors import NotFound

Driftgate = Callable[..., Result]


@pytest.fixture(scope="module")
def seen() -> Answers:
    return orders()


@pytest.fixture
def answered(gateway: CannedGateway, seen: Answers, monkeypatch: pytest.MonkeyPatch) -> CannedGateway:
    monkeypatch.setenv("TZ", "UTC")
    gateway.answers["GetDrift"] = pb.GetDriftResponse(reports=[seen.drift])
    gateway.answers["GetFeatures"] = seen.features
    return gateway


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_it_says_which_how_much_how_sure_since_when_and_compared_with_what(
    answered: CannedGateway, driftgate: Driftgate, seen: Answers
) -> None:
    result = driftgate("drift", "orders")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[:8] == [
        "orders/3  drifted",
        "  window      10 min, 2025-06-15 15:15 to 15:25 UTC, 2,500 rows",
        "  reference   profile fedcba987654, 30,000 rows, set 2025-06-15 13:06 UTC",
        "  decision    3 drifted, 8 stable, 1 not enough data",
        "  uncompared  only live: the reference does not have it",
        "              only in training: only the reference has it",
        f"  guarantee   {seen.drift.guarantee}",
        "",
    ]
    assert " ".join(lines[8].split()) == (
        "SUBJECT ROLE DECISION MEASURE VALUE BRACKET THRESHOLD CHANCE P SINCE AGE LIVE REFERENCE"
    )
    first, second, third, fourth = map(cells, lines[9:13])
    assert first[:5] == ["weight in kg", "feature", "alarm, drifted", "Wasserstein", "1,500 σ"]
    assert second[:5] == ["distance", "feature", "alarm, drifted", "NaN share", "0.12"]
    assert third[:5] == ["payment", "feature", "alarm, drifted", "new category share", "0.0711"]
    assert third[6:10] == ["0.01", "0.0012", "< 1e-12", "2025-06-15 15:07"]
    assert third[-2:] == ["2,378", "30,000"]
    assert fourth[2] == "stable"
    assert answered.request == pb.GetDriftRequest(model="orders")


def test_order_is_the_gateways(answered: CannedGateway, driftgate: Driftgate, seen: Answers) -> None:
    shown = [cells(line)[0] for line in driftgate("drift", "--all").stdout.splitlines()[9:]]
    assert shown == [verdict.subject for verdict in seen.drift.verdicts]


def test_ten_of_those_that_did_not_drift_are_enough(gateway: CannedGateway, driftgate: Driftgate) -> None:
    verdicts = [pb.DriftVerdict(subject="loud", decision="drifted"), *(
        pb.DriftVerdict(subject=f"calm {n}", decision="stable") for n in range(25)
    )]  # fmt: skip
    gateway.answers["GetDrift"] = pb.GetDriftResponse(reports=[pb.DriftReport(model="m", verdicts=verdicts)])
    shown = driftgate("drift").stdout
    assert shown.splitlines()[-1] == "15 more subjects changed less (--all)"
    assert shown.count("calm") == 10
    assert driftgate("drift", "--all").stdout.count("calm") == 25


def test_alarms_of_evidence_have_a_line_of_their_own(gateway: CannedGateway, driftgate: Driftgate) -> None:
    verdict = pb.DriftVerdict(subject="slow", decision="stable", alarmed_by_evidence=True, log_evidence=14)
    gateway.answers["GetDrift"] = pb.GetDriftResponse(reports=[pb.DriftReport(model="m", verdicts=[verdict])])
    shown = driftgate("drift").stdout
    assert "evidence   of all panes so far alarms for slow" in shown
    assert "evidence, stable" in shown


def test_without_a_reference_it_says_how_to_get_one(
    gateway: CannedGateway, driftgate: Driftgate, seen: Answers
) -> None:
    gateway.answers["GetDrift"] = pb.GetDriftResponse(reports=[without_reference(seen).drift])
    shown = driftgate("drift", "orders").stdout
    assert "reference   none" in shown
    assert "problem     the version has no reference" in shown
    assert "driftgate profile build --model orders --version 3 --data train.parquet" in shown
    assert "driftgate reference orders --version 3 --live-rows 10000" in shown


def test_while_a_reference_is_gathered_it_says_how_far_it_is(
    gateway: CannedGateway, driftgate: Driftgate, seen: Answers
) -> None:
    gathering = without_reference(seen, gathered=1_200, wanted=10_000).drift
    gateway.answers["GetDrift"] = pb.GetDriftResponse(reports=[gathering])
    shown = driftgate("drift").stdout
    assert "live rows, 1,200 of 10,000 gathered" in shown
    assert "profile build" not in shown


def test_nothing_served_is_said(gateway: CannedGateway, driftgate: Driftgate) -> None:
    gateway.answers["GetDrift"] = pb.GetDriftResponse()
    assert driftgate("drift").stdout == "no version is served, so there is nothing to compare\n"


def test_json_is_the_answer(answered: CannedGateway, driftgate: Driftgate) -> None:
    document = json.loads(driftgate("drift", "orders", "--version", "3", "--json").stdout)
    assert answered.request == pb.GetDriftRequest(model="orders", version=3)
    [report] = document["reports"]
    assert report["verdicts"][0]["subject"] == "weight in kg"
    assert report["reference"]["digest"] == PROFILE_DIGEST


@pytest.mark.parametrize(
    ("verdict", "status"),
    [({"alarmed": True}, 4), ({"alarmed_by_evidence": True}, 4), ({"decision": "drifted"}, 0), ({}, 0)],
    ids=["alarm", "evidence", "one look", "calm"],
)
def test_the_exit_status_tells_of_alarms_where_it_was_asked_to(
    gateway: CannedGateway, driftgate: Driftgate, verdict: dict[str, Any], status: int
) -> None:
    report = pb.DriftReport(model="m", verdicts=[pb.DriftVerdict(subject="s", **verdict)])
    gateway.answers["GetDrift"] = pb.GetDriftResponse(reports=[report])
    assert driftgate("drift").exit_code == 0
    assert driftgate("drift", "--exit-code").exit_code == status
    assert driftgate("drift", "--exit-code", "--json").exit_code == status


def test_an_alarm_and_a_gateway_that_is_gone_differ_on_standard_error(
    process: Callable[..., Any], answered: CannedGateway
) -> None:
    there = process("drift", "--exit-code", DRIFTGATE_ADMIN=answered.address)
    gone = process("drift", "--exit-code", DRIFTGATE_ADMIN="127.0.0.1:1")
    assert (there.returncode, there.stderr) == (4, "")
    assert (gone.returncode, gone.stdout) == (3, "")
    assert gone.stderr.startswith("error: cannot reach")


def test_the_report_is_written_of_the_same_version_and_window(
    answered: CannedGateway, driftgate: Driftgate, tmp_path: Path
) -> None:
    file = tmp_path / "report.html"
    result = driftgate("drift", "orders", "--html", str(file))
    assert result.stdout == f"{file}: orders/3: Drift of weight in kg, distance and payment\n"
    assert file.read_text(encoding="utf-8").startswith("<!doctype html>")
    (_, drift, _), (_, features, _) = answered.asked
    assert drift == pb.GetDriftRequest(model="orders", history=HISTORY_LOOKS)
    assert features == pb.GetFeaturesRequest(model="orders", version=3)


def test_no_more_of_the_past_is_asked_for_than_the_gateway_answers() -> None:
    assert HISTORY_LOOKS <= MAX_LOOKS


def test_notes_are_shown_and_many_are_cut(gateway: CannedGateway, driftgate: Driftgate) -> None:
    report = pb.DriftReport(model="m", notes=[f"note {n}" for n in range(9)])
    gateway.answers["GetDrift"] = pb.GetDriftResponse(reports=[report])
    assert "note 2\n             6 more (--all)\n" in driftgate("drift").stdout
    assert "note 8" in driftgate("drift", "--all").stdout


def test_a_reference_that_another_will_replace_is_still_one(
    answered: CannedGateway, driftgate: Driftgate, seen: Answers
) -> None:
    report = pb.DriftReport()
    report.CopyFrom(seen.drift)
    report.reference.rows_gathered, report.reference.rows_wanted = 500, 2_000
    answered.answers["GetDrift"] = pb.GetDriftResponse(reports=[report])
    shown = driftgate("drift").stdout
    assert "UTC; live rows instead: 500 of 2,000 gathered" in shown
    assert "alarm, drifted" in shown


def test_of_several_versions_the_report_is_of_the_default_one(
    answered: CannedGateway, driftgate: Driftgate, seen: Answers, tmp_path: Path
) -> None:
    others = [pb.DriftReport(model="orders", version=number) for number in (1, 2)]
    answered.answers["GetDrift"] = pb.GetDriftResponse(reports=[others[0], seen.drift, others[1]])
    file = tmp_path / "report.html"
    assert driftgate("drift", "orders", "--html", str(file)).stdout.startswith(f"{file}: orders/3: Drift of")
    assert answered.asked[-1][1] == pb.GetFeaturesRequest(model="orders")
    answered.answers["GetDrift"] = pb.GetDriftResponse(reports=others)
    result = driftgate("drift", "orders", "--html", str(file))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "drift is not looked for in version 3, the default: give --version" in result.stderr


def test_a_report_of_several_models_is_refused(answered: CannedGateway, driftgate: Driftgate, seen: Answers) -> None:
    other = pb.DriftReport(model="other", version=1)
    answered.answers["GetDrift"] = pb.GetDriftResponse(reports=[seen.drift, other])
    result = driftgate("drift", "--html", "x.html")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "there are orders, other: give MODEL" in result.stderr


def test_a_file_that_cannot_be_written_is_said(answered: CannedGateway, driftgate: Driftgate, tmp_path: Path) -> None:
    result = driftgate("drift", "--html", str(tmp_path / "none" / "x.html"))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "x.html cannot be written: No such file or directory" in result.stderr


@pytest.mark.parametrize(
    "arguments", [("--version", "3"), ("--watch", "--html", "x"), ("--watch", "--exit-code"), ("--interval", "0")]
)
def test_what_does_not_go_together_is_wrong_usage(driftgate: Driftgate, arguments: tuple[str, ...]) -> None:
    assert driftgate("drift", *arguments).exit_code == 2


def test_an_unknown_model_is_status_1(gateway: CannedGateway, driftgate: Driftgate) -> None:
    gateway.answers["GetDrift"] = NotFound("no model 'unheard'")
    result = driftgate("drift", "unheard")
    assert (result.exit_code, result.stderr) == (1, "error: NOT_FOUND: no model 'unheard'\n")


def test_names_cannot_drive_the_terminal(gateway: CannedGateway, driftgate: Driftgate) -> None:
    name = "[red]\x1b[2J\u202e"
    verdict = pb.DriftVerdict(subject=name, role=name, decision=name, findings=[pb.DriftFinding(aspect=name)])
    report = pb.DriftReport(model=name, decision=name, problem=name, guarantee=name, uncompared=[name])
    with_verdict = pb.DriftReport(model=name, verdicts=[verdict], reference=pb.Reference(kind=name, digest=name))
    gateway.answers["GetDrift"] = pb.GetDriftResponse(reports=[report, with_verdict])
    shown = driftgate("drift").stdout
    assert r"[red]\x1b[2J\u202e" in shown
    assert not {"\x1b", "\u202e"} & set(shown)


@pytest.mark.parametrize(
    ("columns", "term"), [(60, "xterm"), (80, "xterm"), (120, "xterm"), (200, "xterm"), (80, "dumb")]
)
def test_a_window_keeps_what_matters_on_one_line(
    answered: CannedGateway, terminal: Callable[..., str], columns: int, term: str
) -> None:
    raw = terminal(columns, "drift", "--admin", answered.address, term=term)
    assert ("\x1b[1;31malarm, drifted" in raw) == (term != "dumb")
    shown = [line.rstrip() for line in without_colours(raw).splitlines()]
    assert all(len(line) <= columns for line in shown)
    headers = next(line for line in shown if line.startswith("SUBJECT")).split()
    wanted = ["SUBJECT", "DECISION", "MEASURE", "VALUE", *(["P", "AGE"] if columns >= 80 else [])]
    assert set(wanted) <= set(headers)
    if columns >= 120:
        assert {"THRESHOLD", "CHANCE", "SINCE"} <= set(headers)
    assert sum(line.count("alarm, drifted") for line in shown) == 3


def test_a_terminal_is_drawn_again_until_the_gateway_refuses(
    answered: CannedGateway, terminal: Callable[..., str], seen: Answers
) -> None:
    left = [pb.GetDriftResponse(reports=[seen.drift]), pb.GetDriftResponse(reports=[without_reference(seen).drift])]

    def in_turn(context: Any) -> Any:
        if left:
            return left.pop(0)
        return refuse(context, NotFound("that is all"))

    answered.answers["GetDrift"] = in_turn
    shown = terminal(100, "drift", "--watch", "--interval", "1", "--admin", answered.address, status=1)
    first, second = without_colours(shown).split("no verdict", 1)
    assert "alarm, drifted" in first
    assert "the version has no reference" in second
    assert shown.count("\x1b[?1049h") == shown.count("\x1b[?1049l") == 1
    assert "error: NOT_FOUND: that is all" in shown


def test_watch_in_a_pipe_is_one_look(answered: CannedGateway, driftgate: Driftgate) -> None:
    assert "alarm, drifted" in driftgate("drift", "--watch").stdout
    assert len(answered.asked) == 1


def test_columns_have_names_of_their_own() -> None:
    assert len({column.name for column in COLUMNS}) == len(COLUMNS)
    assert all(isinstance(column, Column) for column in COLUMNS)


def test_of_today_the_time_is_enough_and_the_age_goes_on(seen: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(width=250, record=True, file=io.StringIO())
    since = seen.drift.verdicts[0].since.ToNanoseconds() / 1e9
    console.print(drift_screen(pb.GetDriftResponse(reports=[seen.drift]), None, since + 4_800))
    row = next(line for line in console.export_text().splitlines() if line.startswith("weight in kg"))
    assert "1 h 20 min" in row
    assert "2025-06-15" not in row or stamp(since).ToDatetime().hour > 22


@pytest.mark.parametrize(
    ("arguments", "request_"),
    [
        (("--profile",), pb.SetReferenceRequest(model="orders", kind="profile")),
        (("--live-rows", "5000", "--version", "3"),
         pb.SetReferenceRequest(model="orders", version=3, kind="live", live_rows=5000)),
        (("--none", "--reason", "holidays"), pb.SetReferenceRequest(model="orders", kind="none", reason="holidays")),
    ],
)  # fmt: skip
def test_a_reference_is_set(
    gateway: CannedGateway, driftgate: Driftgate, arguments: tuple[str, ...], request_: pb.SetReferenceRequest
) -> None:
    gateway.answers["SetReference"] = pb.SetReferenceResponse(changed=True, audit_id=12)
    result = driftgate("reference", "orders", *arguments)
    assert result.stdout == "orders: changed, audit 12; compared with nothing\n"
    assert gateway.request == request_


def test_what_is_compared_with_then_is_said(gateway: CannedGateway, driftgate: Driftgate) -> None:
    reference = pb.Reference(kind="profile", digest=PROFILE_DIGEST, rows=30_000)
    gateway.answers["SetReference"] = pb.SetReferenceResponse(reference=reference)
    shown = driftgate("reference", "orders", "--profile").stdout
    assert shown == "orders: unchanged, it was already so; compared with profile fedcba987654, 30,000 rows\n"
    assert json.loads(driftgate("reference", "orders", "--profile", "--json").stdout)["reference"]["rows"] == "30000"


@pytest.mark.parametrize("arguments", [(), ("--profile", "--none"), ("--live-rows", "0")])
def test_one_kind_of_reference_is_asked_for(driftgate: Driftgate, arguments: tuple[str, ...]) -> None:
    assert driftgate("reference", "orders", *arguments).exit_code == 2
