"""What the processes import before they are ready: each MiB and tenth of a second is every worker's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IMPORTS = """
import sys
import gateway.{process}.main
print(*sorted(name for name in sys.modules if name.startswith({names})))
from scipy import linalg, special  # whoever needs them has them
assert linalg.det([[2.0]]) == 2 and special.ndtr(0) == 0.5
"""
FIRST_CALL = """
import sys
import numpy as np
import gateway.worker.main
from runtime.shm.count import add_run
from runtime.shm.statistics_layout import SLOT_WORDS
before = set(sys.modules)
add_run(np.zeros(SLOT_WORDS, np.uint64), *[0] * 8)
print(*sorted(set(sys.modules) - before))
"""
OF_THE_PACKAGE = ("scipy._", "scipy.version", "scipy.__config__")
"""numba looks at scipy's version; these come with it."""


@pytest.mark.parametrize(
    ("process", "names"),
    [("worker", ("runtime.drift", "scipy.", "pyarrow", "jinja2")), ("control", ("pyarrow", "jinja2"))],
)
def test_a_process_starts_without_what_it_does_not_use(process: str, names: tuple[str, ...]) -> None:
    """Only control looks for drift; nobody who serves reads data or writes reports."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS.format(process=process, names=names)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert [name for name in done.stdout.split() if not name.startswith(OF_THE_PACKAGE)] == []


def test_the_first_call_of_a_kernel_imports_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", FIRST_CALL], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr
