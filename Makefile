# The two commands of the README:
#   make quickstart   environment, installation, the quickstart sweep (runs/quickstart/report/report.html)
#   make test         style, types and tests
#
# Variables: PYTHON (the interpreter to build the environment with; otherwise the newest one that starts and
# can make an environment), VENV (where the environment is), WORKERS (test processes; as many as cores, 8 at most).

VENV ?= .venv
PYTHON ?=
WORKERS ?= $(shell cores=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1); echo $$((cores < 8 ? cores : 8)))
PYTEST_ARGS ?=
# The newest first: jax runs vmapped programs faster on Python 3.12 and newer.
CANDIDATES = $(if $(PYTHON),$(PYTHON),python3.13 python3.12 python3.11 python3 python)

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.metalab-installed
INSTALLED_DEV := $(VENV)/.metalab-installed-dev
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Tests of one file mostly share what is expensive to make: workers begin with files of their own.
PARALLEL = $(if $(filter-out 1,$(WORKERS)),--numprocesses $(WORKERS) --dist worksteal,)

.DEFAULT_GOAL := help
.PHONY: help quickstart install test test-slow test-long lint format types bench clean

help:
	@sed -n 's/^#   make /make /p' Makefile
	@echo "make lint | format | types | test-slow | bench | clean"

quickstart: $(INSTALLED)
	$(BIN)/metalab sweep quickstart
	@echo "Commands:     $(BIN)/metalab --help"

install: $(INSTALLED)

test: lint types $(INSTALLED_DEV)
	$(BIN)/python -m pytest $(PARALLEL) $(PYTEST_ARGS)

# The learning proofs: minutes of training each.
test-slow: $(INSTALLED_DEV)
	$(BIN)/python -m pytest $(PARALLEL) -m slow $(PYTEST_ARGS)

# What takes longer than a continuous integration should: 200 kills of one sweep.
test-long: $(INSTALLED_DEV)
	$(BIN)/python -m pytest -m long $(PYTEST_ARGS)

lint: $(INSTALLED_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED_DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(INSTALLED_DEV)
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An interpreter counts only when it runs (a version manager's shim may stand for one that is not there)
# and when the environment that it makes has pip.
$(BIN)/python:
	@for python in $(CANDIDATES); do \
	  "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue; \
	  if "$$python" -m venv --clear $(VENV) >/dev/null 2>&1 && $(BIN)/python -m pip --version >/dev/null 2>&1; \
	  then echo "$(VENV): made with $$($(BIN)/python --version)"; exit 0; fi; \
	done; \
	rm -rf $(VENV); \
	echo "No Python 3.11 or newer that can make a virtual environment was found among: $(CANDIDATES)." >&2; \
	echo "Install one (with its venv module), or name it: make PYTHON=/path/to/python3.12 ..." >&2; \
	exit 2

$(INSTALLED): pyproject.toml | $(BIN)/python
	@echo "$(VENV): installing metalab"
	$(PIP) install --editable .
	@touch $@

$(INSTALLED_DEV): pyproject.toml | $(BIN)/python
	@echo "$(VENV): installing metalab with the development tools"
	$(PIP) install --editable '.[dev]'
	@touch $(INSTALLED) $@
