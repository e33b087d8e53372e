"""The settings that all these frameworks share, because each trains with transformers' Trainer.

In: a run. Out: fields of `transformers.TrainingArguments` by name, so that no default of a framework decides.
"""

from __future__ import annotations

from typing import Final

from hpcbench.frameworks.recipe import Run, Settings

AT_THE_END: Final = 10**9
"""More steps than any training has: the Trainer then saves after the last one alone."""
HONORED: Final = frozenset(
    {
        *("batch_size", "eval_batch_size", "gradient_accumulation_steps", "num_train_epochs", "max_steps"),
        *("learning_rate", "weight_decay", "max_grad_norm", "lr_scheduler_type", "lr_scheduler_kwargs", "min_lr"),
        *("warmup_ratio", "warmup_steps", "optim", "adam_beta1", "adam_beta2", "adam_epsilon"),
        *("gradient_checkpointing", "seed", "full_determinism", "neftune_noise_alpha", "logging_steps"),
        *("eval_strategy", "eval_steps", "save_strategy", "save_steps", "save_total_limit", "only_save_model"),
        *("dataloader_num_workers", "dataloader_pin_memory", "dataloader_drop_last", "dataloader_prefetch_factor"),
        *("dataloader_persistent_workers", "ddp_timeout", "ddp_backend", "ddp_find_unused_parameters"),
        *("ddp_broadcast_buffers", "dtype", "sft_type"),
    }
)
"""The arguments that these settings say; `dtype` and `sft_type` are completed by each recipe."""


def trainer_settings(run: Run) -> Settings:
    """Return the fields of TrainingArguments that carry out the arguments."""
    args = run.args
    schedule, schedule_kwargs = args.schedule
    is_on_cpu = run.device == "cpu"
    settings: Settings = {
        "output_dir": str(run.output),
        "per_device_train_batch_size": args.batch_size,
        "per_device_eval_batch_size": args.eval_batch_size or args.batch_size,
        "gradient_accumulation_steps": args.gradient_accumulation_steps,
        "num_train_epochs": args.num_train_epochs,
        "max_steps": args.max_steps,
        "learning_rate": args.effective_learning_rate,
        "weight_decay": args.weight_decay,
        "max_grad_norm": args.max_grad_norm,
        "lr_scheduler_type": schedule,
        # Of a ratio transformers 4 and 5 have different fields.
        "warmup_steps": args.count_warmup_steps(run.num_steps),
        "optim": args.optim,
        "adam_beta1": args.adam_beta1,
        "adam_beta2": args.adam_beta2,
        "adam_epsilon": args.adam_epsilon,
        "gradient_checkpointing": args.gradient_checkpointing,
        "seed": args.seed,
        "full_determinism": args.full_determinism,
        "logging_steps": args.logging_steps,
        "dataloader_num_workers": args.dataloader_num_workers,
        "dataloader_pin_memory": args.dataloader_pin_memory,
        "dataloader_drop_last": args.dataloader_drop_last,
        "dataloader_persistent_workers": args.dataloader_persistent_workers,
        "ddp_timeout": args.ddp_timeout,
        "bf16": args.dtype == "bf16",
        "fp16": args.dtype == "fp16",
        "use_cpu": is_on_cpu,
        "report_to": "none",
        "disable_tqdm": True,
        **_saving(run),
        **_evaluation(run),
    }
    if schedule_kwargs:
        settings["lr_scheduler_kwargs"] = schedule_kwargs
    optional = {
        "neftune_noise_alpha": args.neftune_noise_alpha,
        "dataloader_prefetch_factor": args.dataloader_prefetch_factor,
        "ddp_backend": args.ddp_backend if run.num_ranks > 1 else None,
        "ddp_find_unused_parameters": args.ddp_find_unused_parameters,
        "ddp_broadcast_buffers": args.ddp_broadcast_buffers,
        "resume_from_checkpoint": None if run.resume is None else str(run.resume),
    }
    return settings | {name: value for name, value in optional.items() if value is not None}


def _saving(run: Run) -> Settings:
    """Return when checkpoints are written; a training that keeps none writes one, for the state of its Trainer."""
    args = run.args
    only_weights = args.sft_type == "full" if args.only_save_model is None else args.only_save_model
    settings: Settings = {"save_only_model": only_weights}
    if args.save_strategy == "no":
        return {**settings, "save_strategy": "steps", "save_steps": AT_THE_END}
    if args.save_total_limit > 0:
        settings["save_total_limit"] = args.save_total_limit
    if args.save_strategy == "epoch":
        return {**settings, "save_strategy": "epoch"}
    # Where evaluations are rarer than steps are many, the last step has one; so do checkpoints.
    steps = args.save_steps or min(args.eval_steps, run.num_steps)
    return {**settings, "save_strategy": "steps", "save_steps": steps}


def _evaluation(run: Run) -> Settings:
    if not run.evaluates:
        return {"eval_strategy": "no"}
    # The Trainer keeps the best checkpoint beside the last only where it knows what is best.
    best: Settings = {"metric_for_best_model": "eval_loss", "greater_is_better": False}
    if run.args.eval_strategy == "epoch":
        return {**best, "eval_strategy": "epoch"}
    return {**best, "eval_strategy": "steps", "eval_steps": min(run.args.eval_steps, run.num_steps)}
