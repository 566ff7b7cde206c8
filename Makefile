# Two commands are all a newcomer needs: `make demo` and `make test`. Both set up .venv first if it isn't there.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# An installed torch of your own choice (another build, CUDA) is left alone: make setup TORCH="torch==2.13.0 --index-url …"
TORCH ?= torch==2.13.0

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format check lock lock-images clean

help: ## Say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1	\2/'

setup: $(VENV)/.ready ## Set up .venv with everything

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' \
	  || { echo "Slipway needs Python 3.11 or 3.12; choose one: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing about 2 GB of packages into $(VENV); this takes a few minutes, once"
	$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/pip install --quiet --constraint constraints.txt $(TORCH)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[all,dev]'
	@touch $@

demo: setup ## From labelled text to a load-tested endpoint, on real data
	$(BIN)/slipway run examples/reviews.yaml

# In several processes: torch, OpenVINO and NNCF beside gRPC and gevent in one have ended in a segmentation fault, once.
# Models of tests are too small for a second thread of PyTorch's, so two files of them go on at a time instead.
# Images are built while charts are rendered, as neither needs more than a core nor minds the other. The last one starts
# some hundred servers and mostly waits for them, so two files of it go on at a time; where one is starved, what failed
# there runs once more, by itself, and has to pass then.
TRAINED := tests/export tests/training
IMAGES := tests/images
CHARTS := tests/helm tests/deployment tests/autoscaling
SERVERS := $(addprefix --ignore=,$(TRAINED) $(IMAGES) $(CHARTS))
test: setup ## All tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile $(TRAINED)
	@$(BIN)/pytest $(IMAGES) > .images.log 2>&1 & images=$$!; \
	  $(BIN)/pytest $(CHARTS); charts=$$?; wait $$images; built=$$?; cat .images.log; rm .images.log; \
	  test $$charts = 0 && test $$built = 0
	$(BIN)/pytest -n 2 --dist loadfile $(SERVERS) || $(BIN)/pytest $(SERVERS) --last-failed --last-failed-no-failures=none

lint: setup ## Style, types, the import rule, the images' Containerfiles
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint images/*/Containerfile

check: lint test ## What CI runs

format: setup ## Rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: ## Write constraints.txt from the versions in .venv
	$(BIN)/pip freeze --exclude-editable --exclude pip --exclude setuptools --exclude wheel \
	  | sed -E 's/^(torch==[0-9.]+)\+.*/\1/' > constraints.txt

# What an image installs, at the versions of constraints.txt and with the digest of every wheel.
PIN := $(BIN)/uv pip compile --quiet --no-header --no-annotate --generate-hashes --python-platform x86_64-manylinux_2_36
PINNED := images/requirements
lock-images: setup ## Write images/requirements/*.txt
	$(BIN)/python -m pip install --quiet uv
	$(PIN) --python-version 3.11 -c constraints.txt pyproject.toml --extra serve --extra otel -o $(PINNED)/serve-cpu.txt
	$(PIN) --python-version 3.11 -c constraints.txt pyproject.toml --extra serve --extra otel --extra privacy \
	  -o $(PINNED)/serve-cpu-privacy.txt
	$(PIN) --python-version 3.12 -c constraints.txt pyproject.toml --extra serve-gpu --extra otel -o $(PINNED)/serve-gpu.txt
	$(PIN) --python-version 3.11 -c constraints.txt pyproject.toml --extra loadtest --extra report -o $(PINNED)/loadtest.txt
	$(PIN) --python-version 3.11 -c constraints.txt $(PINNED)/build.in -o $(PINNED)/build.txt

clean: ## Remove .venv, caches and runs
	rm -rf $(VENV) runs dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
