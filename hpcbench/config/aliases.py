"""Arguments under other names, in values of other releases, and those that are refused; it reads no file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hpcbench.catalog.deepspeed import DEEPSPEED_WORDS
from hpcbench.config.refused_arguments import FORBIDDEN, NOTHING, OFF, ON, REFUSED, REFUSED_VALUES, WITHOUT_EFFECT
from hpcbench.errors import Problem, did_you_mean
from hpcbench.schemas.arguments import TORCH_DTYPES
from hpcbench.schemas.tuners import REFUSED_METHODS, peft_arguments
from hpcbench.storage.located_yaml import Located, show

ALIASES: Mapping[str, str] = {
    # Spellings in SWIFT 2.x's own scripts, and its older names.
    "tuner_bankend": "tuner_backend",
    "gradient_checkpinting": "gradient_checkpointing",
    "neftune_alpha": "neftune_noise_alpha",
    "rescale_image": "max_pixels",
    "model_cache_dir": "model_id_or_path",
    # Later SWIFT versions.
    "model": "model_id_or_path",
    "ref_model": "ref_model_id_or_path",
    "train_type": "sft_type",
    "tuner_type": "sft_type",
    "template": "template_type",
    "torch_dtype": "dtype",
    "target_modules": "lora_target_modules",
    "lora_bias": "lora_bias_trainable",
    "init_weights": "init_lora_weights",
    "lorap_lr_ratio": "lora_lr_ratio",
    "dataset_seed": "dataset_split_seed",
    "data_seed": "dataset_split_seed",
    "split_dataset_ratio": "dataset_test_ratio",
    "use_streamer": "stream",
    "adapters": "ckpt_dir",
    "load_args": "load_args_from_ckpt_dir",
    "load_data_args": "load_dataset_config",
    **{
        f"vllm_{name}": name
        for name in (
            *("gpu_memory_utilization", "tensor_parallel_size", "max_num_seqs", "max_model_len", "enforce_eager"),
            "disable_custom_all_reduce",
        )
    },
    "dataset_num_proc": "preprocess_num_proc",
    # Hugging Face: TrainingArguments, LoraConfig, from_pretrained.
    "per_device_train_batch_size": "batch_size",
    "per_device_eval_batch_size": "eval_batch_size",
    "num_epochs": "num_train_epochs",
    "save_only_model": "only_save_model",
    "evaluation_strategy": "eval_strategy",
    "max_seq_length": "max_length",
    "attn_implementation": "attn_impl",
    "model_name_or_path": "model_id_or_path",
    "lora_dropout": "lora_dropout_p",
    "lr": "learning_rate",
    "lora_r": "lora_rank",
    "r": "lora_rank",
    "loraplus_lr_ratio": "lora_lr_ratio",
    # LLaMA-Factory and axolotl.
    "enable_liger_kernel": "use_liger_kernel",
    "liger": "use_liger_kernel",
    "cut_cross_entropy": "use_cce",
    "activation_offload": "activation_offloading",
    "cutoff_len": "max_length",
    "lora_target": "lora_target_modules",
    # Files, which `dataset` takes as well.
    "custom_train_dataset_path": "dataset",
    "custom_val_dataset_path": "val_dataset",
    "deepspeed_config_path": "deepspeed",
    "galore_optim_per_parameter": "galore_per_parameter",
    "hub_strategy": "push_hub_strategy",
    "quant_output_dir": "output_dir",
    "modules_to_save": "lora_modules_to_save",
    "ia3_modules_to_save": "lora_modules_to_save",
    "lora_target_regex": "target_regex",
    "additional_trainable_parameters": "trainable_parameters",
    "bnb_4bit_compute_dtype": "bnb_4bit_comp_dtype",
}

_DTYPES = {
    **{torch_name: name for name, torch_name in TORCH_DTYPES.items()},
    "half": "fp16",
    "float": "fp32",
    "auto": None,
}

VALUE_ALIASES: Mapping[str, Mapping[str, str | bool | None]] = {
    "dtype": _DTYPES,
    "bnb_4bit_comp_dtype": _DTYPES,
    "lora_dtype": _DTYPES,
    "use_flash_attn": {
        **dict.fromkeys(("flash_attn", "flash_attention", "flash_attention_2", "flash_attention_3"), True),
        "sdpa": False,
    },
    "attn_impl": {
        **dict.fromkeys(("flash_attn", "flash_attention"), "flash_attention_2"),
        "flex": "flex_attention",
        **dict.fromkeys(("auto", "none", ""), None),
    },
    "infer_backend": {"auto": "pt", "transformers": "pt"},
    "truncation_strategy": {"left": "truncation_left"},
    "template_type": {"auto": None},
    "model_revision": {"master": None, "main": None},
    "agent_template": {"react_en": "react"},
    "optim": {"adamw_hf": "adamw_torch"},
    "push_hub_strategy": {"every_save": "push_last"},
    "max_pixels": {"-1": None},
    "deepspeed": {
        **dict.fromkeys(NOTHING),
        **{f"default-{word.replace('_', '-')}": word for word in DEEPSPEED_WORDS},
        **{word.replace("_", "-"): word for word in DEEPSPEED_WORDS},
    },
    # ms-swift 4's preset, and transformers' switch.
    "fsdp": {**dict.fromkeys(("fsdp2", "true"), "full_shard auto_wrap"), **dict.fromkeys(("false", "none", ""), None)},
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

EXPANSIONS: Mapping[str, Mapping[str, Mapping[str, str | bool]]] = {
    "bf16": {"true": {"dtype": "bf16"}},
    "fp16": {"true": {"dtype": "fp16"}},
    "load_in_4bit": {"true": {"quantization_bit": "4"}},
    "load_in_8bit": {"true": {"quantization_bit": "8"}},
    # ms-swift 3 and later: what is trained on, and how much each part weighs.
    "loss_scale": {
        "default": {"loss_on_all_rounds": True},
        "last_round": {"loss_on_all_rounds": False},
        "all": {"loss_on_all_rounds": True, "loss_on_prompt": True},
        "react": {"loss_on_all_rounds": True, "use_loss_scale": True, "agent_template": "react"},
    },
    "tools_prompt": {"react_en": {"agent_template": "react"}},
    "use_chat_template": {"false": {"template_type": "default-generation"}},
    # ms-swift 4 leaves rows that cannot be trained on out unless it is strict.
    "strict": {
        "true": {"check_dataset_strategy": "error"},
        "false": {"check_dataset_strategy": "discard"},
    },
}
"""Argument -> value in lower case -> the arguments that it stands for."""
_ASKING_NOTHING: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("bf16", "fp16", "load_in_4bit", "load_in_8bit"), OFF),
    **dict.fromkeys(("use_chat_template",), ON),
    "strict": NOTHING,
}
"""Other values that those without a refusal may have."""

_PREFIXED = tuple(name for name, methods in peft_arguments().items() if name.startswith(methods))
"""Fields of peft's methods with the method's name before them; without it they are like many a word."""

_UNSUPPORTED_FAMILIES = tuple(
    f"{tuner}_" for tuner in ("galore", "lisa", "llamapro", "adalora", "ia3", "reft", "unsloth")
)

UNSUPPORTED_TUNERS: Mapping[str, str] = {
    "reft": "pyreft, which has it, needs transformers 4.45.1; take ia3 or vera for as few weights",
    "longlora": "shifted sparse attention is in no library that is kept; take lora with a long max_length",
    "prompt": "peft has several: take prompt_tuning, p_tuning or prefix_tuning",
    **{name: f"{why}; take another method of peft" for name, why in REFUSED_METHODS.items()},
    "unsloth": "it is another way to train lora or full: set sft_type: lora and tuner_backend: unsloth",
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
}
"""Keys of other tools that mean nothing here -> what there is instead, wherever they are written."""

HINTS_OF_OTHERS: Mapping[str, str] = {
    **dict.fromkeys(FORBIDDEN, FORBIDDEN["output_dir"]),
    **dict.fromkeys(
        ("quant_bits", "quant_method"), "to train on a quantised base set quantization_bit: 4 or 8, or remove it here"
    ),
    **dict.fromkeys(("merge_lora", "merge_lora_and_save"), "to evaluate merged weights set eval_args.merge_lora: true"),
    "max_model_len": "rope_scaling stretches positions to max_length; remove it here",
    "ckpt_dir": "to go on from a checkpoint set resume_from_checkpoint; to evaluate one name it in model_id_or_path",
    "adapters": "to start from an adapter set resume_from_checkpoint and resume_only_model: true",
}
"""Arguments of one command that people write for another -> what there is for that."""

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
    remarks: list[str] = field(default_factory=list)
    """Receives what is to be said of arguments that are taken and change nothing."""

    def resolve(self, given: Mapping[str, Located], problems: list[Problem]) -> dict[str, Located]:
        """Return the arguments of one layer under their own names; what cannot be taken goes to `problems`."""
        found: dict[str, Located] = {}
        written: dict[str, str] = {}
        for name, value in given.items():
            if name in _OWN_FILES and _canonical(value) in ("[]", *NOTHING):
                continue
            own = self._own_name(name, value)
            if own not in self.known and own not in peft_arguments():
                if name not in EXPANSIONS:
                    problems += self._refuse(name, value)
                continue
            if own in found:
                message = f"`{name}` and `{written[own]}` are the same argument"
                problems.append(value.problem(message, hint="keep one of them"))
                continue
            written[own] = name
            if (refused := REFUSED_VALUES.get(own, {}).get(word := _canonical(value))) is not None:
                message = f"`{name}: {word}` is known but not supported by this version: {refused[0]}"
                problems.append(value.problem(message, hint=refused[1]))
                continue
            found[own] = _own_value(own, value)
            if name == "model" and own == "model_type" and "model_id_or_path" not in given:
                # The model that is named now must not lose against a path that an earlier layer gave.
                found["model_id_or_path"] = replace(value, value=None, raw=None)
        for name, value in given.items():
            if name in EXPANSIONS and name not in self.known:
                self._expand(name, value, found, problems)
        return found

    def _expand(self, name: str, value: Located, found: dict[str, Located], problems: list[Problem]) -> None:
        """Put the arguments that a value stands for beside those that were found."""
        word = _canonical(value)
        meant = EXPANSIONS[name].get(word)
        if meant is None:
            if name in REFUSED:
                problems += self._refuse(name, value)
            elif word not in _ASKING_NOTHING[name]:
                expected = ", ".join((*EXPANSIONS[name], *_ASKING_NOTHING[name][:1]))
                problems.append(value.problem(f"unknown value {show(value)} of `{name}`", expected=expected))
            return
        for own, plain in meant.items():
            made = replace(value, value=plain, raw=None)
            other = found.setdefault(own, made)
            if other.value is not None and _canonical(other) != _canonical(made):
                message = f"`{name}: {word}` contradicts `{own}: {show(other)}`"
                problems.append(value.problem(message, hint="keep one of them"))

    def _own_name(self, name: str, value: Located) -> str:
        if name in self.known:
            return name
        own = ALIASES.get(name, name)
        if name == "model" and self.is_catalog_model(value):
            return "model_type"
        return own

    def _refuse(self, name: str, value: Located) -> list[Problem]:
        if name in FORBIDDEN:
            return [value.problem(f"`{name}` cannot be set in a suite", hint=FORBIDDEN[name])]
        if name in WITHOUT_EFFECT:
            self.remarks.append(f"`{name}` changes nothing: {WITHOUT_EFFECT[name]}")
            return []
        if name in REFUSED:
            refusal = REFUSED[name]
            if _canonical(value) in refusal.idle:
                return []
            message = f"`{name}` is known but not supported by this version: {refusal.why}"
            return [value.problem(message, hint=refusal.instead)]
        if name.startswith(_UNSUPPORTED_FAMILIES):
            message = f"`{name}` is known but not supported by this version"
            return [] if _canonical(value) in OFF else [value.problem(message, hint="remove it")]
        others = (*self.known, *self.also, *ALIASES, *EXPANSIONS, *REFUSED, *_PREFIXED)
        hint = HINTS.get(name) or did_you_mean(name, others)
        if name in self.elsewhere:
            section = self.elsewhere[name]
            hint = f"it belongs into `{section}`" if section else f"it belongs beside `args`, as `{name}: ...`"
        return [value.problem(f"unknown argument {name!r}", hint=hint)]


def asks_for_nothing(name: str, value: Located, *, default: object) -> bool:
    """Return whether a value of an argument that another command has is its default, or one that is switched off."""
    word = _canonical(value)
    refusal = REFUSED.get(name)
    usual = (
        *(OFF if any(default == off for off in (False, None, "")) else NOTHING),
        *(refusal.idle if refusal is not None else ()),
    )
    return name not in FORBIDDEN and (word in usual or word == str(default).lower())


def _own_value(name: str, value: Located) -> Located:
    words = VALUE_ALIASES.get(name, {})
    word = str(value.value).lower().removeprefix("torch.")
    if isinstance(value.value, (str, int)) and word in words:
        return replace(value, value=words[word], raw=None)
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
    # As the values that ask for nothing are written in REFUSED.
    if value.items is not None:
        words = [_canonical(item) for item in value.items]
        return words[0] if len(words) == 1 else f"[{', '.join(words)}]"
    if value.mapping == {}:
        return "{}"
    plain: Any = value.value
    if isinstance(plain, bool) or plain is None:
        return {True: "true", False: "false", None: "null"}[plain]
    if isinstance(plain, int | float | str):
        return str(plain).strip().lower()
    return show(value)
