"""What a load generator can do where the server costs next to nothing.  Usage: python -m bench.servers.nothing PORT"""

import select
import socket
import sys

import numpy as np

from bench.generator.http2 import PREFACE, SETTINGS, frame
from bench.generator.layout import EVENT_BYTES, EVENTS, reserved
from bench.generator.nothing_kernels import ROOM_BYTES, serve
from bench.servers import HOST

MOST_FILES = 1024
PATIENCE_SECONDS = 0.05
"""Connections that come together are answered together; nothing else is waited for."""


def accepted(listener: socket.socket) -> list[socket.socket]:
    """Those of one load. A connection that does not greet is no load's."""
    links: list[socket.socket] = []
    listener.settimeout(None)
    while True:
        try:
            link, _ = listener.accept()
        except TimeoutError:
            return links
        link.settimeout(1.0)
        if link.recv(len(PREFACE), socket.MSG_WAITALL) == PREFACE:
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link.setblocking(True)
            links.append(link)
            listener.settimeout(PATIENCE_SECONDS)
        else:
            link.close()


def main(port: int) -> None:
    events, pause, taken = np.zeros(EVENTS * EVENT_BYTES, np.uint8), np.zeros(2, np.int64), np.zeros(3, np.int64)
    outbox = reserved(8 * ROOM_BYTES)
    with socket.create_server((HOST, port), backlog=MOST_FILES) as listener:
        while True:
            links = accepted(listener)
            inbox, fills = reserved(MOST_FILES * ROOM_BYTES), np.zeros(MOST_FILES, np.int32)
            with select.epoll() as epoll:
                for link in links:
                    epoll.register(link.fileno(), select.EPOLLIN)
                    link.sendall(frame(SETTINGS, 0, 0, b""))  # the load begins when it has this of each
                serve(epoll.fileno(), events, pause, taken, fills, inbox, np.zeros(MOST_FILES, np.int64), outbox)
            for link in links:
                link.close()


if __name__ == "__main__":
    main(int(sys.argv[1]))
