"""What the supervisor hands to the processes it spawns, and how these follow its end."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import sys
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

from pydantic import BaseModel, ConfigDict

from gateway.config import Config

ENVIRONMENT = "DRIFTGATE__SPAWN"  # two underscores: no setting can be called this
PR_SET_PDEATHSIG = 1

WORKER_ENVIRONMENT = {
    # gRPC's event engine reads sockets on threads of its own and wakes the polling threads for each; with it off, the
    # threads that poll a completion queue read the sockets themselves, as the queue transport is built for, and no
    # request pays for the hand-over. A user's own setting goes first.
    "GRPC_EXPERIMENTS": "-event_engine_listener,-event_engine_for_all_other_endpoints,-event_engine_client",
}


CONTROL_ENVIRONMENT = {
    # The C-core writes a line of its own for each connection that fails, beside and unlike the log's; what it says, the
    # exporter's log says once.
    "GRPC_VERBOSITY": "NONE",
    # Looks for drift multiply small matrices. On threads of its own, the library would take the workers' cores for it,
    # and the looks' budget would not see it.
    "OPENBLAS_NUM_THREADS": "1",
}

SHADOW_ENVIRONMENT = {
    # One thread runs copies and compares them; helpers of its own would not know that they are to be idle.
    "OPENBLAS_NUM_THREADS": "1",
}


class Spawn(BaseModel):
    """A child's orders. File descriptors are inherited: `page_fds` are the statistics pages of all workers,
    `series_fds` their series pages, `ring_fds` their rings of request records and `arena_fds` their panes (a worker
    gets its own of these three), `pane_control_fd` what control tells of panes, `export_fd` the counts of what was
    exported, `tally_fd` those of restarts (workers, control, the shadow process); `export_fd`, `listener_fd` and
    `http_fd` are control's alone. `copy_fds` are the rings of copies: each worker gets its own, the shadow process and
    control get all. `shadow_page_fd` is the statistics page of the shadow process, for it and control.

    `index` is a worker's number, -1 for any other process. `log_style` is what its lines on standard error look like:
    that is a pipe to the supervisor, which knows where they end up.
    """

    model_config = ConfigDict(frozen=True)

    config: Config
    index: int
    parent_pid: int
    link_address: str
    page_fds: tuple[int, ...]
    shadow_page_fd: int
    series_fds: tuple[int, ...]
    ring_fds: tuple[int, ...]
    arena_fds: tuple[int, ...]
    copy_fds: tuple[int, ...]
    pane_control_fd: int
    export_fd: int
    tally_fd: int
    listener_fd: int
    http_fd: int
    grpc_address: str
    admin_address: str
    state_dir: str
    started_at_seconds: float
    instance_id: str
    log_style: str


@dataclass(slots=True)
class Ending:
    """Set by SIGTERM or SIGINT. A flag and nothing more: a signal handler may take no lock."""

    requested: bool = False

    def __call__(self, _signum: int, _frame: FrameType | None) -> None:
        self.requested = True


def receive_orders() -> Spawn:
    """Reads the orders and ties this process's life to the supervisor's."""
    orders = Spawn.model_validate_json(os.environ.pop(ENVIRONMENT))
    die_with_parent(orders.parent_pid)
    return orders


def die_with_parent(parent_pid: int) -> None:
    """The kernel kills this process when the supervisor ends, however it ends: no orphan is left."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:  # it ended before the tie was made
        os._exit(1)


def end(status: int) -> NoReturn:
    """Ends the process, whose main function has ended what is to be ended.

    Python would then take half a second to take a thousand modules apart, which a drain and a restart would wait for.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a reader that has gone
            stream.flush()
    os._exit(status)
