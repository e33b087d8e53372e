"""Command lines as SWIFT 2.x documents them, typed with `hpcbench` for `swift`: each is planned, or refused with why.

`...` and `{PLACEHOLDERS}` of the documents are filled in. Nothing is downloaded: hubs are switched off, caches empty.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest

from hpcbench.cli.single_run import run
from tests.support.places import GOLDEN
from tests.support.typed_commands import Ended, run_here

PLANNED = "starts, results in "
"""What is printed of a run that may start."""
CANNOT_LOAD = "cannot be loaded: its "

COMMON_2023 = (
    "--dataset_test_ratio 0 --dataset cls-fudan-news-zh --train_dataset_sample 1000 --save_strategy no "
    "--check_dataset_strategy warning --truncation_strategy truncation_left --preprocess_num_proc 4"
)
DEFAULTS_2023 = (
    "--max_length 2048 --batch_size 1 --gradient_checkpinting true --use_flash_attn false --lora_rank 8 "
    "--lora_target_modules DEFAULT --quantization_bit 0"
)
COMMON_2024 = (
    "--dataset_test_ratio 0 --dataset cls-fudan-news-zh --save_strategy no --check_dataset_strategy warning "
    "--preprocess_num_proc 4"
)
DEFAULTS_2024 = (
    "--max_length 2048 --batch_size 1 --gradient_checkpointing true --use_flash_attn false --lora_rank 8 "
    "--lora_target_modules DEFAULT --quantization_bit 0 --gradient_accumulation_steps 16"
)
"""`use_flash_attn` is off: a machine without a GPU has no FlashAttention."""

VARIED = [
    "",
    "--quantization_bit 4 --sft_type lora",
    *(f"--max_length {tokens} --sft_type lora" for tokens in (512, 1024, 2048, 4096, 8192)),
    "--max_length 512 --sft_type full",
    *(f"--batch_size {size} --sft_type lora" for size in (1, 2, 4, 8)),
    "--use_flash_attn false --gradient_checkpointing true --sft_type lora",
    "--use_flash_attn false --gradient_checkpointing false --sft_type lora",
    *(f"--lora_rank {rank} --lora_target_modules DEFAULT --sft_type lora" for rank in (2, 8, 64)),
    "--lora_rank 8 --lora_target_modules ALL --sft_type lora",
    *(f"--gradient_accumulation_steps {steps} --sft_type lora" for steps in (1, 16, 64)),
]
"""What the benchmark tables vary, for the model of each row."""

OUTCOMES = {
    "qwen-1_8b-chat": CANNOT_LOAD,
    "qwen-7b-chat": CANNOT_LOAD,
    "qwen-14b-chat": CANNOT_LOAD,
    "qwen-72b-chat": CANNOT_LOAD,
    "qwen-7b-chat-int4": CANNOT_LOAD,
    "qwen-7b-chat-int8": CANNOT_LOAD,
    "chatglm2-6b": CANNOT_LOAD,
    "chatglm3-6b": CANNOT_LOAD,
    "chatglm3-6b-32k": CANNOT_LOAD,
    "baichuan2-7b-chat": CANNOT_LOAD,
    "baichuan2-13b-chat": CANNOT_LOAD,
    "yi-6b-chat": PLANNED,
    "yi-34b-chat": PLANNED,
    "openbuddy-mistral-7b-chat": PLANNED,
    "openbuddy-zephyr-7b-chat": PLANNED,
    "llama3-8b-instruct": PLANNED,
    "qwen1half-7b-chat-awq": PLANNED,
    "llama2-7b-aqlm-2bit-1x16": PLANNED,
}
"""The models of the benchmark tables -> what becomes of them with this version's libraries."""


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, with empty caches, hubs that answer nobody, and no queue that runs what was planned."""
    monkeypatch.chdir(tmp_path)
    for name in ("HF_HOME", "MODELSCOPE_CACHE", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "empty"))
    for name in ("HF_ENDPOINT", "MODELSCOPE_ENDPOINT"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setattr(run, "_run_queue", lambda *_: None)


def check(typed: str, outcome: str) -> Ended:
    """Type a command and check what becomes of it."""
    ended = run_here(*shlex.split(typed))
    if outcome == PLANNED:
        assert outcome in ended.out, ended
    else:
        assert (ended.code, ended.out) == (2, ""), ended
        assert outcome in ended.err, ended
        assert "unknown" not in ended.err, ended
        assert "hint: " in ended.err or "expected: " in ended.err, ended
    return ended


@pytest.mark.parametrize("model", OUTCOMES)
def test_each_model_of_the_benchmarks_is_planned_or_refused(model: str) -> None:
    check(f"sft {COMMON_2024} {DEFAULTS_2024} --model_type {model} --sft_type lora", OUTCOMES[model])


@pytest.mark.parametrize("common", [COMMON_2023, COMMON_2024])
@pytest.mark.parametrize("varied", VARIED)
def test_each_setting_of_the_benchmarks_is_planned(common: str, varied: str) -> None:
    check(f"sft {common} {varied} --model_type yi-6b-chat", PLANNED)


@pytest.mark.parametrize(
    "typed", [f"sft {COMMON_2023} {DEFAULTS_2023}", f"sft {COMMON_2024} {DEFAULTS_2024}", "sft --dataset ms-agent"]
)
def test_the_settings_of_all_rows_are_planned(typed: str) -> None:
    check(f"{typed} --model_type yi-6b-chat --sft_type lora", PLANNED)
    check(f"{typed} --model_type qwen-7b-chat --sft_type lora", CANNOT_LOAD)


@pytest.mark.parametrize(
    ("typed", "outcome"),
    [
        ("sft", PLANNED),
        ("sft --model_type qwen-7b-chat --dataset blossom-math-zh", CANNOT_LOAD),
        ("sft --model_type yi-6b-chat", PLANNED),
        ("sft --model_type yi-6b-chat --dataset alpaca-en,alpaca-zh", PLANNED),
        ("sft --model_type yi-6b-chat --dataset alpaca-en alpaca-zh --only_save_model true", PLANNED),
        ("sft --model_type yi-6b-chat --dtype fp16", "fp16 does not train on the CPU"),
        ("sft --model_type yi-6b-chat --push_to_hub true --hub_token x", "a token in a suite would be copied"),
        ("sft --model_type yi-6b-chat --ignore_args_error true", "`ignore_args_error` is known but not supported"),
        (
            "sft --model_type yi-6b-chat --quantization_bit 4 --deepspeed_config_path ds_config/zero2.json",
            "no such file: 'ds_config/zero2.json'",
        ),
        (
            "sft --model_type yi-6b-chat --resume_from_checkpoint output/yi-6b-chat/vx_xxx/checkpoint-xxx",
            "no such folder: 'output/yi-6b-chat/vx_xxx/checkpoint-xxx'",
        ),
        ("sft --model_type qwen-vl-chat --dataset coco-en", "images or sound"),
        (
            "sft --model_type yi-6b-chat --dataset long-alpaca-12k --sequence_parallel_size 2",
            "`sequence_parallel_size` is known but not supported by this version",
        ),
        (
            "sft --model_type llama3-8b-instruct --dataset ms-agent --tuner_backend unsloth --quantization_bit 4",
            "needs a Python with unsloth of its own, and there is no environment 'unsloth'",
        ),
        (
            "infer --ckpt_dir output/qwen-7b-chat/vx_xxx/checkpoint-xxx --eval_human true",
            "no such folder: 'output/qwen-7b-chat/vx_xxx/checkpoint-xxx'",
        ),
        (
            "infer --ckpt_dir output/qwen-7b-chat/vx_xxx/checkpoint-xxx --merge_lora_and_save true",
            "no such folder: 'output/qwen-7b-chat/vx_xxx/checkpoint-xxx'",
        ),
        (
            "export --model_type qwen-7b-chat --quant_method awq --quant_bits 4 --dataset ms-bench-mini",
            "with `cmd: export` in the suite",
        ),
        (
            "export --model_type qwen-7b-chat --quant_method gptq --quant_bits 4 --dataset pileval",
            "with `cmd: export` in the suite",
        ),
        (
            "export-model --model_type qwen-7b-chat --quant_method awq --quant_bits 4 --dataset ms-bench-mini",
            CANNOT_LOAD,
        ),
        ("export-model --model_type yi-6b-chat --quant_method gptq --quant_bits 4 --dataset pileval", PLANNED),
        ("eval --model_type qwen-7b-chat --eval_dataset gsm8k arc ceval", CANNOT_LOAD),
        ("eval --model_type yi-6b-chat --eval_dataset gsm8k arc ceval", PLANNED),
        ("eval --ckpt_dir output/qwen-7b-chat/vx_xxx/checkpoint-xxx", "no training of hpcbench"),
    ],
)
def test_a_command_is_planned_or_refused(typed: str, outcome: str) -> None:
    check(typed, outcome)


LM_EVAL = "--tasks gsm8k --device cuda:0 --batch_size auto --output_path ./eval_results"


@pytest.mark.parametrize(
    "typed",
    [
        f'eval --model hf --model_args pretrained="/root/autodl-tmp/model/Qwen2.5-1.5B" {LM_EVAL}',
        f'eval --model hf --model_args pretrained="/root/autodl-tmp/model/Qwen2.5-1.5B" {LM_EVAL} --num_fewshot 1',
        rf"eval --model hf --model_args 'pretrained=D:\model\Qwen2.5-1.5B' {LM_EVAL} --trust_remote_code",
    ],
)
def test_the_command_line_of_lm_eval_is_refused_with_the_names_that_it_has_here(typed: str) -> None:
    ended = check(typed, "--model_args: is lm_eval's name\n  hint: name the model's folder or id with --model")
    for option in ("eval_dataset", "eval_batch_size", "output_dir"):
        assert f"  hint: write --{option}\n" in ended.err
    assert ("  hint: write --eval_num_fewshot\n" in ended.err) == ("num_fewshot" in typed)


# The rows of the table `Tuners`, by the names that its report gives them.
TUNERS: Mapping[str, Mapping[str, object]] = {
    "adalora": {"sft_type": "adalora"},
    "adapter": {"sft_type": "adapter"},
    "dora": {"use_dora": True},
    "full+galore128": {"sft_type": "full", "use_galore": "true", "galore_rank": 128},
    "full+galore32": {"sft_type": "full", "use_galore": "true", "galore_rank": 32},
    "full+galore64": {"sft_type": "full", "use_galore": "true", "galore_rank": 64},
    "full+galore_emb": {"sft_type": "full", "use_galore": "true", "galore_rank": 128, "galore_with_embedding": "true"},
    "full+galore_perparam": {"sft_type": "full", "use_galore": "true", "galore_optim_per_parameter": "true"},
    "full+galore128+quantize": {"sft_type": "full", "use_galore": "true", "galore_quantization": "true"},
    "full+no_mix": {"sft_type": "full", "train_dataset_mix_ratio": 0.0},
    "full": {"sft_type": "full"},
    "llamapro": {"sft_type": "llamapro", "llamapro_num_new_blocks": "4"},
    "lora+": {"lora_lr_ratio": 16.0},
    "lora+neftune": {"neftune_noise_alpha": 15.0},
    "lora+no_mix": {"train_dataset_mix_ratio": 0.0},
    "lora": {},
    "rslora": {"use_rslora": True},
    "full+lisa_2": {"sft_type": "full", "lisa_activated_layers": 2, "lisa_step_interval": 20},
    "full+lisa_4": {"sft_type": "full", "lisa_activated_layers": 4, "lisa_step_interval": 20},
    "lora+packing": {"packing": True},
    "lora+packing+lazytokenize": {"packing": True, "lazy_tokenize": True},
}
LORA_ROWS = {"dora", "lora+", "lora+neftune", "lora+no_mix", "lora", "rslora"}


def write_suite(file: Path, **changes: object) -> None:
    """Write the example of SWIFT's experiments with another model, and these other keys."""
    suite = json.loads((GOLDEN / "config" / "seed_example.json").read_text(encoding="utf-8"))
    suite["args"] |= {"model_type": "yi-6b-chat"}
    file.write_text(json.dumps(suite | changes), encoding="utf-8")


