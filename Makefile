# Everything a developer runs; each target installs what it needs, once.
.DEFAULT_GOAL := help
BIN := .venv/bin
# Stamps: the worker itself is installed; the developers' tools are, too.
WORKER := .venv/.worker
TOOLS := .venv/.tools
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
export PYTHON ?= python3

.PHONY: help
help: ## Show this list
	@grep -E '^[a-z-]+:.*##' Makefile | awk -F ':.*## ' '{printf "make %-9s %s\n", $$1, $$2}'

$(WORKER): pyproject.toml build/install_system.sh
	@build/install_system.sh
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing the worker into .venv (once) ..."
	@$(PIP) --editable .
	@touch $@

$(TOOLS): $(WORKER)
	@echo "Installing the developers' tools into .venv (once) ..."
	@$(PIP) --editable '.[dev]'
	@touch $@

.PHONY: demo
demo: $(WORKER) ## Make the sample face talk: out/demo.mp4
	@$(BIN)/musetalk-worker run --engine preview \
		--video assets/face.mp4 --audio assets/voice.wav --out out/demo.mp4

.PHONY: test
test: $(TOOLS) ## Run all tests
	@$(BIN)/pytest --numprocesses auto --dist loadfile

.PHONY: check
check: $(TOOLS) ## Check style, types and architecture
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

.PHONY: soak
soak: $(TOOLS) ## Run 300 jobs, a fifth of them bad, and see that nothing grows
	@$(BIN)/python -m tests.soak

.PHONY: fuzz
fuzz: $(TOOLS) ## Send damaged files, COUNT=2000 of SEED=(a new one); keep what fails
	@SEED=$(SEED) COUNT=$(COUNT) $(BIN)/python -m tests.fuzz

.PHONY: bench
bench: $(TOOLS) ## Measure jobs against plain ffmpeg, without a GPU
	@$(BIN)/python -m bench.preview_job
	@$(BIN)/python -m bench.stubbed_job

.PHONY: bench-gpu
bench-gpu: $(TOOLS) ## Measure the networks on a GPU
	@$(BIN)/python -m bench.gpu
