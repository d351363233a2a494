# make sweep: a multi-seed comparison of initial weights.  make test: what CI runs.  make ui: the MLflow UI.
PYTHON ?= python3
PORT ?= 5000
WORKERS ?= 2
BIN := .venv/bin
# Python compiles what is used when it is used first: pip would compile all of it, which takes as long as installing.
PIP := -m pip --quiet --disable-pip-version-check install --no-compile

# The many processes of the tests start three times as fast with what Python has compiled.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: sweep test types units test-services ui bench clean

sweep: .venv/installed
	$(BIN)/python -m harness +sweep=init_schemes

test: .venv/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	@$(MAKE) --no-print-directory --jobs=2 types units

types: .venv/installed-dev
	$(BIN)/mypy

units: .venv/installed-dev
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

# The launchers and a tracking server for real: Ray, submitit, PostgreSQL (with apt, where it is not there), MLflow's server.
test-services: .venv/installed-services
	test -n "$$(ls -d /usr/lib/postgresql/*/bin/initdb 2>/dev/null || command -v initdb)" \
		|| { apt-get update --quiet && apt-get install --quiet --yes postgresql; }
	.venv/services/bin/python -m pytest tests/services tests/test_launchers.py

ui: .venv/installed
	@echo "http://127.0.0.1:$(PORT)/#/experiments/1/runs?workflowType=machine_learning"
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow server --workers 1 --host 127.0.0.1 --port $(PORT) \
		--backend-store-uri sqlite:///mlruns/mlflow.db

bench: .venv/installed
	$(BIN)/python scripts/bench.py

clean:
	rm -rf .venv reports .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/bin/python:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed, this is " + sys.version'
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python $(PIP) --constraint constraints.txt --editable .
	touch $@

.venv/installed-dev: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python $(PIP) --constraint constraints.txt --editable '.[dev]'
	touch .venv/installed $@

# Apart from the others, as the Ray launcher takes no newer cloudpickle.
.venv/installed-services: .venv/bin/python pyproject.toml constraints.txt constraints-ray.txt
	$(PYTHON) -m venv .venv/services
	grep -vE '^(cloudpickle|joblib)==' constraints.txt | cat - constraints-ray.txt > .venv/constraints-services.txt
	.venv/services/bin/python $(PIP) --constraint .venv/constraints-services.txt --editable '.[dev,slurm,ray,server]'
	touch $@
