# Every target is one command that a person could type; `make -n TARGET` shows it.
.DEFAULT_GOAL := help
.PHONY: help demo test check benchmark clean

PYTHON ?= $(firstword $(foreach v,3.12 3.11 3.10,$(shell python$(v) -c 'import venv; print("python$(v)")' 2>/dev/null)) python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 10) <= v < (3, 13) else "Triptych needs Python 3.10, 3.11 or 3.12 (the Triton server from pip has no other), but %s is %d.%d; name one: make PYTHON=python3.11" % (sys.executable, *v[:2]))'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: $(INSTALLED)  ## build the demo detector, serve it, detect, measure
	$(BIN)/python demo

test: $(INSTALLED)  ## run every test that needs no GPU
	$(BIN)/python -m pytest

check: $(INSTALLED)  ## lint and type-check
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

benchmark: $(INSTALLED)  ## the pipeline against the bare detector and against the usual ensemble
	$(BIN)/python benchmarks/pipeline.py

clean:  ## remove the virtual environment and what the demo made
	rm -rf $(VENV) .triptych
