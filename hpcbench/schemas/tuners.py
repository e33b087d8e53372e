"""The names of the fine-tuning methods and of their fields: files of `worker/tuners`, methods of peft, words for both.

In: the package's folder, and the list of peft's methods. Out: names, for the arguments and the worker alike. No method
is imported: their libraries are behind the wall.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from hpcbench.catalog.peft_methods import PeftField, PeftMethod, peft_methods
from hpcbench.errors import did_you_mean

TUNERS_FOLDER: Final = Path(__file__).parents[1] / "worker" / "tuners"

PEFT: Final = "peft"
"""The file for every method of peft that has none of its own, and the `sft_type` that `peft_config` names it with."""

SHORTHANDS: Final[Mapping[str, Mapping[str, str | float | bool]]] = {
    "dora": {"sft_type": "lora", "use_dora": True},
    "rslora": {"sft_type": "lora", "use_rslora": True},
    # 2^4, the ratio of the paper's experiments on language models (arXiv:2402.12354).
    "lora+": {"sft_type": "lora", "lora_lr_ratio": 16.0},
    # As in SWIFT 2.x's scripts: `qlora` is lora with quantization_bit 4.
    "qlora": {"sft_type": "lora", "quantization_bit": 4},
    "qalora": {"sft_type": "lora", "use_qalora": True},
    "galore": {"sft_type": "full", "use_galore": True},
    # Two layers at a time, as in the paper (arXiv:2403.17919) and ms-swift's benchmark.
    "lisa": {"sft_type": "full", "lisa_activated_layers": 2},
}
"""Values of `sft_type` that mean another one with a switch on, as ms-swift's benchmark tables write these methods."""

REFUSED_METHODS: Final[Mapping[str, str]] = {
    "cpt": "it needs the kind of every token of a row (input, format, label), and computes the loss from them",
    **dict.fromkeys(
        ("multitask_prompt_tuning", "poly"),
        "its forward needs the task of every row (task_ids), which neither rows nor lm-eval's prompts have",
    ),
    "xlora": "it mixes adapters that were trained before; hpcbench trains one adapter, from its start",
}
"""Methods of peft that rows of chats and texts cannot train -> why."""

REFUSED_FIELDS: Final[Mapping[str, str]] = {
    "save_only_topk_weights": "what it leaves out of a checkpoint is needed to resume from it",
    "use_asa": "its schedule is a part of the training loop, which peft leaves to a callback of its own",
    "tokenizer_kwargs": "the tokenizer is the model's",
    **dict.fromkeys(("megatron_config", "megatron_core"), "hpcbench does not train with Megatron"),
    **dict.fromkeys(
        ("token_dim", "num_transformer_submodules", "num_attention_heads", "num_layers"), "peft reads it off the model"
    ),
}
"""Fields of peft's configurations that are not honoured when they are set -> why."""

SWIFT_PREFIXES: Final[Mapping[str, str]] = {"fourier": "fourierft"}
"""Prefixes of SWIFT's arguments that are not the method's name."""
SWIFT_DEFAULTS: Final[Mapping[str, Mapping[str, int | float]]] = {
    "fourierft": {"n_frequency": 2000, "scaling": 300.0},
}
"""Fields whose default in every version of SWIFT is another than peft's; hpcbench's defaults are SWIFT's."""

REQUIRED_FIELDS: Final[Mapping[str, Mapping[str, str]]] = {
    **{name: {"num_virtual_tokens": "20"} for name in ("cartridge", "p_tuning", "prefix_tuning", "prompt_tuning")},
    "adaption_prompt": {"adapter_len": "10", "adapter_layers": "8"},
    "trainable_tokens": {"token_indices": "[0, 1]"},
}
"""Fields without which a method cannot be made -> an example."""

ALTERNATIVES: Final[Mapping[str, tuple[str, str]]] = {
    "boft": ("boft_block_num", "boft_block_size"),
    "oft": ("r", "oft_block_size"),
}
"""Two fields of a method, one of which follows from the other and has to be 0 in peft; it is where it is not set."""

