"""The gateway's ports, with real sockets: taken by nobody else, or refused with what to do."""

from __future__ import annotations

import ctypes
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.supervisor.ports import Held, PortError, hold, listen, private_listener

CAP_NET_BIND_SERVICE = 10
CAPABILITIES_VERSION_3 = 0x20080522
Open = Callable[[str, str], Held]


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


HOSTS = ["127.0.0.1", "localhost", *(["[::1]"] if _has_ipv6() else [])]


@pytest.fixture
def opened() -> Iterator[list[Held]]:
    held: list[Held] = []
    yield held
    for one in held:
        one.held.close()


def connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)))


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("open_port", [hold, listen])
def test_port_0_is_any_free_one_and_the_address_tells_which(opened: list[Held], open_port: Open, host: str) -> None:
    opened.append(open_port("grpc", f"{host}:0"))
    shown_host, _, port = opened[0].address.rpartition(":")
    assert shown_host == ("127.0.0.1" if host == "localhost" else host)
    assert int(port) == opened[0].held.getsockname()[1] > 0


@pytest.mark.parametrize("first", [hold, listen])
@pytest.mark.parametrize("second", [hold, listen])
def test_a_second_gateway_gets_no_port_of_the_first(opened: list[Held], first: Open, second: Open) -> None:
    """Also while nobody listens there yet, and though workers share it by SO_REUSEPORT."""
    opened.append(first("http", "127.0.0.1:0"))
    address = opened[0].address
    with pytest.raises(PortError) as caught:
        opened.append(second("grpc", address))
    assert str(caught.value) == (
        f"cannot listen on grpc address {address}: another program listens there: end it, or choose another address "
        "with --grpc"
    )


@pytest.mark.parametrize("reuse_port", [False, True])
def test_a_port_of_another_program_is_refused_also_if_it_would_share(opened: list[Held], reuse_port: bool) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(reuse_port))
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(PortError, match="another program listens there"):
            opened.append(hold("grpc", f"127.0.0.1:{other.getsockname()[1]}"))


def test_workers_share_a_held_port_and_connections_reach_them_only(opened: list[Held]) -> None:
    opened.append(hold("grpc", "127.0.0.1:0"))
    target = opened[0].held.getsockname()
    with pytest.raises(ConnectionRefusedError):
        connect(opened[0].address)
    workers = []
    for _ in range(2):
        worker = socket.socket()
        worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gRPC does
        worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        worker.bind(target)
        worker.listen()
        workers.append(worker)
    clients = [connect(opened[0].address) for _ in range(8)]
    for worker in workers:
        worker.close()
    for client in clients:
        client.close()


def test_a_port_whose_connections_have_just_ended_can_be_held_again() -> None:
    first = hold("grpc", "127.0.0.1:0")
    worker = socket.socket()
    worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    worker.bind(first.held.getsockname())
    worker.listen()
    client = connect(first.address)
    served, _ = worker.accept()
    served.close()  # the server closes first, so its side waits out TIME_WAIT
    assert client.recv(1) == b""
    for one in (client, worker, first.held):
        one.close()
    again = hold("grpc", first.address)
    assert again.address == first.address
    again.held.close()


def test_a_listener_takes_connections_before_anyone_accepts(opened: list[Held]) -> None:
    opened.append(listen("http", "127.0.0.1:0"))
    with connect(opened[0].address) as client:
        client.sendall(b"early")
        served, _ = opened[0].held.accept()
        with served:
            assert served.recv(5) == b"early"


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("nobody", "grpc: nobody is not HOST:PORT"),
        ("nobody.invalid:80", "grpc: nobody.invalid cannot be resolved: "),
        ("a..b:80", "grpc: a..b cannot be resolved: it is not a host's name"),
        (f"{'x' * 70}:80", "cannot be resolved: it is not a host's name"),
        ("192.0.2.1:0", "cannot listen on grpc address 192.0.2.1:0: .*choose an address of this machine with --grpc"),
    ],
)
@pytest.mark.parametrize("open_port", [hold, listen])
def test_an_address_that_is_none_of_this_machine_is_refused(
    opened: list[Held], open_port: Open, address: str, says: str
) -> None:
    with pytest.raises(PortError, match=says):
        opened.append(open_port("grpc", address))


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def _may_not_bind_low_ports() -> None:
    """Takes that right from the calling thread, which has it where the tests run as root."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = _Header(CAPABILITIES_VERSION_3, 0), (_Sets * 2)()
    assert libc.capget(ctypes.byref(header), sets) == 0
    sets[0].effective &= ~(1 << CAP_NET_BIND_SERVICE)
    assert libc.capset(ctypes.byref(header), sets) == 0


def test_a_port_that_needs_privileges_is_refused_with_what_to_do() -> None:
    outcome: list[str] = []

    def attempt() -> None:
        _may_not_bind_low_ports()
        try:
            held = hold("grpc", "127.0.0.1:1")
        except PortError as error:
            outcome.append(str(error))
        else:
            held.held.close()
            outcome.append("held")

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    first_free = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    refused = (
        "cannot listen on grpc address 127.0.0.1:1: this user may not listen on that port: choose one above 1023 "
        "with --grpc"
    )
    assert outcome == [refused if first_free > 1 else "held"]


def test_the_workers_socket_has_no_file_and_a_name_of_its_own() -> None:
    first, second = private_listener(), private_listener()
    assert first.address[0] == second.address[0] == "\0"
    assert first.address != second.address
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(first.address)
    for one in (first, second):
        one.held.close()


def test_a_refused_port_leaves_no_socket_open(opened: list[Held], monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[socket.socket] = []
    real = socket.socket

    def counted(*arguments: int) -> socket.socket:
        made.append(real(*arguments))
        return made[-1]

    opened.append(listen("http", "127.0.0.1:0"))
    monkeypatch.setattr(socket, "socket", counted)
    for open_port in (hold, listen):
        with pytest.raises(PortError):
            open_port("grpc", opened[0].address)
    assert [one.fileno() for one in made] == [-1, -1]
