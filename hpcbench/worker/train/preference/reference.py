"""The reference model of a preference loss: what the answers of the trained model are compared with.

In: the training arguments and the prepared model. Out: a model of its own where one is needed, and in words which one
it is. A second copy of the weights is loaded only where switching the adapter off does not give the base back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from hpcbench.schemas.arguments import WITH_REFERENCE, SftArgs
from hpcbench.schemas.request import Device
from hpcbench.worker.models import loading

_KEPT_BASE: Final = (True, False, "gaussian", "orthogonal")
"""Values of peft's init_lora_weights that leave the base as it is; others take the adapter's part out of it."""


def load_reference(args: SftArgs, model: Any, device: Device, *, num_gpus: int) -> tuple[Any | None, str]:
    """Return the reference model, None where the loss has none of its own, and which one it is in words.

    Raises:
        WorkerError: the model that the arguments name is not there or not readable.
    """
    if args.rlhf_type not in WITH_REFERENCE:
        return None, "none: the loss compares with no model"
    if args.ref_model_free:
        return None, "none: every answer is equally likely (ref_model_free)"
    named = args.reference or args
    if args.ref_adapters:
        folder = Path(args.ref_adapters[0])
        return _freeze(loading.load_checkpoint(named, folder, device, merge=True, num_gpus=num_gpus)), str(folder)
    if args.reference is None and args.resume_only_model:
        # Before training the model has these weights; without its adapter it is what they began with.
        folder = Path(str(args.resume_from_checkpoint))
        loaded = loading.load_checkpoint(args, folder, device, num_gpus=num_gpus)
        # TRL calls the parts of a model of transformers, which an adapter's layers are in.
        return _freeze(loaded.get_base_model() if hasattr(loaded, "get_base_model") else loaded), str(folder)
    if args.reference is None and _restores_base(model):
        return None, "the model without its adapter"
    loaded = loading.load_model(named, device, num_gpus=num_gpus)
    return _freeze(loaded), "a second copy of the model" if args.reference is None else named.model_name


def _freeze(model: Any) -> Any:
    model.requires_grad_(requires_grad=False)
    return model.eval()


def _restores_base(model: Any) -> bool:
    """Return whether the model without its adapter is the base as it was loaded."""
    from peft import PeftModel

    if not isinstance(model, PeftModel):
        return False
    config = model.peft_config[model.active_adapter]
    if getattr(config, "init_lora_weights", True) not in _KEPT_BASE:
        return False
    prefix = getattr(model.base_model, "prefix", None)  # of the adapter's weights, by method; prompts have none
    marks = ("modules_to_save.", "trainable_tokens_", *((prefix,) if prefix else ("prompt_encoder.",)))
    trained = (name for name, weight in model.named_parameters() if weight.requires_grad)
    return all(any(mark in name for mark in marks) for name in trained)


def switch_dropout_off(base: Any) -> None:
    """Let no unit of the base drop out: the reference would be another one in each step.

    The adapter, which comes later, keeps what its arguments say.
    """
    from trl.trainer.utils import disable_dropout_in_model

    disable_dropout_in_model(base)