OWN_PLACES: Final = frozenset({"adaption_prompt", "beft", "ln_tuning", "shadow", "trainable_tokens"})
"""Methods that do not go into linear layers: peft chooses their modules by the architecture."""
BASE_DTYPE_METHODS: Final = frozenset({"ln_tuning", "shadow"})
"""Methods that train copies of the base's weights, in its dtype."""

FIELDS_AS_ARGUMENTS: Final[Mapping[str, Mapping[str, str]]] = {
    "lora": {
        "r": "lora_rank",
        "lora_alpha": "lora_alpha",
        "lora_dropout": "lora_dropout_p",
        "target_modules": "lora_target_modules",
        "modules_to_save": "lora_modules_to_save",
        "target_parameters": "target_parameters",
        "bias": "lora_bias_trainable",
        "use_rslora": "use_rslora",
        "use_dora": "use_dora",
        "use_qalora": "use_qalora",
        "qalora_group_size": "qalora_group_size",
        "init_lora_weights": "init_lora_weights",
    },
    "adalora": {
        "lora_alpha": "lora_alpha",
        "lora_dropout": "lora_dropout_p",
        "target_modules": "lora_target_modules",
        **{
            name: f"adalora_{name}"
            for name in ("target_r", "init_r", "tinit", "tfinal", "deltaT", "beta1", "beta2", "orth_reg_weight")
        },
    },
    "ia3": {
        "target_modules": "ia3_target_modules",
        "feedforward_modules": "ia3_feedforward_modules",
        "modules_to_save": "lora_modules_to_save",
    },
}
"""Methods with arguments of their own -> fields of peft's configuration -> the argument that sets them."""

_PATTERNS: Final = ("alpha_pattern", "exclude_modules", "fan_in_fan_out", "layers_pattern", "layers_to_transform")
FURTHER_FIELDS: Final[Mapping[str, frozenset[str]]] = {
    "lora": frozenset({*_PATTERNS, "rank_pattern", "lora_bias", "layer_replication", "trainable_token_indices"}),
    "adalora": frozenset({*_PATTERNS, "trainable_token_indices"}),
    "ia3": frozenset({"exclude_modules", "fan_in_fan_out", "init_ia3_weights"}),
}
"""Methods with arguments of their own -> further fields of peft's configuration that `peft_config` may set."""

_TRUE: Final = frozenset({"true", "yes", "on"})
_FALSE: Final = frozenset({"false", "no", "off"})


@cache
def list_tuners() -> tuple[str, ...]:
    """Return the names of all methods with a file, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules([str(TUNERS_FOLDER)])))


@cache
def list_peft_methods() -> tuple[str, ...]:
    """Return the methods of peft that can be trained and take their fields from `peft_config`, sorted."""
    others = {*FIELDS_AS_ARGUMENTS, *REFUSED_METHODS}
    return tuple(sorted(name for name in peft_methods() if name not in others))


def list_sft_types() -> tuple[str, ...]:
    """Return what `sft_type` may be, sorted."""
    return tuple(sorted({*list_tuners(), *list_peft_methods(), *SHORTHANDS}))


def file_of(sft_type: str) -> str:
    """Return the file that trains a method."""
    return sft_type if sft_type in list_tuners() else PEFT


def find_method(sft_type: str) -> PeftMethod | None:
    """Return the method of peft that takes its fields from `peft_config` alone, or None."""
    return peft_methods()[sft_type] if sft_type in list_peft_methods() else None


def prefixes_of(method: str) -> tuple[str, ...]:
    """Return what the names of a method's arguments may begin with."""
    return (f"{method}_", *(f"{prefix}_" for prefix, name in SWIFT_PREFIXES.items() if name == method))


def field_named(method: str, name: str) -> str | None:
    """Return the field of a method's configuration that an argument names, with or without its prefix, or None."""
    fields = peft_methods()[method].fields
    bare = next((name.removeprefix(prefix) for prefix in prefixes_of(method) if name.startswith(prefix)), name)
    # SWIFT writes `vera_rank` for what peft calls r.
    candidates = (name, bare, *(("r",) if bare == "rank" and bare != name else ()))
    return next((candidate for candidate in candidates if candidate in fields), None)


