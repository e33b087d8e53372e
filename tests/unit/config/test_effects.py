"""Arguments without an effect are refused where an experiment names them; shared ones, where none has an effect of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcbench.config.effects import EFFECTS
from hpcbench.config.loading import load_suites
from hpcbench.errors import ConfigError
from hpcbench.schemas.arguments import SftArgs

COMMON = {"model_type": "qwen2.5-7b-instruct", "dataset": "ms-agent"}


def plan(folder: Path, *experiments: dict[str, Any], **top: Any) -> str:
    """Return the messages of a suite, each without its file."""
    named = [{"name": f"e{index}", **experiment} for index, experiment in enumerate(experiments)]
    args = {**COMMON, **top.pop("args", {})}
    suite = folder / "suite.yaml"
    suite.write_text(json.dumps({"cmd": "sft", "args": args, **top, "experiment": named}))
    try:
        load_suites([suite])
    except ConfigError as error:
        return str(error).replace(f"{suite}:1: ", "")
    return ""


@pytest.mark.parametrize(
    ("args", "name", "needs"),
    [
        ({"sft_type": "full", "use_dora": True}, "use_dora", "sft_type: lora"),
        ({"sft_type": "full", "lora_lr_ratio": 16}, "lora_lr_ratio", "sft_type: lora"),
        ({"sft_type": "adapter", "use_rslora": True}, "use_rslora", "sft_type: lora"),
        ({"sft_type": "full", "galore_rank": 64}, "galore_rank", "use_galore: true"),
        ({"sft_type": "galore", "galore_proj_bits": 8}, "galore_proj_bits", "galore_proj_quant: true"),
        ({"quantization_bit": 8, "bnb_4bit_quant_type": "fp4"}, "bnb_4bit_quant_type", "quantization_bit: 4"),
        ({"temperature": 0.5}, "temperature", "predict_with_generate: true"),
        ({"hub_model_id": "a/b"}, "hub_model_id", "push_to_hub: true"),
        ({"save_strategy": "no", "save_steps": 3}, "save_steps", "save_strategy: steps"),
        (
            {"lr_scheduler_type": "constant", "warmup_ratio": 0.1},
            "warmup_ratio",
            "an lr_scheduler_type with a warm-up, such as constant_with_warmup",
        ),
    ],
)
def test_an_argument_that_does_nothing_is_refused_where_it_is_named(
    tmp_path: Path, args: dict[str, Any], name: str, needs: str
) -> None:
    where = f"args.{name}: `{name}` has no effect"
    rest = f"\n  expected: {needs}\n  hint: remove it where it has none"
    assert plan(tmp_path, {"args": args}) == f"experiment[e0].{where}{rest}"
    # What all share may have an effect in another experiment; where it has none in any, it is a mistake.
    others = {key: value for key, value in args.items() if key != name}
    assert plan(tmp_path, {"args": others}, args={name: args[name]}) == f"{where} in any experiment{rest}"


@pytest.mark.parametrize(
    ("args", "others"),
    [
        ({"use_dora": True}, {"sft_type": "lora"}),
        ({"galore_rank": 64}, {"sft_type": "galore"}),
        ({"bnb_4bit_quant_type": "fp4"}, {"sft_type": "qlora"}),
        ({"temperature": 0.5}, {"predict_with_generate": True}),
        ({"warmup_ratio": 0.1, "lr_scheduler_type": "constant"}, {"lr_scheduler_type": "cosine"}),
    ],
)
def test_shared_arguments_need_an_effect_in_one_experiment_only(
    tmp_path: Path, args: dict[str, Any], others: dict[str, Any]
) -> None:
    assert plan(tmp_path, {"args": {"sft_type": "full"}}, {"args": others}, args=args) == ""


@pytest.mark.parametrize(
    "args",
    [
        {"sft_type": "full", "use_dora": False, "lora_rank": 8},
        {"push_to_hub": False, "hub_model_id": "a/b", "push_hub_strategy": "end"},
        {"quantization_bit": 0, "bnb_4bit_comp_dtype": "fp16"},
        {"predict_with_generate": False, "max_new_tokens": 5},
        {"lr_scheduler_type": "constant", "warmup_ratio": 0},
        {"val_dataset": ["alpaca-en"], "dataset_test_ratio": 0},
        {"val_dataset": ["alpaca-en"], "split_dataset_ratio": 0},
        {"sft_type": "adalora", "lora_alpha": 16, "lora_target_modules": "ALL"},
    ],
)
def test_defaults_and_what_is_switched_off_on_purpose_are_taken(tmp_path: Path, args: dict[str, Any]) -> None:
    assert plan(tmp_path, {"args": args}) == ""


def test_every_argument_of_a_method_is_in_the_table() -> None:
    named = {name for effect in EFFECTS for name in effect.names}
    assert named <= set(SftArgs.model_fields)
    arguments = dict(SftArgs.groups())["Tuner"]
    assert set(arguments) - named == {"sft_type", "tuner_backend", "use_galore"}


def test_a_matrix_does_not_vary_what_does_nothing(tmp_path: Path) -> None:
    matrix = {"sft_type": ["lora", "full"], "lora_rank": [4, 16]}
    text = plan(tmp_path, {"matrix": matrix})
    assert text.count("`lora_rank` has no effect\n  expected: sft_type: lora\n") == 2
    assert plan(tmp_path, {"matrix": {**matrix, "exclude": [{"sft_type": "full"}]}}) == ""


@pytest.mark.parametrize(
    ("requirements", "message"),
    [
        (
            {"gpu": 4, "ddp": 3},
            "requirements.ddp: gpu 4 cannot be shared out to ddp 3\n  expected: gpu a multiple of ddp",
        ),
        ({"gpu": 4, "ddp": 2}, ""),
        ({"gpu": 4, "ddp": 4}, ""),
        ({"gpu": 4, "ddp": 1}, ""),
    ],
)
def test_shapes_that_a_training_does_not_have_are_refused(
    tmp_path: Path, requirements: dict[str, int], message: str
) -> None:
    found = plan(tmp_path, {}, requirements=requirements)
    assert message in found
    assert bool(message) == bool(found)


def test_ranks_with_several_gpus_each_train_no_quantised_base(tmp_path: Path) -> None:
    found = plan(tmp_path, {"args": {"quantization_bit": 4}}, requirements={"gpu": 4, "ddp": 2})
    assert found == (
        "experiment[e0].args.quantization_bit: `quantization_bit` with gpu 4 and ddp 2, where each rank spreads its model over several "
        "GPUs\n  expected: requirements: {gpu: 4, ddp: 4}, or ddp: 1"
    )


@pytest.mark.parametrize("requirements", [{"gpu": 2, "ddp": 1}, {"gpu": 4, "ddp": 2}])
def test_a_loss_of_one_gpu_is_refused_where_a_model_is_spread(tmp_path: Path, requirements: dict[str, int]) -> None:
    assert plan(tmp_path, {"args": {"use_cce": True}}, requirements=requirements) == (
        "experiment[e0].args.use_cce: `use_cce` computes on one GPU, and here each rank spreads its model over several\n"
        "  hint: set chunked_cross_entropy: true in its place"
    )
    assert plan(tmp_path, {"args": {"chunked_cross_entropy": True}}, requirements=requirements) == ""


def test_an_eval_runs_on_several_ranks_each_with_a_gpu(tmp_path: Path) -> None:
    wanted: dict[str, Any] = {"eval_dataset": ["arc_easy"]}
    assert plan(tmp_path, {}, **wanted, eval_requirements={"gpu": 2, "ddp": 2}) == ""
    assert plan(tmp_path, {}, **wanted, eval_requirements={"gpu": 4, "ddp": 2}) == (
        "eval_requirements.ddp: 4 GPUs for ddp 2: a model on several GPUs is for one rank\n"
        "  expected: ddp: 4, a model on each, or ddp: 1, one model over all of them"
    )


def test_a_training_of_no_step_is_refused(tmp_path: Path) -> None:
    assert plan(tmp_path, {"args": {"max_steps": 0}}) == (
        "experiment[e0].args.max_steps: `max_steps: 0` trains nothing\n  expected: 1 or more, or -1\n"
        "  hint: leave it out to train for num_train_epochs; `cmd: eval` evaluates the untrained model"
    )


def test_what_cannot_be_merged_is_refused(tmp_path: Path) -> None:
    merged: dict[str, Any] = {"eval_dataset": ["arc_easy"], "eval_args": {"merge_lora": True}}
    text = plan(tmp_path, {"args": {"sft_type": "adapter"}}, **merged)
    assert "what sft_type adapter trains cannot be merged\n  hint: set eval_args.merge_lora: false" in text
    assert plan(tmp_path, {"args": {"sft_type": "full"}}, {}, **merged) == ""
    assert "`merge_lora` has no effect\n  expected: sft_type: lora, adalora, ia3" in plan(
        tmp_path, {"args": {"sft_type": "full"}, **merged}
    )


@pytest.mark.parametrize(
    ("args", "field", "value"),
    [
        ({"lr": 0.5}, "learning_rate", 0.5),
        ({"cutoff_len": 64}, "max_length", 64),
        ({"lora_target_modules": "all-linear"}, "lora_target_modules", ("ALL",)),
        ({"target_modules": ["all-linear", "lm_head"]}, "lora_target_modules", ("ALL", "lm_head")),
        ({"lora_target": "all"}, "lora_target_modules", ("ALL",)),
        ({"report_to": "none"}, "logging_steps", 5),
    ],
)
def test_names_of_other_tools_with_the_same_meaning_are_taken(
    tmp_path: Path, args: dict[str, Any], field: str, value: object
) -> None:
    assert plan(tmp_path, {"args": args}) == ""
    (suite,) = load_suites([tmp_path / "suite.yaml"])
    assert getattr(suite.experiments[0].args, field) == value


@pytest.mark.parametrize(
    ("section", "given", "hint"),
    [
        ("args", {"device": "cpu"}, "it belongs beside `args`, as `device: ...`"),
        ("args", {"num_fewshot": 5}, "it belongs into `eval_args`"),
        ("args", {"tasks": "arc_easy"}, "name eval tasks in `eval_dataset`, beside `args`"),
        ("eval_args", {"tasks": "arc_easy"}, "name eval tasks in `eval_dataset`, beside `args`"),
        ("args", {"model_args": "pretrained=gpt2"}, "give model_id_or_path and dtype under `args`"),
        ("requirements", {"mem": "64G"}, "requirements.mem_gb takes GiB as a number, for example mem_gb: 64"),
        (
            "args",
            {"report_to": "wandb"},
            "remove it; `hpcbench export --to tensorboard` (wandb, trackio, mlflow) hands them on",
        ),
    ],
)
def test_other_names_get_a_hint_that_leads_on(tmp_path: Path, section: str, given: dict[str, Any], hint: str) -> None:
    assert f"\n  hint: {hint}" in plan(tmp_path, {section: given})
