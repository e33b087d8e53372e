"""The check before each attempt: are the local files that the job reads still those that its fingerprint was made of?

In: the request with the hashes of its submit. Out: the cause to record where one has changed or is gone. It reads every
byte again and trusts no cache: a job may wait for days, and a stale answer here is a result under a false fingerprint.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType

from hpcbench.errors import HpcbenchError
from hpcbench.job.stop_reason import StopRequest
from hpcbench.plan.inputs import hash_inputs
from hpcbench.schemas.record import INPUTS_CHANGED, Cause
from hpcbench.schemas.request import JobRequest

logger = logging.getLogger(__name__)

SHOWN_DIGITS = 12
RESTORE = "put back what was there and retry, or submit again with --force to run on what is there now"


class _AskedToStopError(Exception):
    """Nothing is left to find out about a job that ends anyway."""


def find_changed_input(
    request: JobRequest,
    stop: StopRequest,
    *,
    compared: Mapping[str, str] = MappingProxyType({}),
    beat: Callable[[], None] = lambda: None,
) -> Cause | None:
    """Return the cause that names the first input that is not as it was, or None; once asked to stop, look no further.

    `compared` has the hashes of what the running worker has loaded: changed since then, it would change nothing.
    Terabytes take longer than a claim may be silent: `beat` is called now and then.

    Requests of earlier versions have no hashes, and pass.
    """
    started = time.monotonic()

    def tick() -> None:
        if stop.reason is not None:
            raise _AskedToStopError
        beat()

    for name, expected in sorted(request.inputs.items() - compared.items()):
        try:
            tick()
            found = hash_inputs([name], tick=tick).get(name)
        except _AskedToStopError:
            return None
        except OSError as error:
            return _describe(f"{name}: cannot be read on this node: {error.strerror or error}")
        except HpcbenchError as error:
            return _describe(f"{name}: cannot be read any more: {error.message}")
        if found is None:
            return _describe(f"{name}: is not there any more, or not on this node")
        if found != expected:
            hashes = f"expected: the content with hash {expected[:SHOWN_DIGITS]}, found {found[:SHOWN_DIGITS]}"
            return _describe(f"{name}: changed since it was submitted; {hashes}")
    if request.inputs:
        logger.info("%d inputs are as they were submitted (%.1f s)", len(request.inputs), time.monotonic() - started)
    return None


def _describe(message: str) -> Cause:
    return Cause(type=INPUTS_CHANGED, message=message, hint=RESTORE)
