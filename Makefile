# Each of these makes the machine ready first (scripts/bootstrap), which takes a moment when it is.

PYTHON ?= python3
export PYTHON
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help demo test soak lint format guest bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## carry a tiny guest through every format, and show a table
	@scripts/bootstrap demo
	@$(BIN)/streamsave demo

test: ## run all tests; ARGS are pytest's, as in: make test ARGS="tests/unit -x"
	@scripts/bootstrap test
	$(BIN)/pytest $(ARGS)

soak: ## save and restore a Linux guest ten times in a row in every format
	@scripts/bootstrap test
	$(BIN)/pytest -m soak $(ARGS)

lint: ## ruff and mypy
	@scripts/bootstrap test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: ## let ruff put the sources in shape
	@scripts/bootstrap test
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

guest: ## build the demo guest from guest/demo.S
	@scripts/bootstrap test
	$(MAKE) --no-print-directory -C guest

bench: ## compare with the stock tools on this machine
	@scripts/bootstrap test
	$(BIN)/python -m bench $(ARGS)

clean: ## remove everything that is built or downloaded
	rm -rf .venv .cache build dist src/*.egg-info src/streamsave/_native/_ffi.* .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
