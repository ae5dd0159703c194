"""Chooses the transport: the queue where this grpcio has it, else the public one with a warning."""

from __future__ import annotations

import logging

from gateway.worker.transport.interface import BindError, Transport, TransportSettings

log = logging.getLogger(__name__)


def make_transport(kind: str, settings: TransportSettings) -> Transport:
    """`kind`: auto, queue, public. Raises BindError where `queue` is asked for and cannot be had."""
    # For each header value that is no text it logs a traceback with the value in it: any client's to ask for.
    logging.getLogger("grpc._cython.cygrpc").setLevel(logging.CRITICAL)
    if kind != "public":
        try:
            from gateway.worker.transport import queue

            problem = queue.probe()
        except ImportError as error:
            problem = f"grpc._cython.cygrpc cannot be imported ({error})"
        if not problem:
            return queue.QueueTransport(settings)
        if kind == "queue":
            raise BindError(f"the queue transport cannot be used: {problem}; set transport to auto or public")
        log.warning("falling back to the public transport, which is several times slower: %s", problem)
    from gateway.worker.transport.public import PublicTransport

    return PublicTransport(settings)
