"""One eval job: load the weights, run the eval tasks, write what came out.

In: a job request with cmd `eval`, for a train job's checkpoint or an untrained baseline. Out: `metrics.json` and
`samples.jsonl` in the attempt's folder, or `interrupted.json` when the supervisor asked to stop (evals start over).
It writes no record and catches no failure. Several ranks share the documents, and rank 0 writes.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import lm_eval

from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import EVAL_LOSS_ONLY, EvalArgs, SftArgs
from hpcbench.schemas.metrics import EvalMetrics, TaskResult
from hpcbench.schemas.notes import Interrupted
from hpcbench.schemas.request import Device, JobRequest
from hpcbench.storage.json_files import write_json, write_text
from hpcbench.storage.paths import AttemptPaths, JobPaths
from hpcbench.worker.data.samples import encode_samples, load_splits
from hpcbench.worker.data.templates import NO_SYSTEM, Template
from hpcbench.worker.evaluate.failures import explain_running
from hpcbench.worker.evaluate.headline import choose_headline
from hpcbench.worker.evaluate.model import ChatPrompts, EvalModel
from hpcbench.worker.evaluate.results import LmEvalResults, sample_lines, task_results
from hpcbench.worker.evaluate.seeds import seeds_of
from hpcbench.worker.evaluate.shared_run import check_enough_documents, first_rank_first, join_ranks
from hpcbench.worker.evaluate.subject import Subject, arguments_of, find_parameters, take_subject
from hpcbench.worker.evaluate.task_checks import check_tasks
from hpcbench.worker.evaluate.tasks import LoadedTasks, load_eval_tasks, name_of
from hpcbench.worker.measure.loss import mean_cross_entropy
from hpcbench.worker.measure.meter import measure_memory, reset_peaks
from hpcbench.worker.models.attention import explain_attention
from hpcbench.worker.models.quantization import find_dtypes
from hpcbench.worker.progress_file import Progress
from hpcbench.worker.ranks import Ranks
from hpcbench.worker.signals import StopRequestedError, stop_requested

logger = logging.getLogger(__name__)

BOOTSTRAP_ITERS = 1_000
"""Draws for the few metrics without a closed-form standard error (F1, BLEU, perplexity); means never need any."""
SYSTEM_DELIMITER = "\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationLoss:
    """eval_loss on the validation split of the training data, or why there is none."""

    value: float | None = None
    num_rows: int | None = None
    reason: str = "eval_args.eval_loss did not ask for it; a training's own eval_loss is in its record"


def run(request: JobRequest, job: JobPaths, attempt: AttemptPaths, loaded: dict[str, Subject] | None = None) -> None:
    """Evaluate one dataset and write the attempt's metrics; `loaded` is what an eval before it left, and takes its own.

    Raises:
        WorkerError: the request cannot be evaluated here: no such task, no data, no checkpoint.
    """
    args, eval_args = arguments_of(request)
    if eval_args.command:
        raise WorkerError("eval_args.command is run by the job's supervisor, not by the eval worker")
    ranks = Ranks.from_environment()
    progress = Progress(job) if ranks.is_first else None

    def between_batches(done: int, total: int) -> None:
        if stop_requested(attempt):
            raise StopRequestedError("stopped between two batches of an eval")
        if progress is not None:
            progress.update("evaluating", done=done, total=total)

    if progress is not None:
        progress.update("loading")
    try:
        join_ranks(ranks, request.device)
        if request.eval_dataset == EVAL_LOSS_ONLY:
            metrics = evaluate_loss_only(take_subject(request, ranks, loaded), args, between_batches)
        else:
            with first_rank_first(ranks):
                tasks = load_eval_tasks(str(request.eval_task), eval_args)
            check_tasks(tasks.leaves, eval_args)
            check_enough_documents(tasks, eval_args.limit, ranks)
            subject = take_subject(request, ranks, loaded)
            metrics = evaluate(request, subject, tasks, between_batches, attempt)
    except (StopRequestedError, RuntimeError) as error:
        # A rank that waits for one that has left fails in its collective.
        if not isinstance(error, StopRequestedError) and (ranks.is_alone or not stop_requested(attempt)):
            raise
        logger.info("asked to stop; this eval starts over with the next attempt")
        Interrupted(phase="evaluating").write(attempt.interrupted)
        return
    if metrics is not None:
        write_json(attempt.metrics, metrics.model_dump(mode="json"))


def evaluate(
    request: JobRequest,
    subject: Subject,
    tasks: LoadedTasks,
    between_batches: Callable[[int, int], None],
    attempt: AttemptPaths,
) -> EvalMetrics | None:
    """Run the eval tasks, keep the documents' answers beside the metrics, and return what was measured, on rank 0."""
    args, eval_args = arguments_of(request)
    applies_template = choose_chat_template(subject.template, args, eval_args)
    if eval_args.fewshot_as_multiturn and not applies_template:
        message = "eval_args.fewshot_as_multiturn writes examples as rounds of a chat, and there is no chat template"
        raise WorkerError(message, hint="leave it out, or set template_type or apply_chat_template: true")
    lm = EvalModel(
        subject.model,
        subject.tokenizer,
        prompts=ChatPrompts(subject.template) if applies_template else None,
        batch_size=eval_args.batch_size,
        max_length=eval_args.max_length,
        between_batches=between_batches,
        ranks=subject.ranks,
    )
    reset_peaks()
    started_s = time.perf_counter()
    with explain_running(str(request.eval_dataset)):
        results = run_lm_eval(lm, tasks, eval_args, system=args.system)
    eval_time_s = time.perf_counter() - started_s
    lm.sum_over_ranks()
    val_loss = ValidationLoss()
    if eval_args.eval_loss:
        val_loss = measure_val_loss(args, subject, lambda: between_batches(0, 0))
    memory = measure_memory(subject.model.device, num_gpus=subject.num_gpus, ranks=subject.ranks)
    if results is None:
        return None
    if eval_args.log_samples:
        write_text(attempt.samples, "".join(f"{line}\n" for line in sample_lines(results)))
    leaves = {name_of(task): task for task in tasks.leaves}
    rows = task_results(results, leaves, lm.cut_prompts)
    for name in leaves:
        if lm.cut_prompts.count(name):
            logger.warning(
                "%s: %d prompts did not fit and were cut to the last %d tokens",
                name,
                lm.cut_prompts.count(name),
                lm.cut_prompts.limit_tokens(name),
            )
    headline = choose_headline(tasks, rows, eval_args)
    scores = EvalMetrics(
        dataset=str(request.eval_dataset),
        primary_task=tasks.name,
        primary_metric=headline.metric,
        tasks=rows,
        infer=lm.meter.speed(batch_size=lm.batch_size),
        eval_loss=val_loss.value,
        num_val_rows=val_loss.num_rows,
        chat_template_applied=applies_template and subject.template.has_chat_template,
        template=subject.template.description if applies_template else None,
        eval_time_s=eval_time_s,
        batch_size=lm.batch_size,
        num_ranks=subject.ranks.count,
        memory=memory,
        lm_eval_version=lm_eval.__version__,
        debug=eval_args.limit is not None,
        mean_over_documents=tasks.mean_over_documents and headline.metric is not None,
        notices=headline.notices,
        unknown={} if headline.reason is None else {"primary_metric": headline.reason},
    )
    return describe_subject(scores, subject, args, eval_loss_reason=val_loss.reason)


