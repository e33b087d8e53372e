# The two commands for newcomers are `make demo` and `make test`; the rest is for developers.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SLURM_DIR ?= .slurm
# Processes that run the tests; trainings take one core each, each process of Slurm tests starts a Slurm of its own
# and mostly waits.
WORKERS ?= 2
SLURM_WORKERS ?= 2
SLURM_TEST_LOG := $(VENV)/slurm-test.log
# The newest that starts: a version manager's shim may stand for a version that is not there.
NEWEST_PYTHON ?= $(firstword $(foreach v,3.14 3.13,$(shell python$(v) -c "print('python$(v)')" 2>/dev/null)) python3.13)
LOGIN_NODE_TEST_TOOLS := "pytest>=8.3" "pytest-timeout>=2.3" "pytest-xdist>=3.6" "hypothesis>=6.100"
LOGIN_NODE_TESTS := tests/unit --ignore tests/unit/worker
PYTEST ?= $(BIN)/pytest -m "not long"
GPU_PYTHON ?= $(BIN)/python
GPU_PYTHON_VERSION ?= 3.12
GPU_WHEELS ?= .whl
GPU_OUT ?= gpu-check
GPU_FLAGS ?=
MODEL ?=
DATA ?=
TOOLS ?=
TABLES ?=

.PHONY: help demo test check unit train slurm-test slurm-test-log coverage browser browser-test wheel-demo test-lowest test-newest-python test-long gpu-check gpu-wheels fuzz demo-slurm demo-tuners demo-tables slurm slurm-stop format clean

help:
	@echo "make demo        install, run configs/quickstart.yaml on this machine, print the report"
	@echo "make test        all checks and tests; as root on Debian or Ubuntu with a real Slurm of its own"
	@echo "make test-long   what takes longer"
	@echo "make gpu-check   what needs a GPU, on one, in at most eight minutes; GPU_FLAGS='--device cpu' rehearses it"
	@echo "make coverage    make test, with branch coverage"
	@echo "make wheel-demo  hpcbench demo from a built wheel, in an environment of its own with the worker's libraries"
	@echo "make test-lowest the unit tests with the lowest versions that pyproject.toml allows on a login node"
	@echo "make test-newest-python  the unit tests on the newest Python found (or NEWEST_PYTHON=python3.14)"
	@echo "make fuzz        ten thousand each of broken suites, models, data files, registries, task files, save directories, rows"
	@echo "make slurm       start the two-node test Slurm by hand (then: source $(SLURM_DIR)/env); make slurm-stop ends it"
	@echo "make demo-slurm  the SmolLM2 suites on that Slurm (MODEL=folder DATA=folder; see configs/smollm2/prepare.py)"
	@echo "make demo-tuners the same model with every tuner, two jobs at a time (TOOLS=folder with dataset_info.json, too)"
	@echo "make demo-tables the suites of configs/tables with a tiny model, and their tables (TABLES='tuners-modern awq' for some)"

$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "installing into $(VENV), about a minute ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[worker,dev]'
	@touch $@

demo: $(VENV)/.installed
	@$(BIN)/hpcbench demo --save-dir logs

# Every part runs, even after one that failed; the exit code at the end counts them all. No input: nothing may wait for it.
# The Slurm tests, which mostly wait, run beside the trainings; their output follows in one piece.
test: $(VENV)/.installed
	@failed=0; \
	$(MAKE) --no-print-directory --keep-going check unit browser-test </dev/null || failed=1; \
	$(MAKE) --no-print-directory --keep-going --jobs 2 train slurm-test-log </dev/null || failed=1; \
	cat $(SLURM_TEST_LOG) || failed=1; \
	exit $$failed

# Branch coverage of all tests, with the programs that they start. Apart from `test`: it doubles the time of unit tests.
coverage: $(VENV)/.installed
	@rm -f .coverage .coverage.*
	@$(MAKE) --no-print-directory test PYTEST='$(BIN)/coverage run -m pytest -m "not long"'
	@$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/support/word_list.py

unit: $(VENV)/.installed
	$(PYTEST) tests/unit --numprocesses $(WORKERS)

train: $(VENV)/.installed
	$(PYTEST) tests/train --numprocesses $(WORKERS) --dist worksteal --durations 12

# Debian's Chromium, where no browser is on PATH; as root.
browser:
	@command -v chromium chromium-browser google-chrome >/dev/null || \
	  { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends chromium; }

browser-test: $(VENV)/.installed
	@$(MAKE) --no-print-directory browser || echo "no browser on this machine: the tests that need it are left out"
	$(PYTEST) tests/browser --numprocesses $(WORKERS)

slurm-test: $(VENV)/.installed
	@$(BIN)/python tests/support/slurm_cluster/cluster.py install || echo "no test Slurm on this machine: the tests that need it are left out"
	$(PYTEST) tests/slurm --numprocesses $(SLURM_WORKERS) --dist worksteal --durations 12

slurm-test-log: $(VENV)/.installed
	@echo "the Slurm tests run meanwhile; their output follows (so far: $(SLURM_TEST_LOG))"
	@$(MAKE) --no-print-directory slurm-test >$(SLURM_TEST_LOG) 2>&1

# On a machine with a GPU and without a network: the wheels first, where there is one; CONTRIBUTING.md has both commands.
gpu-check:
	@$(GPU_PYTHON) -m tests.gpu.check --out $(GPU_OUT) $(GPU_FLAGS)

