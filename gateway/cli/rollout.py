"""`driftgate rollout`: bring a version live a part at a time, see how far it is, and end it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from gateway.cli.failure import INTERRUPTED
from gateway.cli.options import Peer, client_options, json_option, reason_option
from gateway.cli.output import write

if TYPE_CHECKING:
    from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

START_TIMEOUT_SECONDS = 60.0
"""The gateway looks for both versions in the repository before it answers."""

MAX_ROLLOUTS = 1000
PLAN = click.argument("plan", type=click.Path(dir_okay=False, exists=True, allow_dash=True))
WHICH = click.argument("which", metavar="MODEL|ID")
retry_option = click.option(
    "--retry", type=click.FloatRange(0, 86_400), default=60.0, show_default=True, metavar="SECONDS",
    help="How long to try to reach again a gateway that has gone; rollouts outlive it.",
)  # fmt: skip


@click.group(epilog="Example: driftgate rollout start rollout.yaml --watch")
def rollout() -> None:
    """Bring a version live a part at a time, judged as it goes."""
    from gateway.cli.bars import replace_the_unknown

    replace_the_unknown()


@rollout.command(epilog="Example: driftgate rollout start rollout.yaml --watch --reason 'trained on June'")
@PLAN
@click.option("--dry-run", is_flag=True, help="Only tell what would happen, and what the gateway would refuse.")
@click.option("--watch", is_flag=True, help="Watch it until it has ended; exit status as of `rollout watch`.")
@retry_option
@reason_option
@json_option
@client_options(START_TIMEOUT_SECONDS)
def start(peer: Peer, plan: str, retry: float, reason: str, *, dry_run: bool, watch: bool, as_json: bool) -> None:
    """Start a rollout by PLAN, a YAML or JSON file ("-": standard input)."""
    from gateway.cli.rollout_plan import read_plan_file
    from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

    if dry_run and watch:
        raise click.UsageError("--dry-run starts nothing that --watch could watch: give one of them")
    text, _ = read_plan_file(plan)
    response = _started(peer, text, reason, dry_run=dry_run, as_json=as_json, quiet=watch and as_json)
    if watch:
        _watch(peer, pb.WatchRolloutRequest(id=response.rollout.id), retry, as_json=as_json)


@rollout.command(
    epilog="Examples: driftgate rollout check rollout.yaml; driftgate rollout check rollout.yaml --dry-run"
)
@PLAN
@click.option("--dry-run", is_flag=True, help="Ask the gateway too: are its versions there, is another under way.")
@json_option
@client_options(START_TIMEOUT_SECONDS)
def check(peer: Peer, plan: str, *, dry_run: bool, as_json: bool) -> None:
    """Tell what PLAN would do, or everything that is wrong with it; needs no gateway."""
    from gateway.cli.console import show, window_width
    from gateway.cli.rollout_plan import outline, outline_json, read_plan_file

    text, found = read_plan_file(plan)
    if dry_run:
        _started(peer, text, "", dry_run=True, as_json=as_json, quiet=False)
    elif as_json:
        write(json.dumps(outline_json(found, []), indent=2, sort_keys=True))
    else:
        show(outline(found, [], window_width()))


@rollout.command(epilog="Examples: driftgate rollout status; driftgate rollout status iris")
@click.argument("which", metavar="[MODEL|ID]", required=False, default="")
@json_option
@client_options()
def status(peer: Peer, which: str, *, as_json: bool) -> None:
    """Show the newest rollout of a model, or all that are under way."""
    from gateway.cli.bars import marks
    from gateway.cli.client import ask
    from gateway.cli.console import show, show_json, window_width
    from gateway.cli.rollout_list import moves, under_way
    from gateway.cli.rollout_screen import rollout_screen
    from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

    if not which:
        _list(under_way(peer), "no rollout is under way", as_json=as_json)
        return
    response: pb.GetRolloutResponse = ask(peer, "GetRollout", pb.GetRolloutRequest(**_which(which)))
    if as_json:
        show_json(response)
        return
    decisions = moves(peer, response.rollout.id)
    show(rollout_screen(response.rollout, decisions, marks(), window_width()))


@rollout.command("list", epilog="Example: driftgate rollout list iris --limit 20")
@click.argument("model", required=False, default="")
@click.option(
    "--limit",
    type=click.IntRange(1, MAX_ROLLOUTS),
    default=100,
    show_default=True,
    metavar="N",
    help="At most so many.",
)
@click.option("--before", type=click.IntRange(1), metavar="ID", default=None, help="Only rollouts older than this one.")
@json_option
@client_options()
def list_rollouts(peer: Peer, model: str, limit: int, before: int | None, *, as_json: bool) -> None:
    """List rollouts (of one MODEL), the newest first."""
    from gateway.cli.client import ask
    from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

    request = pb.ListRolloutsRequest(model=model, limit=limit, before_id=before or 0)
    response: pb.ListRolloutsResponse = ask(peer, "ListRollouts", request)
    _list(response, "no rollouts", as_json=as_json)
    if len(response.rollouts) == limit:
        click.echo(f"older ones: --before {response.rollouts[-1].id}", err=True)


@rollout.command(epilog="Examples: driftgate rollout watch iris; driftgate rollout watch 7 --json")
@WHICH
@retry_option
@json_option
@client_options()
def watch(peer: Peer, which: str, retry: float, *, as_json: bool) -> None:
    """Watch until it is live (status 0), rolled back (5), aborted (6) or inconclusive (7)."""
    from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

    _watch(peer, pb.WatchRolloutRequest(**_which(which)), retry, as_json=as_json)


@rollout.command(epilog="Examples: driftgate rollout history iris; driftgate rollout history 7 --evidence")
@WHICH
@click.option("--evidence", is_flag=True, help="With all that each decision follows from, as JSON.")
@json_option
@client_options()
def history(peer: Peer, which: str, *, evidence: bool, as_json: bool) -> None:
    """Tell what was decided, when, why, by whom, and from which figures."""
    from gateway.cli.rollout_history import show_history
    from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

    request = pb.ListRolloutDecisionsRequest(with_evidence=evidence, **_which(which))
    show_history(peer, request, as_json=as_json)


def _command(name: str, meaning: str, example: str) -> None:
    @rollout.command(name, help=meaning, epilog=f"Example: driftgate rollout {name} {example}")
    @WHICH
    @reason_option
    @json_option
    @client_options()
    def command(peer: Peer, which: str, reason: str, *, as_json: bool) -> None:
        from gateway.cli.bars import marks
        from gateway.cli.client import ask
        from gateway.cli.console import show, show_json, window_width
        from gateway.cli.rollout_screen import rollout_screen
        from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

        request = pb.CommandRolloutRequest(verb=f"VERB_{name.upper()}", reason=reason, **_which(which))
        response: pb.CommandRolloutResponse = ask(peer, "CommandRollout", request)
        if as_json:
            show_json(response)
            return
        show(rollout_screen(response.rollout, [], marks(), window_width()))


_command("pause", "Keep the traffic as it is until it is resumed; harm still ends it.", "iris --reason 'holidays'")
_command("resume", "Go on after a pause, or again with a step that was inconclusive.", "iris")
_command("promote", "Go to the next step, after the last one live, whatever gates say.", "iris --reason 'reviewed'")
_command("abort", "End it and send all requests to the baseline.", "iris --reason 'wrong threshold'")


def _which(which: str) -> dict[str, Any]:
    """A number is a rollout's id."""
    return {"id": int(which)} if which.isascii() and which.isdecimal() and len(which) < 19 else {"model": which}