def evaluate_loss_only(
    subject: Subject, args: SftArgs, between_batches: Callable[[int, int], None]
) -> EvalMetrics | None:
    """Measure eval_loss on the validation split and nothing else, and return it on rank 0."""
    reset_peaks()
    started_s = time.perf_counter()
    loss = measure_val_loss(args, subject, lambda: between_batches(0, 0))
    if loss.value is None:
        raise WorkerError(f"no eval_loss: {loss.reason}")
    memory = measure_memory(subject.model.device, num_gpus=subject.num_gpus, ranks=subject.ranks)
    if not subject.ranks.is_first:
        return None
    result = TaskResult(
        metrics={EVAL_LOSS_ONLY: loss.value},
        num_samples=loss.num_rows or 0,
        higher_is_better={EVAL_LOSS_ONLY: False},
    )
    scores = EvalMetrics(
        dataset=EVAL_LOSS_ONLY,
        primary_task=EVAL_LOSS_ONLY,
        primary_metric=EVAL_LOSS_ONLY,
        tasks={EVAL_LOSS_ONLY: result},
        eval_loss=loss.value,
        num_val_rows=loss.num_rows,
        num_ranks=subject.ranks.count,
        memory=memory,
        eval_time_s=time.perf_counter() - started_s,
    )
    return describe_subject(scores, subject, args, eval_loss_reason=loss.reason)


