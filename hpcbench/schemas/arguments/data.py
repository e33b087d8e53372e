"""Arguments that say which rows there are, and how they become sequences."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hpcbench.schemas.arguments.base import Arguments, Fraction, NonNegativeFloat, PositiveInt, Words


class DataArgs(Arguments):
    """Which datasets, how they are split and sampled, and how rows become sequences."""

    dataset: Words = ()
    """Training datasets: catalog names, hub ids, files (jsonl, json, csv, tsv, txt, parquet, arrow), folders. NAME#500
    draws 500 rows of it, before the split; HF::ID and MS::ID name the hub, ID:SUBSET the subset."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Column of the datasets -> the name that it is read under, for example {question: query}."""
    val_dataset: Words = ()
    """Validation datasets; when given, nothing is split off `dataset`."""
    dataset_split_seed: int = 42
    """Seed of the split of each dataset into training and validation rows."""
    dataset_test_ratio: Fraction = 0.01
    """Part of each dataset that becomes validation; at least one row unless 0."""
    train_dataset_sample: int = 20000
    """Rows drawn from the training set after the split; -1 takes all."""
    val_dataset_sample: int | None = None
    """Rows drawn from the validation set; None or -1 takes all."""
    train_dataset_mix_ratio: NonNegativeFloat = 0.0
    """Rows of `train_dataset_mix_ds` mixed in, as a multiple of the training rows."""
    train_dataset_mix_ds: Words = ("ms-bench",)
    """Datasets to mix in, named as in `dataset`; their rows are used for training only."""
    dataset_info: str | None = None
    """Registry of datasets (dataset_info.json, or its folder); None takes the one beside the suite."""
    max_length: PositiveInt = 2048
    """Longest sample in tokens; with packing the length of a pack."""
    truncation_strategy: Literal["truncation_left", "delete", "split"] = "truncation_left"
    """Longer samples keep their last tokens (truncation_left), are dropped (delete) or, of texts as they are, cut into
    pieces (split), which `cmd: pt` does. Of pairs and judged answers truncation_left cuts the prompt's beginning."""
    plain_text: bool = False
    """Rows are texts to learn as they are, every token of them, without the chat template; `cmd: pt` sets it."""
    check_dataset_strategy: Literal["none", "discard", "error", "warning"] = "none"
    """What happens to rows that cannot be trained on: discard and warning leave them out (warning logs each one), error
    and none end the job."""
    preprocess_num_proc: PositiveInt = 1
    """Processes that tokenize before training."""
    packing: bool = False
    """Put several samples into one sequence of at most max_length tokens, none of which sees another; exact with sdpa,
    eager and flash attention. batch_size then counts packs."""
    packing_length: PositiveInt | None = None
    """Tokens of a pack; None is max_length."""
    packing_strategy: Literal["binpack", "sequential"] = "binpack"
    """binpack fills packs best; sequential puts rows into them in their order."""
    lazy_tokenize: bool = False
    """Tokenize training samples when they are needed instead of before training."""
    test_oom_error: bool = False
    """Train on the longest samples first and unshuffled, so that running out of memory shows at once."""
    use_loss_scale: bool = False
    """Weight the loss of agent dialogues by their parts, as `agent_template` says."""
    agent_template: str = "react"
    """How tool calls and results are written, by the name of the catalog's entry."""
    loss_on_all_rounds: bool = False
    """Train on every answer of a dialogue instead of the last one."""
    loss_on_prompt: bool = False
    """Train on every token, prompts included."""
