"""`eval_args.batch_size: auto`: the largest batch that fits, found before the run.

In: a trial of one batch. Out: a size. It is not changed during a run: the speed that is measured is that of one size.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

logger = logging.getLogger(__name__)

LARGEST: Final = 64
"""As in lm-eval; more is hardly faster."""
ON_CPU: Final = 8


def find_batch_size(trial: Callable[[int], None], *, largest: int = LARGEST) -> int:
    """Return the largest of `largest`, its half, its quarter, ... whose trial does not run out of memory."""
    size = largest
    while size > 1:
        try:
            trial(size)
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
            logger.info("batch_size auto: %d prompts do not fit", size)
        else:
            break
        # Outside the handler, whose traceback keeps the tensors alive.
        clear_device_cache(garbage_collection=True)
        size //= 2
    logger.info("batch_size auto: %d", size)
    return size
