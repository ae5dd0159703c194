"""The gateway's ports: resolved, checked and held by the supervisor for as long as it lives.

Workers listen on one port by SO_REUSEPORT, which would let another program's server (or a second gateway) silently
take a part of the connections. So the supervisor first binds without it, which fails if anyone listens, and then holds
the port with a bound socket that does not listen. That one is without SO_REUSEADDR, so a second gateway's probe fails
also before the first one's workers listen.
"""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass

from gateway.config import ADDRESS

BACKLOG = 256


class PortError(OSError):
    """An address that cannot be listened on; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Held:
    """`address` is numeric, with the port that was really given."""

    address: str
    held: socket.socket


def hold(name: str, address: str) -> Held:
    """Reserves an address for children that bind it themselves with SO_REUSEPORT. Raises PortError."""
    family, target = _resolve(name, address)
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _bind(probe, name, address, target)
        target = (target[0], probe.getsockname()[1], *target[2:])
    held = socket.socket(family, socket.SOCK_STREAM)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    _bind(held, name, address, target)
    return Held(_show(family, held), held)


def listen(name: str, address: str) -> Held:
    """A listening socket that a child inherits: its queue outlives the child. Raises PortError."""
    family, target = _resolve(name, address)
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _bind(listener, name, address, target)
    listener.listen(BACKLOG)
    return Held(_show(family, listener), listener)


def private_listener() -> Held:
    """The socket on which workers reach control: in the abstract namespace, so that it leaves no file behind."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    name = f"\0driftgate-{os.getpid()}-{os.urandom(8).hex()}"
    listener.bind(name)
    listener.listen(BACKLOG)
    return Held(name, listener)


def _resolve(name: str, address: str) -> tuple[socket.AddressFamily, tuple[str, int]]:
    match = ADDRESS.match(address)
    if match is None:
        raise PortError(f"{name}: {address} is not HOST:PORT")
    host = match["host"].strip("[]")
    try:
        found = socket.getaddrinfo(host, int(match["port"]), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise PortError(f"{name}: {host} cannot be resolved: {error.strerror}") from None
    except UnicodeError:  # an empty label or one of over 63 characters
        raise PortError(f"{name}: {host} cannot be resolved: it is not a host's name") from None
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    family, _, _, _, target = found[0]
    return family, (str(target[0]), int(target[1]))


def _bind(sock: socket.socket, name: str, address: str, target: tuple[str, int]) -> None:
    try:
        sock.bind(target)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            why = f"another program listens there: end it, or choose another address with --{name}"
        elif error.errno == errno.EACCES:
            why = f"this user may not listen on that port: choose one above 1023 with --{name}"
        else:
            why = f"{error.strerror}: choose an address of this machine with --{name}"
        raise PortError(f"cannot listen on {name} address {address}: {why}") from None


def _show(family: socket.AddressFamily, sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if family == socket.AF_INET6 else f"{host}:{port}"
