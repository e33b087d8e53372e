"""Make the text around a table, not yet escaped: notes, warnings, failures, next steps; it never judges a result."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from hpcbench.errors import name_first, plural
from hpcbench.invocation import command
from hpcbench.report.column import Column
from hpcbench.report.environment import SoftwareVersions
from hpcbench.report.eval_warnings import either, eval_warnings, figure_warnings
from hpcbench.report.facts import EvalFacts, Facts, cause_text, gpu_names, job_cause, processor
from hpcbench.report.next_steps import Step, next_steps
from hpcbench.report.rows import Row, column_cells, standings_of
from hpcbench.schemas.arguments import EVAL_LOSS_ONLY
from hpcbench.schemas.collection import JobView, SuiteView
from hpcbench.schemas.metrics import EvalMetrics, ExportMetrics, TrainMetrics
from hpcbench.schemas.record import SETUP_FAILED
from hpcbench.schemas.request import JobRef
from hpcbench.schemas.states import FAILED_STATES, JobState
from hpcbench.storage.paths import JobPaths

COMPARED_SOFTWARE = ("torch", "transformers", "peft", "lm_eval")

OOM_HINT = "a result, never retried by itself"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One job that ended without completing."""

    experiment: str
    """`suite/experiment`."""
    job: str
    state: JobState
    message: str
    log: str | None
    hint: str | None
    lines: tuple[str, ...]
    """The last lines of the log that show the cause."""
    blocks: tuple[str, ...]
    """Evals that cannot run because of it."""
    steps: tuple[Step, ...]
    """What to type next."""


def notes_of(columns: Sequence[Column], rows: Sequence[Row], *, any_best: bool) -> tuple[str, ...]:
    """Return what the figures of a default table mean."""
    experiments = [facts for row in rows for facts in row.members]
    notes = [note for column in columns if (note := column_note(column, rows))]
    notes += _eval_notes(experiments)
    if any(len(row.members) > 1 for row in rows):
        notes.append("(n=3): mean ± sample standard deviation over three runs with different seeds")
    if any_best:
        notes.append(
            "bold: the best of a column, ties as printed included. Losses are compared among rows of the same model "
            "and training data, memory among rows of the same model, speeds among rows of the same model and hardware, "
            "scores among rows with the same number of documents and shots; a figure with nothing to compare, and a "
            "mean of repeats that are not all completed, is never bold"
        )
        notes += _near_notes(columns, rows)
    return tuple(notes)


def warnings_of(experiments: Sequence[Facts]) -> tuple[str, ...]:
    """Return what makes the rows of one suite hard to compare."""
    return (
        *_debug_warnings(experiments),
        *_difference("hpcbench versions", "records come from", experiments, _versions),
        *_software_warnings(experiments),
        *_setup_warnings(experiments),
        *_hardware_warnings(experiments),
        *_deviation_warnings(experiments),
        *_resume_warnings(experiments),
        *_template_warnings(experiments),
        *eval_warnings(experiments),
        *figure_warnings(experiments),
        *_push_warnings(experiments),
    )


def others_note(suite: SuiteView) -> str | None:
    """Return what is said about experiments and jobs of earlier versions of the suite, or nothing."""
    parts = []
    if count := suite.num_left_out:
        parts.append(f"left out: {plural(count, 'experiment')} that the suite does not have any more")
    if count := len(suite.other_jobs):
        jobs = f"{plural(count, 'job')} not in the suite any more"
        parts.append(f"{jobs}, but still under way: {command('status', suite.name)}")
    return "; ".join(parts) or None


def failures_of(experiments: Iterable[Facts]) -> tuple[Failure, ...]:
    """Return the jobs that ended without completing, running out of GPU memory included, each with what it blocks."""
    known = list(experiments)
    blocked: dict[JobRef, list[str]] = {}
    for facts in known:
        for job in facts.view.jobs:
            if job.state is JobState.BLOCKED and job.parent is not None:
                own = job.parent[0] == job.experiment
                blocked.setdefault(job.parent, []).append(job.job if own else f"{job.experiment} {job.job}")
    return tuple(
        _failure(job, blocked.get(job.ref, ()))
        for facts in known
        for job in facts.view.jobs
        if job.state in FAILED_STATES or job.state is JobState.OUT_OF_MEMORY
    )


