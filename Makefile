# Two commands for a newcomer: `make run` and `make test`. Everything they need is set up on the way and kept.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help run test test-clients crash-test lint types check native setup bench clean

help:
	@echo "make run     set up, start a daemon, let the built-in model answer, stop"
	@echo "make test    set up, lint, type check, run every test"
	@echo "make test-clients  more clients of the three APIs, Python and JavaScript, and a fuzzer, against a real daemon"
	@echo "make crash-test  kill -9, full disks and power cuts, at a thousand random points (SEEDS=1000)"
	@echo "make setup   virtual environment and native build only"
	@echo "make check   lint and types"
	@echo "make bench   the benchmarks of docs/performance.md"
	@echo "make clean   remove what was built here (the cache outside the checkout stays)"

setup:
	@PYTHON="$(PYTHON)" VENV="$(VENV)" sh scripts/setup.sh

run: setup
	@$(BIN)/python scripts/demo.py

lint:
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types:
	@$(BIN)/mypy

check: setup lint types

test: export OLM_TEST_TOOLS = 1
test: setup lint types
	@$(BIN)/python -m pytest

test-clients: setup
	@OLM_CLIENTS="$$(PYTHON="$(PYTHON)" sh scripts/setup_clients.sh)" && export OLM_CLIENTS && \
	    $(BIN)/python -m pytest tests/clients/test_packages.py tests/clients/test_openapi_fuzz.py

SEEDS ?= 1000
crash-test: setup
	@PYTHONPATH=tests $(BIN)/python -m crash.run --seeds $(SEEDS) $(if $(SEED),--seed $(SEED))

bench: setup
	@$(BIN)/python build_native.py peer
	@$(BIN)/python bench/serve.py

clean:
	rm -rf $(VENV) build dist src/olm/native/lib src/olm/native/_olm*.so .pytest_cache .mypy_cache .ruff_cache