gpu-wheels:
	$(PYTHON) -m pip download --no-deps --only-binary=:all: --implementation cp --python-version $(GPU_PYTHON_VERSION) \
	  $(addprefix --platform ,manylinux_2_28_x86_64 manylinux_2_24_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64) \
	  --dest $(GPU_WHEELS) --requirement tests/gpu/wheels.txt

test-long: $(VENV)/.installed
	@$(BIN)/python tests/support/slurm_cluster/cluster.py install || true
	$(BIN)/pytest -m long

wheel-demo:
	@rm -rf .venv-wheel && mkdir .venv-wheel
	$(PYTHON) -m venv .venv-wheel/venv
	.venv-wheel/venv/bin/python -m pip wheel --quiet --no-deps --wheel-dir .venv-wheel .
	.venv-wheel/venv/bin/python -m pip install --quiet --constraint constraints.txt "$$(ls .venv-wheel/*.whl)[train,eval]"
	cd .venv-wheel && venv/bin/hpcbench demo --save-dir logs

# Without torch: what needs it is left out. uv alone can resolve to the lowest versions.
test-lowest:
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct \
	  --editable . $(LOGIN_NODE_TEST_TOOLS)
	.venv-lowest/bin/python -m pytest $(LOGIN_NODE_TESTS) -m "not long" --numprocesses $(WORKERS)

test-newest-python:
	$(NEWEST_PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --editable . $(LOGIN_NODE_TEST_TOOLS)
	.venv-newest/bin/python -m pytest $(LOGIN_NODE_TESTS) -m "not long" --numprocesses $(WORKERS)

fuzz: $(VENV)/.installed
	HPCBENCH_FUZZ=10000 $(BIN)/pytest tests/unit/cli/test_fuzz_suites.py tests/unit/cli/test_fuzz_inputs.py tests/unit/cli/test_fuzz_save_dir.py tests/unit/worker/test_fuzz_rows.py tests/unit/data/test_fuzz_files.py --timeout 3000

slurm: $(VENV)/.installed
	$(BIN)/python tests/support/slurm_cluster/cluster.py install
	$(BIN)/python tests/support/slurm_cluster/cluster.py start --dir $(SLURM_DIR)

demo-slurm: slurm
	@test -d "$(MODEL)" && test -d "$(DATA)" || { echo "make demo-slurm MODEL=<model folder> DATA=<folder made by configs/smollm2/prepare.py>"; exit 2; }
	. $(SLURM_DIR)/env && $(BIN)/hpcbench submit configs/smollm2_fudan.yaml --save-dir logs --wait \
	  --set args.model_id_or_path=$(MODEL) --set eval_args.include_path=$(DATA)/tasks \
	  --set args.dataset=$(DATA)/fudan/train.jsonl --set args.val_dataset=$(DATA)/fudan/val.jsonl
	. $(SLURM_DIR)/env && $(BIN)/hpcbench submit configs/smollm2_gsm8k.yaml --save-dir logs --wait \
	  --set args.model_id_or_path=$(MODEL) --set eval_args.include_path=$(DATA)/tasks \
	  --set args.dataset=$(DATA)/gsm8k/train.jsonl
	. $(SLURM_DIR)/env && $(BIN)/hpcbench collect smollm2_fudan smollm2_gsm8k --save-dir logs

# All three go out before the first is waited for: so there are always two jobs to run.
demo-tuners: slurm
	@test -d "$(MODEL)" && test -d "$(DATA)" && test -f "$(TOOLS)/dataset_info.json" || { echo "make demo-tuners MODEL=<model folder> DATA=<folder made by configs/smollm2/prepare.py> TOOLS=<folder with dataset_info.json and glaive_toolcall_en_demo.json>"; exit 2; }
	. $(SLURM_DIR)/env && for wait in "" --wait; do \
	  $(BIN)/hpcbench submit configs/smollm2_fudan_tuners.yaml --save-dir logs $$wait \
	    --set args.model_id_or_path=$(MODEL) --set eval_args.include_path=$(DATA)/tasks \
	    --set args.dataset=$(DATA)/fudan/train.jsonl --set args.val_dataset=$(DATA)/fudan/val.jsonl && \
	  $(BIN)/hpcbench submit configs/smollm2_gsm8k_tuners.yaml --save-dir logs $$wait \
	    --set args.model_id_or_path=$(MODEL) --set eval_args.include_path=$(DATA)/tasks \
	    --set args.dataset=$(DATA)/gsm8k/train.jsonl && \
	  $(BIN)/hpcbench submit configs/smollm2_tools.yaml --save-dir logs $$wait \
	    --set args.model_id_or_path=$(MODEL) --set args.dataset_info=$(TOOLS)/dataset_info.json || exit; \
	done
	. $(SLURM_DIR)/env && $(BIN)/hpcbench collect smollm2_fudan_tuners smollm2_gsm8k_tuners smollm2_tools --save-dir logs

demo-tables: slurm
	. $(SLURM_DIR)/env && OMP_NUM_THREADS=1 $(BIN)/python -m tests.support.scaled_tables $(TABLES) --save-dir logs/tables

slurm-stop: $(VENV)/.installed
	$(BIN)/python tests/support/slurm_cluster/cluster.py stop --dir $(SLURM_DIR)

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
