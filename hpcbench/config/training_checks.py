"""Training arguments that would run as something else: refused before anything waits in a queue.

In: the arguments of an experiment and where each was written. Out: problems with file and line. It reads nothing but
the state of the checkpoint that a training is to go on from, and leaves what only the job can know to the worker.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from hpcbench.errors import Problem
from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.request import Device
from hpcbench.storage.json_files import read_json
from hpcbench.storage.located_yaml import Located
from hpcbench.storage.paths import TRAINER_STATE

_POLYNOMIAL = "polynomial"

AtKey = Callable[[str], Located]


def check_attention(args: SftArgs, at_key: AtKey, *, device: Device) -> list[Problem]:
    """Return why the attention that is asked for by name cannot run here."""
    if args.attn_impl is None or not args.attn_impl.startswith("flash"):
        return []
    obstacle = "runs on GPUs only" if device == "cpu" else "needs dtype bf16 or fp16" if args.dtype == "fp32" else None
    if obstacle is None:
        return []
    return [at_key("attn_impl").problem(f"{args.attn_impl} {obstacle}", expected="sdpa or eager")]


def check_training(args: SftArgs, at_key: AtKey, *, has_validation: bool) -> list[Problem]:
    """Return what of a training would be left out or replaced."""
    found = _check_schedule(args, at_key) + _check_resume(args, at_key)
    if args.predict_with_generate and not has_validation:
        message = "`predict_with_generate` answers the validation prompts, and there is no validation split"
        hint = "set dataset_test_ratio or val_dataset, or remove it"
        found.append(at_key("predict_with_generate").problem(message, hint=hint))
    return found


def _check_schedule(args: SftArgs, at_key: AtKey) -> list[Problem]:
    num_steps = max(args.max_steps, 1)  # of a training by epochs the number is not known here
    ends = args.warmup_ratio == 1 or (args.max_steps > 0 and math.ceil(num_steps * args.warmup_ratio) >= num_steps)
    if args.lr_scheduler_type == _POLYNOMIAL and ends:
        message = f"`lr_scheduler_type: {_POLYNOMIAL}` has nothing to decay over: all steps warm up"
        return [at_key("lr_scheduler_type").problem(message, hint="set warmup_ratio: 0, or take linear")]
    return []


def _check_resume(args: SftArgs, at_key: AtKey) -> list[Problem]:
    named = args.resume_from_checkpoint
    if named is None or not named.startswith("/"):
        return []
    where = at_key("resume_from_checkpoint")
    if not (Path(named) / TRAINER_STATE).is_file():
        message = f"{named} holds no training state ({TRAINER_STATE})"
        hint = "only checkpoints kept with only_save_model: false can be resumed from"
        return [where.problem(message, hint=hint)]
    step = (read_json(Path(named) / TRAINER_STATE) or {}).get("global_step")
    if not isinstance(step, int):
        return [where.problem(f"{named}: {TRAINER_STATE} names no step", hint="name a whole checkpoint")]
    if 0 < args.max_steps <= step:
        message = f"the checkpoint is at step {step}, and max_steps {args.max_steps} leaves nothing to train"
        return [at_key("max_steps").problem(message, expected=f"more than {step} steps")]
    return []
