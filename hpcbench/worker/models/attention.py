"""Which attention a model gets, and the proof that the samples of a pack do not attend to each other.

In: the training arguments, a model. Out: transformers' name of the attention, or an error. It changes no model.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any, Final

import torch
from transformers.utils import import_utils

from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import HUB_KERNELS, SftArgs
from hpcbench.schemas.request import Device
from hpcbench.worker.models import inference

_EXACT_ATTENTION: Final = ("sdpa", "eager", "flash", "flex", HUB_KERNELS)
_PROBE_LENGTH: Final = 8
FLASH_ATTENTION_2: Final = "flash_attention_2"
_FLASH: Final[Mapping[str, tuple[str, str]]] = {
    FLASH_ATTENTION_2: ("flash_attn", "flash-attn"),
    "flash_attention_3": ("flash_attn_interface", "flash-attn-3"),
}
"""Name of a flash attention -> its module, and the package as messages name it."""


def check_packing(model: Any, device: torch.device | str) -> None:
    """Raise if the samples of a pack attend to each other in this model.

    The second half of a pack must not change when the first does: a leak shows as a difference far above rounding.

    Raises:
        WorkerError: the attention is not one that keeps samples apart, or a sample attended to another.
    """
    attention = str(getattr(model.config, "_attn_implementation", None))
    if not attention.startswith(_EXACT_ATTENTION):
        raise WorkerError(
            f"packing: attention {attention!r} may mix samples; it works with sdpa, eager, flex and flash attention"
        )
    size = int(model.get_input_embeddings().weight.shape[0])
    positions = torch.arange(_PROBE_LENGTH).repeat(2)[None].to(device)
    first = torch.arange(2 * _PROBE_LENGTH)[None] % size
    second = first.clone()
    second[:, :_PROBE_LENGTH] = (first[:, :_PROBE_LENGTH] + size // 2) % size
    with inference(model):
        outputs = [
            model(input_ids=ids.to(device), position_ids=positions, use_cache=False).logits[:, _PROBE_LENGTH:].float()
            for ids in (first, second)
        ]
    difference = float((outputs[0] - outputs[1]).abs().max())
    if not difference <= 1e-3 * float(outputs[0].abs().max()):
        raise WorkerError(
            f"packing: samples of a pack attend to each other in this model (logits differ by {difference:.3g})",
            hint="set packing: false",
        )


def choose_attention(args: SftArgs, device: Device) -> str | None:
    """Return transformers' name of the attention to load the model with; None leaves the choice to transformers.

    Raises:
        WorkerError: `attn_impl` names one that cannot run here.
    """
    if args.attn_impl is not None:
        runs_anywhere = args.attn_impl in {"sdpa", "eager"}
        obstacle = None if runs_anywhere else _find_obstacle(args.attn_impl, args, device)
        if obstacle is not None:
            raise WorkerError(
                f"attn_impl: {args.attn_impl} {obstacle}", hint="set attn_impl: sdpa, or remove it to take what runs"
            )
        return args.attn_impl
    if args.use_flash_attn is False or _find_obstacle(FLASH_ATTENTION_2, args, device) is not None:
        return None
    return FLASH_ATTENTION_2


def check_attention(args: SftArgs, ran: str | None) -> None:
    """Raise where the model runs with another attention than the one that is named.

    Raises:
        WorkerError: transformers or the model replaced it.
    """
    if args.attn_impl is not None and ran != args.attn_impl:
        raise WorkerError(
            f"attn_impl: {args.attn_impl} was asked for, and the model runs {ran or 'an attention without a name'}",
            hint="remove attn_impl to take what the model has",
        )


def explain_attention(args: SftArgs, device: Device, ran: str | None) -> str | None:
    """Return why the attention that ran is not the one that was asked for, or None where it is."""
    if args.use_flash_attn is not True or (ran is not None and ran.startswith("flash")):
        return None
    obstacle = _find_obstacle(FLASH_ATTENTION_2, args, device) or "is not there for this architecture"
    return f"flash attention was asked for and {obstacle}; {ran or 'another attention'} ran instead"


def refuses_attention(error: Exception) -> bool:
    """Return whether a model could not be loaded because of the attention that was asked for."""
    # transformers raises a plain ValueError or ImportError, and remote code ValueErrors of its own.
    text = str(error).lower()
    return any(word in text for word in ("flash attention", "flashattention", "attn_implementation", "scaled_dot_"))


def _find_obstacle(name: str, args: SftArgs, device: Device) -> str | None:
    """Return what is in the way of an attention for GPUs, to stand after its name, or None."""
    if device == "cpu":
        return "runs on GPUs only"
    if name == "flex_attention":
        return None if import_utils.is_torch_flex_attn_available() else "needs a newer torch"
    if args.dtype == "fp32":
        return "needs dtype bf16 or fp16"
    if name.startswith(HUB_KERNELS):
        if import_utils.is_kernels_available():
            return None
        least, below = import_utils.KERNELS_MIN_VERSION, import_utils.KERNELS_MAX_VERSION
        return f"needs the package kernels, {least} or newer and below {below}"
    module, package = _FLASH[name]
    if importlib.util.find_spec(module) is None:
        return f"needs {package}, which is not installed"
    is_available = getattr(import_utils, f"is_flash_attn_{name[-1]}_available")
    return None if is_available() else f"needs a newer {package}"