def test_the_example_of_an_experiment_is_refused_for_its_model_and_planned_with_another(tmp_path: Path) -> None:
    refused = run_here("plan", str(GOLDEN / "config" / "seed_example.json"), "--cluster", "local")
    assert refused.code == 2
    assert f"qwen-7b-chat {CANNOT_LOAD}" in refused.err
    write_suite(tmp_path / "suite.json")
    planned = run_here("plan", "suite.json", "--cluster", "local", "--save_dir", "./experiment")
    assert planned.code == 0, planned.err
    assert "8 jobs in " in planned.out
    said = planned.out + planned.err
    assert "not checked: ms-agent: on a hub; jobs read it from the cache that `hpcbench prefetch` fills\n" in said


def test_each_row_of_the_tuners_table_is_planned(tmp_path: Path) -> None:
    lora = {"sft_type": "lora", "lora_target_modules": "ALL", "lora_rank": 8, "lora_alpha": 32}
    rows = [
        {"name": name, "args": {**(lora if name in LORA_ROWS or "packing" in name else {}), **args}}
        for name, args in TUNERS.items()
    ]
    rows += [
        {"name": "lora+packing+ddp", "args": {**lora, "packing": True}, "requirements": {"gpu": "2", "ddp": "2"}},
        {"name": "yi-6b-chat-eval", "cmd": "eval"},
    ]
    write_suite(tmp_path / "tuners.json", experiment=rows, env={}, info={})
    planned = run_here("plan", "tuners.json", "--cluster", "local")
    assert planned.code == 0, planned.err
    assert f"{4 * len(rows) - 1} jobs in " in planned.out


def test_the_runner_of_experiments_is_typed_as_submit(tmp_path: Path) -> None:
    write_suite(tmp_path / "suite.json")
    check("exp.py --save_dir './experiment' --config suite.json", "no such verb\n  hint: hpcbench submit SUITE")
    check("submit --save_dir './experiment' --config suite.json", "suites are named without an option")
    check("generate_report.py", "no such verb\n  hint: hpcbench collect")
