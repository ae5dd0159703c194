"""Python imports this first, where the folder is on PYTHONPATH: it puts the stage clocks into a worker."""

import os
import sys
from pathlib import Path

if "gateway.worker" in sys.orig_argv and "BENCH_STAGES_FILE" in os.environ:
    from bench.stages.clocks import calibrate, install, serve_readings

    serve_readings(Path(os.environ["BENCH_STAGES_FILE"]), calibrate())
    install()
