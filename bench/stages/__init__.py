"""Where a request's microseconds go, stage by stage: `python -m bench.stages`, method in bench/README.md."""
