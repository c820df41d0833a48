# Everything a developer runs; each target installs what it needs, once.
.DEFAULT_GOAL := help
BIN := .venv/bin
# Stamps: the worker itself is installed; the developers' tools are, too.
WORKER := .venv/.worker
TOOLS := .venv/.tools
# Apart, so that what locks changes nothing of what is tested.
LOCKER := .venv/lock
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
check: $(TOOLS) ## Check style, types, architecture; look for secrets and known holes
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python build/configuration.py --check
	@build/scan_secrets.sh $(BIN)/detect-secrets-hook
	@$(BIN)/python build/audit.py build/image.lock --where-possible

.PHONY: docs
docs: $(TOOLS) ## Write docs/configuration.md anew from the settings
	@$(BIN)/python build/configuration.py > docs/configuration.md

.PHONY: soak
soak: $(TOOLS) ## Run 300 jobs, a fifth of them bad, and see that nothing grows
	@$(BIN)/python -m tests.soak

.PHONY: fuzz
fuzz: $(TOOLS) ## Send damaged files, COUNT=2000 of SEED=(a new one); keep what fails
	@SEED=$(SEED) COUNT=$(COUNT) $(BIN)/python -m tests.fuzz

.PHONY: bench
bench: $(TOOLS) ## Measure jobs against plain ffmpeg, and cold starts, without a GPU
	@$(BIN)/python -m bench.preview_job
	@$(BIN)/python -m bench.stubbed_job
	@$(BIN)/python -m bench.start

.PHONY: bench-gpu
bench-gpu: $(TOOLS) ## Measure the networks on a GPU
	@$(BIN)/python -m bench.gpu

.PHONY: lock
lock: ## Renew the image's lock files from what is published now
	@test -x $(LOCKER)/bin/uv || $(PYTHON) -m venv $(LOCKER)
	@$(LOCKER)/bin/python -m pip install --quiet 'packaging>=26' 'uv>=0.13,<0.14'
	@$(LOCKER)/bin/python build/lock.py

.PHONY: audit
audit: $(TOOLS) ## Ask an advisory service what is known of the image's packages
	@$(BIN)/python build/audit.py build/image.lock

.PHONY: smoke
smoke: ## Try the finished image on the sample job, through each door; needs a GPU
	@$(PYTHON) -m pip install --quiet --target out/trial --upgrade --python-version 3.11 \
		--only-binary :all: jsonschema
	@for door in http runpod local; do \
		docker run --rm --gpus all --entrypoint python --env PYTHONPATH=/trial/out/trial \
			--volume "$$PWD/build:/trial/build:ro" --volume "$$PWD/assets:/trial/assets:ro" \
			--volume "$$PWD/out/trial:/trial/out/trial:ro" \
			musetalk-worker /trial/build/smoke.py --door $$door || exit 1; done

.PHONY: rehearse
rehearse: ## Do what the Dockerfile does up to the weights, without a container engine
	@place=$$(mktemp --directory) && trap 'rm -rf "$$place"' EXIT && build/rehearse.sh "$$place/image"

.PHONY: image
image: ## Build the container image, with the weights in it; WEIGHTS=volume leaves them out
	@docker build --file Dockerfile.serverless --tag musetalk-worker \
		--build-arg WEIGHTS=$(or $(WEIGHTS),baked) --build-arg GIT_COMMIT=$$(git rev-parse HEAD) .
