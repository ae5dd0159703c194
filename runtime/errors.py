"""Every error the runtime raises, and whose fault it is.

    ServingError
    ├── CallerError            the caller asked for something it can mend
    │   ├── InvalidRequest     a value is wrong: shape, datatype, size, name, count
    │   └── NotFound           no such model, version, label
    ├── NotReady               known, but it cannot answer now: loading, failed, draining
    ├── Overloaded             a bound was reached; try again after `retry_after_seconds`
    ├── DeadlineExceeded       the caller's deadline passed before an answer was made
    ├── Cancelled              the caller has gone before an answer was made
    ├── ModelError             the model's fault
    │   ├── LoadError          a version cannot be loaded, validated or warmed up
    │   └── RunError           a version failed on a request
    └── RepositoryError        the repository's fault
        ├── RepositoryUnavailable   the root cannot be read
        └── IncompleteVersion       a version directory that is not (yet) whole

Messages say what was expected, what came, where, and what to do. They may be shown to a client as they are, so none
holds a path of the server or a library's internals; those go into `detail`, which is logged.
"""

from __future__ import annotations


class ServingError(Exception):
    """The root; `reason` is the stable UPPER_SNAKE name that machines branch on."""

    reason = "SERVING_ERROR"

    def __init__(self, message: str, *, detail: str = "", field: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.field = field


class CallerError(ServingError):
    reason = "CALLER_ERROR"


class InvalidRequest(CallerError):
    reason = "INVALID_REQUEST"


class NotFound(CallerError):
    reason = "NOT_FOUND"


class NotReady(ServingError):
    reason = "NOT_READY"


class Overloaded(ServingError):
    reason = "OVERLOADED"

    def __init__(self, message: str, *, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class DeadlineExceeded(ServingError):
    reason = "DEADLINE_EXCEEDED"


class Cancelled(ServingError):
    reason = "CANCELLED"


class ModelError(ServingError):
    reason = "MODEL_ERROR"


class LoadError(ModelError):
    reason = "LOAD_FAILED"


class RunError(ModelError):
    reason = "MODEL_FAILED"


class RepositoryError(ServingError):
    reason = "REPOSITORY_ERROR"


class RepositoryUnavailable(RepositoryError):
    reason = "REPOSITORY_UNAVAILABLE"


class IncompleteVersion(RepositoryError):
    reason = "INCOMPLETE_VERSION"
