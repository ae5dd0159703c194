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
print(*sorted(name for name in sys.modules if name.startswith(("runtime.sketch", "runtime.drift", "scipy."))))
from scipy import linalg, special  # whoever needs them has them
assert linalg.det([[2.0]]) == 2 and special.ndtr(0) == 0.5
"""
OF_THE_PACKAGE = ("scipy._", "scipy.version", "scipy.__config__")
"""numba looks at scipy's version; these come with it."""


@pytest.mark.parametrize("process", ["worker", "control"])
def test_a_process_starts_without_scipy_and_sketches_as_long_as_it_does_not_use_them(process: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS.format(process=process)], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert [name for name in done.stdout.split() if not name.startswith(OF_THE_PACKAGE)] == []
