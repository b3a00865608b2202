# make demo | test | checks | docs | wheel | clean.  PYTHON=python3.12 chooses an interpreter.
# The environment is .venv; it is made with uv where uv is on the PATH, else with venv and pip.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(shell uv --version 2>/dev/null)
INSTALL := $(if $(UV),uv pip install --python $(BIN)/python,$(BIN)/python -m pip install)

.PHONY: help demo test checks docs wheel clean

help:
	@echo "make demo     install, then train, measure and talk to a tiny model (offline, CPU)"
	@echo "make test     install with the tools of development, then run the tests"
	@echo "make checks   lint, format, types, import contracts, documentation"
	@echo "make docs     build the documentation into site/"
	@echo "make wheel    build the wheel into dist/"
	@echo "make clean    remove .venv and what the commands above built"

demo: $(VENV)/.installed
	$(BIN)/mmunify demo

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest

checks: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(BIN)/mkdocs build --strict --quiet

docs: $(VENV)/.installed-dev
	$(BIN)/mkdocs build --strict

wheel: $(VENV)/.installed-dev
	$(BIN)/python -m hatchling build -t wheel

clean:
	rm -rf $(VENV) build dist site

$(BIN)/python:
	$(if $(UV),uv venv --allow-existing --python $(PYTHON) $(VENV),$(PYTHON) -m venv $(VENV))

# The stamps are older than pyproject.toml when the dependencies may have changed. Each is one installation.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(INSTALL) --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(INSTALL) --editable '.[dev,docs]'
	@touch $@ $(VENV)/.installed
