"""One attempt of a training: everything that it writes to, and how far it is.

In: what `sft.py` puts together. Out: the same, kept up to date by the Trainer and its callback. It does nothing itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hpcbench.schemas.arguments import SftArgs
from hpcbench.storage.paths import AttemptPaths
from hpcbench.worker.data.encoded import Encoded
from hpcbench.worker.data.images import ImageInputs
from hpcbench.worker.data.rendered import AnswerEnds
from hpcbench.worker.measure.meter import Meter, StepMeasure
from hpcbench.worker.measure.rouge import Prompt
from hpcbench.worker.progress_file import History, Progress
from hpcbench.worker.ranks import Ranks
from hpcbench.worker.train.checkpoints import CheckpointStore, ResumePoint
from hpcbench.worker.train.speed import Speed
from hpcbench.worker.tuners import Tuner


@dataclass(kw_only=True)
class Run:
    """Everything that one attempt's training writes to, and how far it is."""

    args: SftArgs
    attempt: AttemptPaths
    store: CheckpointStore
    progress: Progress
    history: History
    meter: Meter
    tuner: Tuner
    ranks: Ranks
    train_rows: Sequence[Encoded]
    val_rows: Sequence[Encoded]
    packs: Sequence[Sequence[int]] | None = None
    """Indices of the training rows that share a sequence; None without packing."""
    prompts: Sequence[Prompt] = ()
    """Validation prompts to generate answers to."""
    images: ImageInputs | None = None
    """What makes pixels of the rows' images; None for a text model."""
    ends: AnswerEnds | None = None
    """What ends such an answer; None where there are no prompts."""
    named_step: int | None = None
    """Step of the checkpoint that `resume_from_checkpoint` names; None where it names none."""
    checks_resume: bool = False
    """Whether this attempt goes on from it, so that its state may not fit the arguments."""
    point: ResumePoint = field(default_factory=ResumePoint)
    interrupted: bool = False
    sharding: str | None = None
    """How the model's parts lie on the ranks, as it was found; None where each rank has all of them."""
    measure: StepMeasure | None = None
    speed: Speed | None = None
    """What the Trainer puts in to make the training faster or smaller."""
    first_step_at: float | None = None
    """Seconds since the epoch."""

    @property
    def only_save_model(self) -> bool:
        """The argument, with ms-swift's default: weights alone for full, the optimizer's state too for lora."""
        if self.args.only_save_model is None:
            return self.args.sft_type == "full"
        return self.args.only_save_model

    @property
    def save_steps(self) -> int:
        """Steps between checkpoints."""
        return self.args.save_steps or self.args.eval_steps

    @property
    def evaluates(self) -> bool:
        """Whether there are validation rows, and evaluations of them."""
        return bool(self.val_rows) and self.args.eval_strategy != "no"

    @property
    def num_steps_kept(self) -> int | None:
        """How many checkpoints on the way are kept for now; None is all.

        At the end best and last take two of them, and which those are is not known before.
        """
        limit = self.args.save_total_limit
        return None if limit < 1 else limit if limit > 2 else 0
