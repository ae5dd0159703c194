"""`driftgate rollout`, against the real admin server with scripted rollouts behind it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from canned_gateway import without_colours
from click.testing import CliRunner, Result
from rollout_server import RolloutServer, rollout_server
from scripted_rollouts import PLAN, STABLE, counts

from gateway.cli import cli, rollout_watch
from gateway.cli.failure import UNREACHABLE, Failure
from gateway.control import rollout_admin
from gateway.errors import Precondition
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from runtime.rollout.decision import Decision

Rollout = Callable[..., Result]
PASSED = {"drift": STABLE, "counts": counts(1200, 12_000, (10, 100), compared=1200, disagreed=2)}
"""Of any step, after five minutes."""


@pytest.fixture
def server() -> Iterator[RolloutServer]:
    with rollout_server() as found:
        yield found


@pytest.fixture
def rollout(server: RolloutServer) -> Rollout:
    def run(*arguments: str, **others: Any) -> Result:
        result = CliRunner().invoke(cli, ("rollout", *arguments), env={"DRIFTGATE_ADMIN": server.address}, **others)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def plan(tmp_path: Path) -> str:
    file = tmp_path / "rollout.yaml"
    file.write_text(PLAN)
    return str(file)


def look(server: RolloutServer, after_seconds: float, **seen: Any) -> Decision:
    found: Decision = server.do(lambda: server.rollouts.look(1, after_seconds, **seen))
    return found


@contextmanager
def meanwhile(server: RolloutServer, *acts: Callable[[], Any]) -> Iterator[None]:
    """Acts on the server's loop, one after another, once somebody watches."""

    def run() -> None:
        server.until(lambda: bool(server.rollouts.watchers))
        for act in acts:
            server.do(act)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join(60)


def looks(server: RolloutServer, *seen: tuple[float, dict[str, Any]]) -> list[Callable[[], Any]]:
    return [lambda s=s, after=after: server.rollouts.look(1, after, **s) for after, s in seen]  # type: ignore[misc]


LIVE = [(300.0, PASSED)] * 3
ROLLED_BACK = [(300.0, PASSED), (1.0, {"crashes": 1})]
INCONCLUSIVE = [(300.0, PASSED), (600.0, {"counts": counts(1, 20)})]
OUTLINE = """\
fraud  version 3 instead of 2, in 3 steps  plan 9132bc753990
live after 11 min at the earliest, and after 25,000 requests to the model, of which the candidate answers 2,100, \
copies included

STEP  WEIGHT  COPIES  AT LEAST  REQUESTS  AT MOST
   1       -    10 %     1 min       100        -
   2     5 %    10 %     5 min     1,000   10 min
   3    25 %       -     5 min     1,000        -

GATE          IN STEPS  LEVEL  ALLOWED
errors        1, 2, 3   0.005  share of errors <= baseline's + 0.5 %
latency p99   2, 3      0.005  latency <= 1.2 × baseline's
agreement     1, 2      0.005  at least 99 % of copies answered alike
drift inputs  1, 2, 3   0.005  no drift against the baseline

A step passes when no gate has shown harm; then the next one begins by itself. Harm rolls back; a step that takes too \
long is inconclusive. A failed load, a crash, or 10 errors among a step's first 50 requests roll back at once.
A candidate that is no worse than allowed is stopped with a probability of at most 0.05: 0.005 for each gate in each \
step.
"""


def test_a_plan_is_checked_without_a_gateway(plan: str) -> None:
    result = CliRunner().invoke(cli, ["rollout", "check", plan, "--admin", "127.0.0.1:1"])
    assert (result.exit_code, result.stderr, result.stdout) == (0, "", OUTLINE)


def test_a_plan_comes_from_standard_input_too(rollout: Rollout) -> None:
    assert rollout("check", "-", input=PLAN).stdout == OUTLINE


