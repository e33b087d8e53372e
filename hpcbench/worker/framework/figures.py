"""A finished training of another framework as `TrainMetrics`, and its course as `history.jsonl`.

In: what it logged, what it was given, what was measured from outside. Out: figures; what it did not say is null with
its reason. Times are the framework's own: its training loop without its evaluations, with its saving.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

from hpcbench.errors import WorkerError
from hpcbench.frameworks.logs import Logs, find_checkpoints
from hpcbench.frameworks.recipe import Recipe, Run, WrittenRows
from hpcbench.model_files.weights import SAFETENSORS, read_shapes, read_weights
from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.metrics import GIB, Parameters, RankMemory, TrainMetrics
from hpcbench.storage.paths import JobPaths
from hpcbench.worker.progress_file import History

MAX_DIFFERENCE: Final = 0.03
"""Part by which mean lengths of rows may differ: those of an unfinished epoch are a sample."""
ADAPTER: Final = "adapter_model.safetensors"
_ONLY_INSIDE: Final = (
    *("mfu", "flops_per_token", "step_time_median_s", "steady_samples_per_second", "time_to_first_step_s"),
    "first_eval_loss",
)
"""Figures that hpcbench takes inside its own training process."""
_NAMES: Final = ("loss", "learning_rate", "grad_norm", "epoch", "eval_loss")
"""Figures of a log entry that histories have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was seen of the framework's process from outside."""

    peak_rss_bytes: int
    """Largest resident set of one of its processes."""
    wall_time_s: float
    """From its start to its end, imports and loading included."""


def count_base(model: Path) -> int:
    """Return the parameters of a model folder.

    Raises:
        WorkerError: only the weights themselves could tell.
    """
    shapes = read_weights(model).shapes
    if not shapes:
        raise WorkerError(
            f"{model}: its parameters cannot be counted without loading its weights",
            hint=f"save it as {SAFETENSORS}, or take cmd: sft",
        )
    return sum(prod(shape) for shape in shapes.values())


def write_history(history: History, logs: Logs) -> None:
    """Write the losses by step."""
    for entry in (*logs.steps, *logs.evals):
        history.append({"step": int(entry["step"]), **{name: entry[name] for name in _NAMES if name in entry}})


def assemble_metrics(
    recipe: Recipe,
    run: Run,
    job: JobPaths,
    *,
    rows: WrittenRows,
    logs: Logs,
    measured: Measured,
    num_base: int,
    extra: Mapping[str, Any],
    resumed_from: int = 0,
) -> TrainMetrics:
    """Return the record's training part.

    `extra` are the framework's own settings that the suite names. Times, the mean loss and TRL's count of tokens start
    anew with each attempt: of one that resumed at a step the speed is that of its own steps, and sums are null.
    """
    args = run.args
    checkpoints = find_checkpoints(run.output)
    num_samples = _count_samples(run, logs)
    num_tokens = None if resumed_from and logs.counts_tokens_anew else logs.num_tokens
    own_part = 1 - resumed_from / max(logs.num_steps, 1)
    train_time_s = _subtract(logs.summary.get("train_runtime"), logs.eval_time_s(after=resumed_from))
    per_second = None if not train_time_s else own_part * num_samples / train_time_s
    tokens_per_second = None if not train_time_s or num_tokens is None else own_part * num_tokens / train_time_s
    best = min(logs.evals, key=lambda entry: entry["eval_loss"], default=None)
    best_step = None if best is None else int(best["step"])
    last_step = max(checkpoints, default=None)
    names = {step: str(folder.relative_to(job.folder)) for step, folder in checkpoints.items()}
    keeps = args.save_strategy != "no"
    unknown = {
        **dict.fromkeys(_ONLY_INSIDE, f"not measured inside {recipe.title}"),
        **_explain(recipe, args, rows=rows, logs=logs, best_step=best_step, kept=set(checkpoints)),
        "train_time_s": f"the training loop of {recipe.title} without its evaluations, with its saving; "
        f"its process took {measured.wall_time_s:.1f} s",
        **_explain_resumed(recipe, logs, resumed_from),
    }
    return TrainMetrics(
        parameters=_count_parameters(args, checkpoints.get(last_step or 0), num_base),
        memory=_memory(run, measured),
        train_loss=None if resumed_from else logs.summary.get("train_loss"),
        eval_loss=None if best is None else best["eval_loss"],
        last_eval_loss=logs.evals[-1]["eval_loss"] if logs.evals else None,
        num_steps=logs.num_steps,
        num_epochs=logs.num_epochs,
        num_train_rows=rows.num_train,
        num_val_rows=rows.num_val,
        num_samples=num_samples,
        num_tokens=num_tokens,
        train_time_s=None if resumed_from else train_time_s,
        samples_per_second=per_second,
        tokens_per_second=tokens_per_second,
        tokens_per_second_per_device=None if tokens_per_second is None else tokens_per_second / run.num_ranks,
        best_checkpoint=names.get(best_step or 0) if keeps else None,
        best_step=best_step,
        last_checkpoint=names.get(last_step or 0) if keeps else None,
        last_step=logs.num_steps,
        tokens=rows.tokens,
        template=_template(recipe, rows, extra),
        target_modules=run.targets or (),
        global_batch_size=args.batch_size * args.gradient_accumulation_steps * run.num_ranks,
        unknown=unknown,
        deviations=_deviations(recipe, rows, logs.mean_row_tokens, num_tokens, num_samples),
    )


