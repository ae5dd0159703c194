"""Requests of every kind that a gateway gets, mixed; and the repository that they are for."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from zoo import slow, versioned, write_version

from gateway.wire.pb.inference import grpc_service_pb2 as pb
from support.admin import Admin
from support.calls import Ask, identified, new_parent
from support.load import infer_request

VERSIONS = {"a": (1, 2), "b": (7,), "slow": (1,)}
LABELS = {"stable": 1, "canary": 2}
SLOW_STEPS = 2000
"""About 5 ms: such a version runs on a thread of its own, behind a queue."""
BURST = 24
"""Of requests to `slow` at once, more than run and queue of a few workers take."""
STREAM_MESSAGES = 6

KINDS = {
    "answered": 60,
    "unsampled": 10,
    "unknown model": 6,
    "unknown version": 5,
    "wrong input": 6,
    "no request": 3,
    "expired": 5,
    "stream": 2,
}
"""Weights. A burst of `slow` stands apart: at the beginning."""


def write_models(root: Path) -> Path:
    for model, versions in VERSIONS.items():
        for version in versions:
            write_version(root, model, version, slow(SLOW_STEPS) if model == "slow" else versioned(float(version)))
    (root / "a" / "model.yaml").write_text("versions: all\n")
    (root / "slow" / "model.yaml").write_text("batching: {max_queue_requests: 1}\n")
    return root


def set_labels(admin: Admin) -> None:
    for label, version in LABELS.items():
        admin.label("a", label, version)


def mixed(count: int, seed: int = 3) -> Iterator[Ask | Sequence[Ask]]:
    """`count` requests, messages of streams counted too."""
    draw = random.Random(seed)
    makers: dict[str, Callable[[random.Random], Ask]] = {
        "answered": answered,
        "unsampled": lambda draw: _parented("unsampled", _request(draw, "b"), flags=0),
        "unknown model": lambda draw: _ask(draw, "unknown model", _request(draw, f"nobody-{draw.getrandbits(64):x}")),
        "unknown version": lambda draw: _ask(
            draw, "unknown version", _request(draw, "a", draw.choice(("99", "champion")))
        ),
        "wrong input": _wrong,
        "no request": lambda draw: Ask("no request", pb.ModelInferRequest(), new_parent(), payload=b"\xff" * 9),
        "expired": _expired,
    }
    left = count
    for _ in range(min(BURST, left)):
        yield _ask(draw, "slow", infer_request("slow", np.zeros((1, 64), np.float32)))
        left -= 1
    kinds, weights = list(KINDS), list(KINDS.values())
    while left:
        kind = draw.choices(kinds, weights)[0]
        if kind == "stream":
            messages = min(STREAM_MESSAGES, left)
            yield _stream(draw, messages)
            left -= messages
        else:
            yield makers[kind](draw)
            left -= 1


def answered(draw: random.Random) -> Ask:
    """One to model a or b that gets an answer."""
    version = draw.choice(("", "1", "2", *LABELS))
    return _ask(draw, "answered", _request(draw, "a", version) if draw.random() < 0.8 else _request(draw, "b"))


def _ask(draw: random.Random, kind: str, request: pb.ModelInferRequest) -> Ask:
    if draw.random() < 0.5:
        return Ask(kind, identified(request))
    return _parented(kind, request)


def _parented(kind: str, request: pb.ModelInferRequest, flags: int = 1) -> Ask:
    return Ask(kind, identified(request), new_parent(), flags)


def _request(draw: random.Random, model: str, version: str = "") -> pb.ModelInferRequest:
    rows = draw.randint(1, 4)
    return infer_request(model, np.full((rows, 4), draw.random(), np.float32), version)


def _wrong(draw: random.Random) -> Ask:
    request = _request(draw, "a")
    request.inputs[0].name = "z"
    return _ask(draw, "wrong input", request)


def _expired(draw: random.Random) -> Ask:
    """Its time is up when it arrives, or nearly so."""
    request = _request(draw, "a", "1")
    request.parameters["timeout"].int64_param = 1
    return _ask(draw, "expired", request)


def _stream(draw: random.Random, messages: int) -> list[Ask]:
    """Messages of one stream have one parent."""
    parent = new_parent()
    requests = [_request(draw, "a" if number % 3 else "nobody") for number in range(messages)]
    return [Ask("stream", identified(request), parent) for request in requests]
