# `make run` and `make test` need nothing before them but Python >= 3.11 and make.
PYTHON ?= python3
BIN := .venv/bin

# One thread a process: on a busy machine two BLAS threads are many times slower than one.
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1

.PHONY: run test test-slow test-portable check docs setup format

run: .venv/runtime
	$(BIN)/fedprune run

test: check
	$(BIN)/python -m pytest -n 2 -m "not slow"

# Minutes each: every fault on every engine, twenty kills, a Ray cluster of two nodes, SuperLink processes.
test-slow: setup
	$(BIN)/python -m pytest -m slow

# The fast tests once more for every kind of processor that this machine can imitate.
test-portable: setup
	$(BIN)/python -m tests.processors

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# One site of the pages, the results and the reference: build/docs/index.html. A warning is an error.
docs: .venv/runtime
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[docs]'
	$(BIN)/python -m sphinx -W --keep-going -q -c docs/site . build/docs

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: .venv/installed

# What a run needs, and no extras: those are asked for where they are used.
.venv/runtime: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e .
	touch $@

.venv/installed: .venv/runtime
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[dev]'
	touch $@
