"""What a gateway without traffic costs: time to ready, CPU time, memory; with one model and with many."""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from rich import box
from rich.table import Table

from bench.catalogue import ServerSpec, Site
from bench.matrix import tables
from bench.matrix.case import Outcome, Setting
from bench.matrix.memory import look
from bench.matrix.servers import driftgate
from bench.matrix.workload import write
from bench.process import ServerFailed, free_ports, running
from bench.report.of_single import idle_tables

MODEL_COUNTS = (1, 10, 100)
SETTLE_SECONDS = 3.0
"""After ready: what is still done then is the start's, not idleness."""

IDLE_TIMES = 5
"""So many times the length of a load: an idle second has few events."""

COLD_SECONDS = 600.0
MIB = 1 << 20
ROLES = ("supervisor", "control", "worker", "shadow")


@dataclass(frozen=True, slots=True)
class Sample:
    """One start. `cpu_us_per_second`: idle, of all processes together."""

    models: int
    cold: bool
    ready_seconds: float
    cpu_us_per_second: float
    pss_bytes: dict[str, int]


@dataclass(frozen=True, slots=True)
class Idle:
    name: str = "idle"
    title: str = "time to ready, and what an idle gateway takes"

    def run(self, setting: Setting) -> Outcome:
        subject = tables.linear()
        roots = {count: setting.folder / self.name / str(count) for count in MODEL_COUNTS}
        for count, root in roots.items():
            for index in range(1, count + 1):
                write(subject, root, f"model-{index}")
        samples: list[Sample] = []
        failures: dict[str, str] = {}
        # Cold starts compile for a minute: once is enough. The first warm one fills the cache of this tree, unseen.
        turns = [(count, False) for _ in range(setting.rounds) for count in MODEL_COUNTS] + [(1, True)]
        for count, cold in turns:
            try:
                samples.append(_sample(setting, roots[count], count, cold=cold))
            except ServerFailed as error:
                failures[f"{count} models"] = str(error)
                setting.tell(f"{count} models failed: {error}")
                continue
            setting.tell(f"{count} models{', cold' * cold}: ready after {samples[-1].ready_seconds:.2f} s")
        return Outcome(
            tables=(_table(self.title, samples, setting),),
            document={"title": self.title, "samples": [asdict(each) for each in samples], "failures": failures},
            failed=bool(failures),
            report=idle_tables(samples, ROLES),
        )


def _sample(setting: Setting, root: Path, models: int, *, cold: bool) -> Sample:
    """Raises ServerFailed."""
    with tempfile.TemporaryDirectory(prefix="bench-idle-") as folder:
        port, http_port, admin_port = free_ports(3)
        site = Site(port, http_port, admin_port, root, root, Path(folder))
        spec = _spec({"NUMBA_CACHE_DIR": f"{folder}/kernels"} if cold else {})
        began = time.monotonic()
        with running(spec, site, setting.cores.server, start_seconds=COLD_SECONDS) as server:
            ready_seconds = time.monotonic() - began
            time.sleep(SETTLE_SECONDS)
            cpu_seconds, since = server.cpu_seconds(), time.monotonic()
            time.sleep(IDLE_TIMES * setting.seconds)
            cpu_seconds = server.cpu_seconds() - cpu_seconds
            seconds = time.monotonic() - since
            return Sample(models, cold, ready_seconds, 1e6 * cpu_seconds / seconds, look(server.process.pid).pss_bytes)


def _spec(environment: dict[str, str]) -> ServerSpec:
    return driftgate("idle", "driftgate", environment, exports=False)


def _table(title: str, samples: list[Sample], setting: Setting) -> Table:
    caption = (
        f"its defaults, 1 worker, all on one core; medians of {setting.rounds} starts, each idle for "
        f"{IDLE_TIMES * setting.seconds:g} s after {SETTLE_SECONDS:g} s; cold: no compiled kernels yet, 1 start\n"
        "memory: proportional set sizes, in MiB"
    )
    table = Table(title=f"idle: {title}", caption=caption, caption_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("models", "kernels", "ready s", "CPU µs a s", "memory", *ROLES):
        table.add_column(heading, justify="right", no_wrap=True)
    for models, cold in dict.fromkeys((each.models, each.cold) for each in samples):
        alike = [each for each in samples if (each.models, each.cold) == (models, cold)]
        table.add_row(
            str(models),
            "cold" if cold else "warm",
            f"{median(each.ready_seconds for each in alike):.2f}",
            f"{median(each.cpu_us_per_second for each in alike):,.0f}",
            f"{median(sum(each.pss_bytes.values()) for each in alike) / MIB:,.1f}",
            *(f"{median(each.pss_bytes.get(role, 0) for each in alike) / MIB:,.1f}" for role in ROLES),
        )
    return table