@cache
def peft_arguments() -> Mapping[str, tuple[str, ...]]:
    """Return the names that fields of peft's methods have as arguments -> the methods that they belong to."""
    found: dict[str, tuple[str, ...]] = {}
    for method in list_peft_methods():
        fields = peft_methods()[method].fields
        names = {*fields, *(prefix + field for prefix in prefixes_of(method) for field in fields)}
        if "r" in fields:
            names |= {f"{prefix}rank" for prefix in prefixes_of(method)}
        for name in names:
            found[name] = (*found.get(name, ()), method)
    return found


def read_peft_config(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a method's configuration with values of their types, without those at their defaults.

    Raises:
        ValueError: a field is unknown, not honoured, or of another type; `message: hint`.
    """
    fields = peft_methods()[method].fields
    of_swift = SWIFT_DEFAULTS.get(method, {})
    found: dict[str, Any] = {**of_swift}
    for name, value in given.items():
        if (problem := find_field_problem(method, name)) is not None:
            raise ValueError(": ".join(problem))
        try:
            found[name] = read_value(fields[name], value)
        except ValueError as error:
            raise ValueError(f"peft_config.{name} is {value!r}, and takes {error}") from error
    number, size = ALTERNATIVES.get(method, ("", ""))
    if found.get(number) and found.setdefault(size, 0):
        raise ValueError(f"{number} and {size} of {method} say the same: keep one of them")
    # Kept where SWIFT's default is another: what is read once more must not take that for the value.
    return {name: value for name, value in sorted(found.items()) if name in of_swift or value != fields[name].default}


def find_field_problem(method: str, name: str) -> tuple[str, str] | None:
    """Return why a field cannot be set in `peft_config` and what to do instead, or None."""
    fields = peft_methods()[method].fields
    if name not in fields:
        hint = did_you_mean(name, fields) or f"its fields are {', '.join(sorted(fields))}"
        return f"{method} has no field {name!r} in peft", hint
    if name in REFUSED_FIELDS:
        return f"`{name}` cannot be set; {REFUSED_FIELDS[name]}", "remove it"
    if name in FIELDS_AS_ARGUMENTS.get(method, {}):
        return f"`{name}` of {method} has an argument", f"set {FIELDS_AS_ARGUMENTS[method][name]}"
    if method in FURTHER_FIELDS and name not in FURTHER_FIELDS[method]:
        others = ", ".join(sorted(FURTHER_FIELDS[method]))
        return f"`{name}` of {method} needs more than a value, and is not honoured", f"peft_config takes {others}"
    return None


def read_value(field: PeftField, value: Any) -> Any:
    """Return a value as a field takes it; numbers, booleans and lists may be text, as in SWIFT's files.

    Raises:
        ValueError: with what the field takes.
    """
    if value is None and field.default is None:
        return None
    if isinstance(value, str):
        value = _read_text(field, value)
    if isinstance(value, tuple):
        value = list(value)
    kind = type(value).__name__
    if kind == "int" and kind not in field.kinds and "float" in field.kinds:
        value, kind = float(value), "float"
    if kind == "float" and kind not in field.kinds and "int" in field.kinds and value == int(value):
        value, kind = int(value), "int"
    is_wrong = kind not in field.kinds or (kind == "str" and field.choices and value not in field.choices)
    if is_wrong or (field.minimum is not None and kind in {"int", "float"} and value < field.minimum):
        raise ValueError(field.describe())
    return value


def _read_text(field: PeftField, text: str) -> Any:
    word = text.strip()
    if "str" in field.kinds and (word in field.choices or not field.choices):
        return word
    if "bool" in field.kinds and word.lower() in _TRUE | _FALSE:
        return word.lower() in _TRUE
    for kind, parse in (("int", int), ("float", float)):
        if kind in field.kinds:
            try:
                return parse(word)
            except ValueError:
                continue
    return word.replace(",", " ").split() if "list" in field.kinds else text


def needs_method(methods: Iterable[str]) -> str:
    """Return what an argument of these methods needs, as it is written in a suite."""
    names = tuple(methods)
    return f"sft_type: {', '.join(names)}" if len(names) < 6 else "an sft_type of peft that has it"  # noqa: PLR2004
