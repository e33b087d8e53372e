"""TRL's `trl sft --config FILE`: rows of prompt and completion, whose completion alone is learned."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from hpcbench.frameworks import trainer_settings
from hpcbench.frameworks.attention import attention_of
from hpcbench.frameworks.recipe import Message, Recipe, Refusal, Run, Settings
from hpcbench.schemas.arguments import TORCH_DTYPES, SftArgs

LAUNCH_FILE: Final = "accelerate.yaml"  # not .json: the folder is the dataset
ALL_LINEAR: Final = "all-linear"
"""peft's word for every linear layer but the head."""


def make_settings(run: Run) -> Settings:
    """Return the fields of TRL's SFTConfig, ModelConfig and ScriptArguments."""
    args = run.args
    settings: Settings = {
        "model_name_or_path": str(run.model),
        "trust_remote_code": args.trust_remote_code,
        # torch's GradScaler refuses to unscale gradients in fp16, as for hpcbench's own trainings.
        "dtype": TORCH_DTYPES["fp32" if args.sft_type == "full" and args.dtype == "fp16" else args.dtype],
        "dataset_name": str(run.rows),
        "dataset_train_split": "train",
        "dataset_test_split": "validation",
        "max_length": args.max_length,
        # The end of a long row is its answer.
        "truncation_mode": "keep_end",
        "completion_only_loss": True,
        "packing": False,
        **trainer_settings.trainer_settings(run),
    }
    if (attention := attention_of(args)) is not None:
        settings["attn_implementation"] = attention
    if args.preprocess_num_proc > 1:
        settings["dataset_num_proc"] = args.preprocess_num_proc
    if args.sft_type == "lora":
        settings |= _adapter(run)
    if args.quantization_bit:
        settings[f"load_in_{args.quantization_bit}bit"] = True
        settings["bnb_4bit_quant_type"] = args.bnb_4bit_quant_type
        settings["use_bnb_nested_quant"] = args.bnb_4bit_use_double_quant
    return settings


def _adapter(run: Run) -> Settings:
    args = run.args
    return {
        "use_peft": True,
        "lora_r": args.lora_rank,
        "lora_alpha": int(args.lora_alpha),
        "lora_dropout": args.lora_dropout_p,
        "lora_target_modules": ALL_LINEAR if run.targets is None else list(run.targets),
        "use_rslora": args.use_rslora,
        "use_dora": args.use_dora,
    }


def _refusals(args: SftArgs) -> Iterator[Refusal]:
    if args.lora_alpha != int(args.lora_alpha):
        yield Refusal(argument="lora_alpha", why="takes whole numbers alone")
    if args.truncation_strategy != "truncation_left":
        yield Refusal(argument="truncation_strategy", why="drops no rows for their length")


def _command(run: Run, programs: Path, file: str) -> Sequence[str]:
    # `trl` starts accelerate, which would take all GPUs of the node.
    launch = ["--accelerate_config", str(run.rows / LAUNCH_FILE), "--num_processes", str(run.num_ranks)]
    return [str(programs / "trl"), "sft", "--config", file, *launch]


def _make_row(messages: Sequence[Message]) -> Settings:
    return {"prompt": list(messages[:-1]), "completion": [messages[-1]]}


def _files(run: Run) -> Mapping[str, str]:
    """Return accelerate's file: without it the one in the user's cache decides, of FSDP too, and the port is 29500."""
    launch = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "MULTI_GPU" if run.num_ranks > 1 else "NO",
        "mixed_precision": "no",  # the Trainer sets its own
        "num_machines": 1,
        "num_processes": run.num_ranks,
        "machine_rank": 0,
        "main_process_port": 0,  # a free one: two jobs may share a node
        "use_cpu": run.device == "cpu",
    }
    return {LAUNCH_FILE: json.dumps(launch, indent=2) + "\n"}


def _environment(run: Run) -> Mapping[str, str]:
    return {"ACCELERATE_USE_CPU": "true"} if run.device == "cpu" else {}


RECIPE: Final = Recipe(
    name="trl",
    title="TRL",
    honored=trainer_settings.HONORED
    | {
        *("trust_remote_code", "attn_impl", "use_flash_attn", "max_length", "truncation_strategy"),
        *("preprocess_num_proc", "lora_rank", "lora_alpha", "lora_dropout_p", "lora_target_modules", "use_rslora"),
        *("use_dora", "quantization_bit", "quant_method", "bnb_4bit_quant_type", "bnb_4bit_use_double_quant"),
        "tuner_backend",
    },
    settings=make_settings,
    find_refusals=_refusals,
    command=_command,
    make_row=_make_row,
    files=_files,
    environment=_environment,
)
