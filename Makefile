# `make demo` edits a real sound; `make test` is what CI runs. Both need Python 3.11 or later and a C compiler (for pesq).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

.PHONY: demo test lint clean

demo: $(VENV)/demo.stamp
	$(BIN)/python -m apps.first_edit

test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build dist demo *.egg-info

$(VENV)/demo.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) '.[eval]'
	touch $@

$(VENV)/test.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) '.[models,nnsight,eval,egemaps,mos,eeg,demo,cluster,dev]'
	touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
