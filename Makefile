# Everything a fresh machine needs is Python 3.11 or later, make and a package index.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.PHONY: install demo test test-slow bench compare lint format clean

install: $(INSTALLED)

$(INSTALLED): setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]' --constraint constraints.txt
	touch $@

# Renders people, trains on them, measures, exports, serves and draws: see demo/ afterwards.
demo: $(INSTALLED)
	$(BIN)/python -m kpose.demo --output_dir=demo

# Two processes: most of a test's time is TensorFlow tracing, which uses one core.
PYTEST := $(BIN)/python -m pytest --numprocesses=2 --dist=loadfile

test: $(INSTALLED)
	$(PYTEST)

test-slow: $(INSTALLED)
	$(PYTEST) --runslow

bench: $(INSTALLED)
	$(BIN)/python -m kpose.benchmark input
	$(BIN)/python -m kpose.benchmark train
	$(BIN)/python -m kpose.benchmark serve
	$(BIN)/python -m kpose.benchmark write

# Every recipe under one budget on drawn people: see comparison/comparison.md afterwards.
compare: $(INSTALLED)
	$(BIN)/python -m kpose.compare --output_dir=comparison

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) demo comparison build *.egg-info
