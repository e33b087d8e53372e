"""The values that `optim` and `lr_scheduler_type` may have, known without importing transformers.

Source: transformers 5.23, `training_args.OptimizerNames` and `trainer_utils.SchedulerType`; a test compares them and
instantiates every optimizer that is accepted. Values only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

_BITSANDBYTES: Final = (
    *("adamw_bnb_8bit", "adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit"),
    *("ademamix", "ademamix_8bit", "paged_ademamix_32bit", "paged_ademamix_8bit"),
    *("lion_32bit", "lion_8bit", "paged_lion_32bit", "paged_lion_8bit"),
    *("rmsprop_bnb", "rmsprop_bnb_8bit", "rmsprop_bnb_32bit"),
)
OPTIMIZERS: Final[Mapping[str, str | None]] = {
    **dict.fromkeys(("adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop"), None),
    **dict.fromkeys(_BITSANDBYTES, "bitsandbytes"),
    **dict.fromkeys(("adamw_torch_4bit", "adamw_torch_8bit"), "torchao"),
    "grokadamw": "grokadamw",
    "stable_adamw": "optimi",
}
"""Name -> the module that it needs beside torch; a job checks for it before it loads anything."""
WITHOUT_BETAS: Final = frozenset(
    {"adafactor", "sgd", "adagrad", "rmsprop", *(n for n in _BITSANDBYTES if "rmsprop" in n)}
)
"""Optimizers that adam_beta1 and adam_beta2 do nothing to."""
WITHOUT_EPSILON: Final = WITHOUT_BETAS | {name for name in _BITSANDBYTES if "lion" in name}
"""Optimizers that adam_epsilon does nothing to."""


class Refusal(NamedTuple):
    """Why a value of transformers' cannot be used, and what to take instead."""

    reason: str
    instead: str


_GALORE: Final = Refusal("GaLore is hpcbench's own", "set use_galore: true")
_APOLLO: Final = Refusal("it needs optim_target_modules, for which hpcbench has no argument", "set use_galore: true")
_LOMO: Final = Refusal(
    "it updates weights inside the backward pass, without accumulation and clipping",
    "set use_galore: true with galore_per_parameter: true",
)
_SCHEDULE_FREE: Final = Refusal(
    "its result is an average of the weights, which hpcbench neither evaluates nor saves", "take adamw_torch"
)
REFUSED_OPTIMIZERS: Final[Mapping[str, Refusal]] = {
    **dict.fromkeys(("galore_adamw", "galore_adamw_8bit", "galore_adafactor"), _GALORE),
    **dict.fromkeys(("galore_adamw_layerwise", "galore_adamw_8bit_layerwise", "galore_adafactor_layerwise"), _GALORE),
    **dict.fromkeys(("apollo_adamw", "apollo_adamw_layerwise"), _APOLLO),
    **dict.fromkeys(("schedule_free_adamw", "schedule_free_radam", "schedule_free_sgd"), _SCHEDULE_FREE),
    **dict.fromkeys(("lomo", "adalomo"), _LOMO),
    "adamw_anyprecision": Refusal("its package, torchdistx, is an experiment for torch 1", "take adamw_torch"),
    "adamw_torch_xla": Refusal("it is for TPUs, which hpcbench does not run on", "take adamw_torch"),
    "adamw_torch_npu_fused": Refusal("it is for Ascend NPUs, which hpcbench does not run on", "take adamw_torch"),
}

_COSINE_WITH_END: Final = ("num_cycles", "min_lr", "min_lr_rate")
SCHEDULERS: Final[Mapping[str, tuple[str, ...]]] = {
    "linear": (),
    "cosine": ("num_cycles",),
    "cosine_with_restarts": ("num_cycles",),
    "cosine_with_min_lr": _COSINE_WITH_END,
    "cosine_warmup_with_min_lr": (*_COSINE_WITH_END, "warmup_lr_rate"),
    "polynomial": ("lr_end", "power"),
    "constant": (),
    "constant_with_warmup": (),
    "inverse_sqrt": ("timescale",),
    "warmup_stable_decay": (*("num_decay_steps", "warmup_type", "decay_type", "min_lr_ratio", "num_cycles"),),
}
"""Name -> the settings that lr_scheduler_kwargs may give it."""
NEEDED_SETTINGS: Final[Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(("cosine_with_min_lr", "cosine_warmup_with_min_lr"), ("min_lr", "min_lr_rate")),
    "warmup_stable_decay": ("num_decay_steps",),
}
"""Name -> settings of which it needs one."""
MIN_LR_SCHEDULER: Final = "cosine_with_min_lr"
"""What `min_lr` makes of a cosine."""
WORD_SETTINGS: Final[Mapping[str, tuple[str, ...]]] = dict.fromkeys(
    ("warmup_type", "decay_type"), ("linear", "cosine", "1-sqrt")
)
"""Settings that are words; all others are numbers."""
COUNT_SETTINGS: Final = frozenset({"num_decay_steps", "timescale"})
"""Settings that are whole numbers."""

_NO_METRIC: Final = Refusal(
    "it follows a metric, so that the learning rate would not follow from the step alone", "take cosine or linear"
)
REFUSED_SCHEDULERS: Final[Mapping[str, Refusal]] = {
    **dict.fromkeys(("reduce_lr_on_plateau", "greedy"), _NO_METRIC),
}
