"""Other servers beside driftgate: `python -m bench.peers`, each in a virtual environment of its own."""
