"""What cannot be spread over ranks as it is asked for: refused before anything waits in a queue.

In: the arguments and resources of a training, and where each was written. Out: problems with file and line (pure).
"""

from __future__ import annotations

from collections.abc import Callable

from hpcbench.errors import Problem
from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.request import Device, Resources
from hpcbench.storage.located_yaml import Located

AtKey = Callable[[str], Located]


def check_parallel(args: SftArgs, resources: Resources, at_key: AtKey, *, device: Device) -> list[Problem]:  # noqa: ARG001
    """Return what the ranks of a training could not share as asked."""
    return [
        at_key(name).problem(f"`{name}` is known but not supported by this version", hint="remove it")
        for name in ("fsdp", "fsdp_config")
        if args.differs_from_default(name)
    ]
