"""Which failures are worth another try, and when: "OTLP/gRPC Response" and "OTLP/HTTP Response" of the specification.

    gRPC: CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS   again
          RESOURCE_EXHAUSTED                                                           again, if RetryInfo is with it
    HTTP: 429, 502, 503, 504                                                           again
    no connection, connection lost, timeout                                            again
    anything else                                                                      never

RetryInfo and Retry-After are the least wait; they do not lengthen the time that an export has in all.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

RETRYABLE_CODES = frozenset({"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"})
RETRYABLE_IF_TOLD = "RESOURCE_EXHAUSTED"
RETRYABLE_STATUSES = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Attempt:
    """What became of one try. `reason` "": the receiver took it, less `rejected` items, which are lost.

    `message`: the receiver's or the connection's words, for the log. `least_wait_seconds`: before another try.
    """

    reason: str = ""
    message: str = ""
    rejected: int = 0
    retryable: bool = False
    least_wait_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential, with full jitter: after try n, a random part of `initial * factor**(n - 1)`, at most `most`.

    The first wait and the longest are those of OpenTelemetry's SDK for Java (1 s, 5 s, factor 1.5).
    """

    initial_seconds: float = 1.0
    most_seconds: float = 5.0
    factor: float = 1.5

    def wait_seconds(self, attempts: int, part: float, least_seconds: float = 0.0) -> float:
        """`attempts` that failed so far, from 1; `part` is random, 0 to 1."""
        exponent = min(attempts - 1, 64)  # far above `most_seconds`, and no float overflows
        return max(least_seconds, part * min(self.most_seconds, self.initial_seconds * self.factor**exponent))


def failed_call(code: str, message: str, status_details: bytes = b"") -> Attempt:
    """`code`: gRPC's name of it. `status_details`: the trailer grpc-status-details-bin, a google.rpc.Status."""
    told = retry_info_seconds(status_details)
    retryable = code in RETRYABLE_CODES or (code == RETRYABLE_IF_TOLD and told is not None)
    return Attempt(code, message, retryable=retryable, least_wait_seconds=told or 0.0)


def failed_request(status: int, message: str, retry_after: str, date: str, now: datetime) -> Attempt:
    """`retry_after` and `date`: headers of the answer, "" where there are none."""
    told = retry_after_seconds(retry_after, date, now)
    return Attempt(str(status), message, retryable=status in RETRYABLE_STATUSES, least_wait_seconds=told)


def retry_info_seconds(status_details: bytes) -> float | None:
    """None: there is no RetryInfo in it."""
    try:
        for detail in status_pb2.Status.FromString(status_details).details:
            info = error_details_pb2.RetryInfo()
            if detail.Unpack(info):
                return max(0.0, float(info.retry_delay.seconds + info.retry_delay.nanos / 1e9))
    except DecodeError:
        pass  # then nobody said when
    return None


def retry_after_seconds(retry_after: str, date: str, now: datetime) -> float:
    """Seconds or an HTTP date, which counts from the answer's own Date: the two clocks need not agree."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after[:12])
    until = _parse_date(retry_after)
    return 0.0 if until is None else max(0.0, (until - (_parse_date(date) or now)).total_seconds())


def _parse_date(text: str) -> datetime | None:
    try:
        parsed = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)
