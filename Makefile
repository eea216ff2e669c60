# What can be done here; `make` alone lists it. A new machine needs Python >= 3.11 and make:
# `make demo` does the main job, `make test` runs everything that proves it.

SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	command -v $$p >/dev/null && \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && \
	echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.bot4-installed
COMPILED := $(wildcard bot4_runtime/event_*.py bot4_runtime/risk/*.py \
	bot4_runtime/signals/*.py bot4_runtime/fees/*.py)

export OMP_NUM_THREADS ?= 1

.PHONY: help setup demo test long check bench fleet crash soak fuzz corruption mutation dev clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(STAMP) ## create .venv and install everything, compiled where there is a compiler

$(STAMP): pyproject.toml setup.py constraints.txt $(COMPILED)
	@test -n "$(PYTHON)" || { echo "Bot4 needs Python 3.11, 3.12 or 3.13 on PATH."; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@bash .ci/install $(BIN)/python
	@touch $@

demo: setup ## the main job: candles -> models -> a paper-traded, reported period
	@$(BIN)/bot4-pipelines demo

test: setup ## the tests, compiled; the compiled rooms again interpreted; coverage gate
	@bash .ci/test $(BIN)/python

long: setup ## the tests of minutes that `make test` leaves out
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m long

check: setup ## ruff, mypy --strict, import contracts
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

crash: setup ## all crash campaigns, whole; writes docs/crash.md
	@$(BIN)/python -m tests.crash --full

soak: setup ## the engine for an hour at a faulty venue, by the clock; writes docs/soak.md; MINUTES=10
	@$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),60) --write

fuzz: setup ## damaged messages for every decoder; writes docs/fuzzing.md; SECONDS=60 TARGET=name
	@$(BIN)/python -m tests.fuzz $(TARGET) --seconds $(or $(SECONDS),60) $(if $(TARGET),,--write)

corruption: setup ## model files damaged in every way, of full size (minutes)
	@BOT4_CORRUPTION=full $(BIN)/python -m pytest -q -rP tests/runtime/regime/test_corruption.py

bench: setup ## benchmarks with floors and peers: one table of all targets
	@bash .ci/peers $(BIN)/python
	@$(BIN)/python -m benchmarks --write

fleet: setup ## how the pipeline's cost grows, and what a fleet needs; writes docs/fleet.md
	@$(BIN)/python -m benchmarks.bench_pipeline --write

mutation: setup ## change the code of risk and signals, count what tests notice; ROOM=risk.entry
	@bash .ci/mutation $(BIN)/python $(ROOM)

dev: setup ## Dagster's pages and daemon on http://127.0.0.1:3000
	@$(BIN)/bot4-pipelines dev

clean: ## remove what was built or made: .venv, .bot4, models
	rm -rf $(VENV) build dist *.egg-info .bot4 .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -rf .import_linter_cache bot4_runtime/_compiled.json .coverage .coverage.*
	find bot4_runtime -name '*.so' -delete
	find . -maxdepth 1 -name '*.so' -delete
	find models -mindepth 1 -not -name README.md -delete
