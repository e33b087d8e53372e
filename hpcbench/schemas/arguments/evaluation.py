"""Arguments of the evaluation of one dataset."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from hpcbench.schemas.arguments.base import Arguments, NonNegativeInt, PositiveInt

EVAL_LOSS_ONLY = "eval_loss"
"""Name of the eval job of a baseline that asks for its eval_loss and for no dataset."""
NOT_IN_SCORES = frozenset({"together"})
"""Arguments of evals that change nothing in the scores."""


class EvalArgs(Arguments):
    """How one eval dataset is evaluated by lm-eval."""

    task: str | None = None
    """lm-eval task or group, where the eval dataset has another name: an entry {name: gsm8k_1shot, task: gsm8k,
    num_fewshot: 1} of eval_dataset. None is the eval dataset's own name."""
    num_fewshot: NonNegativeInt | None = None
    """Solved examples before each question; None takes the eval task's own number."""
    limit: PositiveInt | None = None
    """First N documents per eval task; the record is marked debug and the report says so."""
    batch_size: PositiveInt | Literal["auto"] = 8
    """Prompts per forward pass. `auto` takes the largest of 64, 32, 16, ... that fits with the longest prompt, settled
    once before the run and recorded; on the CPU, where more is not faster, it is 8."""
    max_length: PositiveInt | None = None
    """Longest prompt plus answer in tokens; None is what the model allows."""
    apply_chat_template: bool | None = None
    """Whether prompts are chats; None applies the template where the tokenizer (or template_type) has one and
    the training used it, which `cmd: pt` does not."""
    fewshot_as_multiturn: bool = False
    """Write solved examples as earlier rounds of the chat."""
    gen_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Passed to generate, for example {max_gen_toks: 64}."""
    include_path: tuple[str, ...] = ()
    """Folders with local task files."""
    local_data: dict[str, str] = Field(default_factory=dict)
    """Local files in place of the data that a task has on a hub: a file for the split that is evaluated, a folder or
    zip archive whose files say their split (C-Eval's official zip is one), or a mapping of the task's splits to files,
    with `{subset}` in place of a subset's name. JSON, JSON lines, CSV, parquet, arrow or text."""
    checkpoint: Literal["best", "last"] | None = None
    """Which checkpoint of the training is evaluated; None is best where there is a validation split, else last."""
    merge_lora: bool = False
    """Merge the adapter into the base before evaluating; faster generation, same answers up to rounding."""
    eval_loss: bool = False
    """For baseline rows: also compute eval_loss on the validation split."""
    seed: int = 1234
    """Seed of all that is drawn, such as solved examples."""
    log_samples: bool = True
    """Keep every document's prompt and answer beside the record."""
    together: bool = False
    """Evaluate the eval datasets of an experiment in one job, one after the other, with the model loaded once. Each has
    a record, as without it. The time limit is for all of them; what it leaves out runs once the job is back from the
    queue, or with the next submit. Scores are the same, so what is done stays done."""
    command: tuple[str, ...] = ()
    """Program to run instead of lm-eval; it writes {"metric": number} to the file named by HPCBENCH_METRICS."""
