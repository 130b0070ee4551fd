# Needs Python 3.11 or newer, make and apt (or the packages that .ci/packages names). `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python -P
STAMP := $(VENV)/.installed
JS_STAMP := clients/node_modules/.installed
ARGS ?=
# Tests mostly wait for servers they started; files run in four processes at a time.
WORKERS ?= 4

.PHONY: help run test test-js check format bench demo-migration dist lock clean
.PHONY: test-packages bench-packages

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-8s %s\n", $$1, $$2 }'

run: $(STAMP) ## Start the server on port 8000 with a demo tenant; data under ./data
	@exec $(BIN)/dualcast serve --dev --data-dir data $(ARGS)

# The JavaScript tests run beside the others; what they say comes at the end.
test: test-packages check ## Run `check` and every test; ARGS="-k name" passes options to pytest
	@log=$$(mktemp); $(MAKE) test-js >"$$log" 2>&1 & js=$$!; failed=0; \
	  $(PY) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS) || failed=1; \
	  wait $$js || failed=1; cat "$$log"; rm "$$log"; exit $$failed

test-js: $(STAMP) $(JS_STAMP) ## Run the tests of the JavaScript clients
	DUALCAST_BIN=$(abspath $(BIN))/dualcast node --test --test-timeout=180000 tests/clients/

check: $(STAMP) $(JS_STAMP) ## Check format, lint, types and the import rules of the rooms
	$(BIN)/ruff format --check --no-cache .
	$(BIN)/ruff check --no-cache .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	npm --prefix clients run --silent types

format: $(STAMP) ## Format the Python files and apply safe lint fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) bench-packages ## Measure dualcast beside its baselines and print one table
	$(PY) tests/benchmarks/run.py $(ARGS)

demo-migration: $(STAMP) ## Move a tenant to WebSocket and back while nodes are killed; print the account
	@.ci/packages redis
	@PYTHONPATH=tests $(PY) -m chaos.migration $(ARGS)

dist: $(STAMP) ## Build the wheel and the source archive into ./dist
	$(PY) -m build --no-isolation --outdir dist

lock: ## Renew the dependency locks from pyproject.toml (needs uv on the PATH)
	uv pip compile pyproject.toml --upgrade --universal --python-version 3.11 --generate-hashes \
	  --no-header --quiet --output-file .locks/runtime.txt
	uv pip compile pyproject.toml --upgrade --group dev --universal --python-version 3.11 --generate-hashes \
	  --no-header --quiet --constraint .locks/runtime.txt --output-file .locks/dev.txt

clean: ## Remove the virtual environment and the caches; ./data stays
	rm -rf $(VENV) clients/node_modules .mypy_cache .ruff_cache .import_linter_cache .hypothesis dist build

# Hash-checked wheels first, then this work tree on top, built by the locked hatchling.
$(STAMP): .locks/dev.txt pyproject.toml .ci/python
	@.ci/packages venv
	"$$(.ci/python)" -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .locks/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(JS_STAMP): clients/package-lock.json clients/package.json
	@.ci/packages node
	npm --prefix clients ci --silent --no-audit --no-fund
	@touch $@

test-packages:
	@.ci/packages redis chromium nginx curl

bench-packages:
	@.ci/packages redis gcc
	@.ci/packages --optional nchan
