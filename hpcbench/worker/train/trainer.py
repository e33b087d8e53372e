"""The Trainer of transformers, with hpcbench's batches, measurements, evaluation and checkpoints put in.

In: a prepared model, encoded samples, a `Run` that holds the job's files. Out: history, progress and checkpoints on the
way. Only public hooks of the Trainer are used, with one exception, which is commented: a new transformers release
breaks loudly or not at all.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import torch
from transformers import (
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from typing_extensions import override

from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import SftArgs
from hpcbench.storage.json_files import write_text
from hpcbench.storage.paths import PEFT_CONFIG
from hpcbench.worker.data.batches import BatchPlan, Collate, Collator, EpochLoader, PackCollator, Samples
from hpcbench.worker.data.processor import copy_processor_files
from hpcbench.worker.measure.loss import WeightedLoss, mean_cross_entropy, sum_weights
from hpcbench.worker.measure.rewards import name_rewards
from hpcbench.worker.measure.rouge import mean_rouge_l, predict
from hpcbench.worker.models.loading import has_other_names, load_adapter_weights, load_converted, save_adapter
from hpcbench.worker.parallel import deepspeed, fsdp
from hpcbench.worker.progress_file import Phase
from hpcbench.worker.signals import StopRequestedError, stop_requested
from hpcbench.worker.train.run import Run
from hpcbench.worker.train.speed import Speed
from hpcbench.worker.tuners.lora import cast_adapter

logger = logging.getLogger(__name__)

SCHEDULER: Final = "scheduler.pt"
"""transformers' file of the schedule's state, beside those of the optimizer."""
DIVERGED_STEPS = 10
"""After so many losses in a row that are not finite the rest of the training would only burn GPU hours."""


class BenchTrainer(Trainer):
    """A Trainer whose batches, loss counts and evaluation are hpcbench's."""

    control: TrainerControl
    lr_scheduler: Any
    fills_up = False
    """Whether all ranks get equally many samples, some of them twice in an epoch; see `BatchPlan`."""

    def __init__(
        self,
        *,
        run: Run,
        tokenizer: PreTrainedTokenizerBase,
        tuner_callbacks: Sequence[TrainerCallback] = (),
        **options: Any,
    ) -> None:
        self.run = run
        self._tokenizer = tokenizer
        # The tuner's come first: what they write into a checkpoint must be there when it is put in place.
        super().__init__(processing_class=tokenizer, callbacks=[*tuner_callbacks, RunCallback(run)], **options)
        self.remove_callback(PrinterCallback)  # the Trainer adds it where tqdm is off; it prints every log
        self._weighted_loss = WeightedLoss(self.model) if run.args.use_loss_scale else None
        self._speed = run.speed = Speed(run.args, self.model)

    def get_train_dataloader(self) -> EpochLoader:
        """Return this rank's batches."""
        # Not prepared by accelerate, whose even_batches repeats samples so that all ranks get equally many.
        run = self.run
        samples = Samples(run.train_rows, run.packs)
        plan = BatchPlan(
            num_samples=len(samples),
            batch_size=run.args.batch_size,
            seed=run.args.seed,
            rank=run.ranks.rank,
            num_ranks=run.ranks.count,
            shuffles=not run.args.test_oom_error,
            drops_last=run.args.dataloader_drop_last,
            fills_up=self.fills_up,
        )
        if len(plan) == 0:
            raise WorkerError(
                f"dataloader_drop_last: {len(samples)} samples do not fill a batch of {run.args.batch_size} on each of "
                f"{run.ranks.count} ranks, so none is left to train on",
                hint="set dataloader_drop_last: false, or a smaller batch_size",
            )
        return EpochLoader(
            samples,
            plan,
            collate=self.make_collate(),
            num_workers=run.args.dataloader_num_workers,
            pin_memory=self.args.device.type == "cuda" and run.args.dataloader_pin_memory,
            prefetch_factor=run.args.dataloader_prefetch_factor,
            persistent_workers=run.args.dataloader_persistent_workers,
        )

    def make_collate(self) -> Collate:
        """Return what makes a batch of samples."""
        return Collator(self._tokenizer.pad_token_id, self.run.images) if self.run.packs is None else PackCollator()

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """Start the step's clock before its data is fetched; fetch nothing when training is over already."""
        run = self.run
        if run.sharding is None:
            run.sharding = deepspeed.check_engine(self.model_wrapped, run.args, num_ranks=run.ranks.count)
        # The Trainer begins a step after each resume, even at the last step's checkpoint.
        if self.control.should_training_stop:
            return [], None
        self.run.meter.begin_step()
        batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self._weighted_loss is not None and batches:
            num_items = sum_weights(batches, ranks=self.run.ranks, device=device)
        return batches, num_items

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Return the schedule, with a warm-up over `warmup_steps`, or `warmup_ratio` of all steps.

        Raises:
            WorkerError: the schedule has no steps left after it, and needs some.
        """
        run = self.run.args
        # Not left to transformers 5, which takes a `warmup_steps` of 1 for one step and not for a ratio.
        num_warmup_steps = run.count_warmup_steps(num_training_steps)
        if run.lr_scheduler_type == "polynomial" and num_warmup_steps >= num_training_steps:
            raise WorkerError(
                f"lr_scheduler_type: polynomial has nothing to decay over: all {num_training_steps} steps warm up",
                hint="set warmup_ratio: 0 and warmup_steps: 0, train for more steps, or take linear",
            )
        self.args.warmup_steps = num_warmup_steps
        return super().create_scheduler(num_training_steps, optimizer)

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Run forward and backward pass with what the arguments for speed put around them."""
        with self._speed.in_step():
            return super().training_step(*args, **kwargs)

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Count what goes into the model, then compute the loss as ever."""
        # Taken out: a model's forward does not accept the counts.
        self.run.meter.count_batch(num_tokens=inputs.pop("num_tokens"), num_samples=inputs.pop("num_samples"))
        if self._weighted_loss is None:
            with self._speed.computing_loss():
                return super().compute_loss(model, inputs, *args, **kwargs)
        self._weighted_loss.set_weights(inputs.pop("loss_weights"))
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        self._weighted_loss.check_used()
        return loss

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:  # noqa: FBT001, FBT002
        """Write the weights and the tokenizer; of a method that saves its own adapter, the adapter alone.

        All ranks call it, rank 0 writes.
        """
        if not self.run.tuner.saved_arguments:
            if self.is_fsdp_enabled:
                self._save(output_dir, state_dict=fsdp.gather_weights(self.model))
            elif self.is_deepspeed_enabled and not deepspeed.shares_weights(self.run.args):
                self._save(output_dir)  # what accelerate gathers holds tied weights twice
            else:
                super().save_model(output_dir, _internal_call)
            if self.run.images is not None and self.run.ranks.is_first:
                folder = self.run.store.staging if output_dir is None else Path(output_dir)
                copy_processor_files(self.run.args, folder)
        elif self.run.ranks.is_first:
            folder = self.run.store.staging if output_dir is None else Path(output_dir)
            save_adapter(self.model, self.run.args, folder)
            self._tokenizer.save_pretrained(folder)

    def take_weights(self, checkpoint: str) -> None:
        """Start from a checkpoint's weights, and from nothing else of it."""
        self._load_from_checkpoint(checkpoint)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        # The Trainer loads whole models and peft's adapters alone, and has no public hook for others.
        if fsdp.is_sharded(self.model):
            return  # its weights were taken before it was sharded, by `take_weights`
        with self._explain_misfit(resume_from_checkpoint):
            is_whole_model = not (Path(resume_from_checkpoint) / PEFT_CONFIG).is_file()
            if self.run.tuner.saved_arguments:
                load_adapter_weights(self.model, Path(resume_from_checkpoint))
            elif is_whole_model and (self.is_fsdp_enabled or has_other_names(self.model, Path(resume_from_checkpoint))):
                load_converted(self.model, Path(resume_from_checkpoint))
            else:
                super()._load_from_checkpoint(resume_from_checkpoint, model)
                if self.run.args.lora_dtype is not None:
                    cast_adapter(self.model, self.run.args.lora_dtype)  # peft makes what it loads fp32

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        # The Trainer would also write the weights once more, all of them into one pickle.
        if not self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        fsdp.save_optimizer(self.optimizer, Path(output_dir), self.run.ranks)
        if self.run.ranks.is_first:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None and not self.is_deepspeed_enabled:
            fsdp.check_state(Path(checkpoint), sharded=self.is_fsdp_enabled, ranks=self.run.ranks)
        with self._explain_misfit(checkpoint):
            if checkpoint is None or not self.is_fsdp_enabled:
                super()._load_optimizer_and_scheduler(checkpoint)
                return
            fsdp.load_optimizer(self.optimizer, Path(checkpoint), self.run.ranks)
            self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER, weights_only=True))

    @contextlib.contextmanager
    def _explain_misfit(self, checkpoint: str | None) -> Iterator[None]:
        """Name the checkpoint and what to do where its weights or state are of another training's shape."""
        try:
            yield
        except torch.cuda.OutOfMemoryError:  # a RuntimeError, and no misfit
            raise
        except (RuntimeError, ValueError, KeyError) as error:
            if not self.run.checks_resume and not self.run.args.resume_only_model:
                raise
            raise WorkerError(
                f"resume_from_checkpoint: {checkpoint} does not fit these arguments: {' '.join(str(error).split())}",
                hint="train with the model, sft_type, targets, ranks and optim that the checkpoint was trained with",
            ) from error

    def evaluate(self, *_args: Any, **_kwargs: Any) -> dict[str, float]:
        """Compute eval_loss; a stop request puts the evaluation off to the next attempt (one rank only)."""
        metrics: dict[str, float] = {}
        try:
            metrics = self._evaluate_run()
        except StopRequestedError:
            self.run.point.eval_pending = self.run.interrupted = True
            # Before this attempt's first step the checkpoint that it resumed from is still right.
            self.control.should_save = self.run.measure is not None
            self.control.should_training_stop = True
        # As the Trainer's own evaluate does.
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _evaluate_run(self) -> dict[str, float]:
        run, step = self.run, self.state.global_step
        run.progress.update("evaluating")

        def on_batch() -> None:
            run.progress.update("evaluating")
            if run.ranks.is_alone and stop_requested(run.attempt):
                raise StopRequestedError("stopped during an evaluation")

        figures = {"step": step, **self.measure_validation(on_batch)}
        loss = figures["eval_loss"]
        if run.prompts and run.ends is not None:
            predictions = predict(
                self.model,
                run.prompts,
                self._tokenizer,
                run.args,
                ends=run.ends,
                images=run.images,
                step=step,
                device=self.args.device,
                ranks=run.ranks,
                on_batch=on_batch,
            )
            figures["rouge_l"] = mean_rouge_l(predictions)
            if run.ranks.is_first:
                lines = (json.dumps(asdict(prediction)) + "\n" for prediction in predictions)
                write_text(run.store.job.predictions_of(step), "".join(lines))
            logger.info("step %d: ROUGE-L %.4f over %d answers", step, figures["rouge_l"], len(predictions))
        run.point.eval_pending = False
        run.history.append(figures)
        logger.info("step %d: eval_loss %.6f over %d rows", step, loss, len(run.val_rows))
        if math.isfinite(loss) and (run.point.best_eval_loss is None or loss < run.point.best_eval_loss):
            run.point.best_step, run.point.best_eval_loss = step, loss
            self._keep_best()
        run.progress.update("saving" if self.control.should_save else "training")
        return {"eval_loss": loss}

    def measure_validation(self, on_batch: Callable[[], None]) -> dict[str, float]:
        """Return eval_loss of the validation rows, with what is measured beside it; `on_batch` may raise to leave."""
        run = self.run
        loss, _ = mean_cross_entropy(
            self.model,
            run.val_rows,
            run.args.eval_batch_size or run.args.batch_size,
            self.args.device,
            pad_token_id=self._tokenizer.pad_token_id,
            ranks=run.ranks,
            on_batch=on_batch,
            images=run.images,
            in_step=self.is_fsdp_enabled or deepspeed.shares_weights(run.args),
        )
        return {"eval_loss": loss}

    def _keep_best(self) -> None:
        """Write the best weights, unless a checkpoint of the same step is about to hold them."""
        run, step = self.run, self.state.global_step
        saves_anyway = self.control.should_save or step >= self.state.max_steps
        if run.args.save_strategy == "no" or saves_anyway:
            return
        folder = run.store.staging / f"weights-{step}"
        self.save_model(str(folder))
        if run.ranks.is_first:
            run.store.place_best(folder, step=step)
            shutil.rmtree(folder, ignore_errors=True)


