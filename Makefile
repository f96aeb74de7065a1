# make demo: the whole way on a small corpus. make test: the fast test suite. Both set themselves up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_OPTIONS ?=

.PHONY: demo test test-all lint format clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else "Parvox needs Python 3.11 to 3.13; this is " + sys.version.split()[0] + ": make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	@echo "Installing pinned dependencies into $(VENV): PyTorch and 90 small packages, 1.6 GB on disk. A minute or more …"
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[train,dev]'
	@touch $@

demo: $(VENV)/installed
	$(BIN)/parvox demo $(DEMO_OPTIONS)

test: $(VENV)/installed
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow"

test-all: $(VENV)/installed
	$(BIN)/python -m pytest -n auto --dist loadfile

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist src/*.egg-info
