# Everything a contributor or CI runs. `make` lists it.
# Overridable: PYTHON (interpreter for .venv), TESTS (what to test), WORKERS (test processes), BENCH, SERVE, ENGINE,
# UPSTREAM (--near: only what is near to background tasks), SERVICES (which servers, by name).
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
TESTS ?= tests
WORKERS ?= 2
BENCH ?= request
SERVE ?=
ENGINE ?= sqlite
UPSTREAM ?=
SERVICES ?=
PYTEST := -m pytest -rs -n $(WORKERS)
OLDEST := 'fastapi==0.121.1' 'pydantic==2.11.*'
CODE := src tests $(wildcard examples bench scripts)
export PYTHON

.PHONY: help install services services-stop format check test coverage soak soak-short chaos chaos-short test-celery test-postgres conformance services-installed model test-oldest test-newest-python upstream upstream-oldest upstream-newest-python demo bench docs clean

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 22

install: $(VENV)/.installed ## Make .venv: Segundo (editable), its extras, every tool; again only if pyproject.toml changed

$(VENV)/.installed: pyproject.toml
	@python=$$(scripts/python); scripts/environment $(VENV) "$$python" --group dev --editable '.[all]'
	@touch $@

services: install ## Real servers for tests and examples, SERVICES="postgres ..." (all): installed (as root on Debian) and started
	@$(BIN)/python -m scripts.services install $(SERVICES)
	@$(BIN)/python -m scripts.services start $(SERVICES)

services-stop: ## Stop them, and delete what they hold
	@$(BIN)/python -m scripts.services stop $(SERVICES)

format: install ## Rewrite the code in the house format, with the fixes that are safe
	$(BIN)/ruff check --fix-only --quiet $(CODE)
	$(BIN)/ruff format $(CODE)

check: install ## Format, lint, types (twice), layers, documentation; changes nothing
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	MYPYPATH=tests/testing/users $(BIN)/mypy --explicit-package-bases tests/testing/users
	$(BIN)/basedpyright
	$(BIN)/lint-imports --no-logo
	$(BIN)/mkdocs build --strict
	@echo "check: all clean"

test: install ## The tests, in random order; the last lines count the skips and say why
	$(BIN)/python $(PYTEST) $(TESTS)

coverage: install ## The tests again, with branch coverage (servers that tests start are counted too)
	$(BIN)/python $(PYTEST) --cov --cov-report=term-missing:skip-covered $(TESTS)

soak: install ## kill -9 under load, for as long as it takes to trust it
	SOAK=long $(BIN)/python -m pytest -rs -s -m soak --timeout=7200 $(TESTS)

soak-short: install ## The same, bounded, as CI runs it
	SOAK=short $(BIN)/python $(PYTEST) -m soak --timeout=600 $(TESTS)

chaos: install services-installed ## 20,000 calls for each broker while hosts are killed, cut off and frozen; the library broken on purpose
	CHAOS=long $(BIN)/python -m pytest -rs -n $(WORKERS) -m chaos --timeout=7200 tests/chaos

chaos-short: install services-installed ## The same, bounded, as CI runs it: every blow once, and one break
	CHAOS=short $(BIN)/python -m pytest -rs -n $(WORKERS) -m chaos -k "not on_purpose or robbed" --timeout=600 tests/chaos

test-postgres: install services-installed ## The ledger's tests, and some more, on a real PostgreSQL server
	$(BIN)/python -m pytest -rs -n $(WORKERS) -m "postgres and not (celery or conformance or chaos or model)" $(TESTS)

test-celery: install services-installed ## With real brokers and Celery workers: killed, restarted, cut off
	$(BIN)/python -m pytest -rs -n $(WORKERS) -m celery --timeout=300 $(TESTS)

conformance: install services-installed ## The same tests on every ledger and executor: SQLite, PostgreSQL, embedded, RabbitMQ, Redis
	$(BIN)/python -m pytest -rs -n $(WORKERS) -m conformance --timeout=150 tests/conformance

services-installed: install
	@$(BIN)/python -m scripts.services install

model: install services-installed ## Both ledgers beside their model for MODEL_MINUTES (10), and broken on purpose, which must be found
	$(BIN)/python -m pytest -rs -n $(WORKERS) -m model --timeout=7200 tests/ledger/test_model.py

# Old libraries warn about what newer ones mended, so here a warning is no error.
test-oldest: .venv-oldest/.installed ## The tests on the oldest Python found, FastAPI and Pydantic that are supported
	.venv-oldest/bin/python $(PYTEST) -W default $(TESTS)

test-newest-python: .venv-newest/.installed ## The tests on the newest Python found, with the newest of everything
	.venv-newest/bin/python $(PYTEST) $(TESTS)

upstream: .venv-upstream/.installed ## FastAPI's and Starlette's own tests of the newest FastAPI, as they are and with Segundo; tools that patch it
	.venv-upstream/bin/python -m pytest -q tests/upstream/tools.py
	.venv-upstream/bin/python -m tests.upstream --workers $(WORKERS) $(UPSTREAM)

upstream-oldest: .venv-oldest/.installed ## The same of the oldest FastAPI that is supported, on the oldest Python found
	.venv-oldest/bin/python -m tests.upstream --workers $(WORKERS) $(UPSTREAM) -W default

upstream-newest-python: .venv-newest/.installed ## The same of the newest FastAPI, on the newest Python found
	.venv-newest/bin/python -m tests.upstream --workers $(WORKERS) $(UPSTREAM)

.venv-upstream/.installed: pyproject.toml
	@python=$$(scripts/python); scripts/environment .venv-upstream "$$python" --group upstream --editable '.[cli,celery,postgres]'
	@touch $@

.venv-oldest/.installed: pyproject.toml
	@python=$$(scripts/python oldest); scripts/environment .venv-oldest "$$python" --group upstream --editable '.[cli,celery,postgres]' $(OLDEST)
	@touch $@

.venv-newest/.installed: pyproject.toml
	@python=$$(scripts/python newest); scripts/environment .venv-newest "$$python" --group upstream --editable '.[cli,celery,postgres]'
	@touch $@

demo: install ## The main promise on real input; ENGINE=sqlite, postgres, redis or rabbitmq; SERVE=1 leaves all up and prints where
	@SERVE=$(SERVE) ENGINE=$(ENGINE) $(BIN)/python -m examples.demo

bench: install ## One benchmark against stock BackgroundTasks: BENCH=request, drain, start, backlog or stall
	$(BIN)/python -m bench $(BENCH)

docs: install ## Serve the documentation on http://127.0.0.1:8001 and rebuild it on change
	$(BIN)/mkdocs serve --dev-addr 127.0.0.1:8001

clean: ## Remove what these targets made
	rm -rf .venv .venv-oldest .venv-newest .venv-upstream* build dist site htmlcov .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
