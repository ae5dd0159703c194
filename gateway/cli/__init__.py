"""The command line. Exit status: 0 done, 1 refused or failed, 2 wrong usage or configuration, 3 gateway not reached,
4 an alarm (of `driftgate drift --exit-code`). Of a rollout that is watched: 0 live, 5 rolled back, 6 aborted,
7 inconclusive, 130 interrupted by Ctrl-C.

`driftgate --help` must be quick: modules that commands are made of import only click, the rest inside the command.
"""

from __future__ import annotations

import click

from gateway.cli.audit import audit
from gateway.cli.changes import default, label, load, unload
from gateway.cli.drift import drift
from gateway.cli.models import models
from gateway.cli.profile import profile
from gateway.cli.reference import reference
from gateway.cli.rollout import rollout
from gateway.cli.route import route
from gateway.cli.serve import config, serve
from gateway.cli.shadow import shadow
from gateway.cli.stats import stats
from gateway.cli.status import status
from gateway.cli.top import top
from gateway.cli.watch import watch
from gateway.version import VERSION


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: driftgate serve --models ./models",
)
@click.version_option(VERSION, prog_name="driftgate")
def cli() -> None:
    """Serves versioned ONNX models over gRPC and swaps their versions live."""


COMMANDS = (
    serve, config, status, models, top, drift, stats, shadow, reference, profile, route, rollout, load, unload, label,
    default, watch, audit,
)  # fmt: skip

for command in COMMANDS:
    cli.add_command(command)
