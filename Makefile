# Needs python3 (3.10 or newer) and nothing else.
PYTHON  ?= python3
TORCH   ?= torch==2.13.0
WORKERS ?= 2
RUN     := .venv/bin/python
READY   := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-browser check format bench sweep clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile

setup: $(READY)  ## create .venv with everything (again: nothing to do)

# torch comes first and pinned: whatever is installed after it takes the build that is there.
# pip is renewed because groups of pyproject.toml need pip 25.1.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "$(PYTHON) is too old: heedmap needs Python 3.10 or newer (make setup PYTHON=python3.11)"; exit 1; }
	test -x $(RUN) || $(PYTHON) -m venv .venv
	$(RUN) -m pip install --quiet "pip>=25.1"
	$(RUN) -m pip install --quiet "$(TORCH)"
	$(RUN) -m pip install --quiet --editable . --group dev
	@touch $@

demo: setup  ## explain drawn scenes with the models of the zoo: out/demo/index.html
	@.venv/bin/heedmap demo

test: setup  ## the default tests (slow, gpu and hub left out)
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n $(WORKERS)

test-browser: setup  ## the pages in a real browser (installs Debian's chromium where it is missing)
	command -v chromium >/dev/null || { apt-get update && apt-get install -y chromium; }
	$(RUN) -m pytest -m browser tests/pages

check: setup  ## format, lint, types, import contract
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m pyright
	.venv/bin/lint-imports

format: setup  ## write what `make check` asks for, where it can be written
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

bench: setup  ## time and memory against the limit, into benchmarks/results (CASES="lm-16384 vit-9217": these cases)
	$(RUN) -m benchmarks $(if $(CASES),--cases $(CASES))

sweep: setup  ## try every model class of transformers, into docs/sweep.md
	OMP_NUM_THREADS=1 $(RUN) -m sweep --workers $(WORKERS)

clean:  ## remove .venv and every cache
	rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
