"""docs/reference/events.md, from the catalogue of log events."""

from __future__ import annotations

from gateway.telemetry.access_log import MAX_WAITING as MAX_WAITING_LINES
from gateway.telemetry.events import CATALOGUE, FIELDS, MAX_TEXT, MAX_WAITING, EventKind
from gateway.telemetry.otlp_logs import severity
from gateway.telemetry.refusals import QUIET_SECONDS
from gateway.throttle import BURST, WINDOW_SECONDS
from generator.markdown import code, heading, number, sentence, table

INTRODUCTION = f"""
What happens to the gateway, as OpenTelemetry log records with an `event_name`. The control process sends them over OTLP
where logs are exported. [How to set that up](../how-to/logs.md)

At most {number(MAX_WAITING)} events wait to be exported; further ones are dropped and counted. A text longer than
{number(MAX_TEXT)} characters is cut. Requests that get an error are added up: one event stands for all of a model, code
and reason, at most every {QUIET_SECONDS:g} s. Of the changes of an actor that are refused, the first {BURST} in
{WINDOW_SECONDS:g} s have an event each, and the rest one together. Beside events, warnings and errors of the control
process's own log are sent as records without a name, with `driftgate.logger` and, where there is one, the exception.

The [access log](../how-to/logs.md#access-log) is no part of this: its lines go to standard output. At most
{number(MAX_WAITING_LINES)} of them wait for their reader.
"""


def page() -> str:
    events = [(code(kind.name), _severity(kind), sentence(kind.text), _attributes(kind)) for kind in CATALOGUE]
    attributes = [(code(item.key), item.kind, sentence(item.text)) for item in FIELDS.values()]
    return (
        heading("Log events", "gateway/telemetry/events.py")
        + INTRODUCTION
        + "\n## Events\n"
        + table(("event", "severity", "when", "attributes"), events)
        + "\n## Attributes\n"
        + table(("attribute", "type", "meaning"), attributes)
    )


def _severity(kind: EventKind) -> str:
    value, text = severity(kind.level)
    return f"{text} ({value})"


def _attributes(kind: EventKind) -> str:
    return ", ".join(code(FIELDS[name].key) for name in kind.fields)
