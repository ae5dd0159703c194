"""A headless Chromium, driven by its DevTools protocol over a socket that it inherits: no driver and no port."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, Self

import pytest

CHROMIUM = Path(shutil.which("chromium") or "/usr/bin/chromium")
needs_chromium = pytest.mark.skipif(not CHROMIUM.exists(), reason="no chromium: tests/receivers/install.sh as root")

POLL_SECONDS = 0.02
PAGE_SECONDS = 60.0
READ_FD, WRITE_FD = 3, 4  # where --remote-debugging-pipe reads and writes
BLOCK_BYTES = 1 << 16

# The middle of the first such element whose text ends so, once it stands still with nothing over it.
PLACE = """async (selector, end) => {
    const element = [...document.querySelectorAll(selector)].find((each) => each.textContent.endsWith(end));
    if (!element) return null;
    const before = element.getBoundingClientRect();
    await new Promise(requestAnimationFrame);
    const {x, y, width, height} = element.getBoundingClientRect();
    const middle = {x: x + width / 2, y: y + height / 2};
    const isFree = element.contains(document.elementFromPoint(middle.x, middle.y));
    return x === before.x && y === before.y && isFree ? middle : null;
}"""


class Browser:
    """One page of `width` by `height` pixels. Use as a context; `folder` holds the profile."""

    def __init__(self, folder: Path, width: int, height: int) -> None:
        self._folder = folder
        self._size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._count = 0
        self._unread = b""
        self._events: list[dict[str, Any]] | None = None

    def __enter__(self) -> Self:
        self._socket, theirs = socket.socketpair()
        # bash puts the socket where Chromium reads and writes; sh may know no descriptor above 9. Root has no sandbox.
        arguments = [
            "bash", "-c", f'exec "$@" {READ_FD}<&{theirs.fileno()} {WRITE_FD}>&{theirs.fileno()}', "bash",
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars",
            "--disable-background-networking", f"--user-data-dir={self._folder}", "--remote-debugging-pipe",
        ]  # fmt: skip
        with theirs, (self._folder / "output.log").open("wb") as output:
            self._process = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                pass_fds=(theirs.fileno(),),
            )  # fmt: skip
        self._session = ""
        try:
            target = self._call("Target.createTarget", url="about:blank")["targetId"]
            self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            self._call("Emulation.setDeviceMetricsOverride", **self._size)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        self._socket.close()
        os.killpg(self._process.pid, signal.SIGKILL)  # it holds nothing that is to be kept
        self._process.wait()

    def listen(self, *domains: str) -> list[dict[str, Any]]:
        """The events of these domains of the protocol from now on, in a list that grows with each call."""
        self._events = []
        for domain in domains:
            self._call(f"{domain}.enable")
        return self._events

    def emulate(self, width: int, height: int, **media: str) -> None:
        """Another size, and media features such as prefers_color_scheme="dark"."""
        self._size |= {"width": width, "height": height}
        self._call("Emulation.setDeviceMetricsOverride", **self._size)
        features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
        self._call("Emulation.setEmulatedMedia", features=features)

    def open(self, url: str) -> None:
        """Until the page has loaded; what its scripts draw comes later."""
        self._call("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete'")

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression on the page."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """Asks until the value is true."""
        deadline = time.monotonic() + PAGE_SECONDS
        while not (value := self.ask(expression)):
            assert time.monotonic() < deadline, f"{expression} was not true within {PAGE_SECONDS} s:\n{self.text}"
            time.sleep(POLL_SECONDS)
        return value

    def click(self, selector: str, end: str = "") -> None:
        """With the mouse, on the first such element whose text ends with `end`, as soon as a user could."""
        place = self.wait_for(f"({PLACE})({json.dumps(selector)}, {json.dumps(end)})")
        for event in ("mouseMoved", "mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=event, button="left", clickCount=1, **place)

    @property
    def text(self) -> str:
        """What a reader sees."""
        return str(self.ask("document.body.innerText"))

    def picture(self) -> bytes:
        """A PNG, without the mouse."""
        self._call("Input.dispatchMouseEvent", type="mouseMoved", x=0, y=0)
        return base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"])

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._socket.sendall(json.dumps(message).encode() + b"\0")
        while True:
            answer = json.loads(self._read())
            if answer.get("id") == self._count:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return dict(answer["result"])
            if self._events is not None and "method" in answer:
                self._events.append(answer)

    def _read(self) -> bytes:
        while b"\0" not in self._unread:
            block = self._socket.recv(BLOCK_BYTES)
            assert block, f"{CHROMIUM} has ended:\n{(self._folder / 'output.log').read_text(errors='replace')}"
            self._unread += block
        message, _, self._unread = self._unread.partition(b"\0")
        return message
