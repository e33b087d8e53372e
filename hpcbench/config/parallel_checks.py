"""What cannot be spread over ranks as it is asked for: refused before anything waits in a queue.

In: the arguments and resources of a training, and where each was written. Out: problems with file and line (pure).
"""

from __future__ import annotations

from collections.abc import Callable

from hpcbench.config.deepspeed_checks import check_deepspeed
from hpcbench.config.fsdp_checks import check_fsdp
from hpcbench.errors import Problem
from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.request import Device, Resources
from hpcbench.storage.located_yaml import Located

AtKey = Callable[[str], Located]


def check_parallel(args: SftArgs, resources: Resources, at_key: AtKey, *, device: Device) -> list[Problem]:
    """Return what the ranks of a training could not share as asked."""
    found = [
        *check_fsdp(args, resources, at_key, device=device),
        *check_deepspeed(args, resources, at_key, device=device),
    ]
    if not (args.fsdp or args.deepspeed) and device == "cuda" and 1 < resources.ddp < resources.gpu:
        found += _check_spread_ranks(args, resources, at_key)
    if device == "cuda" and args.use_cce and resources.gpu > resources.ddp:
        message = "`use_cce` computes on one GPU, and here each rank spreads its model over several"
        hint = "set chunked_cross_entropy: true in its place"
        found.append(at_key("use_cce").problem(message, hint=hint))
    return found


def _check_spread_ranks(args: SftArgs, resources: Resources, at_key: AtKey) -> list[Problem]:
    """Return what ranks that each spread a model over several GPUs cannot train."""
    shape = f"gpu {resources.gpu} and ddp {resources.ddp}, where each rank spreads its model over several GPUs"
    expected = f"requirements: {{gpu: {resources.gpu}, ddp: {resources.gpu}}}, or ddp: 1"
    # accelerate refuses quantised layers there, and TRL's losses have not been tried.
    names = [name for name in ("quantization_bit", "quant_method", "rlhf_type") if args.differs_from_default(name)]
    return [at_key(name).problem(f"`{name}` with {shape}", expected=expected) for name in names]
