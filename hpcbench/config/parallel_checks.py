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
    return [
        *check_fsdp(args, resources, at_key, device=device),
        *check_deepspeed(args, resources, at_key, device=device),
    ]