def _count_samples(run: Run, logs: Logs) -> int:
    """Return the source samples that were trained on: whole epochs, then the batches of the last one."""
    global_batch = run.args.batch_size * run.args.gradient_accumulation_steps * run.num_ranks
    if logs.num_epochs is None:
        return min(logs.num_steps * global_batch, run.num_train_rows)
    return min(round(logs.num_epochs * run.num_train_rows), logs.num_steps * global_batch)


def _count_parameters(args: SftArgs, checkpoint: Path | None, num_base: int) -> Parameters:
    if args.sft_type == "full":
        return Parameters(trainable=num_base, total=num_base)
    shapes = {} if checkpoint is None else read_shapes(checkpoint / ADAPTER)
    trainable = sum(prod(shape) for shape in shapes.values())
    return Parameters(trainable=trainable, total=num_base + trainable)


def _memory(run: Run, measured: Measured) -> tuple[RankMemory, ...]:
    """Return the memory of the rank where it has no GPU; that of GPUs is what NVML saw, which the supervisor keeps."""
    if run.device == "cuda" or run.num_ranks > 1:
        return ()
    return (RankMemory(rank=0, host_rss_gib=measured.peak_rss_bytes / GIB),)


def _explain(
    recipe: Recipe, args: SftArgs, *, rows: WrittenRows, logs: Logs, best_step: int | None, kept: set[int]
) -> Mapping[str, str]:
    """Return why figures that the framework could have given are missing."""
    found: dict[str, str] = {}
    missing = f"{recipe.title} did not log it"
    if logs.num_tokens is None:
        found |= dict.fromkeys(("num_tokens", "tokens_per_second"), missing)
    if "train_loss" not in logs.summary:
        found["train_loss"] = missing
    if args.save_strategy == "no":
        found["last_checkpoint"] = "save_strategy is no"
    if not logs.evals:
        why = "there are no validation rows" if not rows.num_val else f"{recipe.title} logged no evaluation"
        why = "eval_strategy is no" if args.eval_strategy == "no" else why
        found |= dict.fromkeys(("eval_loss", "last_eval_loss", "best_checkpoint"), why)
    elif best_step not in kept:
        found["best_checkpoint"] = f"{recipe.title} kept no checkpoint of step {best_step}"
    if rows.notes:
        found["num_train_rows"] = "; ".join(rows.notes)
    return found


def _explain_resumed(recipe: Recipe, logs: Logs, resumed_from: int) -> Mapping[str, str]:
    """Return why figures of all attempts are missing, of a training that went on from a checkpoint."""
    if not resumed_from:
        return {}
    names = ["train_time_s", "train_loss", *(("num_tokens", "tokens_per_second") if logs.counts_tokens_anew else ())]
    return dict.fromkeys(
        names, f"{recipe.title} says it of its last attempt alone, which resumed at step {resumed_from}"
    )


def _template(recipe: Recipe, rows: WrittenRows, extra: Mapping[str, Any]) -> str:
    """Return whose template wrote the prompts."""
    if "template" in extra:
        return f"{extra['template']} of {recipe.title}"
    return f"{recipe.title}'s of the model's type" if recipe.has_own_template else rows.template


def _deviations(
    recipe: Recipe, rows: WrittenRows, mean: float | None, num_tokens: int | None, num_samples: int
) -> dict[str, str]:
    """Return what the framework did otherwise to these rows."""
    was_cut = rows.tokens is not None and rows.tokens.num_truncated > 0
    found = {name: why for name, why in recipe.deviations.items() if name != "truncation_strategy" or was_cut}
    if mean is None and num_tokens is not None and num_samples:
        mean = num_tokens / num_samples
    usual = None if rows.tokens is None else rows.tokens.mean
    if mean is not None and usual is not None and abs(mean - usual) > MAX_DIFFERENCE * usual:
        found["template_type"] = (
            f"{recipe.title} wrote rows of {mean:.1f} tokens on average, the tokenizer's chat template, by which they "
            f"are evaluated, {usual:.1f}"
        )
    return found


def _subtract(value: float | None, part: float) -> float | None:
    return None if value is None else max(0.0, value - part)
