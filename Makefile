# Each target does its own set-up, once: .venv, the pins of requirements.lock, this package.
# On Linux, torch from PyPI brings CUDA, several GB. For a torch without it, before the first use:
#   export PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu

PYTHON ?= python3
CORES ?= all
# More arguments, for instance: make test PYTEST_ARGS='-k solver -x'
PYTEST_ARGS ?=
KILLS ?= 240
SNAKEMAKE_ARGS ?=
BENCH_ARGS ?=
# One more than cores, as tests wait for SLURM and for what they kill. Each worker loads torch:
# beyond a few, memory is short before cores are.
WORKERS ?= $(shell n=$$(env -u OMP_NUM_THREADS nproc 2>/dev/null || getconf _NPROCESSORS_ONLN); \
	if [ "$$n" -gt 5 ]; then echo 6; else echo "$$((n + 1))"; fi)

AUDIT_ARGS ?=
AUDIT := .venv-audit
BENCH_JSON := benchmarks/results.json

VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check -qq
# Programs that a run starts must be the environment's.
IN_VENV := PATH="$(CURDIR)/$(VENV)/bin:$$PATH"
# Written when the set-up is complete. Its name holds this folder's: a moved one is set up anew.
STAMP := $(VENV)/.installed-$(shell printf %s "$(CURDIR)" | cksum | cut -d ' ' -f 1)

VERSION_FITS = import sys; sys.exit(sys.version_info < (3, 11))
PYTHON_FITS = $(shell $(PYTHON) -c '$(VERSION_FITS)' 2>/dev/null && echo yes)
VENV_MODULE = $(shell $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null && echo yes)
# Programs in a virtual environment name its folder in their first lines.
VENV_FITS = $(VENV)/bin/python -c '$(VERSION_FITS)' && \
	head -n 3 $(VENV)/bin/pip | grep -qF "$(CURDIR)/$(VENV)/"

.DEFAULT_GOAL := help
.PHONY: help setup run test test-kill test-slurm bench bench-full lint format audit clean distclean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile
	@echo "Variables: PYTHON=$(PYTHON) CORES=$(CORES) PYTEST_ARGS= KILLS=$(KILLS) SNAKEMAKE_ARGS= BENCH_ARGS="

setup: $(STAMP) ## create .venv and install the pinned versions and this package

run: $(STAMP) ## the main job on the default config, then its results and where everything lies
	@$(IN_VENV) $(VENV)/bin/probeline run --cores $(CORES) $(SNAKEMAKE_ARGS)
	@$(IN_VENV) $(VENV)/bin/probeline show

# Tests of one file or class share a worker, and thus their costly fixtures. In the order of the
# folders the long end-to-end ones start first.
test: $(STAMP) ## the tests
	@$(IN_VENV) OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n $(WORKERS) \
		--dist loadscope --no-loadscope-reorder $(PYTEST_ARGS)

test-kill: $(STAMP) ## jobs and runs killed at KILLS moments and more, of which `make test` has a few
	@$(IN_VENV) OMP_NUM_THREADS=1 PROBELINE_TEST_KILLS=$(KILLS) $(VENV)/bin/python -m pytest \
		-n $(WORKERS) tests/kills $(PYTEST_ARGS)

test-slurm: $(STAMP) ## all tests on a real SLURM, which they start themselves; needs root
	@$(IN_VENV) OMP_NUM_THREADS=1 PROBELINE_TEST_SLURM=all $(VENV)/bin/python -m pytest \
		tests/slurm $(PYTEST_ARGS)

bench: $(STAMP) ## measure the table of targets in minutes, small sizes; writes benchmarks/results.json
	@$(IN_VENV) $(VENV)/bin/python -m benchmarks --quick --json $(BENCH_JSON) $(BENCH_ARGS)

bench-full: $(STAMP) ## the same at full sizes, hours
	@$(IN_VENV) $(VENV)/bin/python -m benchmarks --full --json $(BENCH_JSON) $(BENCH_ARGS)

lint: $(STAMP) ## ruff, snakefmt and snakemake --lint; changes nothing
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/snakefmt --check Snakefile workflow
	@echo "$(VENV)/bin/snakemake --lint"; $(IN_VENV) $(VENV)/bin/snakemake --lint

format: $(STAMP) ## let ruff and snakefmt rewrite the files
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	$(VENV)/bin/snakefmt Snakefile workflow

# In an environment of its own: what audits is not among what is audited.
audit: ## look the pinned packages up in the advisories of PyPI; needs a network
	@[ -e $(AUDIT) ] || $(PYTHON) -m venv $(AUDIT)
	@$(AUDIT)/bin/python -m pip --disable-pip-version-check -qq install 'pip-audit>=2.10,<3'
	@$(AUDIT)/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off \
		--requirement requirements.lock $(AUDIT_ARGS) \
		|| { echo "audit: a package has an advisory, or none can be asked for here;" \
			"docs/security.md says how to audit without a network" >&2; exit 1; }

clean: ## remove caches and build leftovers; .venv, results/ and logs/ stay
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis benchmarks/.cache
	find . -path ./$(VENV) -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## clean, and remove .venv too
	rm -rf $(VENV) $(AUDIT) src/*.egg-info

$(STAMP): requirements.lock pyproject.toml
	$(if $(PYTHON_FITS),,$(error probeline needs Python 3.11 or newer, but '$(PYTHON)' is \
		'$(shell $(PYTHON) --version 2>&1 || :)'; name another one: make PYTHON=python3.11))
	$(if $(VENV_MODULE),,$(error '$(PYTHON)' cannot make virtual environments; on Debian or \
		Ubuntu: apt install python3-venv, elsewhere name another one: make PYTHON=python3.11))
	@if [ -e $(VENV) ] && ! { $(VENV_FITS); } 2>/dev/null; then \
		echo "$(VENV) belongs to another folder or is incomplete: making it anew"; \
		rm -rf $(VENV); \
	fi
	@[ -e $(VENV) ] || $(PYTHON) -m venv $(VENV)
	@echo "Set-up in $(VENV) (a few minutes, once): torch"
	@$(PIP) install --constraint requirements.lock torch
	@echo "Set-up in $(VENV): the other pinned packages"
	@$(PIP) install --requirement requirements.lock
	@echo "Set-up in $(VENV): probeline"
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@
