"""A finished training's figures: its history and model to `TrainMetrics`.

In: the histories of all attempts, the model, what the run kept. Out: a validated `TrainMetrics`; what is not known is
null with its reason. It measures nothing itself and writes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

import torch

from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.metrics import Parameters, RankMemory, Rewards, TokenStats, TrainMetrics
from hpcbench.schemas.record import PUSH_PENDING
from hpcbench.schemas.request import Device, JobRequest
from hpcbench.storage.paths import JobPaths
from hpcbench.worker.measure import formulas
from hpcbench.worker.measure.flops import count_flops_per_token, used_weights
from hpcbench.worker.measure.peak_flops import peak_flops
from hpcbench.worker.measure.rewards import MARGIN, REWARDS
from hpcbench.worker.models.quantization import describe, dtype_name, logical_size
from hpcbench.worker.packed_weights import named_weights
from hpcbench.worker.progress_file import list_attempts, read_eval_losses, read_figure, read_steps
from hpcbench.worker.train.checkpoints import Kept
from hpcbench.worker.train.token_data import TokenData


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What the figures need to know of a prepared model."""

    parameters: Parameters
    flops_per_token: float | None
    dtypes: Mapping[str, str]
    attention: str | None
    target_modules: tuple[str, ...] = ()
    """Names of the modules that have an adapter."""
    reference: str | None = None
    """Which model the answers of a training from preferences are compared with."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Remarks for the record, by the field that they explain."""
    deviations: Mapping[str, str] = field(default_factory=dict)
    """What ran otherwise than the request says, by argument."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run has at its end beside its history."""

    num_steps: int
    named_step: int | None
    """Step of the checkpoint that `resume_from_checkpoint` names."""
    num_epochs: float | None
    memory: tuple[RankMemory, ...]
    kept: Kept
    best_step: int | None
    time_to_first_step_s: float | None
    optimizer_dtype: str
    took_effect: Mapping[str, str] = field(default_factory=dict)
    """Arguments for speed, and what ran of them in the last attempt."""
    notes: Mapping[str, str] = field(default_factory=dict)


def inspect_model(
    model: Any,
    *,
    trains_base: bool,
    tokens: TokenStats | None,
    autocast: str,
    num_trained_at_once: int | None = None,  # None is all trainable weights
) -> ModelFacts:
    """Return a prepared model's parameter counts, dtypes and FLOPs per token."""
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    total = model.num_parameters() if trains_base else sum(map(logical_size, used_weights(model)))
    base_dtypes = {dtype_name(weight) for _, weight in named_weights(model) if trains_base or not weight.requires_grad}
    dtypes = {"weights": "+".join(sorted(base_dtypes)), "autocast": autocast}
    if not trains_base:
        dtypes["adapter"] = "+".join(sorted({dtype_name(p) for p in model.parameters() if p.requires_grad}))
    if (quantization := describe(model)) is not None:
        dtypes["quantization"] = quantization
    return ModelFacts(
        parameters=Parameters(trainable=trainable, total=total, trained_at_once=num_trained_at_once),
        flops_per_token=count_flops_per_token(model, tokens=tokens, num_trained_at_once=num_trained_at_once),
        dtypes=dtypes,
        attention=getattr(model.config, "_attn_implementation", None),
        # peft's list of the layers that it wrapped, by their full names.
        target_modules=tuple(
            dict.fromkeys(name.rsplit(".", 1)[-1] for name in getattr(model, "targeted_module_names", ()))
        ),
    )


def optimizer_dtype(optimizer: Any) -> str:
    """Return the dtype of the optimizer's state, or `none` before its first step."""
    state = getattr(optimizer, "state", {})
    dtypes = {
        dtype_name(value)
        for entry in state.values()
        for value in entry.values()
        if isinstance(value, torch.Tensor) and value.numel() > 1
    }
    return "+".join(sorted(dtypes)) if dtypes else "none"


