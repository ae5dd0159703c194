"""Side-by-side throughput and latency of driftgate and its limits: `python -m bench`, method in bench/README.md."""
