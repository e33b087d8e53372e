"""The arguments that SWIFT 2.4 and ms-swift 4 declare, and what hpcbench does with each.

In: `tests/recorded/swift_arguments.yaml`. Out: each name with its release, class, type and default, and what happens to
it by the tables of `hpcbench/config/`. REFERENCE.md's table and the test of all names are made from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

import yaml

from hpcbench.config.aliases import ALIASES, EXPANSIONS
from hpcbench.config.layers import ARGUMENTS, MOVED_ARGUMENTS
from hpcbench.config.refused_arguments import FORBIDDEN, REFUSED, WITHOUT_EFFECT
from hpcbench.schemas.tuners import field_named, peft_arguments
from tests.support.places import RECORDED

Fate = Literal["honored", "mapped", "changes nothing", "refused", "owed"]

SERVING = "DeployArguments"
"""Arguments of a server, which hpcbench is not: refused as the others, but not of a command that it has."""

_OWED_EXPORT = "quant_device_map quant_output_dir quant_batch_size group_size exist_ok max_shard_size"
_OWED_PREFERENCE = """
ref_model_type ref_model_id_or_path ref_model_free max_prompt_length beta label_smoothing loss_type sft_beta simpo_gamma
cpo_alpha desirable_weight undesirable_weight ref_model ref_adapters ref_model_revision max_completion_length rpo_alpha
ld_alpha discopop_tau loss_weights center_rewards_coefficient sft_alpha lmbda seq_kd gkd_logits_topk
"""
_OWED_TRAINING = """
full_determinism ddp_find_unused_parameters ddp_broadcast_buffers resume_only_model min_lr rope_scaling adam_beta1
adam_beta2 adam_epsilon lr_scheduler_kwargs warmup_steps dataloader_pin_memory dataloader_drop_last evaluation_strategy
eval_strategy gpu_memory_fraction custom_dataset_info device_max_memory num_beams stop_words max_model_len packing_length
packing_strategy ddp_timeout columns
"""
OWED: Mapping[str, str] = {
    name: subject
    for subject, names in (
        ("export", _OWED_EXPORT),
        ("preference tuning", _OWED_PREFERENCE),
        ("training", _OWED_TRAINING),
    )
    for name in names.split()
}
"""Names that are not settled yet -> the subject that they wait for; a name that is settled no longer counts here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SwiftName:
    """One argument of one class of one release."""

    release: str
    group: str
    name: str
    type: str
    default: str


@cache
def load_names() -> tuple[SwiftName, ...]:
    """Return all names, in the order of the releases."""
    facts = yaml.safe_load((RECORDED / "swift_arguments.yaml").read_text(encoding="utf-8"))
    return tuple(
        SwiftName(release=release, group=group, name=name, type=kind, default=default)
        for release, groups in facts.items()
        for group, names in groups.items()
        for name, (kind, default) in names.items()
    )


def fate_of(name: str) -> tuple[Fate, str]:
    """Return what happens to an argument, and how: its own name, what it stands for, or why it is refused."""
    if name in ARGUMENTS:
        return "honored", f"`{name}`"
    if name in ALIASES:
        return "mapped", f"`{ALIASES[name]}`"
    if name in peft_arguments():
        method = peft_arguments()[name][0]
        return "mapped", f"`peft_config.{field_named(method, name)}`"
    if name in MOVED_ARGUMENTS:
        section, key = MOVED_ARGUMENTS[name]
        return "mapped", f"`{section}.{key}`" if section else f"`{key}`, beside `args`"
    if name in EXPANSIONS:
        meant = {f"`{own}`": None for values in EXPANSIONS[name].values() for own in values}
        return "mapped", ", ".join(meant)
    if name in WITHOUT_EFFECT:
        return "changes nothing", WITHOUT_EFFECT[name]
    if name in FORBIDDEN or name in REFUSED:
        return "refused", FORBIDDEN.get(name) or f"{REFUSED[name].why}; {REFUSED[name].instead}"
    return "owed", OWED[name]