def _started(
    peer: Peer, text: str, reason: str, *, dry_run: bool, as_json: bool, quiet: bool
) -> pb.StartRolloutResponse:
    from gateway.cli.client import ask
    from gateway.cli.console import show, show_json, window_width
    from gateway.cli.rollout_plan import outline
    from gateway.cli.rollout_text import plan_of
    from gateway.cli.text import one_line
    from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

    request = pb.StartRolloutRequest(plan=text, dry_run=dry_run, reason=reason)
    response: pb.StartRolloutResponse = ask(peer, "StartRollout", request)
    if as_json:
        if not quiet:
            show_json(response)
        return response
    plan, found = plan_of(response.rollout), response.rollout
    if dry_run and plan is not None:
        show(outline(plan, response.warnings, window_width()))
        return response
    for warning in response.warnings:
        click.echo(f"warning: {one_line(warning)}", err=True)
    name = one_line(found.model)
    write(f"{name}: rollout {found.id} has begun, {found.candidate} instead of {found.baseline}")
    return response


def _list(response: pb.ListRolloutsResponse, nothing: str, *, as_json: bool) -> None:
    from gateway.cli.console import show, show_json
    from gateway.cli.rollout_list import rollouts_table

    if as_json:
        show_json(response)
    elif response.rollouts:
        show(rollouts_table(response.rollouts))
    else:
        write(nothing)


def _watch(peer: Peer, request: pb.WatchRolloutRequest, retry_seconds: float, *, as_json: bool) -> None:
    from gateway.cli.rollout_watch import watch_rollout

    try:
        ended = watch_rollout(peer, request, retry_seconds, as_json=as_json)
    except KeyboardInterrupt:
        ended = INTERRUPTED
    click.get_current_context().exit(ended)
