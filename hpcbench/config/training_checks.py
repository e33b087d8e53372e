"""Training arguments that would run as something else: refused before anything waits in a queue.

In: the arguments of an experiment and where each was written. Out: problems with file and line. It reads nothing but
the state of the checkpoint that a training is to go on from, and leaves what only the job can know to the worker.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hpcbench.errors import Problem, did_you_mean
from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.optimizers import COUNT_SETTINGS, NEEDED_SETTINGS, SCHEDULERS, WORD_SETTINGS
from hpcbench.storage.json_files import read_json
from hpcbench.storage.located_yaml import Located
from hpcbench.storage.paths import TRAINER_STATE

_POLYNOMIAL = "polynomial"
LEAVING_WEIGHTS_UNUSED = ("lisa", "shadow")
"""Methods some of whose weights have no gradient in a step, as their files in worker/tuners say."""
WEIGHT_FILES = ("adapter_model.safetensors", "tuner.safetensors", "model*.safetensors")
"""What holds a checkpoint's weights."""

AtKey = Callable[[str], Located]


def check_training(args: SftArgs, at_key: AtKey, *, has_validation: bool) -> list[Problem]:
    """Return what of a training would be left out or replaced."""
    found = _check_schedule(args, at_key) + _check_schedule_settings(args, at_key) + _check_resume(args, at_key)
    if args.packing_length is not None and args.packing_length < args.max_length:
        message = (
            f"packing_length {args.packing_length} is less than max_length {args.max_length}, as long as rows may be"
        )
        found.append(at_key("packing_length").problem(message, expected="max_length or more"))
    if args.loss_on_prompt and args.use_loss_scale:
        message = "`loss_on_prompt` trains on every token alike, and `use_loss_scale` weighs those of answers"
        found.append(at_key("loss_on_prompt").problem(message, hint="keep one of them"))
    if args.ddp_find_unused_parameters is False and args.tuner in LEAVING_WEIGHTS_UNUSED:
        message = f"`ddp_find_unused_parameters: false`: {args.tuner} leaves weights without a gradient"
        found.append(at_key("ddp_find_unused_parameters").problem(message, hint="remove it"))
    if args.predict_with_generate and not has_validation:
        message = "`predict_with_generate` answers the validation prompts, and there is no validation split"
        hint = "set dataset_test_ratio or val_dataset, or remove it"
        found.append(at_key("predict_with_generate").problem(message, hint=hint))
    return found


def _check_schedule(args: SftArgs, at_key: AtKey) -> list[Problem]:
    ends = args.max_steps > 0 and args.count_warmup_steps(args.max_steps) >= args.max_steps
    # Of a training by epochs the number of steps is not known here.
    ends |= args.warmup_ratio == 1 and args.warmup_steps == 0
    if args.lr_scheduler_type == _POLYNOMIAL and ends:
        message = f"`lr_scheduler_type: {_POLYNOMIAL}` has nothing to decay over: all steps warm up"
        return [at_key("lr_scheduler_type").problem(message, hint="set warmup_ratio: 0, or take linear")]
    end = args.lr_scheduler_kwargs.get("lr_end")
    if args.lr_scheduler_type == _POLYNOMIAL and isinstance(end, float | int) and end >= args.effective_learning_rate:
        message = f"lr_end {end!r} is not below the learning rate of {args.effective_learning_rate!r}"
        return [at_key("lr_scheduler_kwargs").problem(message, expected="less than learning_rate")]
    return []


def _check_schedule_settings(args: SftArgs, at_key: AtKey) -> list[Problem]:
    """Return what transformers' schedule would not take, or would take for something else."""
    name, settings = args.schedule
    known = SCHEDULERS.get(name)
    if known is None:  # reported as an unknown word
        return []
    where = at_key("lr_scheduler_kwargs")
    # Of the argument min_lr beside a schedule without an end it is said elsewhere that it has no effect.
    if unknown := sorted(args.lr_scheduler_kwargs.keys() - set(known)):
        message = f"{name} has no setting {unknown[0]!r}"
        hint = did_you_mean(unknown[0], known)
        if name == "cosine" and unknown[0] == "min_lr":
            hint = "write min_lr as an argument of its own, beside lr_scheduler_type"
        return [where.problem(message, expected=", ".join(known) or None, hint=hint)]
    for setting, value in settings.items():
        if setting in WORD_SETTINGS and value not in WORD_SETTINGS[setting]:
            return [where.problem(f"{setting}: got {value!r}", expected=", ".join(WORD_SETTINGS[setting]))]
        is_number = isinstance(value, int if setting in COUNT_SETTINGS else (int, float)) and value is not True
        if setting not in WORD_SETTINGS and (not is_number or value < 0):
            kind = "a whole number" if setting in COUNT_SETTINGS else "a number"
            return [where.problem(f"{setting}: got {value!r}", expected=f"{kind}, 0 or more")]
    needed = NEEDED_SETTINGS.get(name, ())
    if needed and settings.keys().isdisjoint(needed):
        example = f"lr_scheduler_kwargs: {{{needed[0]}: {'100' if needed[0] in COUNT_SETTINGS else '1e-6'}}}"
        message = f"`lr_scheduler_type: {name}` needs {' or '.join(needed)}"
        return [at_key("lr_scheduler_type").problem(message, hint=f"set {example}")]
    if {"min_lr", "min_lr_rate"} <= settings.keys():
        return [where.problem("min_lr and min_lr_rate both say where the schedule ends", hint="keep one of them")]
    if "min_lr" in settings and settings["min_lr"] > args.effective_learning_rate:
        message = f"min_lr {settings['min_lr']!r} is above the learning rate of {args.effective_learning_rate!r}"
        return [at_key("min_lr").problem(message, expected="at most learning_rate")]
    return []


def _check_resume(args: SftArgs, at_key: AtKey) -> list[Problem]:
    named = args.resume_from_checkpoint
    if named is None or not named.startswith("/"):
        return []
    where = at_key("resume_from_checkpoint")
    if args.resume_only_model:
        if not any(next(Path(named).glob(pattern), None) for pattern in WEIGHT_FILES):
            message = f"{named} holds no weights"
            return [where.problem(message, expected=" or ".join(WEIGHT_FILES))]
        return []
    if not (Path(named) / TRAINER_STATE).is_file():
        message = f"{named} holds no training state ({TRAINER_STATE})"
        hint = "set resume_only_model: true to take its weights alone; a state is kept with only_save_model: false"
        return [where.problem(message, hint=hint)]
    step = (read_json(Path(named) / TRAINER_STATE) or {}).get("global_step")
    if not isinstance(step, int):
        return [where.problem(f"{named}: {TRAINER_STATE} names no step", hint="name a whole checkpoint")]
    if 0 < args.max_steps <= step:
        message = f"the checkpoint is at step {step}, and max_steps {args.max_steps} leaves nothing to train"
        return [at_key("max_steps").problem(message, expected=f"more than {step} steps")]
    return []
