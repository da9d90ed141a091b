# make demo     a small GPT on real text, 4 ranks on this machine, with report and bill; no Slurm, no root
# make test     every test, real Slurm included; installs what it needs (Debian packages only as root)
# make fast     the tests that need no lab: those of the runtime (make runtime) and all others (make others)
# make lint     ruff and mypy
# make golden   write the golden scripts anew; read the diff before you commit it
# make fuzz     damaged logs and batch scripts for the readers, for SECONDS=600 and more; every test run takes a few seconds of it
# make bench    the figures that we hold ourselves to, as ratios measured in one run
PYTHON ?= python3
# Another build of PyTorch: make TORCH="torch --index-url ..."
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
SECONDS ?= 600
DEMO := $(VENV)/demo

.PHONY: demo test fast runtime runtime-first runtime-second others lab lint golden fuzz bench clean

$(VENV)/ready: setup.cfg pyproject.toml Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lumi-moai needs Python 3.11 or newer; name one with make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH) numpy
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[test,nvidia]"
	touch $@

demo: $(VENV)/ready
	@rm -rf $(DEMO)
	$(BIN)/lumi-moai submit --site local --flavor Large --runs $(DEMO) --follow examples/train_gpt.py --save-dir "$(CURDIR)/$(DEMO)/model"
	$(BIN)/lumi-moai collect $(DEMO)/train_gpt-*

fast: runtime others

runtime: runtime-first runtime-second

runtime-first: $(VENV)/ready
	$(BIN)/python -m pytest -q tests/test_runtime_[a-l]*.py

runtime-second: $(VENV)/ready
	$(BIN)/python -m pytest -q tests/test_runtime_[m-z]*.py

others: $(VENV)/ready
	$(BIN)/python -m pytest -q --ignore=tests/lab --ignore-glob='tests/test_runtime_*' tests lumi_moai

lab: $(VENV)/ready
	@bash tests/lab/install.sh || echo "NOT TESTED ON REAL SLURM: see the sentence above"
	$(BIN)/python -m pytest -q tests/lab

test: lint  # labs and ranks wait for much of their time, so all go side by side
	$(MAKE) --jobs=4 runtime others lab

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

golden: $(VENV)/ready
	rm -rf tests/golden
	UPDATE_GOLDEN=1 $(BIN)/python -m pytest -q tests/test_render.py
	git --no-pager diff --stat -- tests/golden

fuzz: $(VENV)/ready
	LUMI_MOAI_FUZZ_SECONDS=$(SECONDS) $(BIN)/python -m pytest -q -p no:cacheprovider tests/test_fuzz_*.py

bench: $(VENV)/ready
	$(BIN)/python tests/bench

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
