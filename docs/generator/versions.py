"""docs/reference/versions.md and the diagram in life-of-a-version.md, from the table of states."""

from __future__ import annotations

import inspect

from gateway.control.views import INDEX_STATES
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2
from generator.markdown import code, heading, table
from runtime.versions import state
from runtime.versions.state import FINAL, TRANSITIONS, Event, VersionState

INTRODUCTION = """One loading of one version on one worker is in one of these states.
[Life of a version](../life-of-a-version.md) tells what happens in each.
"""


def page() -> str:
    doc = inspect.getdoc(state) or ""
    rules = doc.partition("Rules\n")[2].strip()
    return "\n".join(
        (
            heading("States of a version", "runtime/versions/state.py and gateway/control/views.py"),
            INTRODUCTION,
            "## Names\n",
            table(
                ("state", "in the admin API", "in Triton's repository index", "final"),
                [_names(s) for s in VersionState],
            ),
            "## Transitions\n",
            "Rows are states, columns are events. An event with no entry is not possible in that state.\n",
            table(("", *(event.value for event in Event)), [_row(s) for s in VersionState if s not in FINAL]),
            "## Rules\n",
            rules + "\n",
        )
    )


def diagram() -> str:
    return f"```mermaid\n{state.mermaid()}\n```"


def _names(each: VersionState) -> tuple[str, ...]:
    admin = f"VERSION_STATE_{each.name}"
    admin_pb2.VersionState.Value(admin)  # raises if the proto lacks it
    return each.value, code(admin), code(INDEX_STATES.get(each, "UNAVAILABLE")), "yes" if each in FINAL else "no"


def _row(each: VersionState) -> tuple[str, ...]:
    after = (TRANSITIONS.get((each, event)) for event in Event)
    return (f"**{each.value}**", *(found.value if found is not None else "" for found in after))
