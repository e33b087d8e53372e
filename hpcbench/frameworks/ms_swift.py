"""ms-swift's `swift sft FILE`: rows as messages, the template that belongs to the model's type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from hpcbench.frameworks import trainer_settings
from hpcbench.frameworks.attention import attention_of
from hpcbench.frameworks.recipe import TRAIN_FILE, VALIDATION_FILE, Message, Recipe, Refusal, Run, Settings
from hpcbench.schemas.arguments import TORCH_DTYPES, SftArgs

TRUNCATIONS: Final = {"truncation_left": "left", "delete": "delete"}
"""hpcbench's words -> ms-swift's."""


def make_settings(run: Run) -> Settings:
    """Return the arguments of `swift sft` by name."""
    args = run.args
    settings: Settings = {
        "model": str(run.model),
        "tuner_type": args.sft_type,
        "torch_dtype": TORCH_DTYPES[args.dtype],
        "dataset": [str(run.rows / TRAIN_FILE)],
        "split_dataset_ratio": 0,
        "max_length": args.max_length,
        "truncation_strategy": TRUNCATIONS[args.truncation_strategy],
        # hpcbench learns the last answer of a dialogue unless it is told otherwise.
        "loss_scale": "default" if args.loss_on_all_rounds else "last_round",
        "packing": False,
        "dataset_num_proc": args.preprocess_num_proc,
        "add_version": False,
        **trainer_settings.trainer_settings(run),
    }
    if run.evaluates:
        settings["val_dataset"] = [str(run.rows / VALIDATION_FILE)]
    if (attention := attention_of(args)) is not None:
        settings["attn_impl"] = attention
    if args.sft_type == "lora":
        settings |= _adapter(run)
    if args.quantization_bit:
        settings |= {
            "quant_method": "bnb",
            "quant_bits": args.quantization_bit,
            "bnb_4bit_quant_type": args.bnb_4bit_quant_type,
            "bnb_4bit_use_double_quant": args.bnb_4bit_use_double_quant,
        }
    return settings


def _adapter(run: Run) -> Settings:
    args = run.args
    settings: Settings = {
        "lora_rank": args.lora_rank,
        "lora_alpha": int(args.lora_alpha) if args.lora_alpha == int(args.lora_alpha) else args.lora_alpha,
        "lora_dropout": args.lora_dropout_p,
        "target_modules": ["all-linear"] if run.targets is None else list(run.targets),
        "use_rslora": args.use_rslora,
        "use_dora": args.use_dora,
    }
    if args.lora_lr_ratio is not None:
        settings["lorap_lr_ratio"] = args.lora_lr_ratio
    return settings


def _refusals(args: SftArgs) -> Iterator[Refusal]:
    if args.truncation_strategy not in TRUNCATIONS:
        yield Refusal(argument="truncation_strategy", why="cuts no rows into pieces")


def _command(_run: Run, programs: Path, file: str) -> Sequence[str]:
    return [str(programs / "swift"), "sft", file]


def _make_row(messages: Sequence[Message]) -> Settings:
    return {"messages": list(messages)}


def _environment(run: Run) -> Mapping[str, str]:
    # Without it every local folder is looked up on ModelScope first.
    found = {"USE_HF": "1"}
    return found | ({"NPROC_PER_NODE": str(run.num_ranks)} if run.num_ranks > 1 else {})


RECIPE: Final = Recipe(
    name="ms_swift",
    title="ms-swift",
    honored=trainer_settings.HONORED
    | {
        *("attn_impl", "use_flash_attn", "max_length", "truncation_strategy", "preprocess_num_proc"),
        *("loss_on_all_rounds", "lora_rank", "lora_alpha", "lora_dropout_p", "lora_target_modules"),
        *("lora_lr_ratio", "use_rslora", "use_dora", "quantization_bit", "quant_method", "bnb_4bit_quant_type"),
        *("bnb_4bit_use_double_quant", "tuner_backend"),
    },
    settings=make_settings,
    find_refusals=_refusals,
    command=_command,
    make_row=_make_row,
    environment=_environment,
    logs=("logging.jsonl",),
    # Its `template_backend: jinja`, which takes the tokenizer's, puts loss on prompts too (4.6.0).
    has_own_template=True,
)
