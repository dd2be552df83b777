# `make demo` and `make test` do all set-up on a fresh machine: they create .venv and install on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Two processes of two OpenMP threads each collapse on two cores unless idle threads sleep.
export OMP_WAIT_POLICY ?= passive

.PHONY: demo test test-with-ray test-without-ray check bench docs format clean

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: $(VENV)/installed
	$(BIN)/gatecrash run quickstart
	@$(BIN)/gatecrash leaderboard --grid quickstart

# Tests marked slow are skipped, and say so; `make test SLOW=1` runs them too, as CI does. Those with Ray mostly wait: they run beside the rest.
test: $(VENV)/installed
	@$(MAKE) --no-print-directory --jobs 2 $(if $(filter output-sync,$(.FEATURES)),--output-sync) test-with-ray test-without-ray

test-with-ray test-without-ray: $(VENV)/installed
	$(BIN)/python -m pytest $(if $(SLOW),--slow) -m '$(if $(filter test-with-ray,$@),ray,not ray)'

check: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/installed
	$(BIN)/python -m pytest tests/benchmarks/bench_*.py -p no:cacheprovider -s --override-ini timeout=0

docs: $(VENV)/installed
	$(BIN)/python -m gatecrash.authoring.plugin_docs docs/reference leaderboards

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV)
