"""The text about a job that ran here without a queue: its figures and checkpoints, or why it has none."""

from __future__ import annotations

from hpcbench.report.cells import number_text
from hpcbench.report.facts import Facts, completed_metrics, facts_of
from hpcbench.report.memory import memory_text
from hpcbench.report.next_steps import SMALLER
from hpcbench.schemas.collection import ExperimentView, JobView
from hpcbench.schemas.headline import headline
from hpcbench.schemas.metrics import EvalMetrics, ExportMetrics, InferMetrics, TrainMetrics
from hpcbench.schemas.states import JobState
from hpcbench.status.explain import explain
from hpcbench.status.logs import log_tail, newest_log


def describe_job(job: JobView, experiment: ExperimentView) -> str:
    """Return a few lines about one job."""
    match completed_metrics(job):
        case TrainMetrics() as train:
            lines = [_train_line(train, facts_of(experiment)), *_checkpoint_lines(train, job)]
        case EvalMetrics() if job.record is not None:
            lines = [headline(job.record)]
        case InferMetrics() as answered if job.record is not None:
            lines = [headline(job.record), *_answer_lines(answered, job)]
        case ExportMetrics() as made:
            lines = [_export_line(made), f"  model: {made.output_model}"]
        case _:
            return _why(job)
    head = f"{job.suite}/{job.experiment} {job.job}: "
    return head + "\n".join(lines)


def _why(job: JobView) -> str:
    """Return why a job has no result; a cause that says what to do needs no traceback below it."""
    log = newest_log(job)
    cause = None if job.record is None else job.record.cause
    step = _next_step(job)
    if cause is None or cause.hint is None or log is None:
        return explain(job, () if log is None else log_tail(log), None if log is None else str(log), step=step)
    lines = [f"{job.suite}/{job.experiment} {job.job}: {job.state}", f"  cause: {cause.message}"]
    return "\n".join([*lines, f"  hint: {cause.hint}", f"  log: {log}", f"  next: {step}"])


def _train_line(train: TrainMetrics, facts: Facts) -> str:
    figures = [
        None if train.train_loss is None else f"train_loss {train.train_loss:.4g}",
        "no eval_loss" if train.eval_loss is None else f"eval_loss {train.eval_loss:.4g}",
        None if train.samples_per_second is None else f"{number_text(train.samples_per_second, 2)} samples/s",
        memory_text(facts) or None,
    ]
    return ", ".join(figure for figure in figures if figure is not None)


def _checkpoint_lines(train: TrainMetrics, job: JobView) -> list[str]:
    found = (("best", train.best_checkpoint, train.best_step), ("last", train.last_checkpoint, train.last_step))
    kept = [(name, place, step) for name, place, step in found if place is not None]
    if not kept:
        return ["  no checkpoint was kept"]
    return [f"  {name} checkpoint, step {step}: {job.folder / place}" for name, place, step in kept]


def _export_line(made: ExportMetrics) -> str:
    parts = [
        "adapter merged" if made.merged else None,
        f"{made.quant_method}, {made.quant_bits} bits" if made.quant_bits else None,
        None if made.size_gib is None else f"{made.size_gib:.3g} GiB",
    ]
    return ", ".join(part for part in parts if part is not None)


def _answer_lines(answered: InferMetrics, job: JobView) -> list[str]:
    found = (("answers", answered.results), ("merged model", answered.merged_model))
    return [f"  {what}: {job.folder / place}" for what, place in found if place is not None]


def _next_step(job: JobView) -> str:
    if job.state is JobState.BLOCKED:
        return "fix its training first"
    if job.state is JobState.OUT_OF_MEMORY:
        return f"run it as a new version with {SMALLER}"
    return f"add --name {job.experiment} to try the same again; with other arguments run it as a new version"
