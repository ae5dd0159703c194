"""Each error reaches a client as one code, one message, and details that machines read."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2

from gateway import errors
from gateway.control.preparation import VersionFailed
from gateway.errors import CODES, Denied, Draining, Precondition, Status, Unauthenticated, Unsupported, status_of
from gateway.store.contract import RolloutConflict, StoreConflict, StoreCorrupt, StoreError, StoreUnavailable
from gateway.throttle import BURST, WINDOW_SECONDS, Throttle
from runtime.errors import (
    CallerError,
    Cancelled,
    DeadlineExceeded,
    IncompleteVersion,
    InvalidRequest,
    LoadError,
    ModelError,
    NotFound,
    NotReady,
    Overloaded,
    RepositoryUnavailable,
    RunError,
    ServingError,
)
from runtime.repository.cache import CacheUnwritable
from runtime.repository.manifest import ManifestError
from runtime.repository.repository import ProfileExists, ProfileTooLarge
from runtime.routing.document import RouteError

EXPECTED: list[tuple[ServingError, str, str]] = [
    (InvalidRequest("m", field="x"), "INVALID_ARGUMENT", "INVALID_REQUEST"),
    (NotFound("m"), "NOT_FOUND", "NOT_FOUND"),
    (NotReady("m"), "UNAVAILABLE", "NOT_READY"),
    (Draining("m"), "UNAVAILABLE", "DRAINING"),
    (RepositoryUnavailable("m"), "UNAVAILABLE", "REPOSITORY_UNAVAILABLE"),
    (ProfileExists("m"), "FAILED_PRECONDITION", "PROFILE_EXISTS"),
    (ProfileTooLarge("m"), "FAILED_PRECONDITION", "PROFILE_TOO_LARGE"),
    (IncompleteVersion("m"), "UNAVAILABLE", "INCOMPLETE_VERSION"),
    (CacheUnwritable("m"), "UNAVAILABLE", "CACHE_UNWRITABLE"),
    (VersionFailed("m", 1, "why"), "FAILED_PRECONDITION", "LOAD_FAILED"),
    (Overloaded("m", retry_after_seconds=0.25), "RESOURCE_EXHAUSTED", "OVERLOADED"),
    (DeadlineExceeded("m"), "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"),
    (Cancelled("m"), "CANCELLED", "CANCELLED"),
    (Unauthenticated("m"), "UNAUTHENTICATED", "UNAUTHENTICATED"),
    (Denied("m"), "PERMISSION_DENIED", "PERMISSION_DENIED"),
    (Precondition("m"), "FAILED_PRECONDITION", "FAILED_PRECONDITION"),
    (StoreConflict("m", expected_revision=1, found_revision=2), "ABORTED", "STORE_CONFLICT"),
    (RolloutConflict("m", 7), "ABORTED", "ROLLOUT_CONFLICT"),
    (StoreUnavailable("m"), "UNAVAILABLE", "STORE_UNAVAILABLE"),
    (StoreCorrupt("m"), "UNAVAILABLE", "STORE_CORRUPT"),
    (StoreError("m"), "UNAVAILABLE", "STORE_FAILED"),
    (Unsupported("m"), "UNIMPLEMENTED", "UNSUPPORTED"),
    (LoadError("m"), "FAILED_PRECONDITION", "LOAD_FAILED"),
    (RouteError("m.yaml", ["m"]), "INVALID_ARGUMENT", "ROUTE_INVALID"),
    (ManifestError("model.yaml", ["m"]), "FAILED_PRECONDITION", "MANIFEST_INVALID"),
    (CallerError("m"), "INVALID_ARGUMENT", "CALLER_ERROR"),
]
INTERNAL = [RunError("model failed", detail="secret"), ModelError("m", detail="secret"), ServingError("m")]


def subclasses(root: type[ServingError]) -> Iterator[type[ServingError]]:
    yield root
    for child in root.__subclasses__():
        yield from subclasses(child)


def details(status: Status) -> status_pb2.Status:
    ((key, value),) = status.trailers
    assert key == "grpc-status-details-bin"
    return status_pb2.Status.FromString(value)


@pytest.mark.parametrize(("error", "code", "reason"), EXPECTED, ids=lambda value: getattr(value, "reason", None))
def test_an_error_has_its_code_its_message_and_a_reason_for_machines(
    error: ServingError, code: str, reason: str
) -> None:
    status = status_of(error, "ModelInfer")
    assert (status.code, status.message) == (code_pb2.Code.Value(code), error.message)
    packed = details(status)
    assert (packed.code, packed.message) == (status.code, status.message)
    info = error_details_pb2.ErrorInfo()
    assert packed.details[0].Unpack(info)
    assert (info.reason, info.domain) == (reason, "driftgate")


def test_every_error_there_is_has_been_thought_of() -> None:
    """A new one must be added to the table, or its parent's code be meant."""
    tried = {type(error) for error, _, _ in EXPECTED} | {type(error) for error in INTERNAL}
    ours = {kind for kind in subclasses(ServingError) if kind.__module__.startswith(("gateway.", "runtime."))}
    abstract = {"RepositoryError", "StoreVersionError"}
    assert {kind.__name__ for kind in ours - tried} <= abstract
    assert all(kind in ours for kind, _ in CODES)


