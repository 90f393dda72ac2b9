# Every target sets up .venv first. DATA=path RUN=path ARGS="--option value" pass through to the task.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
USER := $(VENV)/.ready
MEDICAL := $(VENV)/.ready-medical
WSI := $(VENV)/.ready-wsi
SPEECH := $(VENV)/.ready-speech
VISION := $(VENV)/.ready-vision
DEV := $(VENV)/.ready-dev
ARGS ?=
WEIGHTS ?=
TASKS := forecast medical ranking reid saliency speech wsi

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo '  DATA=path RUN=path ARGS="--option value" pass through'

setup: $(DEV) ## make .venv with everything the tests need; the tasks need less and set it up themselves

# $(1): what to install into the environment
define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Headwise needs Python 3.11 or newer; set PYTHON=..."; exit 1; }
	@echo "setting up $(VENV) (torch is large: a few minutes the first time)"
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '$(1)'
	@touch $@
endef

$(USER): pyproject.toml constraints.txt
	$(call install,.)

$(VISION): pyproject.toml constraints.txt
	$(call install,.[vision])
	@touch $(USER)

$(MEDICAL): pyproject.toml constraints.txt
	$(call install,.[medical])
	@touch $(USER) $(VISION)

$(SPEECH): pyproject.toml constraints.txt
	$(call install,.[speech])
	@touch $(USER)

$(WSI): pyproject.toml constraints.txt
	$(call install,.[wsi])
	@touch $(USER) $(VISION)

$(DEV): pyproject.toml constraints.txt
	$(call install,.[dev])
	@touch $(USER) $(VISION) $(MEDICAL) $(SPEECH) $(WSI)

forecast: $(USER) ## train, evaluate and predict series; DATA=my.csv, else a generated sample
	$(BIN)/headwise $@ train $(if $(DATA),--data '$(DATA)') $(if $(RUN),--run '$(RUN)') $(ARGS)

medical: $(MEDICAL) ## classify chest X-rays and look for shortcuts; DATA=folder, table or .npz, else generated pictures
	$(BIN)/headwise $@ train $(if $(DATA),--data '$(DATA)') $(if $(RUN),--run '$(RUN)') $(ARGS)

ranking: $(USER) ## train click models on an event log; DATA=log or schema.yaml, else a generated log
	$(BIN)/headwise $@ train $(if $(DATA),--data '$(DATA)') $(if $(RUN),--run '$(RUN)') $(ARGS)

reid: $(VISION) ## find identities or name classes; DATA=folder or table, else generated persons
	$(BIN)/headwise $@ train $(if $(DATA),--data '$(DATA)') $(if $(RUN),--run '$(RUN)') $(ARGS)

saliency: $(VISION) ## find what is salient in pictures with depth; DATA=folder or table, else generated scenes
	$(BIN)/headwise $@ train $(if $(DATA),--data '$(DATA)') $(if $(RUN),--run '$(RUN)') $(ARGS)

# With WEIGHTS nothing is trained: recordings are transcribed, and how far the word times can be trusted is said.
SPOKEN = $(or $(RUN),runs/speech-$(notdir $(WEIGHTS)))

speech: $(SPEECH) ## transcribe recordings with word times; DATA=folder or manifest, else generated tones; WEIGHTS=whisper-tiny-en
ifeq ($(WEIGHTS),)
	$(BIN)/headwise $@ train $(if $(DATA),--data '$(DATA)') $(if $(RUN),--run '$(RUN)') $(ARGS)
else
	@test -n '$(DATA)' || { echo "WEIGHTS=$(WEIGHTS) needs DATA=recording, folder or manifest"; exit 2; }
	@test -f '$(SPOKEN)/config.yaml' || $(BIN)/headwise $@ adopt --weights '$(WEIGHTS)' --run '$(SPOKEN)'
	$(BIN)/headwise $@ predict --run '$(SPOKEN)' --input '$(DATA)' --output '$(SPOKEN)/transcripts.parquet' --formats json srt TextGrid
	$(BIN)/headwise $@ explain --run '$(SPOKEN)' --input '$(DATA)' --output '$(SPOKEN)/explained' $(ARGS)
endif

wsi: $(WSI) ## classify slides or bags; DATA=labels.csv or their folder, else generated slides
	$(BIN)/headwise $@ train $(if $(DATA),--data '$(DATA)') $(if $(RUN),--run '$(RUN)') $(ARGS)

demo: $(WSI) $(SPEECH) ## every pipeline on its sample, and one index page of the reports
	$(BIN)/python -m headwise.pipelines.engine.command_line.demo $(if $(RUN),'$(RUN)')

test: $(DEV) ## all tests
	$(BIN)/python -m pytest -n 2 --dist worksteal -q $(ARGS)

check: $(DEV) ## lint, types, import contract
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/pyright

coverage: $(DEV) ## tests with coverage of the core
	$(BIN)/python -m pytest -n 2 -q --cov=kernels --cov=models --cov-report=term-missing $(ARGS)

faults: $(DEV) ## the long fault tests: kills, full disks, damaged files; prints survived/tried
	$(BIN)/python -m pytest tests/faults -q -s -m 'slow or not slow' $(ARGS)

bench: $(DEV) ## speed and memory beside the published form (CPU)
	$(BIN)/python benchmarks/softs.py $(ARGS)

docs: $(DEV) ## write the reference pages that are generated from the code
	$(BIN)/python docs/make_reference.py

clean: ## remove .venv and caches, never a run
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis

# docs is also a folder.
.PHONY: docs help setup demo test check coverage faults bench clean $(TASKS)
