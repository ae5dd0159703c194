"""docs/reference/errors.md, from the error classes, their trees and gateway.errors.CODES."""

from __future__ import annotations

import re
from collections.abc import Iterator

from google.rpc import code_pb2

import gateway.control.main  # imports every module that defines errors
import gateway.store.contract
import runtime.errors
from gateway.errors import CODES, DOMAIN
from generator.markdown import NOTHING, code, heading, sentence, table
from runtime.errors import InvalidRequest, ModelError, Overloaded, ServingError

INTRODUCTION = f"""
Every error that driftgate answers carries `google.rpc.ErrorInfo` in `grpc-status-details-bin`: `domain` is
`{DOMAIN}`, and `reason` is the stable name that a program branches on. INVALID_ARGUMENT adds `BadRequest`, whose field
names the input; RESOURCE_EXHAUSTED adds `RetryInfo`. The message says what was expected, what came, and what to do. It
never holds a path of the server or a traceback.

INTERNAL is answered with a reference, sixteen hexadecimal digits; the log holds the same reference with the cause.
"""

UNDETAILED = (
    (
        "RESOURCE_EXHAUSTED",
        "gRPC's core refuses a message over `limits.max_message_bytes`, or metadata over `limits.max_metadata_bytes`.",
    ),
    ("UNIMPLEMENTED", "The method is unknown."),
    ("CANCELLED", "The client cancelled, or the call was still open when the drain's grace ended."),
    ("DEADLINE_EXCEEDED", "The client's own gRPC library gave up first."),
    ("UNAVAILABLE", "The client's own gRPC library has no connection."),
    (
        "any",
        "RepositoryIndex, RepositoryModelLoad and RepositoryModelUnload pass on the code and message of control.",
    ),
)


def page() -> str:
    rows = [
        (code(kind.__name__), code(kind.reason), _code(kind), _details(kind), _meaning(kind)) for kind in _answered()
    ]
    source = "gateway/errors.py, runtime/errors.py and gateway/store/contract.py"
    headers = ("error", "reason", "gRPC code", "details", "meaning")
    return heading("Errors", source) + INTRODUCTION + "\n" + table(headers, [*rows, _unforeseen()]) + _undetailed()


def _undetailed() -> str:
    title = "\n## Without details\nSome statuses are made where no `ErrorInfo` is added:\n\n"
    return title + table(("code", "when"), UNDETAILED)


def _answered() -> Iterator[type[ServingError]]:
    """Depth first, leaving out classes that only group others."""
    pending = [ServingError]
    while pending:
        kind = pending.pop()
        below = sorted(kind.__subclasses__(), key=lambda each: each.__name__, reverse=True)
        pending += below
        if kind not in (ServingError, ModelError) and kind is not runtime.errors.CallerError:
            yield kind


def _code(kind: type[ServingError]) -> str:
    number = next((number for known, number in CODES if issubclass(kind, known)), code_pb2.INTERNAL)
    return str(code_pb2.Code.Name(number))


def _details(kind: type[ServingError]) -> str:
    more = [
        name for known, name in ((InvalidRequest, "BadRequest"), (Overloaded, "RetryInfo")) if issubclass(kind, known)
    ]
    return ", ".join(more) or NOTHING


def _meaning(kind: type[ServingError]) -> str:
    trees = f"{runtime.errors.__doc__}\n{gateway.store.contract.__doc__}"
    drawn = re.search(rf"[├└]── {kind.__name__}\s+(\S.*)", trees)
    text = drawn.group(1) if drawn else (kind.__doc__ or "").split("\n\n")[0]
    if not text:
        raise SystemExit(f"{kind.__module__}.{kind.__name__} has neither a docstring nor a line in an error tree")
    return _capital(sentence(text))


def _unforeseen() -> tuple[str, ...]:
    return "anything else", code("INTERNAL"), "INTERNAL", NOTHING, "An unforeseen error: a bug."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
