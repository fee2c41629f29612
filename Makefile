# make demo              fetch three small models, generate 36 dialogues on the CPU, show, export and check them
# make demo CAST=small   the same with the smallest model in every role: 177 MB (363 from the Hub) and one to three minutes
# make train-demo        fine-tune SmolLM2-135M on those dialogues (minutes), and ask it a question before and after
# make test              the default test suite       make test-slow   the tests with a real server
# make lint              ruff and mypy                make clean       remove the environment and builds
#
# Python packages go into .venv, at the versions of constraints.txt; models and runs go into the user's
# cache ($BOOST_QA_HOME, or ~/.cache/boost_qa). pip's own options can be given through its variables.

PYTHON ?= python3
VENV ?= .venv
CAST ?= full
BIN := $(VENV)/bin
RECIPE := $(if $(filter small,$(CAST)),demo_small,demo)
PIP_INSTALL := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo train-demo test test-slow lint clean

demo: $(VENV)/installed
	$(BIN)/boost-qa generate $(RECIPE)
	$(BIN)/boost-qa show --one-per-scenario $(RECIPE)
	$(BIN)/boost-qa export $(RECIPE) export/$(RECIPE)
	@echo '>>> import boost_qa; load_dataset("boost_qa", recipe="$(RECIPE)")'
	@$(BIN)/python -c 'import boost_qa, datasets; datasets.disable_progress_bars(); \
		print(datasets.load_dataset("boost_qa", recipe="$(RECIPE)"))'
	$(BIN)/boost-qa check $(RECIPE)
	$(BIN)/boost-qa report $(RECIPE)

train-demo: $(VENV)/installed
	$(BIN)/accelerate launch --quiet --config_file recipes/accelerate/cpu.yaml \
		-m boost_qa.train --config recipes/sft/smollm2-135m/lora_cpu.yaml \
		--dataset_recipe $(RECIPE) --output_dir adapters/smollm2-135m-$(RECIPE)
	$(BIN)/python examples/before_and_after.py adapters/smollm2-135m-$(RECIPE)

# one thread for torch: with more, its tiny matrices wait for each other where other processes work; a file's tests
# share what they make, so a file stays with one process
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

test-slow: $(VENV)/tested
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

lint: $(VENV)/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(BIN)/python:
	@echo "building $(VENV) (a few minutes the first time)"
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) --upgrade pip

$(VENV)/installed: setup.cfg constraints.txt | $(BIN)/python
	$(PIP_INSTALL) --editable '.[all]'
	@touch $@

$(VENV)/tested: setup.cfg constraints.txt | $(BIN)/python
	$(PIP_INSTALL) --editable '.[test]'
	@touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
