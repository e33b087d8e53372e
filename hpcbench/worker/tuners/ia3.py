"""IA3 (arXiv:2205.05638) by peft: learnt factors on keys, values and the MLP's inner activations.

In: the base model and the ia3_* arguments. Out: a peft model whose factors alone are trained.
It never touches the base's weights.
"""

from __future__ import annotations

from typing import Any, Final

from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import SftArgs
from hpcbench.worker.tuners import Tuner
from hpcbench.worker.tuners.lora import check_names, check_saved_modules

DEFAULTS: Final = (
    (("k_proj", "v_proj"), "down_proj"),
    (("key", "value"), "dense_4h_to_h"),
    (("query_key_value",), "dense_4h_to_h"),
    (("c_attn",), "mlp.c_proj"),
    (("qkv_proj",), "down_proj"),
    (("k_proj", "v_proj"), "fc2"),
    (("wqkv",), "w2"),
)
"""Projections to key and value, and the MLP's last; the first that a model has in full are taken."""


def prepare(model: Any, args: SftArgs) -> Any:
    """Return the model with IA3's factors.

    Raises:
        WorkerError: the model has no modules of the names asked for, or scales inputs of modules that it does not have.
    """
    from peft import IA3Config, get_peft_model

    check_saved_modules(model, args)
    targets, feedforward = _choose_modules(model, args)
    config = IA3Config(
        task_type="CAUSAL_LM",
        target_modules=targets,
        feedforward_modules=feedforward,
        modules_to_save=list(args.lora_modules_to_save) or None,
        **args.peft_config,
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise WorkerError(f"ia3_target_modules: {error}") from error


def _choose_modules(model: Any, args: SftArgs) -> tuple[list[str], list[str]]:
    words, inputs = list(args.ia3_target_modules), list(args.ia3_feedforward_modules)
    if "DEFAULT" in words:
        names = [name for name, _ in model.named_modules()]
        for attention, last in DEFAULTS:
            if all(any(name.endswith(f".{word}") for name in names) for word in (*attention, last)):
                words = [*attention, last, *(word for word in words if word != "DEFAULT")]
                inputs = [*inputs, last]
                break
        else:
            raise WorkerError(
                f"ia3_target_modules: DEFAULT is not known for {type(model).__name__}", hint="name the modules"
            )
    check_names(model, "ia3_target_modules", words)
    if not set(inputs) <= set(words):
        raise WorkerError("ia3_feedforward_modules: they must be among ia3_target_modules")
    return words, inputs


TUNER: Final = Tuner(prepare=prepare)
