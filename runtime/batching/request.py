"""One request as the runtime sees it: checked against the signature, ready to run, not yet an array."""

from __future__ import annotations

from typing import Any

from runtime.errors import ServingError


class Request:
    """Inputs in the order of the signature.

    `inputs[i]` is the tensor's little-endian row-major bytes, or for BYTES the list of its elements as str;
    `shapes[i]` its shape. `outputs` indexes the signature's outputs, in the order asked for. Requests with the same
    `key` may share a run. `deadline_seconds` is on the wall clock (inf: none), the `_ns` times on the monotonic one.
    `owner` and `routing` are the caller's, never looked at here; `size_bytes` is that of the message.
    """

    __slots__ = (
        "arrived_ns",
        "deadline_seconds",
        "decoded_ns",
        "id",
        "inputs",
        "key",
        "outputs",
        "owner",
        "queued_ns",
        "routing",
        "rows",
        "shapes",
        "size_bytes",
    )

    def __init__(
        self,
        inputs: list[bytes | list[str]],
        shapes: list[tuple[int, ...]],
        outputs: tuple[int, ...],
        rows: int,
        key: Any,
    ) -> None:
        self.inputs = inputs
        self.shapes = shapes
        self.outputs = outputs
        self.rows = rows
        self.key = key
        self.id = ""
        self.owner: Any = None
        self.deadline_seconds = float("inf")
        self.arrived_ns = 0
        self.decoded_ns = 0
        self.queued_ns = 0
        self.routing: Any = None
        self.size_bytes = 0

    def __repr__(self) -> str:
        return f"<Request id={self.id!r} rows={self.rows} shapes={self.shapes}>"

    def watch(self) -> None:
        """From here on `abandoned` is kept up to date."""
        if self.owner is not None:
            self.owner.watch()

    def abandoned(self) -> bool:
        """True once the client has gone: its rows need not be computed."""
        return bool(self.owner is not None and self.owner.cancelled)


class Refusal:
    """A request that gets an error instead of an answer."""

    __slots__ = ("error", "request")

    def __init__(self, request: Request, error: ServingError) -> None:
        self.request = request
        self.error = error
