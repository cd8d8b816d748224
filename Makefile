# Needs Python 3.11 or later, git and make; everything else goes into .venv.
# Another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: bench conformance coverage docs help lint serve test

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1  /p' $(MAKEFILE_LIST)

bench: $(STAMP) ## measure polyad against hand-written code, 20 minutes
	$(BIN)/python -m pip install -q -e ".[all,bench]" -c constraints.txt
	$(BIN)/polyad bench --report docs/benchmarks

conformance: $(STAMP) ## run the suite on every backend
	$(BIN)/polyad conformance --jobs 2

docs: $(STAMP) ## build the documentation into site/, strictly
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

serve: $(STAMP) ## show it on http://127.0.0.1:8000, built anew as it changes
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve --strict

lint: $(STAMP) ## check style, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

test: $(STAMP) ## run the tests on all cores
	$(BIN)/pytest -n auto --dist worksteal

coverage: $(STAMP) ## run them with coverage, which takes longer
	$(BIN)/pytest --cov -n auto

# The stamp is newer than what it was installed from, so a second run installs
# nothing. A .venv that something else made has none and is installed into.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else \
		"polyad needs Python 3.11 or later, and $(PYTHON) is %d.%d. Type: make PYTHON=python3.11" % sys.version_info[:2])'
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -e ".[all,dev]" -c constraints.txt
	touch $@
