"""From results as JSON to what people read: `python -m bench.report`, method in bench/README.md."""
