# Each target does all of its own set-up: a virtual environment in .venv, the install into it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help reproduce test test-versions mutants lint docs bench clean

help:
	@echo "make reproduce   the whole method on the built-in split: trains, explains, draws, checks"
	@echo "make test        the test suite"
	@echo "make test-versions   the test suite with the oldest and the newest torch, on two versions of Python"
	@echo "make mutants     how many deliberate faults the tests detect; takes about two hours"
	@echo "make lint        ruff and mypy"
	@echo "make docs        the documentation as a site, in build/site; checks its links"
	@echo "make bench       hvx beside captum and pytorch-grad-cam; writes docs/benchmarks.md"
	@echo "make clean       removes the environment and all that was made"

reproduce: $(VENV)/installed
	$(BIN)/hvx reproduce -o runs/reproduce

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-versions: $(VENV)/installed-versions
	$(BIN)/tox

mutants: $(VENV)/installed-mutants
	$(BIN)/python scripts/mutation_test.py -o build/mutants

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/installed-docs
	$(BIN)/mkdocs build --strict

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

$(VENV)/installed-mutants: $(VENV)/installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[mutants]'
	touch $@

$(VENV)/installed-versions: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[versions]'
	touch $@

$(VENV)/installed-bench: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	touch $@
