"""Shadow tuning by peft: a small network beside the decoder, trained with a loss of its own.

In: the base model and the fields in `peft_config`. Out: a peft model whose shadow network alone is trained. A file of
its own because some of its weights get no gradient in a step, which DDP has to be told.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from hpcbench.worker.tuners import peft

TUNER: Final = replace(
    peft.TUNER,
    leaves_weights_unused=True,
    notes={"train_loss": "includes the shadow network's auxiliary loss; eval_loss does not"},
)
