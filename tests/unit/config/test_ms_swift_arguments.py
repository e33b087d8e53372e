"""Every argument that ms-swift's documents name is accepted and mapped, or refused with a reason; none is unknown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcbench.config.loading import load_suites
from hpcbench.errors import ConfigError
from hpcbench.schemas.arguments import SftArgs
from tests.support.places import RECORDED

# name -> a value that asks for something, in ms-swift's own spelling
ACCEPTED = {
    # sft.sh of the fourth document (2023-10)
    "model_type": "qwen2.5-7b-instruct", "sft_type": "lora", "tuner_bankend": "swift", "template_type": "chatml",
    "ddp_backend": "nccl", "seed": "42", "dtype": "bf16", "dataset": "alpaca-en,alpaca-zh", "dataset_split_seed": "42",
    "dataset_test_ratio": "0.01", "train_dataset_sample": "-1", "system": "you are a helpful assistant!",
    "max_length": "2048", "lora_target_modules": "ALL", "lora_rank": "8", "lora_alpha": "32", "lora_dropout_p": "0.",
    "gradient_checkpointing": "true", "batch_size": "1", "eval_batch_size": "1", "num_train_epochs": "1",
    "max_steps": "-1", "optim": "adamw_torch", "learning_rate": "1e-4", "weight_decay": "0.01",
    "gradient_accumulation_steps": "16", "max_grad_norm": "1", "predict_with_generate": "true",
    "lr_scheduler_type": "cosine", "warmup_ratio": "0.05", "eval_steps": "50", "save_steps": "50",
    "only_save_model": "true", "save_total_limit": "2", "logging_steps": "5", "dataloader_num_workers": "1",
    "test_oom_error": "true", "use_flash_attn": "true", "max_new_tokens": "1024", "do_sample": "true",
    "temperature": "0.9", "top_k": "20", "top_p": "0.9", "repetition_penalty": "1.",
    # the others
    "train_dataset_mix_ratio": "2.0", "use_loss_scale": "true", "val_dataset_sample": "5000",
    "check_dataset_strategy": "warning", "lora_lr_ratio": "16.0", "preprocess_num_proc": "4", "save_strategy": "no",
    "truncation_strategy": "delete", "gradient_checkpinting": "true", "use_dora": "true", "use_rslora": "true",
    "neftune_noise_alpha": "15.0", "packing": "true", "lazy_tokenize": "true", "tuner_backend": "peft",
    "push_to_hub": "true", "hub_model_id": "a/b", "hub_private_repo": "false", "push_hub_strategy": "end",
    "quantization_bit": "4", "bnb_4bit_comp_dtype": "fp16", "bnb_4bit_quant_type": "fp4",
    "bnb_4bit_use_double_quant": "false",
}  # fmt: skip

# beginnings of names that have no effect by themselves -> what gives them one
SWITCHES: dict[str, dict[str, str]] = {
    "bnb_4bit_": {"quantization_bit": "4"},
    "hub_": {"push_to_hub": "true", "hub_model_id": "a/b"},
    "push_hub_": {"push_to_hub": "true"},
}

# name -> a value that asks for something this version refuses
REFUSED = {
    "output_dir": "output", "ignore_args_error": "true", "hub_token": "t",
}  # fmt: skip

# name of infer.sh's -> a value that another command than a training has a use for
OF_INFER = {
    "eval_human": "true", "show_dataset_sample": "20", "use_streamer": "false", "merge_lora_and_save": "true",
    "save_generation_config": "false",
}  # fmt: skip

# Named by the documents and honoured or refused as far as the tuners and quantisation of this version go.
KNOWN = {
    "deepspeed_config_path": "ds_config/zero2.json",
    "galore_rank": "64", "galore_per_parameter": "true", "galore_with_embedding": "true",
    "lisa_activated_layers": "2", "lisa_step_interval": "20", "llamapro_num_new_blocks": "4",
    "sequence_parallel_size": "2", "quant_method": "awq", "quant_bits": "4", "use_galore": "true",
    "resume_from_checkpoint": "output/nowhere", "ckpt_dir": "output/nowhere",
}  # fmt: skip


def test_every_argument_of_the_documents_is_tried_here() -> None:
    named = json.loads((RECORDED / "seed_names.json").read_text(encoding="utf-8"))["arguments"]
    assert set(named) <= ACCEPTED.keys() | REFUSED.keys() | KNOWN.keys() | OF_INFER.keys()


def load_with(folder: Path, **given: str) -> SftArgs | str:
    """Return the arguments of a suite, or the text of its refusal."""
    args = {"model_type": "qwen2.5-7b-instruct", "dataset": "ms-agent", "trust_remote_code": "true", **given}
    lines = "".join(f"  {name}: '{value}'\n" for name, value in args.items())
    path = folder / "demo.yaml"
    path.write_text(f"cmd: sft\nargs:\n{lines}experiment: [{{name: a}}]\n", encoding="utf-8")
    try:
        (suite,) = load_suites([path])
    except ConfigError as error:
        return str(error)
    found = suite.experiments[0].args
    assert found is not None
    return found


@pytest.mark.parametrize("name", sorted(ACCEPTED))
def test_an_argument_is_accepted_and_mapped(tmp_path: Path, name: str) -> None:
    switch = next((switch for prefix, switch in SWITCHES.items() if name.startswith(prefix)), {})
    found = load_with(tmp_path, **{**switch, name: ACCEPTED[name]})
    assert isinstance(found, SftArgs), found
    field = {"tuner_bankend": "tuner_backend", "gradient_checkpinting": "gradient_checkpointing"}.get(name, name)
    value = getattr(found, field)
    expected = ACCEPTED[name]
    if isinstance(value, bool):
        assert value == (expected == "true")
    elif isinstance(value, int | float):
        assert value == float(expected)
    elif isinstance(value, tuple):
        assert value == tuple(expected.split(","))
    else:
        assert value == expected


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_an_argument_is_refused_with_a_reason(tmp_path: Path, name: str) -> None:
    text = load_with(tmp_path, **{name: REFUSED[name]})
    assert isinstance(text, str)
    assert "unknown argument" not in text
    assert f"`{name}`" in text
    assert "hint: " in text


@pytest.mark.parametrize("name", sorted(OF_INFER))
def test_an_argument_of_infer_leads_on_where_a_training_has_it(tmp_path: Path, name: str) -> None:
    text = load_with(tmp_path, **{name: OF_INFER[name]})
    assert isinstance(text, str)
    assert "is only for `cmd: " in text
    assert "hint: " in text


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_no_argument_is_unknown(tmp_path: Path, name: str) -> None:
    found = load_with(tmp_path, **{name: KNOWN[name]})
    assert isinstance(found, SftArgs) or "unknown argument" not in found
