"""What driftgate costs over models, loads, settings and sizes: `python -m bench.matrix`, method in bench/README.md."""
