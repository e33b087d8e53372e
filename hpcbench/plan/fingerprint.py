"""What identifies a job's result, as a SHA-256 and as values that two requests can be compared by (pure)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from hpcbench.catalog.dataset_words import split_word
from hpcbench.data.sources import REGISTRY_MARK
from hpcbench.errors import name_first
from hpcbench.hub.repository import HUB_ARGUMENTS
from hpcbench.schemas.arguments import (
    GENERATION_ARGUMENTS,
    NOT_IN_SCORES,
    DataArgs,
    ModelArgs,
    ParallelArgs,
    PreferenceArgs,
    SpeedArgs,
)
from hpcbench.schemas.request import JobRequest

SHOWN_CHANGES = 3

Inputs = Mapping[str, str]
"""Absolute path of a local file or folder -> hash of what decides results in it."""

# Names, places and times do not decide a result; neither do limits of the scheduler.
NOT_IN_FINGERPRINT = {
    "schema_version",
    "suite",
    "experiment",
    "fingerprint",
    "inputs",
    "train_folder",
    "repeat",
    "base_experiment",
    "max_attempts",
    "info",
    "suite_file",
    "source_of",
    "resources",
}

PATHS_IN_GROUPS: Mapping[str, tuple[str, ...]] = {
    "args": (
        *("model_id_or_path", "dataset", "val_dataset", "train_dataset_mix_ds", "dataset_info"),
        *("ref_model_id_or_path", "ref_adapters", "deepspeed"),
    ),
    "eval_args": ("include_path", "local_data"),
    "export": ("ckpt_dir", "output_dir"),
    "infer": ("ckpt_dir",),
}

RESOURCES_IN_FINGERPRINT = ("gpu", "ddp", "nodes", "gpu_type")

ARGS_OF_A_BASELINE = (
    "model_type",
    "model_id_or_path",
    "template_type",
    "system",
    "dtype",
    "use_flash_attn",
    "attn_impl",
    "trust_remote_code",
    "model_revision",
    "rope_scaling",
)
"""The training arguments that an untrained baseline depends on; changing a learning rate does not rerun it."""

ARGS_OF_CALIBRATION = (*DataArgs.model_fields, "seed")
"""Those that the rows of an export's calibration depend on."""

ARGS_OF_ANSWERS = tuple(dict.fromkeys((*ModelArgs.model_fields, *ARGS_OF_CALIBRATION, *GENERATION_ARGUMENTS)))
"""Those that answers to prompts depend on."""

NOT_IN_ANSWERS = frozenset({"stream", "eval_human", "save_result", "save_generation_config"})
"""Arguments of infer that change nothing in the answers; what a checkpoint filled in is in the others."""

QUANTIZATION_ARGS = ("quantization_bit", "bnb_4bit_comp_dtype", "bnb_4bit_quant_type", "bnb_4bit_use_double_quant")
"""Those that it depends on too where its weights are quantised."""

ADDED_ARGUMENTS: Mapping[str, frozenset[str]] = {
    "args": frozenset(
        {
            *("attn_impl", "quant_method", "plain_text", *ParallelArgs.model_fields, *PreferenceArgs.model_fields),
            *(
                "peft_config",
                "target_regex",
                "target_parameters",
                "lora_dtype",
                "use_swift_lora",
                "use_qalora",
                "qalora_group_size",
            ),
            *("freeze_parameters", "freeze_parameters_regex", "freeze_parameters_ratio"),
            *("max_pixels", "freeze_llm", "freeze_vit", "freeze_aligner"),
            *("trainable_parameters", "trainable_parameters_regex"),
            # Training.
            *("adam_beta1", "adam_beta2", "adam_epsilon", "lr_scheduler_kwargs", "min_lr", "warmup_steps"),
            *("num_beams", "stop_words", "eval_strategy", "full_determinism", "resume_only_model"),
            *("dataloader_pin_memory", "dataloader_drop_last", "dataloader_prefetch_factor"),
            *("dataloader_persistent_workers", "ddp_timeout", "ddp_find_unused_parameters", "ddp_broadcast_buffers"),
            *("model_revision", "rope_scaling", "device_max_memory"),
            *SpeedArgs.model_fields,
            *("gpu_memory_fraction", "columns", "packing_length", "packing_strategy", "loss_on_prompt"),
        }
    ),
    "eval_args": frozenset({"task", "local_data"}),
}
"""Arguments younger than 0.2, by group: left out at their default, so that results of earlier versions stay valid."""

