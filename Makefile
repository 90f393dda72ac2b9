# Every target sets up .venv first. DATA=path RUN=path ARGS="--option value" pass through to the task.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
ARGS ?=
TASKS := forecast

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo '  DATA=path RUN=path ARGS="--option value" pass through'

setup: $(STAMP) ## make .venv with everything the tests and tasks need

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Headwise needs Python 3.11 or newer; set PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

forecast: $(STAMP) ## train, evaluate and predict series; DATA=my.csv, else a generated sample
	$(BIN)/headwise $@ train $(if $(DATA),--data '$(DATA)') $(if $(RUN),--run '$(RUN)') $(ARGS)

demo: $(STAMP) ## every pipeline on its sample, and one index page of the reports
	$(BIN)/python -m headwise.pipelines.engine.demo $(if $(RUN),'$(RUN)')

test: $(STAMP) ## all tests
	$(BIN)/python -m pytest -n 2 --dist worksteal -q $(ARGS)

check: $(STAMP) ## lint, types, import contract
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/pyright

coverage: $(STAMP) ## tests with coverage of the core
	$(BIN)/python -m pytest -n 2 -q --cov=kernels --cov=models --cov-report=term-missing $(ARGS)

faults: $(STAMP) ## the long fault tests: kills, full disks, damaged files; prints survived/tried
	$(BIN)/python -m pytest tests/faults -q -s -m 'slow or not slow' $(ARGS)

bench: $(STAMP) ## speed and memory beside the published form (CPU)
	$(BIN)/python benchmarks/softs.py $(ARGS)

clean: ## remove .venv and caches, never a run
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis

.PHONY: help setup demo test check coverage faults bench clean $(TASKS)
