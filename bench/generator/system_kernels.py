"""What kernels ask of the operating system, and of memory: libc by name, so that compiled code can be kept on disk."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import int32, int64, types, uint8, uint64
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from runtime.kernels import inline, kernel

_BYTES = types.Array(uint8, 1, "C")
_NUMBERS = types.Array(int64, 1, "C")

# Pointers are passed as int64: they are 64 bits wide wherever this runs.
_receive: Any = types.ExternalFunction("recv", int64(int32, int64, int64, int32))
_send: Any = types.ExternalFunction("send", int64(int32, int64, int64, int32))
_syscall: Any = types.ExternalFunction("syscall", int64(int64, int64, int64, int64, int64, int64, int64))
_clock: Any = types.ExternalFunction("clock_gettime", int32(int32, int64))
_errno: Any = types.ExternalFunction("__errno_location", int64())
_copy: Any = types.ExternalFunction("memcpy", int64(int64, int64, int64))
_move: Any = types.ExternalFunction("memmove", int64(int64, int64, int64))

EPOLL_PWAIT2 = 441
"""The same number on x86-64 and on arm64; Linux 5.11."""
CLOCK_MONOTONIC = 1
EAGAIN, EINTR = 11, 4
NO_SIGNAL = 0x4000  # MSG_NOSIGNAL
SET_TIMER_SLACK = 29  # prctl


def _primitive(definition: Callable[..., Any]) -> Any:
    """An instruction for kernels: what it is called with differs from what defines it."""
    return intrinsic(definition)


def _word(kind: Any, bits: int) -> Any:
    def define(_context: Any, array: Any, at: Any) -> Any:  # noqa: ARG001
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            data = make_array(signature.args[0])(context, builder, arguments[0]).data  # type: ignore[no-untyped-call]
            pointer = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(bits).as_pointer())
            return builder.load(pointer, align=1)

        return kind(array, types.int64), generate

    return _primitive(define)


load64: Any = _word(uint64, 64)
"""The uint64 at a place of any alignment, little-endian, in an array of bytes."""
load32: Any = _word(types.uint32, 32)


@_primitive
def address(_context: Any, array: Any, at: Any) -> Any:  # noqa: ARG001
    """Of byte `at` of an array of bytes, or of the first word of one of numbers, where `at` is 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = make_array(signature.args[0])(context, builder, arguments[0]).data  # type: ignore[no-untyped-call]
        return builder.ptrtoint(builder.gep(data, [arguments[1]]), ir.IntType(64))

    return types.int64(array, types.int64), generate


@_primitive
def _at_address(_context: Any, where: Any) -> Any:  # noqa: ARG001
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.load(builder.inttoptr(arguments[0], ir.IntType(32).as_pointer()))

    return types.int32(types.int64), generate


@kernel(int64(int64, _BYTES, int64, int64), allocates=False)
def receive(fd, into, at, room):  # type: ignore[no-untyped-def]
    """Bytes received; 0 at the end of the connection; -errno."""
    got = _receive(int32(fd), address(into, at), room, int32(0))
    return got if got >= 0 else -int64(_at_address(_errno()))


@kernel(int64(int64, _BYTES, int64, int64), allocates=False)
def send(fd, source, at, size):  # type: ignore[no-untyped-def]
    """Bytes sent, or -errno."""
    sent = _send(int32(fd), address(source, at), size, int32(NO_SIGNAL))
    return sent if sent >= 0 else -int64(_at_address(_errno()))


@kernel(int64(_NUMBERS), allocates=False)
def clock_ns(pause):  # type: ignore[no-untyped-def]
    """Nanoseconds of the monotonic clock; pause: int64[2], scratch."""
    _clock(int32(CLOCK_MONOTONIC), address(pause, 0))
    return pause[0] * 1_000_000_000 + pause[1]


@kernel(int64(int64, _BYTES, int64, _NUMBERS, int64), allocates=False)
def wait(epoll, events, most, pause, nanoseconds):  # type: ignore[no-untyped-def]
    """How many events came within so long, or -1; pause: int64[2], scratch. A signal ends it."""
    pause[0] = nanoseconds // 1_000_000_000
    pause[1] = nanoseconds % 1_000_000_000
    return _syscall(EPOLL_PWAIT2, epoll, address(events, 0), most, address(pause, 0), 0, 0)


@kernel(types.void(_BYTES, int64, _BYTES, int64, int64), allocates=False)
def copy(into, at, source, start, size):  # type: ignore[no-untyped-def]
    _copy(address(into, at), address(source, start), size)


@kernel(types.void(_BYTES, int64, int64, int64), allocates=False)
def move(array, at, start, size):  # type: ignore[no-untyped-def]
    """Within one array; the two may overlap."""
    _move(address(array, at), address(array, start), size)


@inline
def word(data, at):  # type: ignore[no-untyped-def]
    """The big-endian number in four bytes."""
    return int64(data[at]) << 24 | int64(data[at + 1]) << 16 | int64(data[at + 2]) << 8 | int64(data[at + 3])


def wake_exactly() -> None:
    """Let this thread's sleeps end when they should: the kernel adds 50 µs unless told otherwise."""
    ctypes.CDLL(None, use_errno=True).prctl(SET_TIMER_SLACK, 1, 0, 0, 0)
