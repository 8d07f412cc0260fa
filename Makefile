# Each target does all of its own set-up: a virtual environment in .venv, the install into it.
PYTHON ?= python3
# Other versions than the newest, in a new environment: make test TORCH='torch==2.11.* torchvision==0.26.*'
TORCH ?=
TORCH_REQUIREMENTS := $(foreach requirement,$(TORCH),'$(requirement)')
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# The wheel is installed and run in an environment of its own.
CHECK := build/check-wheel

.PHONY: help reproduce test test-versions mutants lint docs hooks wheel check-wheel bench clean

help:
	@echo "make reproduce   the whole method on the built-in split: trains, explains, draws, checks"
	@echo "make test        the test suite"
	@echo "make test-versions   the test suite with the oldest and the newest torch, on two versions of Python"
	@echo "make mutants     how many deliberate faults the tests detect; takes about two hours"
	@echo "make lint        ruff and mypy"
	@echo "make docs        the documentation as a site, in build/site; checks its links"
	@echo "make hooks       runs ruff and mypy before each commit (pre-commit)"
	@echo "make wheel       builds the wheel and the sdist into dist/ and checks their metadata"
	@echo "make check-wheel     installs the wheel into a new environment and runs hvx reproduce there"
	@echo "make bench       hvx compared with captum and pytorch-grad-cam; writes docs/benchmarks.md"
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

hooks: $(VENV)/installed-dev
	$(BIN)/pre-commit install

wheel: $(VENV)/installed-build
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

check-wheel: wheel
	rm -rf $(CHECK)
	$(PYTHON) -m venv $(CHECK)/venv
	$(CHECK)/venv/bin/python -m pip install --quiet --disable-pip-version-check "$$(echo dist/*.whl)[figures,measure]"
	cd $(CHECK) && venv/bin/hvx reproduce -o reproduce

bench: $(VENV)/installed-bench
	$(BIN)/python scripts/benchmark.py -o docs/benchmarks.md

clean:
	rm -rf $(VENV) runs build dist *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hvx needs Python 3.11 or later; name one with PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(PIP) -e '.[figures,measure]' $(TORCH_REQUIREMENTS)
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) -e '.[dev]' $(TORCH_REQUIREMENTS)
	touch $@

$(VENV)/installed-mutants: $(VENV)/installed-dev
	$(PIP) -e '.[mutants]'
	touch $@

$(VENV)/installed-versions: $(VENV)/installed
	$(PIP) -e '.[versions]'
	touch $@

$(VENV)/installed-build: | $(VENV)/bin/python
	$(PIP) 'build>=1.2' 'twine>=6'
	touch $@

$(VENV)/installed-bench: $(VENV)/installed
	$(PIP) -e '.[bench]'
	touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(PIP) -e '.[docs]'
	touch $@
