"""What users of neighboring tools type, and what hpcbench has in its place: their commands, options and files.

In: a word, or the keys of a document. Out: why it is not taken and what to do instead. It reads no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hpcbench.storage.located_yaml import Located


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherCommand:
    """A command of another tool that this version does not have."""

    why: str
    in_suite: str
    """What a suite has in its place."""
    typed: str
    """What to type in its place."""


_SERVING = OtherCommand(
    why="hpcbench serves no model to others",
    in_suite="`cmd: infer` answers the prompts of a dataset; `hpcbench infer` answers you",
    typed="hpcbench infer --ckpt_dir CHECKPOINT answers you at the prompt, with --val_dataset FILE a file of prompts",
)
_EXPORTED_BY = "hpcbench export-model, or hpcbench submit SUITE, with `cmd: export` in the suite"
_MERGING = OtherCommand(
    why="merging an adapter is an export",
    in_suite="`cmd: export` with ckpt_from or ckpt_dir merges an adapter into its base",
    typed="hpcbench export-model --ckpt_dir CHECKPOINT, or hpcbench submit SUITE, with `cmd: export` in the suite",
)
_REWARDS = OtherCommand(
    why="hpcbench learns from answers that are there (dpo, orpo, simpo, kto, cpo); it trains no reward model and "
    "generates no answers while it trains",
    in_suite="take `cmd: dpo` with rows that have a chosen and a rejected answer, or run a script of TRL as "
    "`cmd: command`",
    typed="hpcbench submit SUITE, with `cmd: dpo` or with a script of TRL as `cmd: command`",
)
REFUSED_RLHF_TYPES = ("rm", "ppo", "grpo", "gkd")
"""Values of ms-swift's `rlhf_type` that are refused, and commands of their own."""

OTHER_COMMANDS: Mapping[str, OtherCommand] = {
    **dict.fromkeys(("deploy", "app-ui", "web-ui", "webchat", "webui", "serve"), _SERVING),
    "chat": OtherCommand(
        why="a dialogue is held at the prompt, and prompts of a dataset are answered by `cmd: infer`",
        in_suite="`cmd: infer` with val_dataset",
        typed="hpcbench infer --ckpt_dir CHECKPOINT, or --model MODEL",
    ),
    "merge-lora": _MERGING,
    **dict.fromkeys((*REFUSED_RLHF_TYPES, "reward"), _REWARDS),
}
"""Commands of SWIFT, LLaMA-Factory and TRL."""

_OF_SUITES = ("pt", "rlhf", "dpo", "orpo", "simpo", "kto", "cpo")
"""Trainings that suites have, and no verb."""
OTHER_VERBS: Mapping[str, str] = {
    **{name: f"hpcbench submit SUITE, with `cmd: {name}` in the suite" for name in _OF_SUITES},
    **dict.fromkeys(("exp", "exp.py", "run", "sbatch"), "hpcbench submit SUITE"),
    **dict.fromkeys(("report", "generate_report", "generate_report.py"), "hpcbench collect"),
    "train": "hpcbench sft, or hpcbench submit SUITE",
    "squeue": "hpcbench status",
    "scancel": "hpcbench cancel",
}
"""Words for what hpcbench does under another name."""

_RESOURCE = "write requirements.{0} into the suite, or --set requirements.{0}=VALUE"
_PROFILE = "it belongs to the cluster profile, which `hpcbench init` writes"
OTHER_OPTIONS: Mapping[str, str] = {
    "--config": "suites are named without an option: hpcbench submit SUITE...",
    "--layout": "the report has it: hpcbench collect --layout swift",
    **{f"--{name}": _RESOURCE.format(name) for name in ("gpu", "ddp", "nodes", "time", "partition")},
    "--gpus": _RESOURCE.format("gpu"),
    "--mem": _RESOURCE.format("mem_gb"),
    **dict.fromkeys(("--account", "--qos", "--gres", "--constraint"), _PROFILE),
}
"""Options that the verbs for suites do not have -> what is there instead."""

_GENERATION = "write --eval_gen_kwargs '{{{}: VALUE}}'"
OTHER_EVAL_OPTIONS: Mapping[str, str] = {
    "model_args": "name the model's folder or id with --model; its other parts are options here, such as --dtype",
    "tasks": "write --eval_dataset",
    "output_path": "write --output_dir",
    "system_instruction": "write --system",
    **{
        name: f"write --eval_{name}"
        for name in (
            "num_fewshot", "limit", "batch_size", "seed", "apply_chat_template", "fewshot_as_multiturn", "gen_kwargs",
            "include_path", "log_samples",
        )
    },
    **{name: _GENERATION.format(name) for name in ("do_sample", "temperature", "top_k", "top_p")},
    "max_new_tokens": _GENERATION.format("max_gen_toks"),
    "repetition_penalty": _GENERATION.format("repetition_penalty"),
}  # fmt: skip
"""Options of lm_eval, and of SWIFT's generation, that `hpcbench eval` has under another name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _OtherFile:
    kind: str
    keys: frozenset[str]
    """Keys that stand in no other kind of file."""
    hint: str


_RUN_IT = "write its arguments under `args` of a suite, or run it with `cmd: command` and args.command: {}"
_OTHER_FILES = (
    _OtherFile(
        kind="a training file of LLaMA-Factory",
        keys=frozenset({"finetuning_type", "cutoff_len", "lora_target", "dataset_dir"}),
        hint=_RUN_IT.format("[llamafactory-cli, train, FILE]"),
    ),
    _OtherFile(
        kind="a training file of axolotl",
        keys=frozenset({"base_model", "micro_batch_size", "sample_packing"}),
        hint=_RUN_IT.format("[axolotl, train, FILE]"),
    ),
    _OtherFile(
        kind="a task of lm-eval",
        keys=frozenset({"doc_to_text", "doc_to_target", "metric_list", "aggregate_metric_list"}),
        hint="name its folder in eval_args.include_path and its task in eval_dataset",
    ),
    _OtherFile(
        kind="a configuration of DeepSpeed",
        keys=frozenset({"zero_optimization", "train_micro_batch_size_per_gpu"}),
        hint="hpcbench spreads a training with requirements.ddp",
    ),
    _OtherFile(
        kind="a model's configuration",
        keys=frozenset({"model_type", "architectures", "hidden_size"}),
        hint="name the folder of the model in args.model_id_or_path",
    ),
    _OtherFile(
        kind="a cluster profile",
        keys=frozenset({"gpu_flag", "account", "qos", "extra_sbatch", "cpus_per_gpu", "setup"}),
        hint="hpcbench submit SUITE --cluster FILE",
    ),
)
_REGISTRY_KEYS = frozenset({"file_name", "hf_hub_url", "ms_hub_url"})


def describe_other_file(document: Located) -> tuple[str, str] | None:
    """Return what a file without experiments is and what to do with it, or None where it is not known."""
    entries = document.mapping or {}
    if any(not _REGISTRY_KEYS.isdisjoint(entry.mapping or {}) for entry in entries.values()):
        return "a registry of datasets", "name it in args.dataset_info and its entries in args.dataset"
    found = max(_OTHER_FILES, key=lambda file: len(file.keys & entries.keys()))
    return (found.kind, found.hint) if found.keys & entries.keys() else None
