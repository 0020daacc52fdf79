# make run    install, get MovieLens-100K, train the quick xLSTM, show recommendations
# make test   install what tests need, then the whole suite
# make test-spark  preparation on Spark, which needs Java 17: a large package, so it is not part of make test
# make test-triton  kernels for GPUs, on a CPU through Triton's interpreter: a large package too
# make check  formatting, lint and types
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# A GPU build: make run TORCH="torch==2.13.0 --index-url URL", with the URL that PyTorch's install page gives.
TORCH ?= torch

.PHONY: run test test-spark test-triton check
run: $(VENV)/.run
	$(BIN)/seqrec train ml-100k xlstm --preset quick

test: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

test-spark: $(VENV)/.test
	$(BIN)/pip install --quiet -c constraints.txt -e ".[spark]"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_data_spark.py

test-triton: $(VENV)/.test
	$(BIN)/pip install --quiet -c constraints.txt -e ".[triton]"
	TRITON_INTERPRET=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(wildcard tests/test_kernels_*_triton.py)

check: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

$(VENV)/.run: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'seqrec needs Python 3.11 or newer: make PYTHON=python3.11')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt $(TORCH)
	$(BIN)/pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/.test: $(VENV)/.run
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@
