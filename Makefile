# The commands people use; CI calls the same ones.
#   make demo     install and run the demo (about 10 minutes on 2 cores)
#   make test     install what the tests need and run them all
#   make minimum  run them with the lowest allowed versions of libraries, in an environment of their own
#   make hostile 10,000 damaged files for every reader (about an hour)
#   make faults   50 kills, stops, and full disks for every stage (about two hours)
#   make quits    napari opened and closed 20 times: nothing may be left (about ten minutes)
#   make lint     ruff, mypy, import contracts, budgets
#   make docs     the documentation site, in site/, after links and spelling were checked
#   make check-docs   runs each command of the pages (about half an hour)
#   make benchmarks   the short forms of the benchmarks, with a table and a picture of them (about 20 minutes)

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PINS   := -c constraints.txt
WORKERS ?= 2

.PHONY: demo test minimum hostile faults quits docs check-docs benchmarks lint format system-libraries clean
.DELETE_ON_ERROR:

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("napari-histogan needs Python 3.11 or newer, found " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

# torch goes first: its pin decides which build every other package sees.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing napari-histogan with the tested versions of constraints.txt ..."
	$(BIN)/python -m pip install --quiet $(PINS) torch
	$(BIN)/python -m pip install --quiet $(PINS) --editable ".[all]"
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	@echo "Installing what the tests and checks need ..."
	$(BIN)/python -m pip install --quiet $(PINS) --editable ".[dev]"
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/histogan demo

test: $(VENV)/.installed-test system-libraries
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

minimum: system-libraries
	$(PYTHON) -m venv .venv-minimum
	.venv-minimum/bin/python scripts/lowest_versions.py > .venv-minimum/lowest.txt
	.venv-minimum/bin/python -m pip install --quiet -c .venv-minimum/lowest.txt --editable ".[scale,tensorboard,test]"
	.venv-minimum/bin/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --ignore tests/release $(ARGS)

hostile: $(VENV)/.installed-test
	HISTOGAN_HOSTILE_COUNT=10000 $(BIN)/python -m pytest --timeout=0 tests/hostile

faults: $(VENV)/.installed-test
	$(BIN)/python tests/faults/campaign.py --fault kill stop full clock

quits: $(VENV)/.installed-test system-libraries
	HISTOGAN_ROUNDS=20 $(BIN)/python -m pytest --timeout=0 tests/story/test_quitting.py

# The site, in site/; warnings are errors, and nothing is fetched.
docs: $(VENV)/.installed-test
	$(BIN)/python scripts/check_docs.py --no-commands
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Runs each command of the pages as it is written, in fresh folders.
check-docs: $(VENV)/.installed-test
	$(BIN)/python scripts/check_docs.py

# The short forms of all benchmarks that need no data from elsewhere, into docs/measured.json and measured.md.
benchmarks: $(VENV)/.installed-test
	$(BIN)/python scripts/run_benchmarks.py

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/check_budgets.py
	$(BIN)/python scripts/write_architecture.py --check
	$(BIN)/python scripts/write_keys.py --check

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Qt and a virtual display, on Debian and Ubuntu, only when something is missing.
system-libraries:
	@sh scripts/install_system_libraries.sh

clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache histogan-demo
