"""axolotl's `axolotl train FILE`: rows as dialogues, chat template of the tokenizer, the last answer learned.

In: a run. Out: entries of axolotl's file by the names of its 0.19 schema, which are not all transformers' own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from hpcbench.frameworks import trainer_settings
from hpcbench.frameworks.attention import attention_of
from hpcbench.frameworks.recipe import TRAIN_FILE, VALIDATION_FILE, Message, Recipe, Refusal, Run, Settings
from hpcbench.schemas.arguments import SftArgs

LEARNED: Final = "learned"
"""Key of a message: whether its tokens are in the loss."""
_RENAMED: Final = {
    "per_device_train_batch_size": "micro_batch_size",
    "per_device_eval_batch_size": "eval_batch_size",
    "num_train_epochs": "num_epochs",
    "lr_scheduler_type": "lr_scheduler",
    "optim": "optimizer",
}
"""transformers' names -> axolotl's."""
_UNKNOWN: Final = (
    *("full_determinism", "use_cpu", "report_to", "disable_tqdm", "ddp_backend", "dataloader_persistent_workers"),
)
"""Names of transformers that axolotl's file does not have."""


def make_settings(run: Run) -> Settings:
    """Return the entries of axolotl's file."""
    args = run.args
    settings: Settings = {
        "base_model": str(run.model),
        "trust_remote_code": args.trust_remote_code,
        "chat_template": "tokenizer_default",
        "datasets": [_dataset(run.rows / TRAIN_FILE)],
        "val_set_size": 0.0,
        "dataset_prepared_path": str(run.rows / "prepared"),
        "dataset_num_proc": args.preprocess_num_proc,
        "sequence_len": args.max_length,
        "excess_length_strategy": "drop" if args.truncation_strategy == "delete" else "truncate",
        "sample_packing": False,
        "pad_to_sequence_len": False,
    }
    for name, value in trainer_settings.trainer_settings(run).items():
        if name not in _UNKNOWN:
            settings[_RENAMED.get(name, name)] = value
    if args.max_steps <= 0:
        del settings["max_steps"]
    if args.gradient_checkpointing:
        settings["gradient_checkpointing_kwargs"] = {"use_reentrant": False}
    if run.evaluates:
        settings["test_datasets"] = [_dataset(run.rows / VALIDATION_FILE)]
    if (attention := attention_of(args)) is not None:
        settings["attn_implementation"] = attention
    if args.sft_type == "lora":
        settings |= _adapter(run)
    if args.quantization_bit == 8:  # noqa: PLR2004  # bits
        settings["load_in_8bit"] = True
    elif args.quantization_bit:
        settings["load_in_4bit"] = True
    return settings


def _dataset(path: Path) -> dict[str, Any]:
    return {
        "path": str(path),
        "ds_type": "json",
        "split": "train",
        "type": "chat_template",
        "field_messages": "messages",
        "message_property_mappings": {"role": "role", "content": "content"},
        "message_field_training": LEARNED,
    }


def _adapter(run: Run) -> Settings:
    args = run.args
    settings: Settings = {
        "adapter": "qlora" if args.quantization_bit == 4 else "lora",  # noqa: PLR2004  # bits
        "lora_r": args.lora_rank,
        "lora_alpha": int(args.lora_alpha),
        "lora_dropout": args.lora_dropout_p,
        "peft_use_rslora": args.use_rslora,
        "peft_use_dora": args.use_dora,
    }
    if run.targets is None:
        settings["lora_target_linear"] = True
    else:
        settings["lora_target_modules"] = list(run.targets)
    if args.lora_lr_ratio is not None:
        settings["loraplus_lr_ratio"] = args.lora_lr_ratio
    return settings


def _refusals(args: SftArgs) -> Iterator[Refusal]:
    if args.lora_alpha != int(args.lora_alpha):
        yield Refusal(argument="lora_alpha", why="takes whole numbers alone")
    if args.truncation_strategy == "split":
        yield Refusal(argument="truncation_strategy", why="cuts no rows into pieces")


def _command(run: Run, programs: Path, file: str) -> Sequence[str]:
    program = [str(programs / "axolotl"), "train", file]
    if run.num_ranks == 1:
        return [*program, "--launcher", "python"]
    return [*program, "--launcher", "torchrun", "--", "--standalone", f"--nproc-per-node={run.num_ranks}"]


def _make_row(messages: Sequence[Message]) -> Settings:
    last = len(messages) - 1
    return {"messages": [{**message, LEARNED: index == last} for index, message in enumerate(messages)]}


RECIPE: Final = Recipe(
    name="axolotl",
    title="axolotl",
    honored=trainer_settings.HONORED.difference(
        {"full_determinism", "ddp_backend", "dataloader_persistent_workers", "only_save_model"}
    )
    | {
        *("trust_remote_code", "attn_impl", "use_flash_attn", "max_length", "truncation_strategy"),
        *("preprocess_num_proc", "lora_rank", "lora_alpha", "lora_dropout_p", "lora_target_modules"),
        *("lora_lr_ratio", "use_rslora", "use_dora", "quantization_bit", "quant_method", "tuner_backend"),
    },
    settings=make_settings,
    find_refusals=_refusals,
    command=_command,
    make_row=_make_row,
    needs_gpu=True,
    deviations={"truncation_strategy": "axolotl cuts the end of a longer row"},
)