ADDED_GROUPS = ("export", "infer", "framework", "framework_args")
"""What requests have since 0.3, mostly groups of arguments: left out where a request has none."""

_USES_FLASH_ATTENTION: Mapping[str, bool] = {"sdpa": False, "flash_attention_2": True}
"""Values of attn_impl that 0.2 took for values of use_flash_attn, and ran."""


def fingerprint(request: JobRequest, inputs: Inputs) -> str:
    """Return the SHA-256 (hex) of everything that decides the job's result.

    In it: cmd, resolved arguments, env, gpu, ddp, nodes, gpu_type, hashes of local data, task files and model config;
    an eval's also its train's fingerprint. Not in it: names, partition, time, memory, hpcbench's version.
    """
    return _digest(fingerprint_parts(request, inputs))


def fingerprint_parts(
    request: JobRequest, inputs: Inputs, added: Mapping[str, frozenset[str]] = ADDED_ARGUMENTS
) -> dict[str, Any]:
    """Return what goes into the fingerprint, as plain values, so that two of them can be compared in words."""
    left_out: dict[str, Any] = {
        **dict.fromkeys(NOT_IN_FINGERPRINT, True),
        "infer": set(NOT_IN_ANSWERS),
        "eval_args": set(NOT_IN_SCORES),
    }
    parts = request.model_dump(mode="json", exclude=left_out)
    for group in ADDED_GROUPS:
        if parts[group] is None:
            del parts[group]
    resources = request.resources.model_dump(mode="json")
    parts["resources"] = {name: resources[name] for name in RESOURCES_IN_FINGERPRINT}
    if request.cmd == "eval" and request.train_fingerprint is not None:
        # The train's fingerprint covers these already.
        parts["command"] = parts["args"] = None
    elif request.cmd == "eval" and isinstance(parts["args"], dict) and not _needs_datasets(request):
        quantized = QUANTIZATION_ARGS if parts["args"]["quantization_bit"] else ()
        parts["args"] = {name: parts["args"][name] for name in (*ARGS_OF_A_BASELINE, *quantized)}
    elif (read := _read_by_takers(request)) is not None and isinstance(parts["args"], dict):
        parts["args"] = {name: parts["args"][name] for name in read}
    if isinstance(parts["args"], dict):
        # Where the weights go once they are there does not change them.
        parts["args"] = {name: value for name, value in parts["args"].items() if name not in HUB_ARGUMENTS}
    for group, names in added.items():
        given = getattr(request, group)
        if isinstance(parts[group], dict):
            defaults = {name for name in names if not given.differs_from_default(name)}
            parts[group] = {name: value for name, value in parts[group].items() if name not in defaults}
    if isinstance(parts["args"], dict) and parts["args"].get("attn_impl") in _USES_FLASH_ATTENTION:
        parts["args"]["use_flash_attn"] = _USES_FLASH_ATTENTION[parts["args"].pop("attn_impl")]
    for group in ("command", "export", "infer"):
        if isinstance(parts.get(group), dict):
            del parts[group]["ckpt_from"]  # a name; its fingerprint is in
    # The same content at another place is the same input.
    parts["inputs"] = sorted(inputs[path] for path in input_paths(request) if path in inputs)
    parts |= _order_of_inputs(request, inputs)
    return _without_places(parts)


def _order_of_inputs(request: JobRequest, inputs: Inputs) -> dict[str, list[str]]:
    """Return which input is which where the last parts of their paths do not say it, else nothing."""
    if not _are_named_alike(request):
        return {}
    return {"inputs_in_order": [inputs[path] for path in _paths_in_order(request) if path in inputs]}