class RunCallback(TrainerCallback):
    """Decides at each step's end what follows, and writes what happened."""

    def __init__(self, run: Run) -> None:
        self._run = run

    @override
    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Give each rank its own dropout; stop at once where a resumed training has no step left."""
        # The Trainer seeds all ranks alike.
        set_seed(self._run.args.seed + self._run.ranks.rank)
        if self._run.args.fsdp:
            self._run.sharding = fsdp.describe(kwargs["model"], self._run.args, self._run.ranks)
        if self._run.checks_resume:
            _check_goes_on(self._run.args, state, kwargs["lr_scheduler"])
        self._run.progress.update("training", step=state.global_step, max_steps=state.max_steps)
        if state.global_step >= state.max_steps:
            control.should_training_stop = True

    @override
    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Measure the step; evaluate and save where due and at the last step; leave where asked to."""
        run, step = self._run, state.global_step
        wants_stop = run.ranks.is_first and stop_requested(run.attempt)
        run.measure = run.meter.end_step(stop=wants_stop)
        if run.first_step_at is None:
            run.first_step_at = time.time()
            if run.speed is not None:
                run.speed.check_first_step(kwargs["model"], kwargs["optimizer"])
        is_last = step >= state.max_steps
        saves = run.args.save_strategy != "no"
        control.should_log = True
        evaluates = is_last or is_due(run.args.eval_strategy, run.args.eval_steps, state)
        control.should_evaluate = run.evaluates and evaluates
        # The finished checkpoint follows the last step; a resumable one is written only if its state is kept anyway.
        keeps = not run.only_save_model if is_last else is_due(run.args.save_strategy, run.save_steps, state)
        control.should_save = saves and keeps
        if run.measure.stop and not is_last:
            run.point.eval_pending, control.should_evaluate = control.should_evaluate, False
            run.interrupted = control.should_save = control.should_training_stop = True

    @override
    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write the step's history line; the Trainer logs after each step."""
        run = self._run
        # At its end the Trainer logs a summary too, with train_loss instead of loss.
        if not logs or "loss" not in logs or run.measure is None:
            return
        measure, step = run.measure, state.global_step
        run.history.append(
            {
                "step": step,
                "loss": logs["loss"],
                "learning_rate": logs["learning_rate"],
                "grad_norm": logs.get("grad_norm"),
                "step_time_s": measure.step_time_s,
                "num_tokens": measure.num_tokens,
                "num_samples": measure.num_samples,
                "epoch": state.epoch,
                **name_rewards(logs),
            }
        )
        self._watch_divergence(logs["loss"], step, control)
        phase: Phase = "evaluating" if control.should_evaluate else "saving" if control.should_save else "training"
        run.progress.update(
            phase,
            step=step,
            max_steps=state.max_steps,
            epoch=state.epoch,
            loss=logs["loss"],
            samples_per_second=measure.num_samples / measure.step_time_s,
            tokens_per_second=measure.num_tokens / measure.step_time_s,
            eta_s=(state.max_steps - step) * measure.step_time_s,
        )
        if step % run.args.logging_steps == 0 or step == state.max_steps:
            logger.info(
                "step %d/%d: loss %.4f, learning rate %.3g, %.2f samples/s, %.0f tokens/s",
                step,
                state.max_steps,
                logs["loss"],
                logs["learning_rate"],
                measure.num_samples / measure.step_time_s,
                measure.num_tokens / measure.step_time_s,
            )

    def _watch_divergence(self, loss: float, step: int, control: TrainerControl) -> None:
        """Log when losses stop being finite, and end a training that stays so; the loss is the same on all ranks."""
        run = self._run
        run.point.num_bad_losses = 0 if math.isfinite(loss) else run.point.num_bad_losses + 1
        if run.point.num_bad_losses == 1:
            logger.warning("step %d: the loss is %s, which is not finite", step, loss)
        if run.point.num_bad_losses == DIVERGED_STEPS:
            logger.error("step %d: no finite loss in %d steps; the training ends here", step, DIVERGED_STEPS)
            control.should_training_stop = True

    @override
    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Put the checkpoint that all ranks have just written in place."""
        run, step = self._run, state.global_step
        run.ranks.wait_for_all()
        if run.ranks.is_first:
            run.history.sync()
            placed = run.store.place_resumable(replace(run.point, step=step))
            if not run.interrupted and run.args.save_strategy != "no" and run.num_steps_kept != 0:
                run.store.keep_step(placed, step=step, num_kept=run.num_steps_kept, with_state=not run.only_save_model)
        run.ranks.wait_for_all()
        run.progress.update("training")


def is_due(strategy: str, every: int, state: TrainerState) -> bool:
    """Return whether an evaluation or a checkpoint follows the step that has just ended."""
    if strategy == "epoch":
        # The Trainer counts epochs in fractions, and their last step as a whole number exactly.
        return float(state.epoch).is_integer()
    return strategy == "steps" and state.global_step % every == 0


def _check_goes_on(args: SftArgs, state: TrainerState, lr_scheduler: Any) -> None:
    """Raise unless a named checkpoint leaves steps to do, at the learning rate that is asked for.

    Raises:
        WorkerError: the checkpoint is at the last step or behind it, or its optimizer has another learning rate.
    """
    if state.global_step >= state.max_steps:
        raise WorkerError(
            f"resume_from_checkpoint: the checkpoint is at step {state.global_step}, and this training ends at step "
            f"{state.max_steps}",
            hint="set max_steps or num_train_epochs higher",
        )
    # The state of optimizer and schedule brings the checkpoint's rate, and the argument would have no effect.
    rates = sorted({float(rate) for rate in lr_scheduler.base_lrs})
    if not any(math.isclose(rate, args.effective_learning_rate, rel_tol=1e-9) for rate in rates):
        found = " and ".join(map(repr, rates))
        raise WorkerError(
            f"resume_from_checkpoint: the checkpoint goes on with a learning rate of {found}, not "
            f"{args.effective_learning_rate!r}",
            hint=f"set learning_rate: {rates[0]!r}",
        )
