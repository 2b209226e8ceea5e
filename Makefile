# Every target is one or two commands that a person could type; `make -n TARGET` shows them.
.DEFAULT_GOAL := help
.PHONY: help demo test test-long test-timing test-compose test-lowest test-all check docs benchmark clean

PYTHON ?= $(firstword $(foreach v,3.12 3.11 3.10,$(shell python$(v) -c 'import venv; print("python$(v)")' 2>/dev/null)) python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
LOWEST := .venv-lowest
# The live tests share one server, so they stay in one process; the others run next to them.
PARALLEL := -n auto --maxprocesses 4 --dist loadgroup
QUICK := -m "not slow and not timing and not gpu and not compose"

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 10) <= v < (3, 13) else "Triptych needs Python 3.10, 3.11 or 3.12 (the Triton server from pip has no other), but %s is %d.%d; name one: make PYTHON=python3.11" % (sys.executable, *v[:2]))'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: $(INSTALLED)  ## build the demo detector, serve it, detect, measure
	$(BIN)/triptych demo

test: $(INSTALLED)  ## run every test that needs no GPU and no quiet machine
	$(BIN)/python -m pytest $(PARALLEL) $(QUICK)

test-long: $(INSTALLED)  ## run the long tests
	$(BIN)/python -m pytest $(PARALLEL) -m "slow and not timing and not gpu and not compose" || $(BIN)/python -m pytest -m "slow and not timing and not gpu and not compose" --last-failed

test-timing: $(INSTALLED)  ## run the tests that assert milliseconds or a rate, alone
	$(BIN)/python -m pytest -m "timing and not gpu" || $(BIN)/python -m pytest -m "timing and not gpu" --last-failed

test-compose: $(INSTALLED)  ## bring up docker-compose.yml and try it out, where there is Docker
	$(BIN)/python -m pytest -m compose tests/compose

test-lowest:  ## run the quick tests with the oldest packages that pyproject.toml allows
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet 'uv>=0.9,<1'
	VIRTUAL_ENV=$(LOWEST) $(LOWEST)/bin/uv pip install --quiet --resolution lowest-direct --editable '.[dev,bulk]'
	$(LOWEST)/bin/python -m pytest $(PARALLEL) $(QUICK)

test-all: test test-long test-timing  ## run every test that needs no GPU

check: $(INSTALLED)  ## lint, type-check, hold the imports between the wings
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

docs: $(INSTALLED)  ## build the docs site into site/
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

benchmark: $(INSTALLED)  ## the pipeline against the bare detector and against the usual ensemble
	$(BIN)/python benchmarks/pipeline.py

clean:  ## remove the virtual environments and what the demo and the docs made
	rm -rf $(VENV) $(LOWEST) .triptych site