def test_the_codes_are_those_of_grpc() -> None:
    numbers = {status.value[0]: status.name for status in grpc.StatusCode}
    assert all(numbers[code] == code_pb2.Code.Name(code) for _, code in CODES)


def test_a_wrong_request_names_its_field() -> None:
    violation = error_details_pb2.BadRequest()
    assert details(status_of(InvalidRequest("too long", field="x"), "w")).details[1].Unpack(violation)
    assert [(one.field, one.description) for one in violation.field_violations] == [("x", "too long")]


def test_a_full_server_says_when_to_come_back() -> None:
    retry = error_details_pb2.RetryInfo()
    assert details(status_of(Overloaded("full", retry_after_seconds=0.25), "w")).details[1].Unpack(retry)
    assert (retry.retry_delay.seconds, retry.retry_delay.nanos) == (0, 250_000_000)


@pytest.mark.parametrize("error", INTERNAL, ids=lambda error: type(error).__name__)
def test_what_failed_inside_is_logged_under_the_reference_that_the_client_gets(
    error: ServingError, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, logger=errors.__name__):
        status = status_of(error, "m/1")
    assert status.code == code_pb2.INTERNAL
    start, reference = status.message.rsplit(" ", 1)
    assert start == f"{error.message}: m/1, reference"
    assert "secret" not in status.message
    (record,) = caplog.records
    assert reference in record.getMessage()
    assert error.detail in record.getMessage()


def test_what_nobody_foresaw_shows_nothing_but_a_reference(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, logger=errors.__name__):
        status = status_of(KeyError("/home/secret"), "ModelInfer")
    assert status.code == code_pb2.INTERNAL
    assert status.message.startswith("internal error, reference ")
    assert "secret" not in status.message.encode().decode() + str(details(status))
    (record,) = caplog.records
    assert record.exc_info is not None
    assert status.message.rsplit(" ", 1)[1] in record.getMessage()


def test_two_failures_have_different_references() -> None:
    assert status_of(KeyError(), "w").message != status_of(KeyError(), "w").message


def test_many_that_fail_alike_share_few_lines_and_each_reference_leads_to_one(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client in a loop would fill the log; another failure is not silenced by it."""
    monkeypatch.setattr(errors, "_faults", Throttle(("", Exception, "", 0)))
    now = 100.0
    monkeypatch.setattr(errors.time, "monotonic", lambda: now)

    def fail(kind: type[Exception], where: str) -> str:
        try:
            raise kind("detail")
        except Exception as error:
            return status_of(error, where).message.rsplit(" ", 1)[1]

    def logged() -> list[str]:
        return [record.getMessage() for record in caplog.records]

    for kind in (KeyError, RunError):
        caplog.clear()
        references = [fail(kind, "m/1") for _ in range(500)]
        assert len(caplog.records) == len(set(references)) == BURST
        assert all(any(reference in line for line in logged()) for reference in references)
        assert fail(kind, "m/2") in logged()[-1]
        now += WINDOW_SECONDS
        caplog.clear()
        assert fail(kind, "m/1") in logged()[-1]
        assert logged()[-1].endswith("; 490 more before it were like the one logged last")


def test_a_message_of_any_length_fits_into_the_trailers() -> None:
    status = status_of(NotFound("é" * 1_000_000), "w")
    assert len(status.message.encode()) + len(status.trailers[0][1]) < 8192, "what clients take by default"
    assert status.message.startswith("ééé")
    assert status.message.endswith("...")
