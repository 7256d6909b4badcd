# make demo   sets up, then runs the three demonstrations offline
# make test   sets up, then runs the tests
# make check  lint, format and types
# make soak   the long versions of what `make test` runs briefly

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
WORKERS ?= 2

.PHONY: demo test check soak clean
.DELETE_ON_ERROR:

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch comes first and pinned: any other way of asking for it may fetch gigabytes of GPU packages.
$(VENV)/.local: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) install -q -c constraints.txt torch
	$(PIP) install -q -c constraints.txt -e ".[local]"
	touch $@

$(VENV)/.dev: $(VENV)/.local
	$(PIP) install -q -c constraints.txt -e ".[all,dev]"
	touch $@

demo: $(VENV)/.local
	$(BIN)/tunewise demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest -q -n $(WORKERS) -m "not soak" --dist loadfile --no-loadscope-reorder

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

soak: $(VENV)/.dev
	$(BIN)/python -m pytest -q -m soak --timeout 3600

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
