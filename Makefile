# Each of these makes the machine ready first (scripts/bootstrap), which takes a moment when it is.

PYTHON ?= python3
export PYTHON
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help demo test soak damage torture powerloss fuzz mutations coverage interop interop-full lint format guest bench bench-check clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## carry a tiny guest through every format, and show a table
	@scripts/bootstrap demo
	@$(BIN)/streamsave demo

test: ## run all tests; ARGS are pytest's, as in: make test ARGS="tests/unit -x"
	@scripts/bootstrap test
	$(BIN)/pytest $(ARGS)

soak: ## save and restore a Linux guest ten times in a row in every format
	@scripts/bootstrap test
	$(BIN)/pytest -m soak $(ARGS)

interop: ## libvirt's domains, with the newest libvirt in a chroot (as root); ARGS are pytest's
	@scripts/bootstrap interop
	$(BIN)/pytest -m "interop and not full" tests/interop $(ARGS)

interop-full: ## every format in every direction, with both libvirts; writes the table of docs/libvirt.md
	@scripts/bootstrap interop
	INTEROP_SUITES=trixie,bookworm INTEROP_RECORD=1 $(BIN)/pytest -m interop tests/interop $(ARGS)
	$(BIN)/python scripts/generate_docs.py

damage: ## ten thousand random damages to images of every format
	@scripts/bootstrap test
	$(BIN)/python -m tests.faults.damage $(ARGS)

torture: ## a thousand saves and restores of a real guest, each with a fault: the guest and the image survive; as root
	@scripts/bootstrap test
	$(BIN)/python -m tests.faults.torture $(ARGS)

powerloss: ## cut the power at every step of every way to write an image, in every format; as root, for its devices
	@scripts/bootstrap test
	$(BIN)/python -m tests.faults.powerloss $(ARGS)

fuzz: ## fuzz what reads untrusted bytes, a minute each (or FUZZ_SECONDS)
	@scripts/bootstrap test
	FUZZ_SECONDS=$${FUZZ_SECONDS:-60} $(BIN)/pytest tests/fuzz $(ARGS)

mutations: ## take guards away, one by one: a test has to notice each; ARGS are names, or --sample N
	@scripts/bootstrap test
	$(BIN)/python -m tests.mutations $(ARGS)

coverage: ## the lines and branches of saving and restoring that tests reach: 95 % at the least
	@scripts/bootstrap test
	$(BIN)/python scripts/check_coverage.py $(ARGS)

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

bench: ## compare with the stock tools on this machine: hours; QUICK=1: minutes; ARGS, as: make bench ARGS=--help
	@scripts/bootstrap test
	$(BIN)/python -m bench $(if $(QUICK),--quick) $(ARGS)

bench-check: ## whether a pair became worse since the last release: ten minutes, on a machine with nothing else to do
	@scripts/bootstrap test
	$(BIN)/python -m bench.check $(ARGS)

clean: ## remove everything that is built or downloaded
	for suite in trixie bookworm; do LAB_SUITE=$$suite tests/interop/lab down; done
	rm -rf --one-file-system .venv .cache build dist src/*.egg-info src/streamsave/_native/_ffi.* .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
