"""Arguments under other names, and the arguments of ms-swift that are not supported; it reads no file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hpcbench.errors import Problem, did_you_mean
from hpcbench.schemas.arguments import TORCH_DTYPES
from hpcbench.storage.located_yaml import Located, show

ALIASES: Mapping[str, str] = {
    # Spellings in SWIFT 2.x's own scripts.
    "tuner_bankend": "tuner_backend",
    "gradient_checkpinting": "gradient_checkpointing",
    # Later SWIFT versions.
    "model": "model_id_or_path",
    "train_type": "sft_type",
    "tuner_type": "sft_type",
    "template": "template_type",
    "torch_dtype": "dtype",
    "target_modules": "lora_target_modules",
    "split_dataset_ratio": "dataset_test_ratio",
    "dataset_num_proc": "preprocess_num_proc",
    # Hugging Face: TrainingArguments, LoraConfig, from_pretrained.
    "per_device_train_batch_size": "batch_size",
    "per_device_eval_batch_size": "eval_batch_size",
    "num_epochs": "num_train_epochs",
    "max_seq_length": "max_length",
    "attn_implementation": "attn_impl",
    "model_name_or_path": "model_id_or_path",
    "lora_dropout": "lora_dropout_p",
    "lr": "learning_rate",
    "lora_r": "lora_rank",
    "r": "lora_rank",
    "loraplus_lr_ratio": "lora_lr_ratio",
    # LLaMA-Factory.
    "cutoff_len": "max_length",
    "lora_target": "lora_target_modules",
    # Files, which `dataset` takes as well.
    "custom_train_dataset_path": "dataset",
    "custom_val_dataset_path": "val_dataset",
    "galore_optim_per_parameter": "galore_per_parameter",
    "hub_strategy": "push_hub_strategy",
    "modules_to_save": "lora_modules_to_save",
    "bnb_4bit_compute_dtype": "bnb_4bit_comp_dtype",
}

_DTYPES = {**{torch_name: name for name, torch_name in TORCH_DTYPES.items()}, "half": "fp16", "float": "fp32"}

VALUE_ALIASES: Mapping[str, Mapping[str, str | bool | None]] = {
    "dtype": _DTYPES,
    "bnb_4bit_comp_dtype": {**_DTYPES, "auto": None},
    "use_flash_attn": {
        **dict.fromkeys(("flash_attn", "flash_attention", "flash_attention_2", "flash_attention_3"), True),
        "sdpa": False,
    },
    "attn_impl": {
        **dict.fromkeys(("flash_attn", "flash_attention"), "flash_attention_2"),
        **dict.fromkeys(("auto", "none", ""), None),
    },
    "truncation_strategy": {"left": "truncation_left"},
    "optim": {"adamw_hf": "adamw_torch"},
    "push_hub_strategy": {"every_save": "push_last"},
}
"""Values of later versions, by the argument's own name."""

_GROUPS_OF_MODULES = {"all": "ALL", "all-linear": "ALL", "all_linear": "ALL", "default": "DEFAULT", "auto": "DEFAULT"}
WORD_ALIASES: Mapping[str, Mapping[str, str]] = {
    "lora_target_modules": {**_GROUPS_OF_MODULES, "embedding": "EMBEDDING"},
    "ia3_target_modules": {"default": "DEFAULT", "auto": "DEFAULT"},
}
"""Words of peft, LLaMA-Factory and later versions in lists of words, in lower case, by the argument's own name."""

_OWN_FILES = frozenset({"custom_train_dataset_path", "custom_val_dataset_path"})
"""ms-swift's scripts give these empty beside `dataset`."""

_FORBIDDEN: Mapping[str, str] = dict.fromkeys(
    ("output_dir", "logging_dir", "add_output_dir_suffix", "overwrite_output_dir"),
    "hpcbench decides where results go; give the root with --save-dir",
)

_NOTHING = ("null", "none", "")
_OFF = ("false", "0", "no", *_NOTHING)

UNSUPPORTED: Mapping[str, tuple[str, ...]] = {
    # Quantised base weights.
    "load_in_4bit": _OFF,
    "load_in_8bit": _OFF,
    "quant_method": _NOTHING,
    "quant_bits": _OFF,
    "quant_n_samples": ("256", *_NOTHING),
    "quant_seqlen": ("2048", *_NOTHING),
    # Data loading.
    "streaming": _OFF,
    "loss_scale": ("default", *_NOTHING),
    "loss_scale_config_path": ("default", *_NOTHING),
    "sequence_parallel_size": ("1", "0", *_NOTHING),
    "self_cognition_sample": _OFF,
    # Parallelism.
    "deepspeed": _OFF,
    "deepspeed_config_path": _NOTHING,
    "fsdp": _OFF,
    # Hub.
    "hub_token": _NOTHING,
    "model_revision": ("master", "main", *_NOTHING),
    "ignore_args_error": _OFF,
    # Tuners.
    "lora_dtype": ("auto", "fp32", "float32", *_NOTHING),
    "freeze_parameters": ("[]", "0.0", *_OFF),
    # `infer` and `export`.
    "eval_human": _OFF,
    "show_dataset_sample": _NOTHING,
    "use_streamer": ("true", *_NOTHING),
    "merge_lora": _OFF,
    "merge_lora_and_save": _OFF,
    "save_generation_config": ("true", *_NOTHING),
    "infer_backend": ("pt", "auto", *_NOTHING),
    # transformers' TrainingArguments.
    "report_to": ("[]", *_NOTHING),
    "bf16": _OFF,
    "fp16": _OFF,
}
"""Arguments of ms-swift that are not supported -> values that change nothing, in lower case."""

