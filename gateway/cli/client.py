"""Calls of the admin API, and what a failed one means to whom ran the command."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from gateway.cli.failure import FAILED, UNREACHABLE, Failure
from gateway.cli.options import ADMIN_VARIABLE, Peer
from gateway.cli.text import one_line

# Read once, when grpc is imported; its log lines would stand around the one line that says what failed.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc

from gateway.wire.pb.driftgate.admin.v1.admin_pb2_grpc import AdminStub

STATUS_DETAILS = "grpc-status-details-bin"
"""The gateway puts it beside every error it answers; an error without it was made on the way."""

CHANNEL_OPTIONS = (
    ("grpc.enable_http_proxy", 0),  # the admin API is on loopback or inside; a proxy for the web does not lead there
    ("grpc.max_receive_message_length", -1),  # the peer is trusted, and a list of all models has no fixed size
)


def ask(peer: Peer, method: str, request: Any) -> Any:
    """One call of the admin API's `method`; the answer is its response message. Raises Failure."""
    with _stub(peer) as stub:
        call = getattr(stub, method)
        return call(request, timeout=peer.timeout_seconds, metadata=_metadata(peer))


def stream(peer: Peer, method: str, request: Any) -> Iterator[Any]:
    """The messages of a streaming `method` until the gateway ends it. Raises Failure."""
    with _stub(peer) as stub:
        yield from getattr(stub, method)(request, metadata=_metadata(peer))


@contextmanager
def _stub(peer: Peer) -> Iterator[Any]:
    with _channel(peer) as channel:
        try:
            yield AdminStub(channel)  # type: ignore[no-untyped-call]  # generated without types
        except grpc.RpcError as error:
            raise _failure(error, peer) from None


def _channel(peer: Peer) -> grpc.Channel:
    if not peer.is_tls:
        return grpc.insecure_channel(peer.address, CHANNEL_OPTIONS)
    ca, certificate, key = (
        file.read_bytes() if file is not None else None for file in (peer.ca, peer.certificate, peer.key)
    )
    credentials = grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=certificate)
    return grpc.secure_channel(peer.address, credentials, CHANNEL_OPTIONS)


def _metadata(peer: Peer) -> tuple[tuple[str, str], ...]:
    actor = ("driftgate-actor", quote(user_name(), safe=" @\\"))  # metadata is ASCII, user names need not be
    return (actor, ("authorization", f"Bearer {peer.token}")) if peer.token else (actor,)


def user_name() -> str:
    """The operating system's name of who runs this, not what $USER claims."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # containers run under numbers without a name
        return f"uid {os.getuid()}"


def _failure(error: grpc.RpcError, peer: Peer) -> Failure:
    code, details = error.code(), _readable(error.details() or "")
    from_gateway = any(item.key == STATUS_DETAILS for item in error.trailing_metadata() or ())
    if code is grpc.StatusCode.UNAVAILABLE and not from_gateway:
        cause = details.rpartition("last error: ")[2]
        return Failure(
            f"cannot reach the gateway's admin API at {peer.address}: is it running? (--admin, {ADMIN_VARIABLE})"
            + (f" [{cause}]" if cause else ""),
            UNREACHABLE,
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED and not from_gateway and peer.timeout_seconds is not None:
        details = (
            f"no answer from {peer.address} in {peer.timeout_seconds:g} s (--timeout); "
            "a change may go on: see driftgate models and driftgate audit"
        )
    return Failure(f"{code.name}: {details}", FAILED)


def _readable(details: str) -> str:
    """One line; where several problems are named at once, one for each, below what has them."""
    head, colon, problems = details.partition(":\n")
    if not colon:
        return one_line(details)
    return "\n  ".join([f"{one_line(head)}:", *map(one_line, problems.split(";\n"))])
