# Each target does all of its own set-up: a virtual environment in .venv, the install into it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help reproduce test lint bench clean

help:
	@echo "make reproduce   the whole road on the built-in split: trains, explains, draws, checks"
	@echo "make test        the test suite"
	@echo "make lint        ruff and mypy"
	@echo "make bench       hvx beside captum and pytorch-grad-cam; writes docs/benchmarks.md"
	@echo "make clean       removes the environment and all that was made"

reproduce: $(VENV)/installed
	$(BIN)/hvx reproduce -o runs/reproduce

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/installed-bench
	$(BIN)/python scripts/benchmark.py -o docs/benchmarks.md

clean:
	rm -rf $(VENV) runs build dist *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hvx needs Python 3.11 or later; name one with PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[measure]'
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

$(VENV)/installed-bench: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	touch $@