_UNSUPPORTED_FAMILIES = tuple(
    f"{tuner}_"
    for tuner in ("galore", "lisa", "llamapro", "adalora", "ia3", "vera", "boft", "fourier", "reft", "unsloth")
)

_INFER = "hpcbench has no interactive `infer`: evals measure a trained model"
_EXPORT = "hpcbench trains and evaluates, and does not export models"

_REASONS: Mapping[str, tuple[str, str]] = {
    "load_in_4bit": ("quantization_bit takes the number of bits", "set quantization_bit: 4"),
    "load_in_8bit": ("quantization_bit takes the number of bits", "set quantization_bit: 8"),
    "quant_method": (_EXPORT, "to train on a quantised base set quantization_bit; to export use `cmd: command`"),
    "quant_bits": (_EXPORT, "to train on a quantised base set quantization_bit; to export use `cmd: command`"),
    **dict.fromkeys(("quant_n_samples", "quant_seqlen"), (_EXPORT, "run your export as `cmd: command`")),
    "streaming": (
        "datasets are read whole, so that rows are split, drawn and counted alike in every run",
        "set train_dataset_sample for fewer rows, lazy_tokenize: true to tokenize while training",
    ),
    **dict.fromkeys(
        ("loss_scale", "loss_scale_config_path"),
        (
            "weights of the loss come from the template of agent dialogues alone",
            "set use_loss_scale: true and agent_template",
        ),
    ),
    "sequence_parallel_size": (
        "a sequence stays on one rank",
        "lower max_length or set gradient_checkpointing: true",
    ),
    "self_cognition_sample": (
        "ms-swift's self-cognition rows and their placeholders are not part of hpcbench",
        "write such rows into a file and list it in dataset",
    ),
    **dict.fromkeys(
        ("deepspeed", "deepspeed_config_path"),
        (
            "ranks are torch's own data parallel (DDP)",
            "set requirements.ddp; for less memory a quantised or frozen base",
        ),
    ),
    "fsdp": (
        "ranks are torch's own data parallel (DDP), each with the whole model",
        "set requirements.ddp: 1 with several GPUs to spread the layers over them",
    ),
    "model_revision": (
        "a model is what the local cache or folder holds",
        "download that revision and give model_id_or_path: its folder",
    ),
    "ignore_args_error": (
        "a mistyped argument that is passed over trains something else than was asked for",
        "remove it",
    ),
    "hub_token": (
        "a token in a suite would be copied into job files, records and reports",
        "log in with `hf auth login`, or set HF_TOKEN (ModelScope: MODELSCOPE_API_TOKEN) where you submit",
    ),
    "lora_dtype": ("adapters are trained in fp32, whatever the base's dtype", "remove it; dtype sets the base's"),
    "freeze_parameters": (
        "full trains every weight",
        "use sft_type: lisa to train a few layers at a time, or an adapter",
    ),
    **dict.fromkeys(("eval_human", "use_streamer"), (_INFER, "set eval_dataset")),
    "show_dataset_sample": (_INFER, "set val_dataset_sample for the number of validation rows"),
    **dict.fromkeys(
        ("merge_lora", "merge_lora_and_save"), (_EXPORT, "to evaluate merged weights set eval_args.merge_lora: true")
    ),
    "save_generation_config": (_INFER, "how evals generate stands in the record: eval_args.gen_kwargs"),
    "report_to": (
        "losses and figures are in each job's history.jsonl and in the report, and jobs need no internet",
        "set report_to: none, or remove it",
    ),
    "bf16": ("dtype takes the name of the type", "set dtype: bf16"),
    "fp16": ("dtype takes the name of the type", "set dtype: fp16"),
    "infer_backend": ("evals generate with transformers, whose speed the report compares", "remove it"),
}
"""Why an argument is not honoured, and what to do instead."""

UNSUPPORTED_TUNERS: Mapping[str, str] = {
    **dict.fromkeys(
        ("boft", "fourierft", "reft", "vera"), "not built into this version; lora trains as few weights with a low rank"
    ),
    "longlora": "shifted sparse attention is not built into this version; take lora with a long max_length",
    "prompt": "prompt tuning is not built into this version; take ia3 for as few weights",
    "unsloth": (
        "it replaces the model's code, needs a GPU and pins libraries below those of hpcbench; run a script of yours "
        "in an environment of its own by `cmd: command`"
    ),
}
"""Values of `sft_type` in ms-swift that are not supported -> why, and what to take instead."""

