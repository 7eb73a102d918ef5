# Every recipe does its own set-up: a machine with Python >= 3.11 and make is enough.
# CI calls the same recipes.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python
TRIALS := tests/chaos tests/cluster tests/simulation

.PHONY: help demo test trials lint types layers docs bench check clean

help:
	@echo "make demo    process an image blockwise, and show the result"
	@echo "make test    run the tests"
	@echo "make trials  run the long ones: processes and machines that die, a simulated cluster, a real Slurm"
	@echo "make lint    ruff and codespell"
	@echo "make types   mypy --strict"
	@echo "make layers  import-linter: who may import whom"
	@echo "make docs    run every example of README, docs and examples"
	@echo "make bench   measure against peers (installs them into .benchmark-envs)"
	@echo "make check   everything that CI checks"

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("blockflow needs Python 3.11 or newer, this is " + sys.version) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(RUN) -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

demo: $(VENV)/.ready
	$(RUN) -m blockflow demo

test: $(VENV)/.ready
	$(RUN) -m pytest -n 2 --dist loadfile --ignore=tests/test_examples.py --ignore=tests/test_docs.py $(TRIALS:%=--ignore=%)

trials: $(VENV)/.ready
	$(RUN) -m pytest -n 2 --dist loadfile $(TRIALS)

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell blockflow tests examples docs benchmarks README.md CONTRIBUTING.md CHANGELOG.md

types: $(VENV)/.ready
	$(BIN)/mypy

layers: $(VENV)/.ready
	$(BIN)/lint-imports

docs: $(VENV)/.ready
	$(RUN) -m pytest tests/test_examples.py tests/test_docs.py

coverage: $(VENV)/.ready
	$(RUN) -m coverage run -m pytest -q tests/plan tests/state tests/wire tests/launch/test_launchers.py tests/test_geometry.py tests/test_outbox.py tests/test_switchboard.py
	$(RUN) -m coverage report --fail-under=100 --include='blockflow/plan/*,blockflow/state/*,blockflow/wire/*,blockflow/geometry.py,blockflow/outbox.py,blockflow/switchboard.py'

bench: $(VENV)/.ready
	$(RUN) -m benchmarks

check: lint types layers test trials docs coverage

clean:
	rm -rf $(VENV) .benchmark-envs .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
