"""The supervisor: reads as a script. Segments and ports, control, workers, wait; then the same in reverse.

It imports nothing that serves, so that it stays small, and owns what must outlive its children: ports, the workers'
statistics pages, and the socket between workers and control.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import resource
import selectors
import signal
import sys
import time
import uuid
from pathlib import Path

from gateway.config import Config
from gateway.logs import line_style, setup_logging
from gateway.process import CONTROL_ENVIRONMENT, SHADOW_ENVIRONMENT, WORKER_ENVIRONMENT, Ending, Spawn
from gateway.supervisor.cause import OutOfMemory, by_itself
from gateway.supervisor.child import Child
from gateway.supervisor.log_relay import LogRelay, fill_standard_streams
from gateway.supervisor.ports import Held, PortError, hold, listen, private_listener
from gateway.supervisor.restart import GiveUp, Restart, after_end
from gateway.telemetry.fates import COUNTS
from gateway.telemetry.settings import TelemetrySettings, read_settings
from gateway.telemetry.variables import TelemetrySettingsError
from runtime.shadow.ring_layout import create_copy_ring
from runtime.shm.crashes import Crash, note_crashes
from runtime.shm.panes_layout import create_arena, create_pane_control
from runtime.shm.ring_layout import create_ring
from runtime.shm.segment import Segment
from runtime.shm.series_layout import create_series_page
from runtime.shm.statistics_layout import create_page
from runtime.shm.tally import Tally, create_tally

log = logging.getLogger(__name__)

ENDPOINTS_FILE = "endpoints.json"
FEWEST_RECORDS = 64  # in a ring, whatever OTEL_BSP_MAX_QUEUE_SIZE asks for
KILL_AFTER_SECONDS = 15.0  # beyond the drain's own time


class StateDirectoryError(OSError):
    """The state directory cannot be used."""


class Supervisor:
    def __init__(self, config: Config, telemetry: TelemetrySettings, relay: LogRelay) -> None:
        self._config = config
        self._relay = relay
        self._count = config.worker_count()
        self._started_at = time.time()
        self._lock = _lock_state(config.state_folder())
        self.grpc = hold("grpc", config.grpc)
        self.http = listen("http", config.http)
        self.admin = hold("admin", config.admin)
        self._link: Held = private_listener()
        self._pages = [create_page(f"driftgate-statistics-{index}") for index in range(self._count)]
        self._shadow_page = create_page("driftgate-statistics-shadow")
        self._series = [create_series_page(f"driftgate-series-{index}") for index in range(self._count)]
        records = max(telemetry.spans.max_queue_size or config.telemetry.ring_records, FEWEST_RECORDS)
        self._rings = [create_ring(f"driftgate-records-{index}", records) for index in range(self._count)]
        room = config.statistics.max_bytes_per_worker
        self._arenas = [create_arena(f"driftgate-panes-{index}", room) for index in range(self._count)]
        self._pane_control = create_pane_control("driftgate-pane-control", self._count)
        room = config.shadow.queue_bytes_per_worker
        self._copies = [create_copy_ring(f"driftgate-copies-{index}", room) for index in range(self._count)]
        self._export_segment = create_tally("driftgate-exported", COUNTS)
        self._instance_id = str(uuid.uuid4())
        self._tally_segment: Segment = create_tally("driftgate-restarts", self._count + 2)
        self._tally = Tally(self._tally_segment)
        self._control = Child("control", "gateway.control", CONTROL_ENVIRONMENT)
        self._workers = [
            Child(f"worker {index}", "gateway.worker", WORKER_ENVIRONMENT, page)
            for index, page in enumerate(self._pages)
        ]
        self._shadow = Child("shadow", "gateway.shadow", SHADOW_ENVIRONMENT, self._shadow_page)
        self._out_of_memory = OutOfMemory()
        self._selector = selectors.DefaultSelector()
        self._ending = Ending()
        self._failed = ""

    def run(self) -> int:
        """0 after a clean end; 1 if a child could not be kept alive, or had to be killed."""
        self._watch_signals()
        endpoints = self._publish_endpoints()
        for child in self._children():
            self._start(child)
        log.info(
            "driftgate %s: gRPC %s, HTTP %s, admin %s, %d workers, state in %s",
            os.getpid(), self.grpc.address, self.http.address, self.admin.address, self._count,
            self._config.state_folder(),
        )  # fmt: skip
        while not self._ending.requested and not self._failed:
            self._wait(self._until_next_restart())
            for child in self._children():
                if child.restart_at is not None and time.monotonic() >= child.restart_at:
                    self._start(child)
        status = self._end()
        endpoints.unlink(missing_ok=True)
        return status

    def _publish_endpoints(self) -> Path:
        """Where this gateway listens, for scripts: ports that were given as 0 are known only now."""
        file = self._config.state_folder() / ENDPOINTS_FILE
        addresses = {"grpc": self.grpc.address, "http": self.http.address, "admin": self.admin.address}
        text = json.dumps({"pid": os.getpid(), **addresses})
        partial = file.with_suffix(".tmp")
        partial.write_text(text)
        partial.replace(file)
        return file

    def _children(self) -> list[Child]:
        shadow = [self._shadow] if self._config.shadow.enabled else []
        return [self._control, *self._workers, *shadow]

    def _start(self, child: Child) -> None:
        index = self._workers.index(child) if child in self._workers else -1
        orders = Spawn(
            config=self._config,
            index=index,
            parent_pid=os.getpid(),
            link_address=self._link.address,
            page_fds=tuple(page.fd for page in self._pages),
            shadow_page_fd=self._shadow_page.fd,
            series_fds=tuple(page.fd for page in self._series),
            ring_fds=tuple(ring.fd for ring in self._rings),
            arena_fds=tuple(arena.fd for arena in self._arenas),
            copy_fds=tuple(ring.fd for ring in self._copies),
            pane_control_fd=self._pane_control.fd,
            export_fd=self._export_segment.fd,
            tally_fd=self._tally_segment.fd,
            listener_fd=self._link.held.fileno(),
            http_fd=self.http.held.fileno(),
            grpc_address=self.grpc.address,
            admin_address=self.admin.address,
            state_dir=str(self._config.state_folder()),
            started_at_seconds=self._started_at,
            instance_id=self._instance_id,
            log_style=line_style(self._config.log_format, sys.stderr),
        )
        fds = [*orders.page_fds, orders.tally_fd, orders.pane_control_fd]
        if child is self._control:
            fds += [orders.listener_fd, orders.http_fd, *orders.series_fds, *orders.ring_fds, orders.export_fd]
            fds += [*orders.arena_fds, *orders.copy_fds, orders.shadow_page_fd]
        elif child is self._shadow:
            fds = [*orders.copy_fds, orders.shadow_page_fd]
        else:
            fds += [orders.series_fds[index], orders.ring_fds[index], orders.arena_fds[index], orders.copy_fds[index]]
        try:
            child.start(orders, fds, time.monotonic(), self._relay)
        except OSError as error:
            wait = self._config.restart.max_seconds
            log.error("%s cannot be started: %s; trying again in %g s", child.name, error.strerror, wait)  # noqa: TRY400
            child.restart_at = time.monotonic() + wait
            return
        self._selector.register(child.pidfd, selectors.EVENT_READ, child)

    def _wait(self, timeout_seconds: float | None) -> None:
        """Until a signal, the end of a child, or the timeout."""
        for key, _ in self._selector.select(timeout_seconds):
            if isinstance(key.data, Child):
                self._on_end(key.data)
            else:
                os.read(key.fd, 4096)

    def _on_end(self, child: Child) -> None:
        self._selector.unregister(child.pidfd)
        pid = child.pid
        status = child.reap()
        crashes = [] if self._ending.requested else self._note_crashes(child, status)
        self._relay.ended(child.name)  # its last words come before the word of its end
        if self._ending.requested:
            return
        for crash in crashes:
            log.error("%s (pid %d) died in %s/%d", child.name, pid, crash.model, crash.version)
        restart = self._config.restart
        child.history, decision = after_end(
            child.history, time.monotonic(), status, restart.initial_seconds, restart.max_seconds
        )
        how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        if isinstance(decision, GiveUp) and child is self._shadow:  # clients are answered all the same
            decision = Restart(time.monotonic() + restart.max_seconds)
        if isinstance(decision, GiveUp):
            self._failed = f"{child.name} cannot be kept alive: {decision.reason}"
            log.error("%s (pid %d) %s; %s", child.name, pid, how, self._failed)
            return
        self._tally.add([*self._workers, self._control, self._shadow].index(child))
        child.restart_at = decision.at
        log.warning("%s (pid %d) %s; starting it again in %.2f s", child.name, pid, how, decision.at - time.monotonic())

    def _note_crashes(self, child: Child, status: int) -> list[Crash]:
        """What the child was in when it died of it. Never fails: a page that cannot be read ends no supervisor."""
        killed_for_memory = self._out_of_memory.grew()
        if child.page is None:
            return []
        own_doing = by_itself(status, out_of_memory=killed_for_memory)
        try:
            crashes = note_crashes(child.page, count=own_doing)
        except Exception:
            log.exception("what %s was in when it ended cannot be read", child.name)
            return []
        return crashes if own_doing else []

    def _until_next_restart(self) -> float | None:
        times = [child.restart_at for child in self._children() if child.restart_at is not None]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _end(self) -> int:
        """Workers drain, control ends after them; whatever is left at the end of the grace is killed."""
        self._ending.requested = True
        drain = self._config.drain
        running = [child for child in self._children() if child.running]
        log.info("draining: %d processes have %g s to finish what is in flight", len(running), drain.grace_seconds)
        for child in running:
            child.terminate()
        deadline = time.monotonic() + drain.delay_seconds + drain.grace_seconds + KILL_AFTER_SECONDS
        while any(child.running for child in self._children()) and time.monotonic() < deadline:
            self._wait(max(0.0, deadline - time.monotonic()))
        late = [child for child in self._children() if child.running]
        for child in late:
            log.error("%s did not end in time and is killed", child.name)
            child.kill()
            self._on_end(child)
        log.info("driftgate has ended")
        return 1 if late or self._failed else 0

    def _watch_signals(self) -> None:
        read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        self._selector.register(read_end, selectors.EVENT_READ, None)
        signal.signal(signal.SIGTERM, self._ending)
        signal.signal(signal.SIGINT, self._ending)


def run(config: Config) -> int:
    """`driftgate serve`: answers the exit status; 2 where it cannot start at all."""
    fill_standard_streams()
    relay = LogRelay(sys.stderr.fileno())
    relay.formatter = setup_logging("supervisor", config.log_level, config.log_format, relay)
    try:
        return _supervise(config, relay)
    except Exception:
        log.critical("the supervisor ends, and all processes with it", exc_info=True)
        return 1
    finally:
        relay.close()


def _supervise(config: Config, relay: LogRelay) -> int:
    # One file descriptor per client connection, and one per version in the cache: the usual 1024 are soon used up.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        telemetry = read_settings(config.telemetry.environment(os.environ), config.telemetry.otel)
        for warning in telemetry.warnings:
            log.warning("%s", warning)
        supervisor = Supervisor(config, telemetry, relay)
    except (PortError, StateDirectoryError, TelemetrySettingsError) as error:
        relay.write(f"driftgate: {error}\n")  # for the person who started it
        return 2
    return supervisor.run()


def _lock_state(folder: Path) -> int:
    """Makes the folder and locks it for this gateway; the kernel lets go when the process ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateDirectoryError(
            f"cannot write the state directory {folder}: {error.strerror}; choose another with --state-dir"
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise StateDirectoryError(
            f"the state directory {folder} is in use by another gateway; end it, or choose another with --state-dir"
        ) from None
    return descriptor
