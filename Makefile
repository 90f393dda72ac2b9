# Every target sets up .venv first. DATA=path RUN=path ARGS="--option value" pass through to the task.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEV := $(READY)-dev
ARGS ?=
WEIGHTS ?=
TASKS := $(patsubst pipelines/%/prediction.py,%,$(wildcard pipelines/*/prediction.py))
# What a task says in its card, such as $(call card,reid,extra).
card = $(shell sed -n 's/^ *$(2)="\(.*\)",$$/\1/p' pipelines/$(1)/__init__.py)
EXTRAS := $(sort $(foreach task,$(TASKS),$(call card,$(task),extra)))
comma := ,
empty :=
space := $(empty) $(empty)
ALL := $(READY)-$(subst $(space),$(comma),$(EXTRAS))

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'
	@$(foreach task,$(TASKS),printf '  make %-12s %s\n' '$(task)' '$(call card,$(task),summary)';)
	@echo '  DATA=path RUN=path ARGS="--option value" pass through'

setup: $(DEV) ## make .venv with everything the tests need; the tasks need less and set it up themselves

# A quarter of what is installed is ever imported: it is compiled then, and here what every command
# imports, also where the environment forbids to write down what was compiled.
export PYTHONDONTWRITEBYTECODE :=

# $(1): what to install into the environment
define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Headwise needs Python 3.11 or newer; set PYTHON=..."; exit 1; }
	@echo "setting up $(VENV) (torch is large: a few minutes where the network is slow)"
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python .make/install.py '$(1)'
	@$(BIN)/python -c 'import headwise.pipelines.engine.training.jobs'
	@touch $@
endef

$(READY): pyproject.toml constraints.txt
	$(call install,.)

# One for each extra; `dev` holds all of them.
$(READY)-%: pyproject.toml constraints.txt
	$(call install,.[$*])
	@touch $(READY) $(if $(filter dev,$*),$(ALL) $(EXTRAS:%=$(READY)-%))

# Every task is trained, scored and reported by its name: make reid DATA=folder
define train
$(1): $(READY)$(addprefix -,$(call card,$(1),extra))
	$(BIN)/headwise $(1) train $$(if $$(DATA),--data '$$(DATA)') $$(if $$(RUN),--run '$$(RUN)') $$(ARGS)
endef
$(foreach task,$(if $(WEIGHTS),$(filter-out speech,$(TASKS)),$(TASKS)),$(eval $(call train,$(task))))

# With WEIGHTS=whisper-tiny-en nothing is trained: recordings are transcribed, and the report says
# how far the word times can be trusted.
SPOKEN = $(or $(RUN),runs/speech-$(notdir $(WEIGHTS)))

ifneq ($(WEIGHTS),)
speech: $(READY)-speech
	@test -n '$(DATA)' || { echo "WEIGHTS=$(WEIGHTS) needs DATA=recording, folder or manifest"; exit 2; }
	@test -f '$(SPOKEN)/config.yaml' || $(BIN)/headwise $@ adopt --weights '$(WEIGHTS)' --run '$(SPOKEN)'
	$(BIN)/headwise $@ predict --run '$(SPOKEN)' --input '$(DATA)' --output '$(SPOKEN)/transcripts.parquet' --formats json srt TextGrid
	$(BIN)/headwise $@ explain --run '$(SPOKEN)' --input '$(DATA)' --output '$(SPOKEN)/explained' $(ARGS)
endif

demo: $(ALL) ## every pipeline on its sample, and one index page of the reports
	$(BIN)/python -m headwise.pipelines.engine.command_line.demo $(if $(RUN),'$(RUN)')

test: $(DEV) ## what a change needs: every task, mechanism and operator, 8 minutes on 2 cores
	$(BIN)/python -m pytest -n 2 --dist worksteal -q -m 'not slow and not full' $(ARGS)

test-all: $(DEV) ## all tests, as CI runs them
	$(BIN)/python -m pytest -n 2 --dist worksteal -q $(ARGS)

# With the usual 4 GB pyright empties its cache again and again and takes half as long again.
check: $(DEV) ## formatter, linter, types, import contract
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	NODE_OPTIONS=--max-old-space-size=8192 $(BIN)/pyright

mutation: $(DEV) ## plant known bugs one at a time; prints caught / planted
	$(BIN)/python tests/mutation/run.py $(ARGS)

docs: $(DEV) ## write the generated reference pages again
	$(BIN)/python docs/make_reference.py

coverage: $(DEV) ## tests with coverage of the core
	$(BIN)/python -m pytest -n 2 -q --cov=kernels --cov=models --cov-report=term-missing $(ARGS)

architectures: $(DEV) ## compile the kernels for every GPU that they are for, as launched
	$(BIN)/python -m pytest tests/kernels/test_triton.py -n 2 -q -m 'slow or not slow' -k compile $(ARGS)

faults: $(DEV) ## the long fault tests: kills, full disks, damaged files; prints survived/tried
	$(BIN)/python -m pytest tests/faults -q -s -m 'slow or not slow' $(ARGS)

bench: $(DEV) ## speed and memory beside the other ways, one table, about 8 minutes (CPU)
	$(BIN)/python benchmarks/ratios.py $(ARGS)

gpu: $(DEV) ## every operator on a GPU: values, compilers, times, a training step; without one a dry run
	$(BIN)/python tests/gpu/check.py $(ARGS)

clean: ## remove .venv and caches, never a run
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis

.PHONY: help setup demo test test-all check mutation docs coverage architectures faults bench gpu clean $(TASKS)
