# make demo   sets up, then runs the three demonstrations offline
# make test   sets up, then runs the tests
# make check  lint, format and types
# make soak   the long versions of what `make test` runs briefly
# make lock   renew the locked releases
# make newest try the newest release of everything, in an environment of its own

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
NEWEST ?= .venv-newest
WORKERS ?= 2

.PHONY: demo test check soak lock newest clean
.DELETE_ON_ERROR:

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The locks hold all but torch, which comes after them, pinned: asked for in any other way it may
# bring gigabytes of packages for a GPU.
define install
	$(PIP) install -q --no-deps --require-hashes -r requirements/$(1).txt
	$(PIP) install -q -c constraints.txt torch
	$(PIP) install -q --no-deps --no-build-isolation -e .
endef

$(VENV)/.local: $(BIN)/python pyproject.toml constraints.txt requirements/local.txt
	$(call install,local)
	touch $@

$(VENV)/.dev: $(VENV)/.local requirements/dev.txt
	$(call install,dev)
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

lock:
	$(PYTHON) scripts/lock.py

# What depends most on other libraries: loading, decoding, training, the server's engine.
FAST := tests/test_models_*.py tests/test_candidates_*.py tests/test_training_*.py \
        tests/test_server_inference_*.py tests/test_data_*.py tests/test_cli_commands.py

# A workspace of its own: in another one, what stands there would not be computed again.
newest:
	$(PYTHON) -m venv --clear $(NEWEST)
	$(NEWEST)/bin/python -m pip install -q -c constraints.txt torch packaging
	$(NEWEST)/bin/python scripts/newest.py > $(NEWEST)/wanted.txt
	$(NEWEST)/bin/python -m pip install -q -c constraints.txt -r $(NEWEST)/wanted.txt
	$(NEWEST)/bin/python -m pip install -q --no-deps -e .
	$(NEWEST)/bin/tunewise doctor
	TUNEWISE_HOME=$(NEWEST)/home $(NEWEST)/bin/tunewise demo --dir $(NEWEST)/demo
	$(NEWEST)/bin/python -m pytest -q -n $(WORKERS) -m "not soak" --dist loadfile $(FAST)

clean:
	rm -rf $(VENV) $(NEWEST) build dist .pytest_cache .mypy_cache .ruff_cache
