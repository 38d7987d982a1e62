# The targets that people, pre-commit and CI call. `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
JOBS ?= 4

# Tests start drd hundreds of times: compiled modules make each start quicker.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test check fmt bench clean lock schema chart audit sbom

help: ## List the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

setup: $(READY) ## Install what is missing: system packages, .venv, locked dependencies, the devstack's servers

$(READY): requirements-dev.lock pyproject.toml .ci/system-packages
	.ci/system-packages
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	$(BIN)/python -m devstack obtain --postgres 17 --postgres 18 --redis redis-6.2 --redis valkey-9
	touch $@

demo: setup ## Back up, destroy and restore the trading platform on real servers, from nothing to proof
	$(BIN)/drd demo

test: setup ## Run every test, on real servers, a few files at a time (JOBS=1: one after the other)
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder || { \
	  echo '== failures above; each once more, alone: real servers side by side on few cores can be late'; \
	  $(BIN)/python -m pytest --last-failed --last-failed-no-failures none; }

check: setup ## Lint, formatting, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict drd devstack
	$(BIN)/lint-imports

fmt: setup ## Format, and fix what can be fixed
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

bench: setup ## Print drd's figures beside its peers' on the same work
	for script in $$(grep -l '__main__' benchmarks/*.py); do echo "== $$script"; $(BIN)/python "$$script"; done

schema: setup ## Write config/drd.schema.json, and what contains it, from the models
	$(BIN)/python -c 'from drd.config import schema_text; print(schema_text(), end="")' > config/drd.schema.json.new
	mv config/drd.schema.json.new config/drd.schema.json
	$(BIN)/python -c 'from drd.config_suite import suite_schema_text; print(suite_schema_text(), end="")' \
	  > restore_drills/suite.schema.json.new
	mv restore_drills/suite.schema.json.new restore_drills/suite.schema.json
	$(BIN)/python helm/generate.py

chart: setup ## Write what of the Helm chart is generated, and the renders that tests compare with
	$(BIN)/python helm/generate.py
	$(BIN)/python -m tests.support.charts

TOOLS := build/tools
$(TOOLS)/.ready:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/pip install --quiet --disable-pip-version-check 'pip-audit>=2.10,<3' 'cyclonedx-bom>=7.5,<8'
	touch $@

audit: $(TOOLS)/.ready ## Look up what is installed in the image among known vulnerabilities; fails where it cannot (needs pypi.org)
	$(TOOLS)/bin/pip-audit --strict --progress-spinner off --disable-pip --require-hashes --requirement requirements.lock

sbom: $(TOOLS)/.ready ## Write dist/sbom.cdx.json: the Python packages of the image, with hashes (CycloneDX)
	mkdir -p dist
	$(TOOLS)/bin/cyclonedx-py requirements requirements.lock --pyproject pyproject.toml --mc-type application \
	  --output-reproducible --output-format JSON --output-file dist/sbom.cdx.json

lock: ## Pin what pyproject.toml asks for; UPGRADE=--upgrade takes the newest (needs uv)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev --generate-hashes --no-annotate \
	  --custom-compile-command 'make lock' $(UPGRADE) --output-file requirements-dev.lock pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra docker --extra kubernetes --generate-hashes --no-annotate \
	  --custom-compile-command 'make lock' --constraint requirements-dev.lock --output-file requirements.lock pyproject.toml

clean: ## Stop the devstack; remove caches and builds (.venv stays)
	if test -x $(BIN)/python; then $(BIN)/python -m devstack down; fi
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
