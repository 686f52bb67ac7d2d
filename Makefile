# `make demo` and `make test` need nothing but Python: each makes .venv when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
CATALOG := zoo_models/catalog
MODEL := nuclei-fluo-2d
EXAMPLE := $(CATALOG)/$(MODEL)/example

# Stamps: an installation is repeated only after pyproject.toml has changed.
VENV_READY := $(VENV)/.created
RUNTIME_READY := $(VENV)/.installed-runtime
DEV_READY := $(VENV)/.installed-dev

.DEFAULT_GOAL := help
.PHONY: help demo test slow gpu lint format install clean

help:
	@echo "make demo     export the ready model $(MODEL), test the package, predict, score"
	@echo "make test     lint and the fast tests"
	@echo "make slow     the slow tests"
	@echo "make gpu      the tests that need a CUDA device"
	@echo "make lint     ruff, mypy, import-linter"
	@echo "make format   let ruff rewrite the files"
	@echo "make install  everything a developer needs, into .venv"
	@echo "make clean    remove .venv, demo and the tools' caches"

demo: $(RUNTIME_READY)
	@mkdir -p demo
	$(BIN)/spoco-zoo export $(MODEL) -o demo/$(MODEL).zip --overwrite
	$(BIN)/bioimageio test demo/$(MODEL).zip
	$(BIN)/spoco-zoo predict demo/$(MODEL).zip $(EXAMPLE)/image.tif -o demo --overlay --overwrite
	$(BIN)/spoco-zoo evaluate demo/image_labels.ome.tif $(EXAMPLE)/labels.tif

test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not gpu"

# Exit code 5 says that no test has the marker: nothing to run is nothing wrong.
slow: $(DEV_READY)
	$(BIN)/python -m pytest -m "slow and not gpu" || [ $$? -eq 5 ]

gpu: $(DEV_READY)
	$(BIN)/python -m pytest -m gpu || [ $$? -eq 5 ]

lint: $(DEV_READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(DEV_READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(DEV_READY)

clean:
	rm -rf $(VENV) demo dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(VENV_READY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "found `$(PYTHON) --version 2>&1 || true`; spoco-zoo needs Python 3.11 or newer;" \
			"name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@touch $@

$(RUNTIME_READY): pyproject.toml | $(VENV_READY)
	$(PIP) install -e .
	@touch $@

# The development install holds the runtime too, so it counts for both.
$(DEV_READY): pyproject.toml | $(VENV_READY)
	$(PIP) install -e '.[dev]'
	@touch $(RUNTIME_READY) $@
