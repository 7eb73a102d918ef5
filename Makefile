# Every recipe does its own set-up: a machine with Python >= 3.11, make and a package index for pip is enough.
# CI calls the same recipes. Environments are made anew when what they are made of has changed: tools/environment.py.

PYTHON ?= python3
OLDEST_PYTHON ?= $(shell command -v python3.11 || echo $(PYTHON))
VENV ?= .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python
TRIALS := tests/chaos tests/cluster tests/simulation
PAGES := tests/test_examples.py tests/test_docs.py
CORE := tests/plan tests/scheduler tests/wire tests/launch/test_launchers.py tests/test_geometry.py tests/test_outbox.py tests/test_switchboard.py tests/test_liars.py
TEST := -m pytest -n 2 --dist loadfile $(PAGES:%=--ignore=%) $(TRIALS:%=--ignore=%)
# With QUICK=1 test-oldest and test-newest leave out the tests of parts that use no other library.
OUTSIDE := blockflow tests/arrays tests/launch tests/monitor tests/net tests/ops tests/recipes tests/run tests/wire $(filter-out $(PAGES) $(CORE),$(wildcard tests/test_*.py))

.PHONY: help demo test test-oldest test-newest test-other test-rest trials lint types layers docs coverage shipped bench
.PHONY: check update release clean environment

help:
	@echo "make demo         process an image blockwise, and show the result"
	@echo "make test         run the tests, with the packages of requirements/locked.txt"
	@echo "make test-oldest  with the oldest packages that pyproject.toml allows, on Python 3.11"
	@echo "make test-newest  with the newest packages there are today"
	@echo "make test-other   with another Python: OTHER=3.13 or 3.14 (root, Debian)"
	@echo "make trials       run the long ones: processes and machines that die, a simulated cluster, a real Slurm"
	@echo "make lint         ruff and codespell"
	@echo "make types        mypy --strict"
	@echo "make layers       import-linter: who may import whom"
	@echo "make docs         run every example of README, docs and examples"
	@echo "make coverage     the tests of the pure core, which must cover every branch of it"
	@echo "make shipped      build what is published, and try it as a user would"
	@echo "make bench        measure against peers (installs them into .benchmark-envs)"
	@echo "make check        everything that CI checks with this Python"
	@echo "make update       renew requirements/, and run the tests with the locked, oldest and newest packages"
	@echo "make release      everything that must hold before a release"

environment:
	@$(PYTHON) -m tools.environment locked $(VENV)

demo: environment
	$(RUN) -m blockflow demo

test: environment
	$(RUN) $(TEST)

test-oldest:
	@$(OLDEST_PYTHON) -m tools.environment oldest .venv-oldest
	.venv-oldest/bin/python $(TEST) $(if $(QUICK),$(OUTSIDE))

test-newest:
	@$(PYTHON) -m tools.environment newest .venv-newest
	.venv-newest/bin/python $(TEST) $(if $(QUICK),$(OUTSIDE))

OTHER ?= 3.13
OTHER_RECIPE ?= test
test-other:
	$(PYTHON) -m tools.other_python $(OTHER) make $(OTHER_RECIPE)

# What coverage leaves out of test: CI need not run the tests of the core twice.
test-rest: environment
	$(RUN) $(TEST) $(CORE:%=--ignore=%)

trials: environment
	$(RUN) -m pytest -n 2 --dist loadfile $(TRIALS)

lint: environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell blockflow tests tools examples docs benchmarks README.md CONTRIBUTING.md CHANGELOG.md

types: environment
	$(BIN)/mypy

layers: environment
	$(BIN)/lint-imports

docs: environment
	$(RUN) -m pytest $(PAGES)

coverage: environment
	$(RUN) -m pytest -q -n 2 --cov --cov-report= $(CORE)
	$(RUN) -m coverage report --fail-under=100 --include='blockflow/plan/*,blockflow/scheduler/*,blockflow/wire/*,blockflow/geometry.py,blockflow/outbox.py,blockflow/switchboard.py'

shipped: environment
	$(RUN) -m tools.shipped

bench: environment
	$(RUN) -m benchmarks

check: lint types layers demo docs coverage test-rest trials shipped

update:
	$(PYTHON) -m tools.lock
	$(MAKE) test
	$(MAKE) test-oldest
	$(MAKE) test-newest

release: check test-oldest
	$(MAKE) test-other OTHER=3.13
	$(MAKE) test-other OTHER=3.14
	$(MAKE) test-newest
	$(MAKE) test-other OTHER=3.13 OTHER_RECIPE=test-newest
	$(MAKE) test-other OTHER=3.14 OTHER_RECIPE=test-newest
	$(RUN) -m tools.shipped --links

clean:
	rm -rf $(VENV) .venv-oldest .venv-newest .pythons .benchmark-envs .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache dist
