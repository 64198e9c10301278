# One word per chore. Needs GNU make (3.81 will do) and Python 3.11 or newer, nothing else.

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
REQUIREMENTS := requirements
IMAGE := preview-edge
SUITE := tests
JOBS := auto
FUZZ_MINUTES := 10
KILL_ROUNDS := 500
CHAOS_MINUTES := 10

# Newest of the tested versions first; newer ones are tried after them. A name that exists may still
# not run (version managers leave such names behind) or lack venv (Debian's python3 does), so each
# candidate has to prove itself.
CANDIDATES := python3.13 python3.12 python3.11 python3.15 python3.14 python3 python
PROVE := import sys, ssl, venv, ensurepip; sys.exit(sys.version_info < (3, 11))

PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
INSTALL := $(PIP) install --require-hashes -r

.DEFAULT_GOAL := help
.PHONY: help peers setup run test fuzz soak chaos check format bench scale image lock clean

help: ## Show this text
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' $(MAKEFILE_LIST) | expand -t 18
	@echo '  Variables: PYTHON=path of the Python to use; SUITE="tests/core -k head" limits make test,'
	@echo '  JOBS=0 runs it in one process; FUZZ_MINUTES=60 make fuzz goes on for an hour,'
	@echo '  CHAOS_MINUTES=60 make chaos as well.'

setup: $(BIN)/.run-installed $(BIN)/.dev-installed ## Make .venv with everything for work on the project

run: $(BIN)/.run-installed ## Start control plane, edge and demo sandbox; prints the preview link
	@exec $(BIN)/preview-edge dev

test: $(BIN)/.run-installed $(BIN)/.dev-installed ## Run every test
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(SUITE)

# Rounds of ever new examples, each some minutes long, until the time is up or one fails. What failed is in
# .hypothesis/, is tried first the next time, and is printed with a line that brings it back.
fuzz: $(BIN)/.run-installed $(BIN)/.dev-installed ## Try ever new examples for FUZZ_MINUTES (10)
	@end=$$(($$(date +%s) + 60 * $(FUZZ_MINUTES))); round=0; \
	while [ $$(date +%s) -lt $$end ]; do \
	    round=$$((round + 1)); echo "Round $$round"; \
	    FUZZ_FACTOR=10 $(BIN)/python -m pytest -q --timeout=1800 -m hypothesis tests/core tests/traffic tests/properties tests/appliance || exit 1; \
	    FUZZ_FACTOR=10 $(BIN)/python -m pytest -q --timeout=1800 tests/model/fleet || exit 1; \
	done

# Prints the seed of the history; KILL_SEED=... brings it back.
soak: $(BIN)/.run-installed $(BIN)/.dev-installed ## Parts of a fleet away for 10 s, then KILL_ROUNDS (500) kills at work
	@CHAOS_AWAY=10 $(BIN)/python -m pytest -q --timeout=0 tests/fleet/test_chaos.py tests/fleet/test_plane_troubles.py
	@KILL_ROUNDS=$(KILL_ROUNDS) $(BIN)/python -m pytest -q -s --timeout=0 tests/appliance/test_kill.py tests/appliance/volumes/test_kill.py

# Prints the seed of each round; CHAOS_SEED=... brings it back.
chaos: $(BIN)/.run-installed $(BIN)/.dev-installed ## Kill, stop and empty the parts of a fleet for CHAOS_MINUTES (10)
	@$(BIN)/python -m tests.fleet.chaos $(CHAOS_MINUTES) $(CHAOS_SEED)

check: $(BIN)/.run-installed $(BIN)/.dev-installed ## Formatter, linter, type checker, import directions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_imports.py

format: $(BIN)/.run-installed $(BIN)/.dev-installed ## Let the formatter and the linter mend what they can
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

peers: $(BIN)/.bench-installed ## Install the proxies that tests and bench compare with

bench: $(BIN)/.run-installed $(BIN)/.bench-installed ## Measure beside nginx and Envoy; writes bench/out/
	@$(BIN)/python -m bench

scale: $(BIN)/.run-installed $(BIN)/.bench-installed ## Measure a fleet over one Valkey; writes bench/out/
	@$(BIN)/python -m bench.fleet

image: ## Build the container image (needs docker)
	@command -v docker >/dev/null || { echo 'make image: docker is not installed or not on PATH' >&2; exit 1; }
	docker build --tag $(IMAGE) .

lock: $(BIN)/.run-installed ## Renew the lock files in requirements/ (fetches uv)
	$(PIP) install uv
	@for part in run dev bench; do \
	    case $$part in run) more= ;; *) more="--extra $$part --constraint $(REQUIREMENTS)/run.txt" ;; esac; \
	    $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	        --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
	        pyproject.toml $(REQUIREMENTS)/build.in $$more --output-file $(REQUIREMENTS)/$$part.new || exit 1; \
	    { echo '# Made by `make lock` from pyproject.toml; change that, not this.'; \
	      cat $(REQUIREMENTS)/$$part.new; } > $(REQUIREMENTS)/$$part.txt; \
	    rm $(REQUIREMENTS)/$$part.new; \
	done

clean: ## Remove .venv and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis bench/out
	find edge tests bench -name __pycache__ -prune -exec rm -rf {} +

# --- Stamps: a chore that is done costs one comparison of dates. ---------------------------------------

# Made anew when PYTHON names another version than the one inside, or when the one inside stopped working.
$(BIN)/.made: FORCE
	@python='$(PYTHON)'; \
	inside=$$($(BIN)/python -c 'import sys; print(sys.version)' 2>/dev/null); \
	if [ -n "$$inside" ] && [ -e $@ ]; then \
	    if [ -z "$$python" ] || [ "$$("$$python" -c 'import sys; print(sys.version)' 2>/dev/null)" = "$$inside" ]; then exit 0; fi; \
	fi; \
	if [ -n "$$python" ]; then \
	    "$$python" -c '$(PROVE)' 2>/dev/null || { \
	        echo "make: PYTHON=$$python is not a Python 3.11 or newer with the venv module" >&2; exit 1; }; \
	else \
	    for name in $(CANDIDATES); do \
	        if "$$name" -c '$(PROVE)' >/dev/null 2>&1; then python=$$name; break; fi; \
	    done; \
	    [ -n "$$python" ] || { \
	        echo 'make: no Python 3.11 or newer with the venv module was found.' >&2; \
	        echo '      Install one (on Debian and Ubuntu also the package python3-venv), or name it: make PYTHON=/path/to/python3.12 ...' >&2; \
	        exit 1; }; \
	fi; \
	echo "Making $(VENV) with $$("$$python" -c 'import platform, sys; print(sys.executable, platform.python_version())')"; \
	rm -rf $(VENV) && "$$python" -m venv $(VENV) && touch $@

# --no-build-isolation: the build backend is in the lock file too, so that nothing unlocked is fetched.
$(BIN)/.run-installed: $(BIN)/.made $(REQUIREMENTS)/run.txt pyproject.toml
	@echo 'Installing what it takes to run'
	@$(INSTALL) $(REQUIREMENTS)/run.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(BIN)/.dev-installed: $(BIN)/.run-installed $(REQUIREMENTS)/dev.txt
	@echo 'Installing what it takes to test'
	@$(INSTALL) $(REQUIREMENTS)/dev.txt
	@touch $@

$(BIN)/.bench-installed: $(BIN)/.run-installed $(REQUIREMENTS)/bench.txt
	@echo 'Installing what it takes to measure'
	@$(INSTALL) $(REQUIREMENTS)/bench.txt
	@touch $@

.PHONY: FORCE
FORCE:
