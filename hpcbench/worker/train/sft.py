"""One training from its request to its checkpoints and metrics.

In: the job request, its files, the ranks that torchrun names. Out: checkpoints, `history.jsonl`, `progress.json` and,
once all is done, `metrics.json`; or `interrupted.json` where the supervisor asked to stop. It decides nothing that the
request does not contain, and never reaches for the network.
"""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments, enable_full_determinism, set_seed

from hpcbench.errors import WorkerError
from hpcbench.schemas import variables
from hpcbench.schemas.arguments import TORCH_DTYPES, SftArgs
from hpcbench.schemas.notes import Interrupted, Started
from hpcbench.schemas.request import Device, JobRequest
from hpcbench.storage.json_files import write_json
from hpcbench.storage.paths import TRAINER_STATE, AttemptPaths, JobPaths
from hpcbench.worker.data.templates import Template
from hpcbench.worker.hub_push import check_hub
from hpcbench.worker.measure import meter
from hpcbench.worker.models import loading, unsloth_backend
from hpcbench.worker.models.attention import check_attention, check_packing, explain_attention
from hpcbench.worker.models.files import check_files, check_loaded
from hpcbench.worker.models.generation_config import repair_generation_config
from hpcbench.worker.parallel import deepspeed, fsdp
from hpcbench.worker.progress_file import History, Progress
from hpcbench.worker.ranks import ALONE, Ranks
from hpcbench.worker.signals import StopRequestedError, leave_if_asked
from hpcbench.worker.train.checkpoints import CheckpointStore, Kept, ResumePoint, read_step
from hpcbench.worker.train.preference import Loss, explain_figures, load_loss
from hpcbench.worker.train.preference.reference import load_reference, switch_dropout_off
from hpcbench.worker.train.result import ModelFacts, Outcome, assemble_metrics, inspect_model, optimizer_dtype
from hpcbench.worker.train.run import Run
from hpcbench.worker.train.saving import try_saving
from hpcbench.worker.train.speed import trainer_arguments
from hpcbench.worker.train.token_cache import TokenCache
from hpcbench.worker.train.token_data import TokenData, load_data
from hpcbench.worker.train.token_key import find_key
from hpcbench.worker.train.tokenized import Tokenized, tokenize
from hpcbench.worker.train.trainer import BenchTrainer
from hpcbench.worker.tuners import Tuner, load_tuner

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What this process was started to do, and where."""

    request: JobRequest
    args: SftArgs
    job: JobPaths
    attempt: AttemptPaths
    ranks: Ranks
    gpus_each: int
    """GPUs of each rank."""
    progress: Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A model with its tuner in it."""

    model: Any
    facts: ModelFacts
    loss: Loss | None = None
    """Of a training from preferences."""
    reference: Any = None
    """The model that answers are compared with, where it is another one than the trained one without its adapter."""


def run(request: JobRequest, job: JobPaths, attempt: AttemptPaths) -> None:
    """Train as requested and leave the results in the job's folder.

    Raises:
        WorkerError: the request cannot be carried out.
    """
    args = request.args
    if args is None:
        raise WorkerError(f"{job.request}: cmd sft without args")
    ranks = Ranks.from_environment()
    gpus_each = _count_gpus_each(request, ranks)
    progress = Progress(job, rank=ranks.rank)
    progress.update("loading")
    assignment = Assignment(
        request=request, args=args, job=job, attempt=attempt, ranks=ranks, gpus_each=gpus_each, progress=progress
    )
    try:
        _train(assignment)
    except StopRequestedError as stop:
        logger.info("%s", stop.message)
        _write_interrupted(attempt, step=0, ranks=ranks)