def describe_subject(scores: EvalMetrics, subject: Subject, args: SftArgs, *, eval_loss_reason: str) -> EvalMetrics:
    """Return the scores together with what was evaluated, and why figures are missing."""
    folder = subject.checkpoint.folder
    parameters = find_parameters(subject)
    attention = getattr(subject.model.config, "_attn_implementation", None)
    device: Device = "cuda" if subject.model.device.type == "cuda" else "cpu"
    deviations = {}
    if (reason := explain_attention(args, device, attention)) is not None:
        deviations["use_flash_attn"] = reason
    if args.system is not None and scores.chat_template_applied and not subject.template.takes_system:
        deviations["system"] = NO_SYSTEM
    reasons = {
        "infer": (scores.infer, "these eval tasks score given answers and generate nothing"),
        "eval_loss": (scores.eval_loss, eval_loss_reason),
        "parameters": (parameters, "the training program did not report its parameters"),
    }
    return EvalMetrics.model_validate(
        dict(scores)
        | {
            "parameters": parameters,
            "checkpoint": None if folder is None else str(folder),
            "checkpoint_choice": subject.checkpoint.choice,
            "dtypes": find_dtypes(subject.model),
            "attention": attention,
            "unknown": scores.unknown | {name: reason for name, (value, reason) in reasons.items() if value is None},
            "deviations": deviations,
        }
    )


def choose_chat_template(template: Template, args: SftArgs, eval_args: EvalArgs) -> bool:
    """Return whether prompts are rendered by the training's template; by default where it trained with a chat template.

    What learned texts as they are has seen no chat template.
    """
    if eval_args.apply_chat_template is not None:
        return eval_args.apply_chat_template
    if args.plain_text:
        return False
    if not template.has_chat_template:
        logger.warning(
            "no chat template: prompts are lm-eval's bare text, while training puts each message on a separate line; "
            "eval_args.apply_chat_template: true evaluates with the training's prompts"
        )
    return template.has_chat_template


def run_lm_eval(lm: EvalModel, tasks: LoadedTasks, eval_args: EvalArgs, *, system: str | None) -> LmEvalResults | None:
    """Run lm-eval over the loaded tasks; return the results on rank 0, None on others."""
    os.environ.setdefault("DISABLE_MULTIPROC", "1")  # else lm-eval forks this process for the bootstrap
    seeds = seeds_of(eval_args)
    by_template = lm.prompts is not None
    results: LmEvalResults | None = lm_eval.simple_evaluate(
        model=lm,
        tasks=[tasks.headline],
        task_manager=tasks.manager,
        num_fewshot=eval_args.num_fewshot,
        batch_size=eval_args.batch_size,
        limit=eval_args.limit,
        bootstrap_iters=BOOTSTRAP_ITERS,
        log_samples=True,  # the task hash is made of them
        # A template that renders the prompts puts the system prompt in by itself.
        system_instruction=None if by_template or not system else system.rstrip() + SYSTEM_DELIMITER,
        apply_chat_template=by_template,
        fewshot_as_multiturn=by_template and eval_args.fewshot_as_multiturn,
        gen_kwargs=dict(eval_args.gen_kwargs) or None,
        random_seed=seeds.python,
        numpy_random_seed=seeds.numpy,
        torch_random_seed=seeds.torch,
        fewshot_random_seed=seeds.fewshot,
    )
    return results


def measure_val_loss(args: SftArgs, subject: Subject, on_batch: Callable[[], None]) -> ValidationLoss:
    """Return the cross-entropy that a training with these arguments would measure on its validation split."""
    samples = load_splits(args).validation
    rows = encode_samples(samples, subject.template, num_proc=1).rows
    if not rows:
        return ValidationLoss(num_rows=0, reason="there is no validation split")
    loss, _ = mean_cross_entropy(
        subject.model,
        rows,
        args.eval_batch_size or args.batch_size,
        subject.model.device,
        pad_token_id=subject.tokenizer.pad_token_id,
        ranks=subject.ranks,
        on_batch=on_batch,
        images=subject.template.images,
    )
    return ValidationLoss(value=loss, num_rows=len(rows))