def _failure(job: JobView, blocks: Sequence[str]) -> Failure:
    cause = job_cause(job)
    name = f"{job.suite}/{job.experiment}"
    is_oom = job.state is JobState.OUT_OF_MEMORY
    look = command("logs" if job.record is not None else "why", name)
    return Failure(
        experiment=name,
        job=job.job,
        state=job.state,
        message=cause_text(job),
        log=_log_path(job),
        hint=cause.hint if cause is not None and cause.hint else OOM_HINT if is_oom else None,
        lines=() if cause is None else cause.lines[-5:],
        blocks=tuple(blocks),
        steps=(Step(look), *next_steps(job)),
    )


def _log_path(job: JobView) -> str | None:
    cause = job_cause(job)
    if cause is not None and cause.log is not None:
        return str(job.folder / cause.log)
    if job.record is None or not job.record.attempts:
        return None
    return str(JobPaths(job.folder).attempt(job.record.attempts[-1].number).log)


def column_note(column: Column, rows: Sequence[Row]) -> str:
    """Return what a column's figures mean, with those of its signs that occur in these rows."""
    texts = [cell.text for cell in column_cells(column, rows)] if column.legend else []
    marks = [meaning for mark, meaning in column.legend if any(mark in text for text in texts)]
    if not marks:
        return column.note
    return "; ".join((column.note, *marks)) if column.note else f"{column.header}: {'; '.join(marks)}"


def _near_notes(columns: Sequence[Column], rows: Sequence[Row]) -> Iterable[str]:
    """Yield, per column, the rows that cannot be told from the best."""
    for column in columns:
        for standing in standings_of(column, rows):
            if standing.near:
                best, near = ([rows[number].name for number in found] for found in (standing.best, standing.near))
                yield (
                    f"{column.header}: {name_first(near)} cannot be told from {name_first(best)}: the difference is "
                    "within its standard error"
                )


def _eval_notes(experiments: Iterable[Facts]) -> list[str]:
    by_dataset: defaultdict[str, list[EvalFacts]] = defaultdict(list)
    for facts in experiments:
        for dataset, found in facts.evals.items():
            if found.score is not None and dataset != EVAL_LOSS_ONLY:
                by_dataset[dataset].append(found)
    return [_eval_note(dataset, found) for dataset, found in by_dataset.items()]


def _eval_note(dataset: str, found: Sequence[EvalFacts]) -> str:
    scores = [facts.score for facts in found if facts.score is not None]
    parts = [f"{either(score.metric for score in scores)} ± lm-eval's standard error"]
    if all(score.stderr is None for score in scores):
        parts = [either(score.metric for score in scores)]
    parts.append(f"{either(str(score.num_samples) for score in scores)} documents")
    shots = [str(score.num_fewshot) for score in scores if score.num_fewshot is not None]
    parts += [f"{either(shots)}-shot"] if shots else []
    parts += [] if all(score.higher_is_better for score in scores) else ["lower is better"]
    choices = {facts.metrics.checkpoint_choice for facts in found if facts.metrics is not None}
    if any(facts.metrics.mean_over_documents for facts in found if facts.metrics is not None):
        parts.append("the mean over all documents of its tasks, since lm-eval defines no score for this group")
    trained = sorted(choices & {"best", "last"})
    parts += [f"{either(trained)} checkpoint of trained rows"] if trained else []
    return f"{dataset}: {', '.join(parts)}"


def _debug_warnings(experiments: Iterable[Facts]) -> list[str]:
    limited: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
    for facts in experiments:
        for dataset, found in facts.evals.items():
            if found.metrics is not None and found.metrics.debug:
                limited[dataset, _limit(found)].append(facts.view.name)
    return [
        f"{dataset}: limit={limit}: only the first documents were evaluated ({name_first(names)}); not comparable with "
        "scores on the whole dataset"
        for (dataset, limit), names in limited.items()
    ]


def _limit(found: EvalFacts) -> int:
    request = found.job.request
    if request is not None and request.eval_args is not None and request.eval_args.limit is not None:
        return request.eval_args.limit
    return 0 if found.score is None else found.score.num_samples


def _setup_warnings(experiments: Iterable[Facts]) -> list[str]:
    failed: defaultdict[str, list[str]] = defaultdict(list)
    for facts in experiments:
        ran = (found for found in facts.records if found.cause is None or found.cause.type != SETUP_FAILED)
        for line in (str(line) for found in ran for line in found.environment.get("setup_failures") or ()):
            if facts.view.name not in failed[line]:
                failed[line].append(facts.view.name)
    told = "a setup line of the cluster profile failed, and jobs ran all the same"
    return [f"{told} ({name_first(names)}): {line}" for line, names in failed.items()]


