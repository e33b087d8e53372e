# The two commands for newcomers are `make demo` and `make test`; the rest is for developers.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SLURM_DIR ?= .slurm
# Processes that run the tests; trainings take one core each.
WORKERS ?= 2
MODEL ?=
DATA ?=
TOOLS ?=

.PHONY: help demo test check unit train slurm-test test-long fuzz demo-slurm demo-tuners slurm slurm-stop format clean

help:
	@echo "make demo        install, run configs/quickstart.yaml on this machine, print the report"
	@echo "make test        all checks and tests; as root on Debian or Ubuntu with a real Slurm of its own"
	@echo "make test-long   what takes longer"
	@echo "make fuzz        ten thousand broken suites and ten thousand broken save directories"
	@echo "make slurm       start the two-node test Slurm by hand (then: source $(SLURM_DIR)/env); make slurm-stop ends it"
	@echo "make demo-slurm  the SmolLM2 suites on that Slurm (MODEL=folder DATA=folder; see configs/smollm2/prepare.py)"
	@echo "make demo-tuners the same model with every tuner, two jobs at a time (TOOLS=folder with dataset_info.json, too)"

$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "installing into $(VENV), about a minute ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,eval,bnb,nvml,dev]'
	@touch $@

demo: $(VENV)/.installed
	@$(BIN)/hpcbench demo --save-dir logs

# Every part runs, even after one that failed; the exit code at the end counts them all.
test: $(VENV)/.installed
	@$(MAKE) --no-print-directory --keep-going check unit train slurm-test </dev/null

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: $(VENV)/.installed
	$(BIN)/pytest tests/unit -m "not long" --numprocesses $(WORKERS)

train: $(VENV)/.installed
	$(BIN)/pytest tests/train -m "not long" --numprocesses $(WORKERS) --dist worksteal --durations 12

slurm-test: $(VENV)/.installed
	@$(BIN)/python tests/support/slurm_cluster/cluster.py install || echo "no test Slurm on this machine: the tests that need it are left out"
	$(BIN)/pytest tests/slurm -m "not long" --durations 25

test-long: $(VENV)/.installed
	@$(BIN)/python tests/support/slurm_cluster/cluster.py install || true
	$(BIN)/pytest -m long

fuzz: $(VENV)/.installed
	HPCBENCH_FUZZ=10000 $(BIN)/pytest tests/unit/cli/test_fuzz_suites.py tests/unit/cli/test_fuzz_save_dir.py --timeout 3000

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

slurm-stop: $(VENV)/.installed
	$(BIN)/python tests/support/slurm_cluster/cluster.py stop --dir $(SLURM_DIR)

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
