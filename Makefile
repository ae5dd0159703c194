# `make demo` and `make test` do all the set-up themselves: a virtual environment in .venv, without root.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed
COMPILED := $(VENV)/.compiled
MODELS ?= .demo/models
ALONE := tests/process tests/receivers

.PHONY: demo serve test lint format bench bench-peers bench-stages docs clean

$(STAMP): pyproject.toml constraints.txt protos/build_backend.py $(shell find protos -name '*.proto')
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "driftgate needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt setuptools grpcio-tools
	$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-build-isolation --editable '.[bench,test,lint]'
	@touch $@

$(COMPILED): $(STAMP) # the kernels, so that the first start is quick
	$(RUN) -c 'import gateway.worker.main, gateway.control.main, gateway.shadow.main'
	@touch $@

demo: $(COMPILED) ## train models, serve them, load them, swap them, kill a worker, and sum up
	$(RUN) examples/demo.py

serve: $(COMPILED) ## the example models on the standard ports, until Ctrl-C
	$(RUN) examples/demo.py --serve

test: $(COMPILED) ## all tests: on two cores what may run beside others, then alone what starts whole gateways under load
	@status=0; \
	$(RUN) -m pytest -n 2 --dist loadgroup $(addprefix --ignore=,$(ALONE)) || status=1; \
	$(RUN) -m pytest $(ALONE) || status=1; \
	exit $$status

lint: $(STAMP) ## style, types, layers, and docs that must match the code
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(RUN) docs/generate.py --check
	$(RUN) -m bench.report --check

format: $(STAMP)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: $(COMPILED) ## driftgate beside stock gRPC servers, one core each, one table
	$(RUN) -m bench

bench-peers: $(COMPILED) ## driftgate beside MLServer and Triton, which are set up in .bench/peers, one core each
	$(RUN) -m bench.peers

bench-stages: $(COMPILED) ## where the processor time of a request goes, stage by stage
	$(RUN) -m bench.stages

docs: $(STAMP) ## the generated reference, and what documents quote of published results
	$(RUN) docs/generate.py
	$(RUN) -m bench.report --publish

clean:
	rm -rf $(VENV) .bench .demo build dist *.egg-info gateway/wire/pb