def _hardware_warnings(experiments: Sequence[Facts]) -> list[str]:
    def gpus(facts: Facts) -> frozenset[str]:
        return frozenset(name for record in facts.records for name in gpu_names(record))

    def processors(facts: Facts) -> frozenset[str]:
        found = (processor(record) for record in facts.records if not gpu_names(record))
        return frozenset(name for name in found if name is not None)

    return [
        *_difference("GPUs", "jobs ran on", experiments, gpus),
        *_difference("processors without a GPU", "jobs ran on", experiments, processors),
    ]


def _deviation_warnings(experiments: Iterable[Facts]) -> list[str]:
    """Return what ran otherwise than it was asked for, each with the experiments or evals that it happened to."""
    names: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for facts in experiments:
        main = facts.train or facts.export
        if main is not None:
            for deviation in _deviations(main):
                names[deviation].append(facts.view.name)
        for found in facts.evals.values():
            for deviation in () if found.metrics is None else _deviations(found.metrics):
                if facts.view.name not in names[deviation]:
                    names[deviation].append(f"{facts.view.name} {found.job.job}")
    return [f"{argument}: {text} ({name_first(found)})" for (argument, text), found in names.items()]


def _deviations(metrics: TrainMetrics | EvalMetrics | ExportMetrics) -> list[tuple[str, str]]:
    found = list(metrics.deviations.items())
    # Records of 0.2 say it there.
    old = metrics.unknown.get("attention")
    return found if old is None else [*found, ("use_flash_attn", old)]


def _resume_warnings(experiments: Iterable[Facts]) -> list[str]:
    """Return which trainings went on from a checkpoint of another, and which steps their figures are of."""
    return [
        f"{facts.view.name}: went on from {facts.train.resumed_from} at step {facts.train.resumed_from_step}; its "
        f"losses, samples and times are of steps {facts.train.resumed_from_step + 1} to {facts.train.num_steps}"
        for facts in experiments
        if facts.train is not None and facts.train.resumed_from_step is not None
    ]


def _template_warnings(experiments: Iterable[Facts]) -> list[str]:
    """Return the evals whose prompts another chat template wrote than those of their training."""
    return [
        f"{facts.view.name} {found.job.job}: prompts by another chat template ({found.metrics.template}) than in "
        f"training ({facts.train.template})"
        for facts in experiments
        for found in facts.evals.values()
        if facts.train is not None
        and found.metrics is not None
        and None not in {facts.train.template, found.metrics.template}
        and facts.train.template != found.metrics.template
    ]


def _push_warnings(experiments: Iterable[Facts]) -> list[str]:
    """Return whose weights are not on the hub that they were to be pushed to, and what pushes them by hand."""
    return [
        f"{facts.view.name}: weights {facts.train.unknown['pushed_to']}"
        for facts in experiments
        if facts.train is not None and "pushed_to" in facts.train.unknown
    ]


def _difference(
    what: str, how: str, experiments: Sequence[Facts], read: Callable[[Facts], frozenset[str]]
) -> tuple[str, ...]:
    found = [read(facts) for facts in experiments]
    values = frozenset[str]().union(*set(found))
    if len(values) < 2:  # noqa: PLR2004
        return ()
    names: defaultdict[str, list[str]] = defaultdict(list)
    for facts, own in zip(experiments, found, strict=True):
        for value in own:
            names[value].append(facts.view.name)
    listed = "; ".join(f"{value} ({name_first(named)})" for value, named in sorted(names.items()))
    return (f"{how} different {what}: {listed}",)


def _versions(facts: Facts) -> frozenset[str]:
    return frozenset(record.hpcbench_version for record in facts.records)


def _software_warnings(experiments: Sequence[Facts]) -> Iterator[str]:
    versions = SoftwareVersions(COMPARED_SOFTWARE)
    found = {id(facts): [versions.of(record.environment) for record in facts.records] for facts in experiments}
    for name in COMPARED_SOFTWARE:

        def read(facts: Facts, name: str = name) -> frozenset[str]:
            return frozenset(own[name] for own in found[id(facts)] if name in own)

        yield from _difference(f"versions of {name}", "jobs ran with", experiments, read)