def assemble_metrics(
    request: JobRequest, args: SftArgs, job: JobPaths, *, facts: ModelFacts, data: TokenData, outcome: Outcome
) -> TrainMetrics:
    """Return the record's training part, from the histories of all attempts."""
    steps = [step for step in read_steps(job, request.fingerprint) if step.step <= outcome.num_steps]
    evals = {s: v for s, v in read_eval_losses(job, request.fingerprint).items() if s <= outcome.num_steps}
    scores = read_figure(job, request.fingerprint, "rouge_l")
    resumed = [step for _, step in list_attempts(job, request.fingerprint)][1:]
    speed = formulas.summarise_speed(steps)
    ranks = request.resources.ddp
    num_devices = max(request.resources.gpu, ranks) if request.device == "cuda" else ranks
    train_loss = formulas.mean_loss(steps)
    steady_per_device = _divide(speed.steady_tokens_per_second, num_devices)
    peak, peak_reason = _find_peak(request.device, args)
    mfu = formulas.model_flops_utilisation(
        tokens_per_second_per_device=steady_per_device, flops_per_token=facts.flops_per_token, peak_flops=peak
    )
    eval_loss = evals.get(outcome.best_step) if outcome.best_step is not None else None
    unknown = {
        **facts.notes,
        **outcome.notes,
        **_explain(steps=steps, num_before=outcome.named_step or 0, num_steps=outcome.num_steps, train_loss=train_loss),
        **_explain_evals(args, len(data.validation), eval_loss),
        "first_eval_loss": "not asked for",
    }
    if mfu is None and "mfu" not in unknown:
        unknown["mfu"] = peak_reason or "the architecture's sizes are not known"
    if outcome.kept.best is None and outcome.kept.last is None:
        unknown["last_checkpoint"] = "save_strategy is no"
    if args.push_to_hub:
        unknown["pushed_to"] = PUSH_PENDING
    return TrainMetrics(
        **asdict(speed),
        parameters=facts.parameters,
        memory=outcome.memory,
        train_loss=train_loss,
        eval_loss=eval_loss,
        last_eval_loss=evals.get(outcome.num_steps),
        rewards=None if facts.reference is None else _read_rewards(request, job, facts.reference, outcome),
        rouge_l=None if outcome.best_step is None else scores.get(outcome.best_step),
        predictions=_find_predictions(job, outcome.best_step),
        num_steps=outcome.num_steps,
        num_epochs=outcome.num_epochs,
        num_train_rows=len(data.train),
        num_val_rows=len(data.validation),
        tokens_per_second_per_device=_divide(speed.tokens_per_second, num_devices),
        time_to_first_step_s=outcome.time_to_first_step_s,
        mfu=mfu,
        flops_per_token=facts.flops_per_token,
        best_checkpoint=outcome.kept.best,
        best_step=outcome.best_step,
        last_checkpoint=outcome.kept.last,
        last_step=outcome.num_steps,
        diverged_at_step=formulas.divergence(steps),
        resumed_from_steps=tuple(resumed),
        resumed_from=args.resume_from_checkpoint,
        resumed_from_step=outcome.named_step,
        tokens=data.stats,
        dtypes={**facts.dtypes, "optimizer": outcome.optimizer_dtype},
        attention=facts.attention,
        took_effect=dict(outcome.took_effect),
        template=data.template.description,
        target_modules=facts.target_modules,
        global_batch_size=args.batch_size * args.gradient_accumulation_steps * ranks,
        unknown=unknown,
        deviations=dict(facts.deviations),
    )


def _read_rewards(request: JobRequest, job: JobPaths, reference: str, outcome: Outcome) -> Rewards:
    """Return the rewards of the validation rows at the best step, and those of the training at its end and start."""
    found: dict[str, float | None] = {}
    for name in REWARDS:
        of_validation = read_figure(job, request.fingerprint, f"eval_{name}")
        found[name] = None if outcome.best_step is None else of_validation.get(outcome.best_step)
        of_training = read_figure(job, request.fingerprint, name)
        values = [value for step, value in of_training.items() if step <= outcome.num_steps and value is not None]
        tenth = math.ceil(len(values) / 10)
        found[f"train_{name}"] = fmean(values[-tenth:]) if values else None
        if name == MARGIN and values:
            found["first_reward_margin"] = fmean(values[:tenth])
    return Rewards(reference=reference, **found)


def _explain(
    *, steps: list[formulas.Step], num_before: int, num_steps: int, train_loss: float | None
) -> dict[str, str]:
    reasons: dict[str, str] = {}
    if missing := num_steps - num_before - len(steps):
        reasons["num_samples"] = f"{missing} of {num_steps} steps have no history; all figures leave them out"
    elif num_before:
        why = f"of steps {num_before + 1} to {num_steps}: those before were the training's that left the checkpoint"
        reasons |= dict.fromkeys(("num_samples", "train_loss"), why)
    if train_loss is None:
        bad = next((step.step for step in steps if step.loss is None), None)
        reasons["train_loss"] = "no history" if bad is None else f"the loss was not finite at step {bad}"
    return reasons


def _explain_evals(args: SftArgs, num_val_rows: int, eval_loss: float | None) -> dict[str, str]:
    if eval_loss is not None:
        return {}
    if num_val_rows == 0 or args.eval_strategy == "no":
        why = "dataset_test_ratio is 0" if args.dataset_test_ratio == 0 else "there are no validation rows"
        why = "eval_strategy is no" if num_val_rows else why
        return dict.fromkeys(("eval_loss", "last_eval_loss", "best_checkpoint"), why)
    return dict.fromkeys(("eval_loss", "best_checkpoint"), "no evaluation gave a finite loss")


def _find_peak(device: Device, args: SftArgs) -> tuple[float | None, str | None]:
    if device == "cpu":
        return None, "no peak FLOP/s is known for CPUs"
    name = torch.cuda.get_device_name()
    peak = peak_flops(name, args.dtype)
    return peak, None if peak is not None else f"the peak FLOP/s of {name} in {args.dtype} is not listed"


def _find_predictions(job: JobPaths, best_step: int | None) -> str | None:
    if best_step is None or not job.predictions_of(best_step).is_file():
        return None
    return str(job.predictions_of(best_step).relative_to(job.folder))


def _divide(value: float | None, count: int) -> float | None:
    return None if value is None else value / count
