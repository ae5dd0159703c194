"""An OtlpReceiver in a process of its own, so that it takes no time from the clients of a test, and can be killed.

`python -m support.receiver_process GRPC_PORT HTTP_PORT [CERTIFICATE KEY]`, with tests/ on PYTHONPATH, prints its ports
as JSON. Each line that it then reads is the fields of a Fault, the answer to all further requests; it says its counts.
It ends with its standard input.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from support.received import Fault
from support.receiver import OtlpReceiver, ServerTls

TESTS = Path(__file__).parent.parent


class ReceiverProcess:
    """Counts what it gets and keeps nothing of it. A restart is on the ports of before."""

    def __init__(self, tls: ServerTls | None = None) -> None:
        self._process: subprocess.Popen[str] | None = None
        self.grpc_port = self.http_port = 0
        self.start(tls)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self, tls: ServerTls | None = None) -> None:
        command = [sys.executable, "-m", "support.receiver_process", str(self.grpc_port), str(self.http_port)]
        if tls is not None:
            command += [str(tls.certificate), str(tls.key)]
        path = f"{TESTS}{os.pathsep}{TESTS.parent}"
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path}
        )
        ports = self._read()
        self.grpc_port, self.http_port = ports["grpc"], ports["http"]

    def answer_always(self, **fault: Any) -> dict[str, int]:
        """Fields of Fault; none for OK. Answers the counts until then."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(fault) + "\n")
        self._process.stdin.flush()
        return self._read()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _read(self) -> dict[str, int]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the receiver has ended"
        read: dict[str, int] = json.loads(line)
        return read


def main() -> None:
    grpc_port, http_port, *files = sys.argv[1:]
    tls = ServerTls(*map(Path, files)) if files else None
    with OtlpReceiver(grpc_port=int(grpc_port), http_port=int(http_port), tls=tls, count_only=True) as receiver:
        print(json.dumps({"grpc": receiver.grpc_port, "http": receiver.http_port}), flush=True)
        for line in sys.stdin:
            receiver.answer_always(Fault(**json.loads(line)))
            print(json.dumps(receiver.counts), flush=True)


if __name__ == "__main__":
    main()
