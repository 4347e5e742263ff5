# `make help` lists the targets. Everything but `setup` runs from .venv.
PYTHON ?= python3
SOURCE ?= ml-1m
JOBS ?= 2
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup constraints wheel demo up down test test-unit test-console feast-universal docs lint format types clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## make .venv and fetch Kafka and Triton (PYTHON=python3.12 picks the interpreter)
	@$(PYTHON) infra/bootstrap.py

constraints: ## renew the pinned dependencies from pyproject.toml
	@$(PYTHON) infra/bootstrap.py --constraints

# What an earlier build left would be packed, too.
wheel: setup ## the product as a wheel, in dist/
	@rm -rf build dist
	@$(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

demo: setup ## run the whole system on real histories (SOURCE=ml-1m|movietweetings|simulator)
	@$(BIN)/intentstream demo --source $(SOURCE)

up: setup ## start Kafka, Redis, Triton, the worker and the console on loopback, and leave them running
	@$(BIN)/intentstream up

down: ## stop what `make up` started
	@$(BIN)/intentstream down

# Much of what the tests take is waiting for servers, so two at a time take turns on two cores.
test: setup ## the whole suite, JOBS=2 files at a time: unit tests first, then those with real servers
	$(BIN)/pytest tests/unit --numprocesses $(JOBS) --dist loadfile
	$(BIN)/pytest tests --ignore tests/unit --ignore tests/console --numprocesses $(JOBS) --dist loadfile

test-unit: setup ## only the tests that need no server
	$(BIN)/pytest tests/unit --numprocesses $(JOBS) --dist loadfile

test-console: setup ## the console in a real Chromium, which it installs if need be
	@$(PYTHON) infra/bootstrap.py --console
	$(BIN)/pytest tests/console

feast-universal: setup ## Feast's own store tests on our stores (FEAST=a checkout of it; else cloned)
	$(BIN)/python -m lab.feast_universal $(FEAST)

docs: setup ## the documentation as a site, in build/docs; fails on a link that leads nowhere
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --conf-dir docs/site \
		--doctree-dir build/doctrees . build/docs

lint: setup ## style, common mistakes, and imports that run upward
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: setup ## put every file into the one format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: setup ## static types
	$(BIN)/mypy

clean: ## remove everything that set-up, tests and the stack made
	@[ ! -x $(BIN)/intentstream ] || $(BIN)/intentstream down
	rm -rf .venv .local build dist *.egg-info */*.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