def _are_named_alike(request: JobRequest) -> bool:
    """Return whether two inputs end alike, of requests that 0.2 did not know.

    Those have a number of rows, a reference or local data of an eval task.
    """
    args = request.args
    if args is None:
        return False
    words = map(split_word, (*args.dataset, *args.val_dataset))
    has_local_data = request.eval_args is not None and bool(request.eval_args.local_data)
    if not has_local_data and not args.ref_model_id_or_path and all(word.num_samples is None for word in words):
        return False
    paths = input_paths(request)
    return len({path.rstrip("/").rpartition("/")[2] for path in paths}) < len(paths)


def _read_by_takers(request: JobRequest) -> tuple[str, ...] | None:
    """Return the training arguments that an export or infer job depends on, None for other jobs."""
    if request.export is not None:
        return (*ModelArgs.model_fields, *(ARGS_OF_CALIBRATION if request.export.calibrates else ()))
    return None if request.infer is None else ARGS_OF_ANSWERS


def input_paths(request: JobRequest) -> set[str]:
    """Return the absolute local paths that the request names."""
    return set(_paths_in_order(request))


def _paths_in_order(request: JobRequest) -> list[str]:
    args, eval_args = request.args, request.eval_args
    names: list[str] = []
    if args is not None:
        names += [args.model_id_or_path or "", args.ref_model_id_or_path or "", *args.ref_adapters]
        names += [args.deepspeed or ""] if request.trains else []
    if args is not None and _needs_datasets(request):
        mixed = args.train_dataset_mix_ds if args.train_dataset_mix_ratio > 0 else ()
        for name in (split_word(word).name for word in (*args.dataset, *args.val_dataset, *mixed)):
            is_registered = args.dataset_info is not None and not name.startswith("/")
            names.append(f"{args.dataset_info}{REGISTRY_MARK}{name}" if is_registered else name)
    if eval_args is not None:
        names += (*eval_args.include_path, *eval_args.local_data.values())
    if (taker := request.export or request.infer) is not None:
        names.append(taker.ckpt_dir or "")
    return [name for name in names if name.startswith("/")]


def _needs_datasets(request: JobRequest) -> bool:
    if request.cmd == "eval":
        return request.eval_args is not None and request.eval_args.eval_loss
    return request.export is None or request.export.calibrates


def _without_places(parts: dict[str, Any]) -> dict[str, Any]:
    """Replace absolute input paths by their last part: moving a project folder does not change a result."""

    def short(value: object) -> object:
        if isinstance(value, str) and value.startswith("/"):
            return value.rstrip("/").rsplit("/", 1)[-1]
        if isinstance(value, dict):
            return {name: short(item) for name, item in value.items()}
        return [short(item) for item in value] if isinstance(value, list) else value

    for group, names in PATHS_IN_GROUPS.items():
        if isinstance(parts.get(group), dict):
            parts[group] = {k: short(v) if k in names else v for k, v in parts[group].items()}
    return parts


def _digest(parts: Mapping[str, Any]) -> str:
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def describe_change(old: JobRequest, new: JobRequest) -> str:
    """Return which arguments or files differ between two requests, for example `args.lora_rank: 8 -> 16`."""
    before, after = _flatten(fingerprint_parts(old, {})), _flatten(fingerprint_parts(new, {}))
    ignored = {"train_fingerprint"}
    names = [name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)]
    changes = [f"{name}: {before.get(name)} -> {after.get(name)}" for name in names if name not in ignored]
    if not changes and names:
        return f"{new.parent_name} changed"
    if not changes:
        files = [path for path in sorted(old.inputs) if old.inputs[path] != new.inputs.get(path)]
        return f"the content of {name_first(files, SHOWN_CHANGES) or 'its data, tasks or model'} changed"
    return name_first(changes, SHOWN_CHANGES, separator="; ")


def _flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, item in value.items():
        if isinstance(item, Mapping):
            flat |= _flatten(item, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = item
    return flat
