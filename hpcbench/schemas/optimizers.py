"""The words that `optim` and `lr_scheduler_type` may hold, known without transformers.

Source: transformers 5.23, `training_args.OptimizerNames` and `trainer_utils.SchedulerType`; a test compares them.
Values only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# fmt: off
OPTIMIZERS: Final = frozenset({
    "adamw_torch", "adamw_torch_fused", "adamw_torch_xla", "adamw_torch_npu_fused", "adafactor", "adamw_anyprecision",
    "adamw_torch_4bit", "adamw_torch_8bit", "ademamix", "sgd", "adagrad", "adamw_bnb_8bit", "adamw_8bit",
    "ademamix_8bit", "lion_8bit", "lion_32bit", "paged_adamw_32bit", "paged_adamw_8bit", "paged_ademamix_32bit",
    "paged_ademamix_8bit", "paged_lion_32bit", "paged_lion_8bit", "rmsprop", "rmsprop_bnb", "rmsprop_bnb_8bit",
    "rmsprop_bnb_32bit", "lomo", "adalomo", "grokadamw", "schedule_free_radam", "schedule_free_adamw",
    "schedule_free_sgd", "apollo_adamw", "apollo_adamw_layerwise", "stable_adamw",
})
"""Some need a package on the compute node, which transformers names when it is missing."""
# fmt: on

REFUSED_OPTIMIZERS: Final[Mapping[str, str]] = dict.fromkeys(
    (
        "galore_adamw",
        "galore_adamw_8bit",
        "galore_adafactor",
        "galore_adamw_layerwise",
        "galore_adamw_8bit_layerwise",
        "galore_adafactor_layerwise",
    ),
    "GaLore is hpcbench's own: set use_galore: true",
)

SCHEDULERS: Final = frozenset(
    {
        "linear",
        "cosine",
        "cosine_with_restarts",
        "polynomial",
        "constant",
        "constant_with_warmup",
        "inverse_sqrt",
    }
)

_NO_SETTINGS: Final = "it needs settings of its own (lr_scheduler_kwargs), for which the documents have no argument"
_NO_METRIC: Final = "it follows a metric, so that the learning rate would not follow from the step alone"
REFUSED_SCHEDULERS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("cosine_with_min_lr", "cosine_warmup_with_min_lr", "warmup_stable_decay"), _NO_SETTINGS),
    **dict.fromkeys(("reduce_lr_on_plateau", "greedy"), _NO_METRIC),
}