def test_the_example_is_a_plan(rollout: Rollout) -> None:
    example = Path(__file__).resolve().parents[3] / "examples" / "rollout.yaml"
    result = rollout("check", str(example), "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["plan"]["candidate"] == "3"


def test_what_a_plan_would_do_is_json_too(rollout: Rollout, plan: str) -> None:
    found = json.loads(rollout("check", plan, "--json").stdout)
    assert (found["least_seconds"], found["least_candidate_requests"], found["least_requests"]) == (660, 2100, 25_000)
    assert found["gates_in_force"][2] == ["errors", "latency p99", "drift inputs"]
    assert found["harm_level_of_each_gate_in_each_step"] == 0.005


@pytest.mark.parametrize("command", ["check", "start"])
def test_everything_that_is_wrong_with_a_plan_is_told_at_once(
    server: RolloutServer, rollout: Rollout, plan: str, command: str
) -> None:
    text = "".join(f"unknown_{at}: 1\n" for at in range(30)) + PLAN.replace("margin: 0.005", "margin: 5")
    Path(plan).write_text(text)
    result = rollout(command, plan)
    lines = result.stderr.splitlines()
    assert (result.exit_code, result.stdout) == (2, "")
    assert lines[0] == f"error: {plan} has 31 problems:"
    assert len(lines) == 32
    assert "  gates.errors.margin: expected a share 0 <= margin < 1, got 5" in lines
    assert server.rollouts.views == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"\xff\xfe", "is not UTF-8: see byte 0"),
        (b"model: [", "not valid YAML"),
        (b"x" * (1 << 20) + b"xx", "the file is longer than 1048576 bytes"),
    ],
)
def test_a_file_that_is_no_plan_says_so(rollout: Rollout, plan: str, text: bytes, told: str) -> None:
    Path(plan).write_bytes(text)
    result = rollout("check", plan)
    assert result.exit_code == 2
    assert told in result.stderr


@pytest.mark.parametrize("arguments", [("check",), ("start",)])
def test_a_dry_run_asks_the_gateway_and_starts_nothing(
    server: RolloutServer, rollout: Rollout, plan: str, arguments: tuple[str, ...]
) -> None:
    server.rollouts.warnings = ["5 % of 3 requests/s:\nstep 2 takes an hour"]
    result = rollout(*arguments, plan, "--dry-run")
    assert result.stdout == OUTLINE + "\nwarning: 5 % of 3 requests/s: step 2 takes an hour\n"
    assert json.loads(rollout(*arguments, plan, "--dry-run", "--json").stdout)["rollout"]["id"] == "0"
    assert server.rollouts.views == {}
    server.rollouts.refuse = Precondition("version 3 of fraud is not in the repository")
    refused = rollout(*arguments, plan, "--dry-run")
    assert refused.exit_code == 1
    assert refused.stderr == "error: FAILED_PRECONDITION: version 3 of fraud is not in the repository\n"


def test_a_dry_run_cannot_be_watched(rollout: Rollout, plan: str) -> None:
    result = rollout("start", plan, "--dry-run", "--watch")
    assert result.exit_code == 2
    assert "--dry-run starts nothing that --watch could watch" in result.stderr


def test_start_tells_the_rollouts_id_and_the_warnings(server: RolloutServer, rollout: Rollout, plan: str) -> None:
    server.rollouts.warnings = ["little traffic"]
    result = rollout("start", plan, "--reason", "trained on June")
    assert (result.exit_code, result.stderr) == (0, "warning: little traffic\n")
    assert result.stdout == "fraud: rollout 1 has begun, 3 instead of 2\n"
    assert server.rollouts.views[1].rollout.reason.endswith(": trained on June")
    assert json.loads(rollout("start", plan, "--json").stdout)["rollout"]["id"] == "2"


@pytest.mark.parametrize("which", ["fraud", "1"])
@pytest.mark.parametrize(
    ("commands", "told"),
    [
        (("pause",), "on hold, step 1 of 3"),
        (("pause", "resume"), "shadow, step 1 of 3"),
        (("promote",), "canary, step 2 of 3"),
        (("abort",), "aborted"),
    ],
)
def test_commands_show_what_became_of_it(
    rollout: Rollout, plan: str, commands: tuple[str, ...], told: str, which: str
) -> None:
    rollout("start", plan)
    for command in commands:
        result = rollout(command, which, "--reason", "seen\nenough")
        assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"fraud  3 instead of 2  {told}")
    assert lines[2].startswith(f"{commands[-1]} by loopback:")
    assert lines[2].endswith(": seen enough")


