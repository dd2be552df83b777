# `make demo` and `make test` do all set-up on a fresh machine: they create .venv and install on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Two processes of two OpenMP threads each collapse on two cores unless idle threads sleep.
export OMP_WAIT_POLICY ?= passive

.PHONY: demo test test-with-ray test-half test-other-half check bench bench-peers docs format clean

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: $(VENV)/installed
	$(BIN)/gatecrash run quickstart
	@$(BIN)/gatecrash leaderboard --grid quickstart

# Tests marked slow are skipped, and say so; `make test SLOW=1` runs them too, as CI does. Three processes: tests with Ray mostly wait, and
# two halves of the others keep two cores busy.
HALF := tests/authoring tests/boards tests/cli tests/docs tests/testing
PYTEST = $(BIN)/python -m pytest $(if $(SLOW),--slow)

test: $(VENV)/installed
	@$(MAKE) --no-print-directory --jobs 3 $(if $(filter output-sync,$(.FEATURES)),--output-sync) test-with-ray test-half test-other-half

test-with-ray: $(VENV)/installed
	$(PYTEST) -m ray

test-half: $(VENV)/installed
	$(PYTEST) -m 'not ray' $(HALF)

test-other-half: $(VENV)/installed
	$(PYTEST) -m 'not ray' $(HALF:%=--ignore=%)

check: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

BENCH := -p no:cacheprovider -s --override-ini timeout=0

bench: $(VENV)/installed
	$(BIN)/python -m pytest $(filter-out %/bench_peers.py,$(wildcard tests/benchmarks/bench_*.py)) $(BENCH)

# Other tools beside Gatecrash: make bench-peers BACKDOORBENCH=FOLDER ART=FOLDER PEERS_JSON=FILE. See docs/peers.md.
bench-peers: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/benchmarks/bench_peers.py $(BENCH)

docs: $(VENV)/installed
	$(BIN)/python -m gatecrash.authoring.plugin_docs docs/reference leaderboards

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV)
