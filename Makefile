# Everything a developer needs; `make help` lists it. The virtual environment is made on demand, in .venv.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
MINUTES ?= 10
WORKERS ?= 3

.PHONY: help run test fuzz chaos bench bench-quick check lint types layers audit docs clean

help: ## list what can be made
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 13

run: $(INSTALLED) ## run the demo job until Ctrl-C
	@exec $(BIN)/jobd run

test: $(INSTALLED) ## run every test that this machine can run, WORKERS=3 at once: most of them wait
	@$(BIN)/python -m pytest -m "not alone" --numprocesses $(WORKERS) --dist worksteal $(ARGS) || test $$? = 5
	@$(BIN)/python -m pytest -m alone $(ARGS) || test $$? = 5  # 5: there is none

fuzz: $(INSTALLED) ## look for faults in the stop and the configuration, for MINUTES=10
	@end=$$(($$(date +%s) + 60 * $(MINUTES))); while [ "$$(date +%s)" -lt "$$end" ]; do \
	  FUZZ=3 $(BIN)/python -m pytest -q --timeout=1800 --hypothesis-seed="$$(date +%s)" \
	    tests/fuzz tests/unit/test_stop_proof.py || exit; done

check: lint types layers test ## all that CI runs

lint: $(INSTALLED) ## style and common mistakes
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(INSTALLED) ## strict types
	@$(BIN)/mypy

layers: $(INSTALLED) ## imports go downwards only
	@$(BIN)/lint-imports --no-logo

chaos: $(INSTALLED) ## random rounds of hostile jobs and signals: ROUNDS=100 JOBS=2, or SEED=1234 to replay one
	@PYTHONPATH=tests $(BIN)/python -m chaos $(if $(SEED),--seed $(SEED)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(JOBS),--jobs $(JOBS))

bench: $(INSTALLED) ## measure jobd beside its floors and its peers, into bench/RESULTS.md; wants a quiet machine
	@$(BIN)/python -m bench

bench-quick: $(INSTALLED) ## measure a little, in two minutes, and fail if something is far off
	@$(BIN)/python -m bench --quick

audit: $(INSTALLED) ## ask the package index for known holes in what is installed
	@$(BIN)/python -m pip install --quiet pip-audit
	@$(BIN)/pip-audit --skip-editable

docs: $(INSTALLED) ## write the pages and files that derive from the code
	@$(BIN)/python docs/generate.py

clean: ## remove what `make` has made
	rm -rf .venv bench/.venv

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "jobd needs Python 3.11 or newer")'
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@
