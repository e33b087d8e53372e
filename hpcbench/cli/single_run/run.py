"""One experiment run to its end on this machine: planned, queued, run by the same rooms as a submitted suite."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hpcbench.cli.output import print_line, print_warning
from hpcbench.cli.single_run.command_line import CKPT_DIR, Typed, aliases_of_run, has_person, make_document, read_words
from hpcbench.cli.single_run.dialogue import converse
from hpcbench.cli.single_run.eval_of_training import eval_jobs, find_training, suite_with_evals
from hpcbench.cli.single_run.options import DEFAULT_OUTPUT_DIR, INFER, Verb, options_of
from hpcbench.cli.single_run.outcome_text import describe_job
from hpcbench.cli.single_run.place import suite_of
from hpcbench.cli.single_run.suite_file import put_experiment
from hpcbench.config.loading import load_document
from hpcbench.errors import EXIT_INTERRUPTED, ConfigError
from hpcbench.invocation import command, repeat_save_dir
from hpcbench.plan.decide import Action, Decision, Options
from hpcbench.scheduler.local.machine import read_machine
from hpcbench.scheduler.local.runner import run_queue
from hpcbench.scheduler.registry import open_scheduler
from hpcbench.schemas.collection import ExperimentView, JobView, choose_jobs
from hpcbench.schemas.request import TRAIN
from hpcbench.schemas.states import FAILED_STATES, JobState
from hpcbench.schemas.suite import Experiment, Suite
from hpcbench.status.gather import gather
from hpcbench.submit.cancel import cancel_jobs
from hpcbench.submit.carry_out import carry_out, claim_plan
from hpcbench.submit.destination import Destination, find_unmade_environments

RUN_AGAIN = frozenset({*FAILED_STATES, JobState.OUT_OF_MEMORY})
"""Who types the command again wants it tried again."""


def run_here(verb: Verb, words: Sequence[str], *, default_root: str | None) -> bool:
    """Run what was typed and print how it went; return whether all of it completed.

    Raises:
        ConfigError: what was typed is wrong; nothing was made.
        KeyboardInterrupt: a person stopped it. The job has written a checkpoint and left the queue.
    """
    typed = read_words(verb, words)
    device_is_clear = {"device", "gpu"} <= typed.values.keys()
    has_gpu = not device_is_clear and bool(read_machine().gpus)
    if verb is INFER and has_person(typed):
        return converse(load_typed(typed, has_gpu=has_gpu, has_person=True))
    if not verb.has_own_checkpoint and typed.text(CKPT_DIR) is not None:
        return _evaluate_training(typed)
    experiment = load_typed(typed, has_gpu=has_gpu)
    root = _root(typed, default_root)
    suite = suite_of(experiment, root=root, name=typed.text("name"), prefix=verb.folder_prefix)
    return _run(suite, root, Options(retry=RUN_AGAIN, force=typed.is_on("force")))


def _evaluate_training(typed: Typed) -> bool:
    """Evaluate a checkpoint; what else the experiment has is neither run nor told."""
    training = find_training(typed)
    evaluation = load_typed(typed, has_gpu=training.request.device == "cuda")
    suite = suite_with_evals(training, evaluation)
    jobs = eval_jobs(evaluation)
    pairs = frozenset((training.request.experiment, job) for job in jobs)
    options = Options(retry=RUN_AGAIN, force=typed.is_on("force"), retry_jobs=pairs)
    return _run(suite, training.root, options, jobs)


def load_typed(typed: Typed, *, has_gpu: bool, has_person: bool = False) -> Experiment:
    """Return the typed experiment, checked as a suite in the current folder; raise ConfigError with all problems."""
    name = typed.verb.name
    document = make_document(typed, has_gpu=has_gpu)
    file = Path.cwd() / f"{name}.yaml"
    also = (*options_of(name), *aliases_of_run(typed.verb))
    suite = load_document(document, file=file, also=also, has_person=has_person)
    return suite.experiments[0]


def _root(typed: Typed, default: str | None) -> Path:
    given = typed.text(typed.verb.results_option) or default or DEFAULT_OUTPUT_DIR
    # Path.expanduser raises where there is no such user.
    return Path(os.path.expanduser(given)).absolute()  # noqa: PTH111


def _run(suite: Suite, root: Path, options: Options, jobs: frozenset[str] = frozenset()) -> bool:
    """Run the suite's one experiment, or these of its jobs; return whether they completed."""
    (experiment,) = suite.experiments
    if problems := find_unmade_environments([suite], None):
        raise ConfigError(problems)
    repeat_save_dir(root)
    destination = Destination(save_dir=root, scheduler=open_scheduler(None, root))
    with claim_plan(suite, destination, options) as plan:
        for warning in plan.warnings:
            print_warning(f"warning: {warning}")
        refused = [decision for decision in plan.decisions if _is_refused(decision, jobs)]
        for decision in refused:
            print_warning(f"not run: {decision.name}: {decision.why}")
        if refused:
            return False
        decisions = [decision for decision in plan.decisions if not jobs or decision.request.job in jobs]
        results = root / suite.name / experiment.name
        print_line(f"{suite.name}/{experiment.name}: {_intention(decisions)}, results in {results}")
        if any(decision.action is Action.SUBMIT for decision in decisions):
            put_experiment(suite.file, experiment)
            carry_out(plan)
    if any(decision.action is not Action.SKIP or "already completed" not in decision.why for decision in decisions):
        _run_queue(suite, root)
    view = _experiment(suite, root)
    shown = [job for job in view.jobs if not jobs or job.job in jobs]
    for job in shown:
        print_line(describe_job(job, view))
    print_line(f"all runs of {suite.name}: {command('collect', suite.name)}; as a suite: {suite.file}")
    return all(job.state is JobState.COMPLETED for job in shown)


def _is_refused(decision: Decision, jobs: frozenset[str]) -> bool:
    """Return whether this keeps the run from starting: something changed, or an eval would run a training."""
    if jobs and decision.request.job == TRAIN:
        return decision.action in {Action.CHANGED, Action.SUBMIT}
    return decision.action is Action.CHANGED and (not jobs or decision.request.job in jobs)


def _intention(decisions: Sequence[Decision]) -> str:
    if all(decision.action is Action.SKIP for decision in decisions):
        return decisions[0].why
    first = next(decision for decision in decisions if decision.action is not Action.SKIP)
    return "starts" if first.why in {"new", "after its train job"} else first.why


def _run_queue(suite: Suite, root: Path) -> None:
    """Run the queue until it is empty; an interrupted job is taken out of it, so that no later run starts it again."""
    name = suite.experiments[0].name
    how = f"to resume, run the same command with --name {name}"
    if run_queue(root, display=True, how_to_continue=how) == EXIT_INTERRUPTED:
        cancel_jobs(_jobs(suite, root), root)
        raise KeyboardInterrupt


def _jobs(suite: Suite, root: Path) -> list[JobView]:
    return choose_jobs(gather(root, [suite.name]), [f"{suite.name}/{suite.experiments[0].name}"])


def _experiment(suite: Suite, root: Path) -> ExperimentView:
    found = gather(root, [suite.name])
    name = suite.experiments[0].name
    return next(view for view in found.suites[0].experiments if view.name == name)
