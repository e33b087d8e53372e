"""What a training's command says by itself: the loss that `cmd: dpo` names, and the defaults of `cmd: pt`.

In: the command as it is written and the arguments beside it. Out: typed values to put beside them, or problems where
the two contradict each other. No other argument is judged here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, get_args

from hpcbench.config.other_tools import OTHER_COMMANDS, REFUSED_RLHF_TYPES
from hpcbench.config.typed_fields import TRUE_WORDS
from hpcbench.errors import Problem
from hpcbench.schemas.arguments import RlhfType
from hpcbench.schemas.request import TRAININGS, Command
from hpcbench.storage.located_yaml import Located

LOSSES: Final[tuple[str, ...]] = get_args(RlhfType)
"""Commands that mean `cmd: rlhf` with this `rlhf_type`."""
_PRETRAINING: Final[Mapping[str, Any]] = {"sft_type": "full", "lora_target_modules": ("ALL",), "eval_steps": 500}
"""Defaults of `cmd: pt` where they are not those of `sft`, as in SWIFT 2.x and later."""


def own_values(cmd: Command, word: str, given: dict[str, Located], problems: list[Problem]) -> dict[str, Any]:
    """Return the arguments that the command sets, typed; what contradicts it is taken out of those that are given.

    Args:
        cmd: the command.
        word: as it was written, for example dpo.
        given: the arguments beside it, by their own names.
        problems: takes what contradicts the command.
    """
    if cmd == "rlhf":
        return _of_preferences(word, given, problems)
    loss = given.pop("rlhf_type", None)
    # What all experiments share is right for the others.
    if loss is not None and loss.source in {"experiment", "matrix"} and cmd in TRAININGS:
        problems.append(loss.problem("`rlhf_type` is only for `cmd: rlhf`", hint="set cmd: rlhf, or remove it"))
    if cmd == "pt":
        return _of_pretraining(given, problems)
    return {}


def name_bits(cmd: Command, given: Mapping[str, Located]) -> Mapping[str, Located]:
    """Return the arguments with the bits that bitsandbytes loads with under their own name.

    ms-swift 3 and later write `quant_method: bnb, quant_bits: 4` for what is quantized while it is loaded, too.
    """
    method = given.get("quant_method")
    if cmd == "export" or "quant_bits" not in given or method is None or method.value != "bnb":
        return given
    if "quantization_bit" in given:
        return given
    return {"quantization_bit" if name == "quant_bits" else name: value for name, value in given.items()}


def name_merge(cmd: Command, given: Mapping[str, Located], problems: list[Problem]) -> Mapping[str, Located]:
    """Return the arguments of an export with SWIFT 2.x's `merge_lora_and_save`, an argument of infer, as merge_lora."""
    if cmd != "export" or "merge_lora_and_save" not in given:
        return given
    if "merge_lora" in given and given["merge_lora"].source == given["merge_lora_and_save"].source:
        message = "`merge_lora_and_save` and `merge_lora` are the same argument"
        problems.append(given["merge_lora_and_save"].problem(message, hint="keep one of them"))
    return {"merge_lora" if name == "merge_lora_and_save" else name: value for name, value in given.items()}


def _of_preferences(word: str, given: dict[str, Located], problems: list[Problem]) -> dict[str, Any]:
    value = given.get("rlhf_type")
    named = None if value is None else value.value
    if value is not None and named in REFUSED_RLHF_TYPES:
        other = OTHER_COMMANDS[str(named)]
        message = f"`rlhf_type: {named}` is known but not supported by this version: {other.why}"
        problems.append(given.pop("rlhf_type").problem(message, expected=", ".join(LOSSES), hint=other.in_suite))
    elif value is not None and word in LOSSES and named not in {None, word}:
        problems.append(value.problem(f"`cmd: {word}` contradicts `rlhf_type: {named}`", hint="keep one of them"))
    elif value is None or named is None:
        return {"rlhf_type": word if word in LOSSES else LOSSES[0]}
    return {}


def _of_pretraining(given: dict[str, Located], problems: list[Problem]) -> dict[str, Any]:
    plain = given.get("plain_text")
    if plain is not None and str(plain.value).lower() not in TRUE_WORDS:
        problems.append(plain.problem("`cmd: pt` learns texts as they are", hint="take `cmd: sft` to learn answers"))
    is_all = given.get("loss_on_prompt"), given.get("loss_on_all_rounds")
    if all(each is not None and each.value is True for each in is_all):
        del given["loss_on_all_rounds"]  # `loss_scale: all`, ms-swift's own for texts
    is_lazy = "lazy_tokenize" in given and str(given["lazy_tokenize"].value).lower() in TRUE_WORDS
    # How many pieces there are is not known before training where texts are tokenized when they are needed.
    found = {**_PRETRAINING, "plain_text": True, "truncation_strategy": "truncation_left" if is_lazy else "split"}
    return {name: value for name, value in found.items() if name not in given}
