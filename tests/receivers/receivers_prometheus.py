"""A real Prometheus that scrapes one gateway, and promtool."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

from receivers_backends import ENDPOINT, get, write_config
from receivers_tools import PROMETHEUS, PROMTOOL, Backend

SCRAPE_INTERVAL = "200ms"
CHECK_SECONDS = 60.0
DAY_SECONDS = 86_400

Labels = dict[str, str]


class Prometheus(Backend):
    """It asks for exemplars, so for OpenMetrics. Queries are of what is true now."""

    def __init__(self, folder: Path, target: str) -> None:
        """`target`: host and port of the gateway's HTTP server."""
        config = {
            "global": {"scrape_interval": SCRAPE_INTERVAL, "scrape_timeout": SCRAPE_INTERVAL},
            "scrape_configs": [{"job_name": "driftgate", "static_configs": [{"targets": [target]}]}],
        }
        command = [
            str(PROMETHEUS), f"--config.file={write_config(folder, config)}", f"--storage.tsdb.path={folder / 'data'}",
            "--web.listen-address=127.0.0.1:0", "--enable-feature=exemplar-storage",
        ]  # fmt: skip
        super().__init__(command, folder)

    def _started(self) -> None:
        self.wait_for("(Server is ready to receive web requests)")
        self._api = "http://" + self.wait_for(rf'"Listening on" address=({ENDPOINT})') + "/api/v1"

    def targets(self) -> list[dict[str, Any]]:
        """As `/api/v1/targets` has them: `health`, `lastError` and more."""
        return list(get(f"{self._api}/targets")["data"]["activeTargets"])

    def query(self, expression: str) -> list[tuple[Labels, float]]:
        """Labels and value of each series."""
        found = get(f"{self._api}/query", query=expression)["data"]["result"]
        return [(series["metric"], float(series["value"][1])) for series in found]

    def exemplars(self, expression: str) -> list[tuple[Labels, dict[str, Any]]]:
        """Each with the labels of its series; `labels`, `value` and `timestamp`."""
        now = time.time()
        found = get(
            f"{self._api}/query_exemplars", query=expression, start=now - DAY_SECONDS, end=now + DAY_SECONDS
        )["data"]  # fmt: skip
        return [(series["seriesLabels"], exemplar) for series in found for exemplar in series["exemplars"]]


def checked(page: str) -> tuple[int, str]:
    """Exit status of `promtool check metrics`, and all that it says of the page."""
    command = [str(PROMTOOL), "check", "metrics"]
    found = subprocess.run(command, input=page, capture_output=True, text=True, timeout=CHECK_SECONDS)
    return found.returncode, found.stdout + found.stderr