def test_a_command_that_is_not_possible_is_refused(rollout: Rollout, plan: str) -> None:
    assert rollout("pause", "fraud").stderr == "error: NOT_FOUND: no rollout 'fraud' under way\n"
    rollout("start", plan)
    result = rollout("resume", "fraud", "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "FAILED_PRECONDITION: resume is possible for a rollout that is on hold, inconclusive" in result.stderr


def test_status_shows_one_models_newest_or_all_that_are_under_way(
    server: RolloutServer, rollout: Rollout, plan: str
) -> None:
    assert rollout("status").stdout == "no rollout is under way\n"
    rollout("start", plan)
    rollout("abort", "fraud")
    rollout("start", plan)
    server.do(lambda: server.rollouts.look(2, 30, drift=STABLE, counts=counts(90, 900, (2, 9), compared=90)))
    shown = rollout("status", "fraud").stdout.splitlines()
    assert shown[1:] == [
        "● copies 10 %  ○ 5 %, copies 10 %  ○ 25 %  ○ live",
        "waits for 30 of 60 s, 90 of 100 requests",
        "",
        f"time      {'█' * 20}{'░' * 20}  30 s of 1 min",
        f"requests  {'█' * 36}{'░' * 4}  90 of 100",
        "",
        "candidate  90 requests  2 errors  2.22 %",
        "baseline  900 requests  9 errors  1 %",
        "compared   90 copies    90 agreed  100 %",
        "",
        "GATE            CANDIDATE  BASELINE  ALLOWED    ROWS                HARM              SAFETY  SAYS",
        "○ errors           2.22 %       1 %    1.5 %  90/900  ░░░░░░░░░░░░   0 %  ░░░░░░░░░░░░   0 %  neither shown",
        "○ agreement         100 %         -     99 %   90/90  ░░░░░░░░░░░░   0 %  ██░░░░░░░░░░  13 %  neither shown",
        "✓ drift inputs          -         -        -       -                   -                   -  stable",
        "",
        "LAST DECISIONS",
        shown[-1],
    ]
    assert "draft → shadow, step 1: start by loopback:" in shown[-1]
    [_, row] = rollout("status").stdout.splitlines()
    assert row.split()[:7] == ["2", "fraud", "3,", "was", "2", "shadow", "1/3"]
    assert [each["id"] for each in json.loads(rollout("status", "--json").stdout)["rollouts"]] == ["2"]
    assert json.loads(rollout("status", "2", "--json").stdout)["rollout"]["candidate_requests"] == "90"


def test_all_that_are_under_way_are_found_whatever_an_answer_holds(
    rollout: Rollout, plan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout_admin, "MAX_ANSWER_BYTES", 1)
    for _ in range(3):
        rollout("start", plan)
    rollout("abort", "2")
    assert [line.split()[0] for line in rollout("status").stdout.splitlines()] == ["ID", "3", "1"]


def test_lists_tell_where_they_go_on(rollout: Rollout, plan: str) -> None:
    assert rollout("list").stdout == "no rollouts\n"
    for _ in range(3):
        rollout("start", plan)
    result = rollout("list", "fraud", "--limit", "2")
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["ID", "3", "2"]
    assert result.stderr == "older ones: --before 2\n"
    assert len(json.loads(rollout("list", "--before", "2", "--json").stdout)["rollouts"]) == 1


def told(server: RolloutServer, rollout: Rollout, plan: str) -> None:
    rollout("start", plan, "--reason", "trained on June")
    look(server, 60, drift=STABLE, counts=counts(120, 1200, (1, 12), compared=120))
    for part in range(1, 6):  # a test learns from one look what it bets on at the next
        seen = counts(200 * part, 4000 * part, (12 * part, 40 * part), compared=400 * part)
        if look(server, 12, drift=STABLE, counts=seen).moved:
            break


def test_history_tells_what_was_decided_and_from_which_figures(
    server: RolloutServer, rollout: Rollout, plan: str
) -> None:
    told(server, rollout, plan)
    lines = rollout("history", "fraud").stdout.splitlines()
    assert lines[0] == (
        "fraud  rollout 1: 3 instead of 2  rolled back  began 2025-06-15T15:06:40Z, "
        "ended 2025-06-15T15:08:05Z after 1 min 25 s"
    )
    text = " ".join(lines)
    assert "(2) 5 %, copies 10 % for 5 min and 1,000 requests at least, 10 min at most; (3) 25 % for 5 min" in text
    assert "Judged by errors (share of errors <= baseline's + 0.5 %), latency p99" in text
    heads = [line for line in lines if line[:2].strip().isdigit()]
    assert heads == [
        " 1 2025-06-15T15:06:41Z  draft → shadow, step 1  audit 10  ✓ recomputed",
        " 2 2025-06-15T15:07:41Z  shadow → canary, step 1 → 2  ✓ recomputed",
        " 3 2025-06-15T15:08:05Z  canary → rolled back, step 2  ✓ recomputed",
    ]
    at = lines.index(heads[2])
    assert lines[at + 1].startswith("   errors: harm shown; candidate 6 %, baseline 1 %, allowed 1.5 %")
    assert [line.split()[:2] for line in lines[at + 2 :]] == [
        ["GATE", "CANDIDATE"], ["✗", "errors"], ["3", "other"]
    ]  # fmt: skip
    assert lines[lines.index(heads[0]) + 1].endswith(": trained on June")


def test_history_says_which_decision_was_altered(server: RolloutServer, rollout: Rollout, plan: str) -> None:
    told(server, rollout, plan)
    kept = server.rollouts.kept[1]
    kept[1] = replace(kept[1], recomputed=False)
    [line] = [line for line in rollout("history", "1").stdout.splitlines() if line.startswith(" 2 ")]
    assert line.endswith("✗ does not follow from what is kept of it: one of the two was altered")


def test_history_has_the_evidence_and_all_pages(
    server: RolloutServer, rollout: Rollout, plan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout_admin, "MAX_ANSWER_BYTES", 1)
    told(server, rollout, plan)
    found = json.loads(rollout("history", "1", "--json", "--evidence").stdout)["decisions"]
    assert [each["number"] for each in found] == ["1", "2", "3"]
    kept = [each.decision for each in server.rollouts.kept[1]]
    assert [Decision.from_json(each["evidence"]) for each in found] == kept
    assert all(not each["evidence"] for each in json.loads(rollout("history", "1", "--json").stdout)["decisions"])
    text = rollout("history", "1", "--evidence").stdout
    begin = text.index("\n{") + 1
    document, _ = json.JSONDecoder().raw_decode(text, begin)
    assert document == json.loads(kept[0].to_json())


@pytest.mark.parametrize(
    ("seen", "status", "last"),
    [
        (LIVE, 0, "live          fraud/3  passed: no harm shown by any gate in 1,200 requests and 300 s"),
        (ROLLED_BACK, 5, "rolled back   fraud/3  the candidate has ended 1 processes, 1 are too many"),
        (INCONCLUSIVE, 7, "inconclusive  fraud/3  step 2 of 3, -  no conclusion within 600 s: 1 of 1,000 requests"),
    ],
)
def test_a_watch_is_a_line_for_each_change_and_ends_with_a_status(
    server: RolloutServer, rollout: Rollout, plan: str, seen: Any, status: int, last: str
) -> None:
    with meanwhile(server, *looks(server, *seen)):
        result = rollout("start", plan, "--watch")
    lines = result.stdout.splitlines()
    assert (result.exit_code, result.stderr) == (status, "")
    assert lines[0] == "fraud: rollout 1 has begun, 3 instead of 2"
    assert lines[1].startswith("2025-06-15T15:06:41.000Z  shadow        fraud/3  step 1 of 3, copies 10 %  start by ")
    assert lines[-1].partition("Z  ")[2] == last
    again = rollout("watch", "1")
    assert (again.exit_code, again.stdout.splitlines()[0].partition("Z  ")[2]) == (status, last)


def test_a_watch_of_an_aborted_rollout_has_its_status(server: RolloutServer, rollout: Rollout, plan: str) -> None:
    rollout("start", plan)
    rollout("abort", "fraud")
    assert rollout("watch", "fraud").exit_code == 6


def test_gates_are_told_once_a_step(server: RolloutServer, rollout: Rollout, plan: str) -> None:
    rollout("start", plan)
    some = {"drift": STABLE, "counts": counts(90, 900, compared=90)}
    with meanwhile(server, *looks(server, (1, some), (1, some), (1, {"counts": some["counts"], "crashes": 1}))):
        lines = rollout("watch", "fraud").stdout.splitlines()
    assert [line.partition("Z  ")[2][:45].strip() for line in lines] == [
        "shadow        fraud/3  step 1 of 3, copies 10",
        "shadow        fraud/3  step 1 of 3, copies 10",
        "rolled back   fraud/3  the candidate has ende",
    ]
    assert lines[1].endswith("drift inputs: shown to be safe")


def test_a_watch_in_json_has_every_update(server: RolloutServer, rollout: Rollout, plan: str) -> None:
    with meanwhile(server, *looks(server, *ROLLED_BACK)):
        result = rollout("start", plan, "--watch", "--json")
    updates = [json.loads(line) for line in result.stdout.splitlines()]
    assert [update["rollout"]["phase"] for update in updates] == [
        "ROLLOUT_PHASE_SHADOW", "ROLLOUT_PHASE_CANARY", "ROLLOUT_PHASE_ROLLED_BACK"
    ]  # fmt: skip
    assert result.exit_code == 5


UPDATE = pb.RolloutUpdate(rollout=pb.Rollout(id=7, model="fraud", phase=pb.ROLLOUT_PHASE_SHADOW))
OVER = pb.RolloutUpdate(rollout=pb.Rollout(id=7, model="fraud", phase=pb.ROLLOUT_PHASE_LIVE))
GONE = Failure("cannot reach it", UNREACHABLE)
STARTING = Failure("UNAVAILABLE: rollouts are not ready: the gateway is starting")


@pytest.mark.parametrize(
    ("streams", "retry", "status", "asked"),
    [
        ([[UPDATE, GONE], [GONE], [STARTING], [OVER]], "60", 0, 4),
        ([[UPDATE], [OVER]], "60", 0, 2),
        ([[UPDATE, GONE]], "0", 3, 1),
        ([[UPDATE]], "0", 3, 1),
        ([[GONE]], "60", 3, 1),
        ([[UPDATE, Failure("NOT_FOUND: no rollout 7")]], "60", 1, 1),
    ],
)
def test_a_watch_outlives_the_gateway_it_has_reached(
    rollout: Rollout, monkeypatch: pytest.MonkeyPatch, streams: Any, retry: str, status: int, asked: int
) -> None:
    requests = []

    def stream(_peer: Any, _method: str, request: Any) -> Iterator[Any]:
        requests.append(request)
        for each in streams[len(requests) - 1]:
            if isinstance(each, Failure):
                raise each
            yield each

    monkeypatch.setattr(rollout_watch, "stream", stream)
    monkeypatch.setattr(rollout_watch, "RETRY_PAUSE_SECONDS", 0)
    assert rollout("watch", "fraud", "--retry", retry).exit_code == status
    assert requests == [pb.WatchRolloutRequest(model="fraud"), *[pb.WatchRolloutRequest(id=7)] * (asked - 1)]


@pytest.mark.parametrize(("columns", "lines"), [(120, 40), (80, 24), (60, 20), (40, 12)])
def test_a_terminal_shows_a_screen_that_fits_and_keeps_how_it_ended(
    server: RolloutServer, rollout: Rollout, plan: str, terminal: Callable[..., str], columns: int, lines: int
) -> None:
    rollout("start", plan)
    with meanwhile(server, *looks(server, *ROLLED_BACK)):
        shown = terminal(
            columns, "rollout", "watch", "fraud", "--admin", server.address, lines=lines, status=5
        )  # fmt: skip
    screens, _, kept = shown.partition("\x1b[?1049l")
    drawn = [without_colours(screen).splitlines() for screen in screens.split("\x1b[H")]
    drawn = [screen for screen in drawn if screen and screen[0].startswith("fraud")]
    assert drawn
    for screen in drawn:
        assert len(screen) <= lines
        assert all(len(line.rstrip()) <= columns for line in screen)
    assert any("canary, step 2" in screen[0] for screen in drawn)
    last = without_colours(kept).splitlines()
    assert any("rolled back" in line for line in last)
    assert any(line.startswith("✗") or "✗ 5 %" in line for line in last)
    if columns >= 60:
        canary = next(screen for screen in drawn if "canary, step 2 of 3" in screen[0])
        gates = [line for line in canary if line[:1] in "○✓✗" and line[2:].startswith(("errors", "latency p99"))]
        assert len(gates) == 2


def test_a_terminal_that_cannot_be_redrawn_gets_lines(
    server: RolloutServer, rollout: Rollout, plan: str, terminal: Callable[..., str]
) -> None:
    rollout("start", plan)
    rollout("abort", "fraud")
    shown = terminal(80, "rollout", "watch", "1", "--admin", server.address, term="dumb", status=6)
    assert "\x1b" not in shown
    assert shown.startswith("2025-06-15T15:06:42.000Z  aborted       fraud/3  abort by loopback:")


def test_an_encoding_without_bars_gets_plain_ones(
    server: RolloutServer, rollout: Rollout, plan: str, process: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    rollout("start", plan, "--reason", "größer")
    look(server, 30, drift=STABLE, counts=counts(90, 900, (2, 9), compared=90))
    ascii_only = {"DRIFTGATE_ADMIN": server.address, "PYTHONIOENCODING": "ascii"}
    shown = process("rollout", "status", "fraud", **ascii_only)
    lines = shown.stdout.splitlines()
    assert (shown.returncode, shown.stderr) == (0, "")
    assert lines[1] == "> copies 10 %  - 5 %, copies 10 %  - 25 %  - live"
    assert lines[4] == f"time      {'#' * 20}{'.' * 20}  30 s of 1 min"
    history = process("rollout", "history", "fraud", **ascii_only)
    assert (history.returncode, history.stderr) == (0, "")
    assert "draft -> shadow, step 1" in history.stdout


def test_ctrl_c_has_a_status_of_its_own(server: RolloutServer, rollout: Rollout, plan: str) -> None:
    rollout("start", plan)
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "rollout", "watch", "fraud", "--admin", server.address],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "80"},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert "shadow" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=30)
        assert (process.returncode, rest, errors) == (130, "", "")
    finally:
        process.kill()
        process.communicate()