def _count_gpus_each(request: JobRequest, ranks: Ranks) -> int:
    resources = request.resources
    if ranks.count != resources.ddp:
        raise WorkerError(f"requirements.ddp is {resources.ddp}, and {ranks.count} ranks were started")
    return max(1, resources.gpu // ranks.count) if request.device == "cuda" else 0


def _train(assignment: Assignment) -> None:
    request, args, ranks, attempt = assignment.request, assignment.args, assignment.ranks, assignment.attempt
    if args.max_steps == 0:
        raise WorkerError("max_steps: 0 trains nothing", hint="set max_steps: -1 to train for num_train_epochs")
    check_hub(args)
    loading.check_device(args, request.device)
    check_files(args)
    tuner = load_tuner(args.tuner)
    if request.device == "cuda":
        torch.cuda.set_device(ranks.local_rank)
        if args.gpu_memory_fraction is not None:
            for gpu in range(assignment.gpus_each) if assignment.gpus_each > 1 else [ranks.local_rank]:
                torch.cuda.set_per_process_memory_fraction(args.gpu_memory_fraction, gpu)
    data = _load_data(assignment)
    assignment.progress.update("loading")
    prepared = _load_prepared(assignment, tuner, data)
    leave_if_asked(attempt, ranks=ranks)
    store = CheckpointStore(
        job=assignment.job,
        fingerprint=request.fingerprint,
        num_ranks=ranks.count,
        attempt=attempt.folder.name,
        token=os.environ.get(variables.CLAIM),
        keeps_best=args.save_strategy != "no",
    )
    # Also starts the process group, which the search for a checkpoint needs.
    training_args = make_training_arguments(
        args,
        store.staging,
        device=request.device,
        num_ranks=ranks.count,
        num_nodes=request.resources.nodes,
        loss=prepared.loss,
    )
    found = _find_resume_point(store, ranks)
    with contextlib.closing(History(attempt.history if ranks.is_first else None)) as history:
        current = Run(
            args=args,
            attempt=attempt,
            store=store,
            progress=assignment.progress,
            history=history,
            meter=meter.Meter(training_args.device, ranks),
            tuner=tuner,
            ranks=ranks,
            train_rows=data.train,
            val_rows=data.validation,
            packs=data.packs,
            prompts=data.prompts,
            images=data.template.images,
            ends=data.template.answer_ends if data.prompts else None,
        )
        resume_from = _take_over(current, training_args, found)
        if ranks.is_first:
            step = found[1].step if found else current.named_step or 0
            Started(fingerprint=request.fingerprint, resumed_from_step=step).write(attempt.started)
        _run_trainer(assignment, current, training_args, prepared=prepared, data=data, resume_from=resume_from)


def _run_trainer(
    assignment: Assignment,
    current: Run,
    training_args: TrainingArguments,
    *,
    prepared: Prepared,
    data: TokenData,
    resume_from: str | None,
) -> None:
    meter.reset_peaks()
    tuner = current.tuner
    loss = prepared.loss
    make_trainer = BenchTrainer if loss is None else partial(loss.trainer, reference=prepared.reference)
    trainer = make_trainer(
        run=current,
        model=prepared.model,
        args=training_args,
        tokenizer=data.tokenizer,
        optimizers=(tuner.create_optimizer(prepared.model, current.args, training_args), None),
        tuner_callbacks=tuner.make_callbacks(prepared.model, current.args, Path(resume_from) if resume_from else None),
    )
    if current.args.save_strategy != "no" and current.ranks.is_first:
        try_saving(trainer, data.tokenizer, current.store.staging / "trial")
    if resume_from is None and current.args.resume_only_model and current.args.resume_from_checkpoint is not None:
        trainer.take_weights(current.args.resume_from_checkpoint)
    elif resume_from is not None and current.args.fsdp:
        trainer.take_weights(resume_from)  # before they are sharded: the Trainer reads sharded ones from a pickle
    deepspeed.divide_weights(prepared.model, training_args, current.args)
    trainer.train(resume_from_checkpoint=resume_from)
    if current.interrupted:
        _write_interrupted(current.attempt, step=trainer.state.global_step, ranks=current.ranks)
    else:
        _finish(assignment, current, trainer, prepared=prepared, data=data)


def _load_data(assignment: Assignment) -> TokenData:
    """Return the tokenized data; a stop request ends it between rows."""
    ranks = assignment.ranks

    def on_tokenizing() -> None:
        assignment.progress.update("tokenizing")

    def load(args: SftArgs, template: Template) -> Tokenized:
        def make(*, may_leave: bool) -> Tokenized:
            def on_row(_count: int) -> None:
                on_tokenizing()
                leave_if_asked(assignment.attempt, ranks=ALONE if may_leave else ranks)

            return tokenize(args, template, on_row=on_row, on_tokenizing=on_tokenizing)

        cache = None if args.lazy_tokenize else TokenCache.from_environment()
        if cache is None:
            return make(may_leave=ranks.is_alone)
        return cache.load(lambda: find_key(assignment.request, args, template), make, ranks)

    return load_data(assignment.args, load=load)


def make_training_arguments(
    args: SftArgs,
    staging: Path,
    *,
    device: Device,
    num_ranks: int = 1,
    num_nodes: int = 1,
    loss: Loss | None = None,
) -> TrainingArguments:
    """Return transformers' arguments; evaluation and saving are hpcbench's own, so both are off here.

    Raises:
        WorkerError: transformers rejects a value, such as an unknown optimizer.
    """
    try:
        make_arguments = TrainingArguments if loss is None else partial(loss.config, **loss.options)
        training_args = make_arguments(
            output_dir=str(staging),
            seed=args.seed,
            num_train_epochs=args.num_train_epochs,
            max_steps=args.max_steps,
            per_device_train_batch_size=args.batch_size,
            gradient_accumulation_steps=args.gradient_accumulation_steps,
            learning_rate=args.effective_learning_rate,
            weight_decay=args.weight_decay,
            max_grad_norm=args.max_grad_norm,
            lr_scheduler_type=args.schedule[0],
            lr_scheduler_kwargs=args.schedule[1],
            optim=args.optim,
            adam_beta1=args.adam_beta1,
            adam_beta2=args.adam_beta2,
            adam_epsilon=args.adam_epsilon,
            neftune_noise_alpha=args.neftune_noise_alpha,
            **_checkpointing_arguments(args),
            **trainer_arguments(args),
            **(fsdp.training_options(args, num_ranks=num_ranks, num_nodes=num_nodes) if args.fsdp else {}),
            **{
                "fp16": args.dtype == "fp16",
                "bf16": uses_bf16_autocast(args),
                **deepspeed.training_arguments(args, device),
            },
            use_cpu=device == "cpu",
            ddp_backend=_choose_backend(args, device) if num_ranks > 1 else None,
            ddp_find_unused_parameters=_finds_unused(args),
            ddp_broadcast_buffers=args.ddp_broadcast_buffers,
            ddp_timeout=args.ddp_timeout,
            full_determinism=args.full_determinism,
            average_tokens_across_devices=True,  # the loss is per token of the global batch, not of the rank's part
            logging_steps=1,
            logging_nan_inf_filter=False,  # True would log a mean in place of nan
            eval_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,  # batches hold counts that no forward takes
        )
    except ValueError as error:
        raise WorkerError(f"transformers rejects the training arguments: {error}") from error
    if args.fsdp:
        fsdp.settle(training_args, device=device, autocasts=uses_bf16_autocast(args))
    if training_args.n_gpu > 1:
        # One process on several visible GPUs: their number is the request's business, never torch.nn.DataParallel's.
        training_args._n_gpu = 1  # noqa: SLF001  # what Trainer itself does for models spread over GPUs
    return training_args


def _choose_backend(args: SftArgs, device: Device) -> str:
    if args.ddp_backend is not None or device == "cpu":
        return args.ddp_backend or "gloo"
    # Gradients and weights that are offloaded are summed and gathered in host memory, which nccl cannot.
    return "cuda:nccl,cpu:gloo" if args.fsdp and args.fsdp_settings.offload else "nccl"


def _finds_unused(args: SftArgs) -> bool:
    # DDP fails on a weight that gets no gradient otherwise.
    needed = load_tuner(args.tuner).leaves_weights_unused
    if needed and args.ddp_find_unused_parameters is False:
        raise WorkerError(
            f"ddp_find_unused_parameters: {args.tuner} leaves weights without a gradient", hint="remove it"
        )
    return needed or bool(args.ddp_find_unused_parameters)


def _checkpointing_arguments(args: SftArgs) -> dict[str, Any]:
    # transformers 5.23 renamed them.
    known = {field.name for field in fields(TrainingArguments)}
    prefix = "activation_checkpointing" if "activation_checkpointing" in known else "gradient_checkpointing"
    # With fsdp, too: accelerate's own recomputing draws other dropout than the forward pass did.
    if not (args.gradient_checkpointing or args.fsdp_settings.activation_checkpointing):
        return {prefix: False}  # TRL's default is True
    # Reentrant checkpoints need an input with a gradient, which a frozen embedding does not give.
    return {prefix: True, f"{prefix}_kwargs": {"use_reentrant": False}}


def uses_bf16_autocast(args: SftArgs) -> bool:
    """Return whether matrix products of fp32 adapters on a bf16 base run in bf16; bf16 weights need no autocast."""
    return args.dtype == "bf16" and not load_tuner(args.tuner).trains_in_model_dtype


def _name_autocast(args: SftArgs) -> str:
    autocasts = args.deepspeed is None and (args.dtype == "fp16" or uses_bf16_autocast(args))
    return TORCH_DTYPES[args.dtype] if autocasts else "none"


def _load_prepared(assignment: Assignment, tuner: Tuner, data: TokenData) -> Prepared:
    """Return the model with its tuner; every rank draws the same initial weights."""
    args, device = assignment.args, assignment.request.device
    loss = None if args.rlhf_type is None else load_loss(args)
    if args.full_determinism:
        enable_full_determinism(args.seed)  # before anything runs: cuBLAS reads its setting once
    else:
        set_seed(args.seed)
    if args.tuner_backend == "unsloth":
        loading.check_device(args, device)
        base = unsloth_backend.load_base(args, device)
        check_loaded(args, base, data.tokenizer)
        tuned = unsloth_backend.add_adapter(base, args)
    else:
        # What ranks will share among them must not fill the GPU of each before.
        stays_on_host = bool(args.fsdp) or deepspeed.shares_weights(args)
        base = loading.load_model(args, device, num_gpus=assignment.gpus_each, stays_on_host=stays_on_host)
        check_loaded(args, base, data.tokenizer)
        if loss is not None:
            switch_dropout_off(base)
        tuned = tuner.prepare(base, args)
        deepspeed.cast_weights(tuned, args)
    facts = inspect_model(
        tuned,
        trains_base=tuner.trains_base,
        tokens=data.stats,
        autocast=_name_autocast(args),
        num_trained_at_once=tuner.count_trained(tuned, args) if tuner.count_trained is not None else None,
    )
    check_attention(args, facts.attention)
    notes = {**data.notes, **tuner.notes}
    if args.packing:
        check_packing(tuned, tuned.device)
    deviations = dict(data.deviations)
    if args.save_strategy != "no" and (repaired := repair_generation_config(tuned)) is not None:
        deviations["generation_config.json"] = repaired
    if args.dtype == "fp16" and tuner.trains_in_model_dtype and args.deepspeed is None:
        deviations["dtype"] = "fp16 weights cannot be trained by torch; fp32 weights computed in fp16"
    if args.gradient_checkpointing and not getattr(tuned, "supports_gradient_checkpointing", True):
        raise WorkerError(
            f"gradient_checkpointing: {type(base).__name__} cannot recompute activations",
            hint="set gradient_checkpointing: false",
        )
    if (reason := explain_attention(args, device, facts.attention)) is not None:
        deviations["use_flash_attn"] = reason
    if not data.template.has_chat_template:
        notes["template"] = "the tokenizer has no chat template: messages are joined by line breaks"
    reference = None
    if loss is not None:
        reference, which = load_reference(args, tuned, device, num_gpus=assignment.gpus_each)
        facts = replace(facts, reference=which)
        notes |= explain_figures(args, num_rows=len(data.train), num_ranks=assignment.ranks.count)
        if args.sft_type == "adalora":
            deviations["adalora_orth_reg_weight"] = "losses on preferences have no orthogonality term"
    facts = replace(facts, notes=notes, deviations=deviations)
    return Prepared(model=tuned, facts=facts, loss=loss, reference=reference)


def _find_resume_point(store: CheckpointStore, ranks: Ranks) -> tuple[Path, ResumePoint] | None:
    found = None
    if ranks.is_first:
        store.prepare()
        found = store.find()
        if found is None:
            store.forget_predictions()
    return ranks.broadcast(found)  # a network file system may show ranks different checkpoints


def _take_over(current: Run, training_args: TrainingArguments, found: tuple[Path, ResumePoint] | None) -> str | None:
    """Continue from the found checkpoint; return its folder, or what `resume_from_checkpoint` names."""
    named, takes_weights = current.args.resume_from_checkpoint, current.args.resume_only_model
    if found is not None:
        folder, current.point = found
        if (
            not takes_weights
            and named is not None
            and current.point.named_step is None
            and (Path(named) / TRAINER_STATE).is_file()
        ):
            current.point.named_step = read_step(named)  # points of earlier versions do not hold it
        current.named_step = current.point.named_step
        training_args.eval_on_start = current.point.eval_pending
        logger.info("resuming from %s", folder)
        return str(folder)
    if takes_weights:
        return None
    if named is not None:
        current.named_step = current.point.named_step = read_step(named)
        current.checks_resume = True
    return named


def _finish(
    assignment: Assignment, current: Run, trainer: BenchTrainer, *, prepared: Prepared, data: TokenData
) -> None:
    """Keep the checkpoints, write the metrics, then delete what only a resume would need."""
    current.progress.update("saving")
    memory = meter.measure_memory(trainer.args.device, num_gpus=assignment.gpus_each, ranks=current.ranks)
    _stage_last(current, trainer)
    if current.ranks.is_first:
        current.history.sync()
        current.store.prune_predictions({current.point.best_step, trainer.state.global_step})
        first_step_at = current.first_step_at
        outcome = Outcome(
            num_steps=trainer.state.global_step,
            named_step=current.named_step,
            num_epochs=trainer.state.epoch,
            memory=memory,
            kept=_keep_checkpoints(current, last_step=trainer.state.global_step),
            best_step=current.point.best_step,
            time_to_first_step_s=None if first_step_at is None else first_step_at - meter.process_started_at(),
            optimizer_dtype=optimizer_dtype(trainer.optimizer),
            took_effect=_describe_effects(current, trainer),
            notes={} if first_step_at else {"time_to_first_step_s": "the last attempt had no step left to do"},
        )
        result = assemble_metrics(
            assignment.request, assignment.args, assignment.job, facts=prepared.facts, data=data, outcome=outcome
        )
        # Before the resume point goes: a kill in between leaves both, never neither.
        write_json(current.attempt.metrics, result.model_dump(mode="json"))
        current.store.delete_resumable()
    current.ranks.wait_for_all()


def _describe_effects(current: Run, trainer: BenchTrainer) -> dict[str, str]:
    found = {} if current.speed is None else current.speed.describe(trainer.model)
    if current.sharding is None:
        return found
    return {"fsdp" if current.args.fsdp else "deepspeed": current.sharding, **found}


def _stage_last(current: Run, trainer: BenchTrainer) -> None:
    """Write the last weights where no checkpoint has them; every rank may hold a part of them."""
    step = trainer.state.global_step
    if current.args.save_strategy == "no":
        return
    if current.ranks.broadcast(current.ranks.is_first and current.store.has_resumable(step)):
        return
    trainer.save_model(str(current.store.staged_last))


def _keep_checkpoints(current: Run, *, last_step: int) -> Kept:
    if current.args.save_strategy == "no":
        return Kept(best=None, last=None)
    return current.store.finish(
        last_step=last_step,
        best_step=current.point.best_step,
        with_state=not current.only_save_model,
        limit=current.args.save_total_limit,
    )


def _write_interrupted(attempt: AttemptPaths, *, step: int, ranks: Ranks) -> None:
    if ranks.is_first:
        Interrupted(step=step).write(attempt.interrupted)
