"""LLaMA-Factory's `llamafactory-cli train FILE`: rows as dialogues of a registry, chat template of the tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from hpcbench.frameworks import trainer_settings
from hpcbench.frameworks.attention import attention_of
from hpcbench.frameworks.recipe import TRAIN_FILE, VALIDATION_FILE, Message, Recipe, Refusal, Run, Settings
from hpcbench.schemas.arguments import SftArgs

ATTENTION: Final = {"eager": "disabled", "sdpa": "sdpa", "flash_attention_2": "fa2", "flash_attention_3": "fa3"}
"""transformers' names -> LLaMA-Factory's."""
_OF_MESSAGES: Final = {
    "formatting": "sharegpt",
    "columns": {"messages": "messages"},
    "tags": {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
        "system_tag": "system",
    },
}
"""How a registry describes OpenAI messages."""


def make_settings(run: Run) -> Settings:
    """Return the entries of a training file of LLaMA-Factory."""
    args = run.args
    settings: Settings = {
        "stage": "sft",
        "do_train": True,
        "model_name_or_path": str(run.model),
        "trust_remote_code": args.trust_remote_code,
        "finetuning_type": args.sft_type,
        "dataset_dir": str(run.rows),
        "dataset": "train",
        "cutoff_len": args.max_length,
        # hpcbench learns the last answer of a dialogue unless it is told otherwise.
        "mask_history": not args.loss_on_all_rounds,
        "packing": False,
        "preprocessing_num_workers": args.preprocess_num_proc,
        "overwrite_output_dir": True,
        "plot_loss": False,
        "include_num_input_tokens_seen": "non_padding",
        **trainer_settings.trainer_settings(run),
    }
    # LLaMA-Factory switches it on itself, unless it is told not to.
    settings["disable_gradient_checkpointing"] = not settings.pop("gradient_checkpointing")
    settings["use_reentrant_gc"] = False
    if run.evaluates:
        settings["eval_dataset"] = "validation"
    if (attention := attention_of(args)) is not None:
        settings["flash_attn"] = ATTENTION[attention]
    if args.sft_type == "lora":
        settings |= _adapter(run)
    elif args.dtype == "bf16" and run.device == "cuda":
        # Without it LLaMA-Factory keeps fp32 master weights, which hpcbench does not.
        settings |= {"pure_bf16": True, "bf16": False}
    if args.quantization_bit:
        settings |= {
            "quantization_method": "bnb",
            "quantization_bit": args.quantization_bit,
            "quantization_type": args.bnb_4bit_quant_type,
            "double_quantization": args.bnb_4bit_use_double_quant,
        }
    return settings


def _adapter(run: Run) -> Settings:
    args = run.args
    settings: Settings = {
        "lora_rank": args.lora_rank,
        "lora_alpha": int(args.lora_alpha),
        "lora_dropout": args.lora_dropout_p,
        "lora_target": "all" if run.targets is None else ",".join(run.targets),
        "use_rslora": args.use_rslora,
        "use_dora": args.use_dora,
    }
    if args.lora_lr_ratio is not None:
        settings["loraplus_lr_ratio"] = args.lora_lr_ratio
    return settings


def _refusals(args: SftArgs) -> Iterator[Refusal]:
    if args.lora_alpha != int(args.lora_alpha):
        yield Refusal(argument="lora_alpha", why="takes whole numbers alone")
    if args.attn_impl not in {None, *ATTENTION}:
        yield Refusal(
            argument="attn_impl", why=f"has no word for {args.attn_impl}", hint=f"take {', '.join(ATTENTION)}"
        )
    if args.truncation_strategy != "truncation_left":
        yield Refusal(argument="truncation_strategy", why="drops no rows for their length")


def _command(_run: Run, programs: Path, file: str) -> Sequence[str]:
    return [str(programs / "llamafactory-cli"), "train", file]


def _make_row(messages: Sequence[Message]) -> Settings:
    return {"messages": list(messages)}


def _files(run: Run) -> Mapping[str, str]:
    registry = {"train": {"file_name": TRAIN_FILE, **_OF_MESSAGES}}
    if run.num_val_rows:
        registry["validation"] = {"file_name": VALIDATION_FILE, **_OF_MESSAGES}
    return {"dataset_info.json": json.dumps(registry, indent=2) + "\n"}


def _environment(run: Run) -> Mapping[str, str]:
    # Its check of versions refuses newer patch releases than it knows; the pinned list was tried.
    found = {"DISABLE_VERSION_CHECK": "1"}
    if run.num_ranks > 1:
        found |= {"FORCE_TORCHRUN": "1", "NNODES": "1", "NPROC_PER_NODE": str(run.num_ranks)}
    return found


RECIPE: Final = Recipe(
    name="llamafactory",
    title="LLaMA-Factory",
    honored=trainer_settings.HONORED
    | {
        *("trust_remote_code", "attn_impl", "use_flash_attn", "max_length", "truncation_strategy"),
        *("preprocess_num_proc", "loss_on_all_rounds", "lora_rank", "lora_alpha", "lora_dropout_p"),
        *("lora_target_modules", "lora_lr_ratio", "use_rslora", "use_dora", "quantization_bit", "quant_method"),
        *("bnb_4bit_quant_type", "bnb_4bit_use_double_quant", "tuner_backend"),
    },
    settings=make_settings,
    find_refusals=_refusals,
    command=_command,
    make_row=_make_row,
    files=_files,
    environment=_environment,
    deviations={"truncation_strategy": "LLaMA-Factory cuts prompt and answer of a longer row, each in proportion"},
)
