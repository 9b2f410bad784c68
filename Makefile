# make course   train your own model, ask it something, and say how to open the course
# make test     everything that must hold before a change goes in
# Windows: the README has the same commands for PowerShell.

# Which Python makes the virtual environment: make course PYTHON=python3.12
PYTHON ?=
VENV ?= .venv
BIN := $(VENV)/bin

# Some environments forbid it; then each of hundreds of processes would compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

# Every notebook at smoke size, without network, twice in a row in the same home: as a learner's second day.
# The first time one after another, for each needs what the one before has made.
NOTEBOOK_HOME := $(CURDIR)/$(VENV)/notebook-home
NOTEBOOKS = NANOLAB_HOME="$(NOTEBOOK_HOME)" NANOLAB_PROFILE=smoke \
	PYTHONPATH="$(CURDIR)/tests/offline" $(BIN)/python -m pytest notebooks \
	--nbval --nbval-current-env --nbval-cell-timeout=300 -p no:cacheprovider

.PHONY: course test clean-venv

course: $(VENV)/course.stamp
	$(BIN)/nanolab run --tag course
	@echo
	@echo '$$ nanolab chat --model-tag course -p "What is the capital of France?"'
	@$(BIN)/nanolab chat --model-tag course -p "What is the capital of France?"
	@echo
	@echo "Talk to your model:  $(BIN)/nanolab chat --model-tag course"
	@echo "Open the course:     $(BIN)/nanolab lab"

test: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python solutions/generate.py --check
	rm -rf $(NOTEBOOK_HOME)
	$(NOTEBOOKS)
	OMP_NUM_THREADS=1 $(NOTEBOOKS) -n 2 --dist loadfile
	$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder

# The stamps lie inside the environment: deleting it makes everything start anew.
$(VENV)/made.stamp:
	@found=; \
	for python in $(if $(PYTHON),$(PYTHON),python3 python3.14 python3.13 python3.12 python3.11 python); do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			found="$$python"; break; \
		fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "nanolab needs Python 3.11 or newer, and none was found$(if $(PYTHON), at $(PYTHON))."; \
		echo "Install one, or name it: make course PYTHON=/path/to/python3"; \
		exit 1; \
	fi; \
	echo "making $(VENV) with $$("$$found" --version)"; \
	"$$found" -m venv $(VENV)
	@touch $@

$(VENV)/course.stamp: $(VENV)/made.stamp pyproject.toml constraints.txt
	$(BIN)/python -m pip install -e . -c constraints.txt
	@touch $@

# What the tests need includes what the course needs: one installation serves both. Python compiles what it
# imports by itself; compiling everything at once nearly doubles the installation.
$(VENV)/test.stamp: $(VENV)/made.stamp pyproject.toml constraints.txt
	$(BIN)/python -m pip install --no-compile -e ".[dev]" -c constraints.txt
	@touch $@ $(VENV)/course.stamp

clean-venv:
	rm -rf $(VENV)
