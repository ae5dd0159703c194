"""The shadow process: answers copies of what workers answered, with versions that no client gets, and compares.

It is idle, and small, as long as no route names a shadow: what runs models is imported when the first is ordered.
Whatever becomes of it, workers notice nothing: they leave copies in rings, and shed them when these are full.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import uuid
from typing import TYPE_CHECKING

from pydantic import BaseModel

from gateway.background import give_way
from gateway.link import Link
from gateway.logs import setup_logging
from gateway.messages import Desired, Hello, Progress, ReplayOrder
from gateway.process import Ending, Spawn, receive_orders
from gateway.shadow.orders import concerns_shadows, shadow_versions

if TYPE_CHECKING:
    from gateway.shadow.engine import Engine

log = logging.getLogger(__name__)

NO_INDEX = -1
TICK_SECONDS = 0.1  # how often a run that takes too long is looked for
IDLE_TICK_SECONDS = 0.5  # how soon a signal to end is seen, without an engine


class ShadowProcess:
    def __init__(self, orders: Spawn) -> None:
        self._orders = orders
        self._counters = str(uuid.uuid4())
        self._engine: Engine | None = None
        self._revision = 0
        self._wake = threading.Event()
        self._telling = threading.Lock()
        self._link = Link(orders.link_address, self._greet, self._on_desired, self._on_replay)

    def run(self, ending: Ending) -> int:
        """Until told to end; answers the exit status."""
        self._link.start()
        while not ending.requested:
            self._wake.wait(IDLE_TICK_SECONDS if self._engine is None else TICK_SECONDS)
            self._wake.clear()
            if self._engine is not None:
                self._engine.look_after()
        ended = self._engine.stop() if self._engine is not None else True
        self._link.stop()
        log.info("the shadow process has ended")
        if not ended:  # one operator computes on, and Python would wait for it
            logging.shutdown()
            os._exit(0)
        return 0

    def _on_desired(self, desired: Desired) -> None:
        if self._engine is not None or concerns_shadows(desired):
            wanted = [(order.model, version) for order in desired.models for version in shadow_versions(order)]
            if wanted and self._engine is None:
                self._engine = self._make_engine()
            if self._engine is not None:
                self._engine.order(wanted)
        self._revision = desired.revision
        self._tell()

    def _on_replay(self, order: ReplayOrder) -> None:
        if self._engine is not None:  # else nothing is loaded that could run it, and control asks again
            self._engine.replay(order)

    def _make_engine(self) -> Engine:
        from gateway.shadow.engine import Engine

        return Engine(self._orders, self._link, self._counters, self._tell)

    def _tell(self) -> None:
        with self._telling:
            self._link.report(self._progress())

    def _greet(self) -> list[BaseModel]:
        hello = Hello(index=NO_INDEX, pid=os.getpid(), transport="", role="shadow")
        reports = self._engine.version_reports() if self._engine is not None else []
        return [hello, *reports, self._progress()]

    def _progress(self) -> Progress:
        settled = self._engine.settled() if self._engine is not None else True
        return Progress(revision=self._revision, settled=settled, listening=False, draining=False)


def main() -> int:
    orders = receive_orders()
    setup_logging("shadow", orders.config.log_level, orders.log_style)
    ending = Ending()
    signal.signal(signal.SIGTERM, ending)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C goes to the group; the supervisor decides
    give_way()
    return ShadowProcess(orders).run(ending)
