# Needs Python >= 3.11 and make, nothing else; `make install PYTHON=python3.12` picks another Python.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate --no-emit-index-url --no-emit-find-links

.DEFAULT_GOAL := help
.PHONY: help demo install test check bench evidence e2e lock

help:
	@echo "make demo | install | test | check | e2e | bench | evidence | lock"

demo: $(VENV)/.installed ## a bad canary is caught and rolled back, live, in a browser
	$(BIN)/rollbackd demo

install: $(VENV)/.installed ## gives .venv/bin/rollbackd

test: $(VENV)/.dev ## everything but the end-to-end suite
	$(BIN)/python -m pytest -m "not e2e" $(ARGS)

e2e: $(VENV)/.dev ## the whole daemon against real Kafka, faults included
	$(BIN)/python -m pytest -m e2e $(ARGS)

check: $(VENV)/.dev ## lint, format, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.dev $(VENV)-bench/.installed ## figures, one `name: value` a line
	$(BIN)/python -m bench $(ARGS)

evidence: $(VENV)/.dev ## docs/evidence.md from fixed seeds; ARGS=--quick checks in two minutes
	$(BIN)/python -m evidence $(ARGS)

lock: $(VENV)/.dev ## writes requirements/*.txt again from pyproject.toml
	$(LOCK) pyproject.toml --output-file requirements/base.txt
	$(LOCK) --group build --output-file requirements/build.txt
	$(LOCK) pyproject.toml --extra dev --group build --constraint requirements/base.txt \
		--output-file requirements/dev.txt
	$(LOCK) --group bench --output-file requirements/bench.txt

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "rollbackd needs Python >= 3.11; name one: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements/base.txt requirements/build.txt pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes -r requirements/base.txt -r requirements/build.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.installed
	$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@

$(VENV)-bench/.installed: requirements/bench.txt | $(BIN)/python
	$(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes \
		-r requirements/bench.txt
	@touch $@
