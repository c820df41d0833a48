# Everything a developer runs; each target installs what it needs, once.
.DEFAULT_GOAL := help
BIN := .venv/bin
READY := .venv/.ready

.PHONY: help
help: ## Show this list
	@grep -E '^[a-z]+:.*##' Makefile | awk -F ':.*## ' '{printf "make %-8s %s\n", $$1, $$2}'

$(READY): pyproject.toml build/install_system.sh
	@build/install_system.sh
	@test -x $(BIN)/python || python3 -m venv .venv
	@echo "Installing into .venv (once; a few minutes on a slow line) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(READY)

.PHONY: demo
demo: $(READY) ## Make the sample face talk: out/demo.mp4
	@mkdir -p out
	@$(BIN)/musetalk-worker run --engine preview \
		--video assets/face.mp4 --audio assets/voice.wav --out out/demo.mp4

.PHONY: test
test: $(READY) ## Run all tests
	@$(BIN)/pytest

.PHONY: check
check: $(READY) ## Check style, types and architecture
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

.PHONY: bench
bench: $(READY) ## Measure a job against plain ffmpeg
	@$(BIN)/python bench/preview_job.py
