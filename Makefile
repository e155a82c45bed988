# Every target does its own set-up: Python 3.11+ with pip is all that a fresh machine needs.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
BUILDER ?= zensical

BIN := $(VENV)/bin
STAMP := $(VENV)/.fairlayer-installed
SOURCES := fairlayer tests examples benchmarks tools website

# Tests and the demo read real data sets from FAIRLAYER_DATA; a sibling folder is taken if there is one.
ifndef FAIRLAYER_DATA
ifneq ($(wildcard ../shared/data/.),)
export FAIRLAYER_DATA := $(abspath ../shared/data)
endif
endif

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast test-slow test-gpu test-wheel lint format docs gallery bench bench-rivals compat dist clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## create .venv and install the package with all extras (nothing to do: instant)

# torch comes first and pinned, so that no other package's requirement can pull a second, larger build of it.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, found " + sys.version)'
	@echo "Installing into $(VENV); the first time this takes a few minutes."
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[all,dev]'
	@touch $@

demo: setup  ## run the demo: train, stream, report; DATA=adult takes a real data set instead of the built-in one
	$(BIN)/fairlayer demo --force --out demo-report $(if $(DATA),--data $(DATA))

test: setup  ## run the whole test suite, except what is marked slow or needs a GPU (ARGS="..." goes to pytest)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not gpu and not slow" -ra --durations=10 $(ARGS)

test-fast: setup  ## run the core's own tests with few generated examples: the inner loop, under a minute
	FAIRLAYER_HYPOTHESIS=fast $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not gpu and not slow and not rival" \
		tests/test_layering.py tests/constraints tests/edge tests/solve \
		--ignore tests/edge/test_columns_trained.py --ignore tests/edge/test_columns_files.py \
		tests/projection/test_certificate.py tests/projection/test_lean.py tests/projection/test_path.py -q $(ARGS)

test-slow: setup  ## run the long tests: thousands of problems and sequences, and every generated example
	FAIRLAYER_HYPOTHESIS=full $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal \
		-m "(slow or hypothesis) and not gpu" -ra --durations=10 $(ARGS)

test-gpu: setup  ## run the tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu -ra $(ARGS)

test-wheel: dist  ## install the wheel outside the checkout and run the sdist's tests there
	$(BIN)/python -m tools.outside $(ARGS)

lint: setup  ## check style and types
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

format: setup  ## rewrite the sources in the house style
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

docs: setup  ## build the documentation into site/ (BUILDER=mkdocs takes MkDocs Material in place of Zensical)
	$(BIN)/python -m website
	$(BIN)/$(BUILDER) build --strict --clean

gallery: setup  ## run examples (ARGS="NAME ..." takes some) and notebooks, keep what they show, and draw pictures
	$(BIN)/python -m website.pictures
	$(BIN)/python -m website.gallery $(ARGS)
	$(BIN)/python -m website.notebooks

bench: setup  ## print every ratio that is asked, measured in one run (ARGS="--quick" takes two minutes)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[bench,fused]'
	$(BIN)/python benchmarks/table.py $(ARGS)

bench-rivals: setup  ## time the projection against other libraries, size by size (ARGS="..." goes to the script)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[bench]'
	$(BIN)/python benchmarks/projection.py $(ARGS)

compat: setup  ## run the core's tests on other versions (ARGS="3.11=2.6.0 3.12" goes to the script) and write the table
	$(BIN)/python -m tools.compatibility $(ARGS)

# The date of the commit, so that the same commit always gives the same files.
dist: setup  ## build the sdist, and the wheel from it, twice, and keep them if both builds are equal
	SOURCE_DATE_EPOCH=$$(git log -1 --pretty=%ct) $(BIN)/python -m tools.distribution

clean:  ## remove what the other targets wrote, the virtual environment excepted
	rm -rf .cache build dist site demo-report .pytest_cache .mypy_cache .ruff_cache .hypothesis fairlayer.egg-info
	find fairlayer tests examples benchmarks tools website -name __pycache__ -type d -prune -exec rm -rf {} +
