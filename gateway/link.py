"""A process's end of the socket to control: connects, and connects again, for as long as the process lives.

Nothing on the request path waits for it. While control is away a worker serves what it has.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import queue
import socket
import threading
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from gateway.messages import FROM_CONTROL, LENGTH, Answer, Desired, ReplayOrder, Request, frame, frame_length

log = logging.getLogger(__name__)

FIRST_RETRY_SECONDS = 0.02
LAST_RETRY_SECONDS = 1.0
MAX_OUTGOING = 10_000  # reports waiting for control; beyond it the oldest connection state is stale anyway
MAX_REQUESTS = 256  # clients waiting for control through this worker

OnAnswer = Callable[[Answer | None], None]
OnSent = Callable[[bool], None]


class Link:
    """`greet` answers the messages that open each connection: who this is, and all that it holds. `on_replay`: of the
    process that answers copies.
    """

    def __init__(
        self,
        address: str,
        greet: Callable[[], list[BaseModel]],
        on_desired: Callable[[Desired], None],
        on_replay: Callable[[ReplayOrder], None] = lambda _order: None,
    ) -> None:
        self._address = address
        self._greet = greet
        self._on_desired = on_desired
        self._on_replay = on_replay
        self._outgoing: queue.Queue[tuple[bytes, OnSent | None] | None] = queue.Queue(MAX_OUTGOING)
        self._connection: socket.socket | None = None
        self._heard = False  # anything on this connection: the supervisor's socket takes connections without control
        self._ids = itertools.count(1)
        self._waiting: dict[int, OnAnswer] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._receive_forever, name="control link", daemon=True),
            threading.Thread(target=self._send_forever, name="control link out", daemon=True),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._outgoing.put(None)
        self._disconnect()
        for thread in self._threads:
            thread.join(timeout=5.0)

    def report(self, message: BaseModel) -> None:
        """Drops the message while control is away: the greeting of the next connection says it all."""
        if self._connection is not None:
            self._put(frame(message))

    def deliver(self, message: BaseModel, on_sent: OnSent) -> None:
        """For what no greeting repeats. `on_sent` is called once, with False where the message was not sent because
        control is away.
        """
        with self._lock:
            there = self._heard
        if there:
            self._put(frame(message), on_sent)
        else:
            on_sent(False)

    def ask(self, verb: Any, on_answer: OnAnswer, **fields: Any) -> bool:
        """`on_answer` is called once, with None if control went away. False: control is away or busy."""
        with self._lock:
            if not self._heard or len(self._waiting) >= MAX_REQUESTS:
                return False
            number = next(self._ids)
            self._waiting[number] = on_answer
        self._put(frame(Request(id=number, verb=verb, **fields)))
        return True

    def _put(self, data: bytes, on_sent: OnSent | None = None) -> None:
        try:
            self._outgoing.put_nowait((data, on_sent))
        except queue.Full:
            log.warning("control does not read its messages; connecting anew")
            self._disconnect()
            _tell(on_sent, sent=False)

    def _receive_forever(self) -> None:
        wait = FIRST_RETRY_SECONDS
        while not self._stopping.is_set():
            try:
                connection = self._connect()
            except OSError:
                self._stopping.wait(wait)
                wait = min(2 * wait, LAST_RETRY_SECONDS)
                continue
            wait = FIRST_RETRY_SECONDS
            try:
                self._receive(connection)
            except OSError as error:
                log.debug("the link to control ended: %s", error)
            except Exception:
                log.exception("a message of control could not be taken up; connecting anew")
                self._stopping.wait(LAST_RETRY_SECONDS)
            finally:
                self._disconnect()

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(self._address)
        except OSError:
            connection.close()
            raise
        while not self._outgoing.empty():  # what was meant for an earlier connection
            stale = self._outgoing.get_nowait()
            if stale is not None:
                _tell(stale[1], sent=False)
        with self._lock:
            self._connection = connection
        for message in self._greet():
            self._put(frame(message))
        return connection

    def _receive(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as stream:
            while len(head := stream.read(LENGTH.size)) == LENGTH.size:
                payload = stream.read(frame_length(head))
                message = FROM_CONTROL.validate_json(payload)
                with self._lock:
                    self._heard = self._connection is connection
                if isinstance(message, Desired):
                    self._on_desired(message)
                elif isinstance(message, ReplayOrder):
                    self._on_replay(message)
                else:
                    with self._lock:
                        on_answer = self._waiting.pop(message.id, None)
                    if on_answer is not None:
                        on_answer(message)

    def _send_forever(self) -> None:
        while True:
            item = self._outgoing.get()
            if item is None:
                return
            data, on_sent = item
            connection = self._connection
            if connection is None:
                _tell(on_sent, sent=False)
                continue
            try:
                connection.sendall(data)
            except OSError:
                self._disconnect()
                _tell(on_sent, sent=False)
            else:
                _tell(on_sent, sent=True)

    def _disconnect(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
            self._heard = False
            waiting, self._waiting = self._waiting, {}
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        for on_answer in waiting.values():
            on_answer(None)


def _tell(on_sent: OnSent | None, *, sent: bool) -> None:
    if on_sent is not None:
        on_sent(sent)
