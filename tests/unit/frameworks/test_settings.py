"""The arguments of a suite as each framework's own file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from hpcbench.frameworks import RECIPES, Recipe, Run
from hpcbench.frameworks.recipe import Settings
from hpcbench.frameworks.refusals import find_refusals
from hpcbench.schemas.arguments import SftArgs
from tests.conftest import Golden

OTHER: dict[str, dict[str, Any]] = {
    "batch_size": {"batch_size": 3},
    "eval_batch_size": {"eval_batch_size": 7},
    "gradient_accumulation_steps": {"gradient_accumulation_steps": 5},
    "num_train_epochs": {"num_train_epochs": 3.0},
    "max_steps": {"max_steps": 11},
    "learning_rate": {"learning_rate": 3e-3},
    "weight_decay": {"weight_decay": 0.3},
    "max_grad_norm": {"max_grad_norm": 0.5},
    "lr_scheduler_type": {"lr_scheduler_type": "linear"},
    "lr_scheduler_kwargs": {"lr_scheduler_type": "cosine_with_restarts", "lr_scheduler_kwargs": {"num_cycles": 2}},
    "min_lr": {"min_lr": 1e-6},
    "warmup_ratio": {"warmup_ratio": 0.5},
    "warmup_steps": {"warmup_steps": 4},
    "optim": {"optim": "adamw_torch_fused"},
    "adam_beta1": {"adam_beta1": 0.8},
    "adam_beta2": {"adam_beta2": 0.95},
    "adam_epsilon": {"adam_epsilon": 1e-6},
    "gradient_checkpointing": {"gradient_checkpointing": True},
    "seed": {"seed": 7},
    "full_determinism": {"full_determinism": True},
    "neftune_noise_alpha": {"neftune_noise_alpha": 5.0},
    "logging_steps": {"logging_steps": 2},
    "eval_strategy": {"eval_strategy": "epoch"},
    "eval_steps": {"eval_steps": 3},
    "save_strategy": {"save_strategy": "epoch"},
    "save_steps": {"save_steps": 3},
    "save_total_limit": {"save_total_limit": 5},
    "only_save_model": {"only_save_model": True},
    "dataloader_num_workers": {"dataloader_num_workers": 4},
    "dataloader_pin_memory": {"dataloader_pin_memory": False},
    "dataloader_drop_last": {"dataloader_drop_last": True},
    "dataloader_prefetch_factor": {"dataloader_prefetch_factor": 4},
    "dataloader_persistent_workers": {"dataloader_persistent_workers": True},
    "ddp_timeout": {"ddp_timeout": 60},
    "ddp_backend": {"ddp_backend": "gloo"},
    "ddp_find_unused_parameters": {"ddp_find_unused_parameters": True},
    "ddp_broadcast_buffers": {"ddp_broadcast_buffers": False},
    "dtype": {"dtype": "fp32"},
    "sft_type": {"sft_type": "full"},
    "trust_remote_code": {"trust_remote_code": True},
    "attn_impl": {"attn_impl": "eager"},
    "use_flash_attn": {"use_flash_attn": False},
    "max_length": {"max_length": 99},
    "truncation_strategy": {"truncation_strategy": "delete"},
    "preprocess_num_proc": {"preprocess_num_proc": 3},
    "loss_on_all_rounds": {"loss_on_all_rounds": True},
    "lora_rank": {"lora_rank": 3},
    "lora_alpha": {"lora_alpha": 5.0},
    "lora_dropout_p": {"lora_dropout_p": 0.1},
    "lora_lr_ratio": {"lora_lr_ratio": 16.0},
    "use_rslora": {"use_rslora": True},
    "use_dora": {"use_dora": True},
    "quantization_bit": {"quantization_bit": 8},
    "bnb_4bit_quant_type": {"quantization_bit": 4, "bnb_4bit_quant_type": "fp4"},
    "bnb_4bit_use_double_quant": {"quantization_bit": 4, "bnb_4bit_use_double_quant": False},
}
"""Argument -> arguments that ask for something else than the default."""
BY_OTHER_WAYS = {
    # Names of modules come from the model; bnb is what quantization_bit means; peft is what they train with.
    *("lora_target_modules", "quant_method", "tuner_backend"),
}
REFUSED_HERE = {("trl", "truncation_strategy"), ("llamafactory", "truncation_strategy")}
"""Values of OTHER that a recipe refuses."""
HONORED = [(recipe, name) for recipe in RECIPES.values() for name in sorted(recipe.honored - BY_OTHER_WAYS)]


def settings_of(recipe: Recipe, *, device: str = "cuda", num_ranks: int = 2, **given: Any) -> Settings:
    """Return the settings for a run of 100 rows with these arguments."""
    args = SftArgs.model_validate({"model_id_or_path": "/models/base", "gradient_accumulation_steps": 1, **given})
    run = Run(
        args=args,
        model=Path("/models/base"),
        rows=Path("/job/framework"),
        output=Path("/job/checkpoints"),
        num_train_rows=100,
        num_val_rows=10,
        num_ranks=num_ranks,
        device="cpu" if device == "cpu" else "cuda",
        targets=("q_proj", "v_proj"),
    )
    return recipe.settings(run)


@pytest.mark.parametrize(("recipe", "name"), HONORED, ids=lambda value: getattr(value, "name", value))
def test_an_argument_that_a_recipe_honors_changes_what_the_framework_is_given(recipe: Recipe, name: str) -> None:
    if (recipe.name, name) in REFUSED_HERE:
        args = SftArgs.model_validate({"model_id_or_path": "/models/base", **OTHER[name]})
        assert [refusal.argument for refusal in recipe.find_refusals(args)] == [name]
        return
    needs = {key: value for key, value in OTHER[name].items() if key != name}
    assert settings_of(recipe, **OTHER[name]) != settings_of(recipe, **needs)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_a_training_of_lora_is_this_file(recipe: Recipe, golden: Golden) -> None:
    written = settings_of(recipe, num_ranks=1, dtype="bf16", max_steps=20, eval_steps=10)
    golden(f"frameworks/{recipe.name}.yaml", yaml.safe_dump(written, sort_keys=False))


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_the_last_step_has_an_evaluation_and_a_checkpoint_where_evaluations_are_rare(recipe: Recipe) -> None:
    written = settings_of(recipe, max_steps=20, eval_steps=50)
    assert written["eval_steps"] == written["save_steps"] == 20


def test_llamafactory_keeps_no_master_weights_where_hpcbench_keeps_none() -> None:
    written = settings_of(RECIPES["llamafactory"], sft_type="full", dtype="bf16")
    assert (written["pure_bf16"], written["bf16"]) == (True, False)


def test_llamafactory_switches_checkpointing_off_that_it_would_switch_on() -> None:
    assert settings_of(RECIPES["llamafactory"])["disable_gradient_checkpointing"] is True


def test_llamafactory_is_asked_for_no_attention_that_it_has_no_word_for() -> None:
    args = SftArgs(model_id_or_path="/models/base", attn_impl="flex_attention")
    (refusal,) = RECIPES["llamafactory"].find_refusals(args)
    assert (refusal.argument, refusal.why) == ("attn_impl", "has no word for flex_attention")


def test_trl_learns_the_last_answer_alone() -> None:
    chat = [{"role": role, "content": role} for role in ("user", "assistant", "user", "assistant")]
    row = RECIPES["trl"].make_row(chat)
    assert (len(row["prompt"]), row["completion"]) == (3, [{"role": "assistant", "content": "assistant"}])


def test_trl_trains_no_weights_in_fp16_which_torch_cannot() -> None:
    written = settings_of(RECIPES["trl"], sft_type="full", dtype="fp16")
    assert (written["dtype"], written["fp16"]) == ("float32", True)
    assert settings_of(RECIPES["trl"], dtype="fp16")["dtype"] == "float16"


def test_trl_is_started_by_its_own_file_of_accelerate_and_not_by_the_users() -> None:
    args, here = SftArgs(model_id_or_path="/models/base"), Path("/x")
    run = Run(args=args, model=here, rows=here, output=here, num_train_rows=1, num_val_rows=0, num_ranks=2)
    ((name, text),) = RECIPES["trl"].files(run).items()
    words = RECIPES["trl"].command(run, here, "f.yaml")
    assert words[words.index("--accelerate_config") + 1] == f"/x/{name}"
    written = yaml.safe_load(text)
    assert (written["distributed_type"], written["main_process_port"]) == ("MULTI_GPU", 0)


def test_axolotl_learns_the_last_answer_alone() -> None:
    chat = [{"role": role, "content": role} for role in ("user", "assistant", "user", "assistant")]
    assert [message["learned"] for message in RECIPES["axolotl"].make_row(chat)["messages"]] == [False] * 3 + [True]


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_each_process_has_one_gpu(recipe: Recipe) -> None:
    args = SftArgs(model_id_or_path="/models/base")
    here = Path("/x")
    run = Run(args=args, model=here, rows=here, output=here, num_train_rows=1, num_val_rows=0, num_ranks=4)
    asked = (*recipe.command(run, here, "f.yaml"), *recipe.environment(run).values())
    assert any(word.rpartition("=")[2] == "4" for word in asked)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_rows_cut_into_pieces_are_refused(recipe: Recipe) -> None:
    args = SftArgs(model_id_or_path="/models/base", plain_text=True, truncation_strategy="split")
    assert "truncation_strategy" in {each.argument for each in find_refusals(recipe, args, {}, None, "cuda")}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_where_a_training_goes_on_is_hpcbenchs_affair(recipe: Recipe) -> None:
    extra = {"resume_from_checkpoint": "/x"}
    found = find_refusals(recipe, SftArgs(model_id_or_path="/models/base"), extra, None, "cuda")
    assert [refusal.argument for refusal in found] == ["framework_args.resume_from_checkpoint"]
