# A fresh machine needs Python 3.11 or later, make and access to a package index.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.PHONY: install demo test test-slow attack bench compare lint format clean

install: $(INSTALLED)

$(INSTALLED): setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]' --constraint constraints.txt
	touch $@

# Renders synthetic images of people, trains, evaluates, exports, serves and draws. Results: demo/.
demo: $(INSTALLED)
	$(BIN)/python -m kpose.demo --output_dir=demo

# Two processes: tests spend most of their time in TensorFlow tracing, which uses one core.
PYTEST := $(BIN)/python -m pytest --numprocesses=2 --dist=loadfile

test: $(INSTALLED)
	$(PYTEST)

test-slow: $(INSTALLED)
	$(PYTEST) --runslow

# Damaged inputs of every kind, about an hour. For fewer: make attack ATTACK=--scale=0.01
attack: $(INSTALLED)
	$(BIN)/python -m tests.attack $(ATTACK)

bench: $(INSTALLED)
	$(BIN)/python -m kpose.benchmark input
	$(BIN)/python -m kpose.benchmark train
	$(BIN)/python -m kpose.benchmark serve
	$(BIN)/python -m kpose.benchmark write

# Trains every recipe with the same budget on synthetic images. Results: comparison/comparison.md.
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
