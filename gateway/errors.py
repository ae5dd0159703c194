"""Errors ↔ gRPC status, in one table.

    runtime or gateway error   code                 details (google.rpc)
    InvalidRequest             INVALID_ARGUMENT     ErrorInfo, BadRequest
    NotFound                   NOT_FOUND            ErrorInfo
    NotReady, Draining         UNAVAILABLE          ErrorInfo
    RepositoryError            UNAVAILABLE          ErrorInfo
    Overloaded                 RESOURCE_EXHAUSTED   ErrorInfo, RetryInfo
    DeadlineExceeded           DEADLINE_EXCEEDED    ErrorInfo
    Cancelled                  CANCELLED            ErrorInfo
    Unauthenticated            UNAUTHENTICATED      ErrorInfo
    Denied                     PERMISSION_DENIED    ErrorInfo
    StoreConflict              ABORTED              ErrorInfo
    RolloutConflict            ABORTED              ErrorInfo
    StoreError                 UNAVAILABLE          ErrorInfo
    Unsupported                UNIMPLEMENTED        ErrorInfo
    LoadError, Precondition    FAILED_PRECONDITION  ErrorInfo
    RunError                   INTERNAL             ErrorInfo        "model failed"
    anything else              INTERNAL             ErrorInfo        "internal error" and a reference to the log

A message reaches the client as it is; `detail` stays in the log.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from gateway.store.contract import RolloutConflict, StoreConflict, StoreError
from gateway.throttle import Throttle
from runtime import errors as runtime_errors
from runtime.errors import ServingError

log = logging.getLogger(__name__)

DOMAIN = "driftgate"
STATUS_DETAILS = "grpc-status-details-bin"
MAX_MESSAGE_BYTES = 1000
"""Clients take 8 KiB of trailers, in which it stands up to three times, percent-encoded or in base 64."""


class Draining(runtime_errors.NotReady):
    """The gateway is shutting down; it finishes what is in flight."""

    reason = "DRAINING"


class Unauthenticated(runtime_errors.CallerError):
    """Nobody known is asking: no token, or a wrong one."""

    reason = "UNAUTHENTICATED"


class Denied(runtime_errors.CallerError):
    """Whoever asks may not do this here."""

    reason = "PERMISSION_DENIED"


class Precondition(runtime_errors.CallerError):
    """The request is right, but the present state forbids it."""

    reason = "FAILED_PRECONDITION"


class Unsupported(runtime_errors.CallerError):
    """There is no such function here."""

    reason = "UNSUPPORTED"


CODES: tuple[tuple[type[ServingError], int], ...] = (
    (runtime_errors.InvalidRequest, code_pb2.INVALID_ARGUMENT),
    (runtime_errors.NotFound, code_pb2.NOT_FOUND),
    (runtime_errors.NotReady, code_pb2.UNAVAILABLE),
    (runtime_errors.RepositoryError, code_pb2.UNAVAILABLE),
    (runtime_errors.Overloaded, code_pb2.RESOURCE_EXHAUSTED),
    (runtime_errors.DeadlineExceeded, code_pb2.DEADLINE_EXCEEDED),
    (runtime_errors.Cancelled, code_pb2.CANCELLED),
    (Unauthenticated, code_pb2.UNAUTHENTICATED),
    (Denied, code_pb2.PERMISSION_DENIED),
    (Precondition, code_pb2.FAILED_PRECONDITION),
    (StoreConflict, code_pb2.ABORTED),
    (RolloutConflict, code_pb2.ABORTED),
    (StoreError, code_pb2.UNAVAILABLE),
    (Unsupported, code_pb2.UNIMPLEMENTED),
    (runtime_errors.LoadError, code_pb2.FAILED_PRECONDITION),
    (runtime_errors.ModelError, code_pb2.INTERNAL),
    (runtime_errors.CallerError, code_pb2.INVALID_ARGUMENT),
)

_faults: Throttle[tuple[str, type[BaseException], str, int]] = Throttle(("", Exception, "", 0))


@dataclass(frozen=True, slots=True)
class Status:
    """What a client gets instead of an answer.

    `trailers` carry the details (google.rpc.Status); `reason` is that of its ErrorInfo.
    """

    code: int
    message: str
    trailers: tuple[tuple[str, str | bytes], ...] = ()
    reason: str = ""

    def details(self) -> bytes:
        """The serialized google.rpc.Status, b"" if there is none."""
        found = dict(self.trailers).get(STATUS_DETAILS, b"")
        return found if isinstance(found, bytes) else b""

    def with_trailers(self, more: tuple[tuple[str, str], ...]) -> Status:
        return replace(self, trailers=(*self.trailers, *more)) if more else self


def status_of(error: BaseException, where: str, log_fields: Mapping[str, str] | None = None) -> Status:
    """Never shows more than a ServingError's message.

    What failed inside is logged under a reference, with `log_fields`. Of many that fail alike only the first few have a
    line; the others get the last one's reference, which leads to what was wrong with them too.
    """
    if not isinstance(error, ServingError):
        before, reference = _refer(error, where)
        if before is not None:
            log.error("internal error %s in %s%s", reference, where, before, exc_info=error, extra=log_fields)
        return _status(code_pb2.INTERNAL, f"internal error, reference {reference}", "INTERNAL", error)
    code = next((code for kind, code in CODES if isinstance(error, kind)), code_pb2.INTERNAL)
    message = error.message
    if code == code_pb2.INTERNAL:
        before, reference = _refer(error, where)
        if before is not None:
            text = "%s failed, reference %s: %s %s%s"
            log.error(text, where, reference, error.message, error.detail, before, extra=log_fields)
        message = f"{error.message}: {where}, reference {reference}"
    return _status(code, _shorten(message), error.reason, error)


def _refer(error: BaseException, where: str) -> tuple[str | None, str]:
    """What to add to its line, None where it gets none; and its reference."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = (trace.tb_frame.f_code.co_filename, trace.tb_lineno) if trace is not None else ("", 0)
    held, reference = _faults.passes((where, type(error), *place), time.monotonic(), secrets.token_hex(8))
    if held is None:
        return None, reference
    return f"; {held} more before it were like the one logged last" if held else "", reference


def _shorten(message: str) -> str:
    encoded = message.encode()
    if len(encoded) <= MAX_MESSAGE_BYTES:
        return message
    return encoded[:MAX_MESSAGE_BYTES].decode(errors="ignore") + "..."


def _status(code: int, message: str, reason: str, error: BaseException) -> Status:
    details = [_pack(error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN))]
    if isinstance(error, runtime_errors.Overloaded):
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(error.retry_after_seconds * 1e9))
        details.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
    if isinstance(error, runtime_errors.InvalidRequest):
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=message)
        details.append(_pack(error_details_pb2.BadRequest(field_violations=[violation])))
    packed = status_pb2.Status(code=code, message=message, details=details).SerializeToString()
    return Status(code, message, ((STATUS_DETAILS, packed),), reason)


def _pack(message: error_details_pb2.ErrorInfo) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
