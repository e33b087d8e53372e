"""Which attention a model gets, and the proof that the samples of a pack do not attend to each other.

In: the training arguments, a model. Out: transformers' name of the attention, or an error. It changes no model.
"""

from __future__ import annotations

from typing import Any, Final

import torch

from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.request import Device
from hpcbench.worker.models import inference

_EXACT_ATTENTION: Final = ("sdpa", "eager", "flash")
_PROBE_LENGTH: Final = 8


def check_packing(model: Any, device: torch.device | str) -> None:
    """Raise if the samples of a pack attend to each other in this model.

    The second half of a pack must not change when the first does: a leak shows as a difference far above rounding.

    Raises:
        WorkerError: the attention is not one that keeps samples apart, or a sample attended to another.
    """
    attention = str(getattr(model.config, "_attn_implementation", None))
    if not attention.startswith(_EXACT_ATTENTION):
        raise WorkerError(
            f"packing: attention {attention!r} may mix samples; it works with sdpa, eager and flash attention"
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


def choose_attention(args: SftArgs, device: Device) -> tuple[str | None, str | None]:
    """Return transformers' attention name (None: its own best) and why it is not what was asked for, or None."""
    if args.use_flash_attn is False:
        return None, None
    from transformers.utils.import_utils import is_flash_attn_2_available

    wanted = args.use_flash_attn is True
    if device == "cpu":
        return None, "flash attention was asked for and runs on GPUs only" if wanted else None
    if args.dtype == "fp32":
        return None, "flash attention was asked for and needs dtype bf16 or fp16" if wanted else None
    if not is_flash_attn_2_available():
        return None, "flash attention was asked for and flash-attn is not installed" if wanted else None
    return "flash_attention_2", None