HINTS: Mapping[str, str] = {
    **dict.fromkeys(("tasks", "task"), "name eval tasks in `eval_dataset`, beside `args`"),
    "model_args": "give model_id_or_path and dtype under `args`",
    "save_dir": "give it on the command line: --save-dir",
    "config": "suites are named without an option: hpcbench submit SUITE...",
    **dict.fromkeys(("mem", "memory"), "requirements.mem_gb takes GiB as a number, for example mem_gb: 64"),
    **dict.fromkeys(("num_gpus", "n_gpu"), "requirements.gpu is the number of GPUs in all"),
    **dict.fromkeys(("nproc_per_node", "num_processes", "ntasks"), "requirements.ddp is the number of ranks in all"),
    **dict.fromkeys(("walltime", "time_limit"), "requirements.time is the time limit, for example time: 8h"),
    **dict.fromkeys(("account", "qos"), "it belongs to the cluster profile, which `hpcbench init` writes"),
    "val_size": "dataset_test_ratio is the part of each dataset that becomes validation",
    "val_set_size": "dataset_test_ratio is the part of each dataset that becomes validation",
    **dict.fromkeys(("eval_strategy", "evaluation_strategy"), "eval_steps is the number of steps between evaluations"),
}
"""Keys of other tools that mean nothing here -> what there is instead, wherever they are written."""

ModelLookup = Callable[[str], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArgumentNames:
    """The names that `args` may hold, and the lookup of catalog models."""

    known: frozenset[str]
    elsewhere: Mapping[str, str]
    """Keys that belong to other sections -> that section, empty for those beside the sections."""
    is_catalog_model: Callable[[Located], bool]
    also: tuple[str, ...] = ()
    """Further names that may have been meant, which the caller reads itself."""

    def resolve(self, given: Mapping[str, Located], problems: list[Problem]) -> dict[str, Located]:
        """Return the arguments of one layer under their own names; what cannot be taken goes to `problems`."""
        found: dict[str, Located] = {}
        written: dict[str, str] = {}
        for name, value in given.items():
            if name in _OWN_FILES and _canonical(value) in ("[]", *_NOTHING):
                continue
            own = self._own_name(name, value)
            if own not in self.known:
                problems += self._refuse(name, value)
                continue
            if own in found:
                message = f"`{name}` and `{written[own]}` are the same argument"
                problems.append(value.problem(message, hint="keep one of them"))
                continue
            written[own] = name
            found[own] = _own_value(own, value)
            if name == "model" and own == "model_type" and "model_id_or_path" not in given:
                # The model that is named now must not lose against a path that an earlier layer gave.
                found["model_id_or_path"] = replace(value, value=None, raw=None)
        return found

    def _own_name(self, name: str, value: Located) -> str:
        if name in self.known:
            return name
        own = ALIASES.get(name, name)
        if name == "model" and self.is_catalog_model(value):
            return "model_type"
        return own

    def _refuse(self, name: str, value: Located) -> list[Problem]:
        if name in _FORBIDDEN:
            return [value.problem(f"`{name}` cannot be set in a suite", hint=_FORBIDDEN[name])]
        if name in UNSUPPORTED or name.startswith(_UNSUPPORTED_FAMILIES):
            if _canonical(value) in UNSUPPORTED.get(name, _OFF):
                return []
            why, instead = _REASONS.get(name, ("", "remove it"))
            message = f"`{name}` is known but not supported by this version" + (f": {why}" if why else "")
            return [value.problem(message, hint=instead)]
        hint = HINTS.get(name) or did_you_mean(name, (*self.known, *self.also, *ALIASES, *UNSUPPORTED))
        if name in self.elsewhere:
            section = self.elsewhere[name]
            hint = f"it belongs into `{section}`" if section else f"it belongs beside `args`, as `{name}: ...`"
        return [value.problem(f"unknown argument {name!r}", hint=hint)]


def _own_value(name: str, value: Located) -> Located:
    words = VALUE_ALIASES.get(name, {})
    if isinstance(value.value, str) and value.value.lower().removeprefix("torch.") in words:
        return replace(value, value=words[value.value.lower().removeprefix("torch.")], raw=None)
    groups = WORD_ALIASES.get(name)
    return value if groups is None else _name_groups(value, groups)


def _name_groups(value: Located, groups: Mapping[str, str]) -> Located:
    """Return a list of words, or one text with several, with the own names of words that stand for several modules."""
    if value.items is not None:
        return replace(value, value=tuple(_name_groups(item, groups) for item in value.items), raw=None)
    if not isinstance(value.value, str):
        return value
    words = value.value.replace(",", " ").split()
    renamed = [groups.get(word.lower(), word) for word in words]
    return value if renamed == words else replace(value, value=" ".join(renamed), raw=None)


def _canonical(value: Located) -> str:
    # As the values that change nothing are written in UNSUPPORTED.
    if value.items == ():
        return "[]"
    plain: Any = value.value
    if isinstance(plain, bool) or plain is None:
        return {True: "true", False: "false", None: "null"}[plain]
    if isinstance(plain, int | float | str):
        return str(plain).strip().lower()
    return show(value)
