"""What the trainers of all preference losses share: hpcbench's Trainer before TRL's.

In: a prepared model, encoded rows, a `Run`, the reference model. Out: as of `BenchTrainer`; rewards in the history
beside the losses. Of TRL's trainer the constructor, `compute_loss`, `prediction_step` and `log` run; its data, its
evaluation loop and its model cards do not.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, cast

import torch
from datasets import Dataset
from torch import nn

from hpcbench.schemas.arguments import WITH_REFERENCE
from hpcbench.worker.data.batches import Collate
from hpcbench.worker.data.encoded import Encoded
from hpcbench.worker.measure.rewards import CHOSEN, MARGIN, REJECTED, name_rewards
from hpcbench.worker.models import inference
from hpcbench.worker.train.run import Run
from hpcbench.worker.train.trainer import BenchTrainer


class PreferenceTrainer(BenchTrainer):
    """A `BenchTrainer` that stands before one of TRL's trainers, which computes the loss.

    TRL's losses are means over the answers of a batch. Here the loss of a step is the mean over all its answers, for
    any number of ranks and whatever is accumulated.
    """

    ref_model: Any
    fills_up = True  # TRL gathers rewards of all ranks, which must be equally many
    collator: ClassVar[Callable[..., Collate]]
    """Makes the batches that TRL's loss takes."""
    figures: ClassVar[str]
    """TRL's attribute with the figures of the last batches, by `train` and `eval`."""

    def __init__(self, *, run: Run, model: Any, reference: Any, **options: Any) -> None:
        if run.args.rlhf_type in WITH_REFERENCE:
            # Without a model TRL would copy the adapter, which not every method of peft can have twice.
            options["ref_model"] = _Nobody(model) if reference is None else reference
        # Of a base in 4 or 8 bits TRL turns the adapter into bf16; here it is fp32, as in every other training.
        trained = {name: weight.data for name, weight in model.named_parameters() if weight.requires_grad}
        super().__init__(run=run, model=model, train_dataset=_NoRows.from_dict(_ROW), **options)
        for name, weight in model.named_parameters():
            if name in trained:
                weight.data = trained[name]
        if run.args.rlhf_type in WITH_REFERENCE and reference is None:
            self.ref_model = None  # from here on TRL takes the model without its adapter
        self._num_in_step = 1

    def make_collate(self) -> Collate:
        """Return what makes the batches of TRL's loss."""
        args = self.run.args
        return type(self).collator(
            self._tokenizer.pad_token_id, max_length=args.max_length, estimates_kl=args.estimates_kl
        )

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """Count the answers of the step before it begins."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        counted = torch.tensor([sum(batch["num_samples"] for batch in batches)])
        self._num_in_step = int(self.run.ranks.sum(counted, device)[0])
        return batches, None

    def add_reference(self, inputs: dict[str, Any]) -> None:
        """Put what the loss needs of the reference into a batch, where TRL does not compute it by itself."""

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Return TRL's loss, in training as this batch's part of the step's mean."""
        num_samples = inputs["num_samples"]
        self.add_reference(inputs)
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        if not model.training:
            return loss
        # The Trainer divides by the batches that are accumulated, and DDP by the ranks.
        num_batches = self.current_gradient_accumulation_steps * self.run.ranks.count
        return loss * (num_samples * num_batches / self._num_in_step)

    def measure_validation(self, on_batch: Callable[[], None]) -> dict[str, float]:
        """Return the mean loss of the validation rows as eval_loss, and their rewards."""
        run, collate = self.run, self.make_collate()
        totals: dict[str, float] = defaultdict(float)
        counts: Counter[str] = Counter()
        with inference(self.model):
            for rows, is_shared in self._share_out(run.args.eval_batch_size or run.args.batch_size):
                on_batch()
                batch = collate([(row,) for row in rows])
                # Typed as optional, which they are for other uses of the Trainer.
                loss = float(cast("Any", self.prediction_step(cast("Any", self.model), batch, True)[0]))  # noqa: FBT003
                figures = {"eval_loss": loss, **self._take_rewards()}
                gathered = torch.tensor([*_count(rows), loss * len(rows)], dtype=torch.float64)
                if is_shared:
                    gathered = run.ranks.sum(gathered, self.args.device)
                    figures["eval_loss"] = float(gathered[-1] / gathered[0])
                num_all, num_good, num_bad = (int(number) for number in gathered[:3])
                for name, value in figures.items():
                    weight = {f"eval_{CHOSEN}": num_good, f"eval_{REJECTED}": num_bad}.get(name, num_all)
                    totals[name] += value * weight
                    counts[name] += weight
        means = {name: total / counts[name] for name, total in totals.items() if counts[name]}
        if {f"eval_{CHOSEN}", f"eval_{REJECTED}"} <= means.keys():
            means[f"eval_{MARGIN}"] = means[f"eval_{CHOSEN}"] - means[f"eval_{REJECTED}"]
        return means

    def _share_out(self, batch_size: int) -> Iterator[tuple[Sequence[Encoded], bool]]:
        """Yield this rank's batches of validation rows, and whether the other ranks have others.

        The last rows, which do not fill a batch for each rank, are those of every rank: TRL gathers over all of them.
        """
        run = self.run
        rows = sorted(run.val_rows, key=lambda row: row.num_tokens, reverse=True)
        round_size = batch_size * run.ranks.count
        num_shared = len(rows) - len(rows) % round_size
        for start in range(run.ranks.rank * batch_size, num_shared, round_size):
            yield rows[start : start + batch_size], True
        for start in range(num_shared, len(rows), batch_size):
            yield rows[start : start + batch_size], False

    def _take_rewards(self) -> dict[str, float]:
        """Return the rewards of the batch that was evaluated last, and forget them."""
        found = getattr(self, type(self).figures)["eval"]
        last = {name.removeprefix("eval_"): values[-1] for name, values in found.items() if values}
        found.clear()
        return name_rewards(last, prefix="eval_")

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write no model card: a push to a hub writes hpcbench's."""


def _count(rows: Sequence[Encoded]) -> tuple[int, int, int]:
    """Return how many rows there are, how many good answers, and how many bad ones; a pair has one of each."""
    num_good = sum(row.is_good is not False for row in rows)
    num_bad = sum(row.is_good is not True for row in rows)
    return len(rows), num_good, num_bad


_ROW: dict[str, list[Any]] = {"prompt": [""], "chosen": [""], "rejected": [""], "completion": [""], "label": [True]}


class _NoRows(Dataset):  # type: ignore[misc]  # datasets is untyped
    """What TRL's constructors prepare in place of rows: nothing of it is read."""

    def map(self, *_args: Any, **_kwargs: Any) -> _NoRows:
        return self

    def filter(self, *_args: Any, **_kwargs: Any) -> _NoRows:
        return self


class _Nobody(nn.Module):
    """What TRL's constructors take for a reference model where there is none of its own."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.config = model.config

    def forward(self) -> None:
        raise NotImplementedError
