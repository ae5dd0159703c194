"""docs/reference/metrics.md, from what the collector of /metrics yields for a gateway with one model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from prometheus_client.core import Metric

from gateway.control.web import _Figures
from gateway.store.contract import DesiredModel, DesiredVersion
from generator.markdown import code, heading, sentence, table
from runtime.shm.statistics import StatisticsReader, StatisticsWriter, create_page
from runtime.shm.tally import create_tally

INTRODUCTION = """
`GET /metrics` on the HTTP port (8002), in the Prometheus text format. Figures are read from the workers' pages at each
scrape and are sums over all workers. The pages outlive the workers, so no counter falls when a worker is restarted; all
of them start at zero with the supervisor. `version` is always the number that answered, never a label.

A request is counted under a version once it has been routed to it. What is refused before that (unknown model, wrong
input, over `limits.max_in_flight`) is not in these figures.
"""


def page() -> str:
    rows = [
        (code(_name(family)), family.type, ", ".join(map(code, _labels(family))), sentence(family.documentation))
        for family in _families()
    ]
    headers = ("metric", "type", "labels", "meaning")
    return heading("Metrics", "gateway/control/web.py") + INTRODUCTION + "\n" + table(headers, rows)


def _families() -> list[Metric]:
    """One worker, one model, one version: every family has a sample, and with it its labels."""
    statistics = create_page("docs-statistics")
    tally = create_tally("docs-restarts", 2)
    StatisticsWriter(statistics).slot("model", 1)
    orders = SimpleNamespace(page_fds=(statistics.fd,), tally_fd=tally.fd)
    model = DesiredModel("model", served=True, versions=(DesiredVersion(1, "sha256:" + 64 * "0", 1),))
    changes = SimpleNamespace(desired={"model": model}, scan=SimpleNamespace(problems=()))
    fleet = SimpleNamespace(workers={})
    figures = _Figures(cast(Any, orders), cast(Any, changes), cast(Any, fleet), StatisticsReader([statistics]))
    return list(figures.collect())


def _name(family: Metric) -> str:
    return family.samples[0].name


def _labels(family: Metric) -> list[str]:
    return list(family.samples[0].labels)
