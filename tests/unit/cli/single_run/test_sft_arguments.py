"""`hpcbench sft` against the arguments of ms-swift's `sft.sh` (its README of 2023-10): each is taken, with its default."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from hpcbench.cli.single_run.command_line import read_words
from hpcbench.cli.single_run.options import SFT, options_of
from hpcbench.cli.single_run.run import load_typed
from hpcbench.schemas.suite import Experiment
from tests.support.typed_commands import help_of

# The document's defaults as a script would write them; null where it says None.
DEFAULTS = {
    "model_type": "qwen2.5-7b-instruct", "sft_type": "lora", "tuner_bankend": "swift", "template_type": "null",
    "output_dir": "output", "ddp_backend": "nccl", "seed": "42", "resume_from_checkpoint": "null", "dtype": "bf16",
    "ignore_args_error": "False", "dataset": "blossom-math-zh", "dataset_split_seed": "42",
    "dataset_test_ratio": "0.01", "train_dataset_sample": "20000", "system": "you are a helpful assistant!",
    "max_length": "2048", "quantization_bit": "0", "bnb_4bit_comp_dtype": "null", "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": "True", "lora_target_modules": "null", "lora_rank": "8", "lora_alpha": "32",
    "lora_dropout_p": "0.", "gradient_checkpointing": "False", "deepspeed_config_path": "null", "batch_size": "1",
    "eval_batch_size": "null", "num_train_epochs": "1", "max_steps": "-1", "optim": "adamw_torch",
    "learning_rate": "null", "weight_decay": "0.01", "gradient_accumulation_steps": "16", "max_grad_norm": "1",
    "predict_with_generate": "False", "lr_scheduler_type": "cosine", "warmup_ratio": "0.05", "eval_steps": "50",
    "save_steps": "null", "only_save_model": "null", "save_total_limit": "2", "logging_steps": "5",
    "dataloader_num_workers": "1", "push_to_hub": "False", "hub_model_id": "null", "hub_private_repo": "True",
    "push_hub_strategy": "push_best", "hub_token": "null", "test_oom_error": "False", "use_flash_attn": "null",
    "max_new_tokens": "1024", "do_sample": "True", "temperature": "0.9", "top_k": "20", "top_p": "0.9",
    "repetition_penalty": "1.",
}  # fmt: skip

DEVIATIONS = {
    "tuner_bankend": "hpcbench has one backend, peft; `swift` is taken and a record that said it would not be true",
    "ddp_backend": "as in the document with GPUs; without them nccl cannot run and gloo is taken",
}

ALSO_TAKEN = {"tuner_bankend": "tuner_backend"}


def load(*words: str, has_gpu: bool = True) -> Experiment:
    return load_typed(read_words(SFT, words), has_gpu=has_gpu)


def values(experiment: Experiment) -> Mapping[str, object]:
    assert experiment.args is not None
    return experiment.args.model_dump()


@pytest.mark.parametrize("name", sorted(DEFAULTS.keys() - DEVIATIONS.keys()))
def test_the_default_is_the_documents(name: str) -> None:
    assert values(load(f"--{name}", DEFAULTS[name])) == values(load())


@pytest.mark.parametrize("name", sorted(DEVIATIONS))
def test_a_default_that_differs_on_purpose_is_taken_all_the_same(name: str) -> None:
    field = ALSO_TAKEN.get(name, name)
    assert values(load(f"--{name}", DEFAULTS[name]))[field] == DEFAULTS[name] != values(load())[field]


@pytest.mark.parametrize("name", sorted(DEFAULTS))
def test_the_help_names_it_with_a_sentence_and_its_default(name: str) -> None:
    option = options_of("sft").get(ALSO_TAKEN.get(name, name))
    text = help_of("sft")
    assert re.search(rf"\b{name}\b", text)
    if option is None or name in DEVIATIONS:
        return
    assert len(option.help.split()) >= 3, option.help
    shown = {"1.": "1", "0.": "0", "True": "true", "False": "false"}.get(DEFAULTS[name], DEFAULTS[name])
    lora_target = "DEFAULT" if name == "lora_target_modules" else shown
    assert option.default.startswith(lora_target)


def test_every_option_has_a_sentence() -> None:
    assert [name for name, option in options_of("sft").items() if len(option.help.split()) < 3] == []


def test_the_help_fits_into_eighty_columns() -> None:
    assert max(len(line) for line in help_of("sft").splitlines()) <= 80
