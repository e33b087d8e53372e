"""From an eval dataset's name in a suite to loaded lm-eval tasks.

In: the name, folders with local task files. Out: lm-eval's task and group objects with their documents, and which of
them is the headline. Names that ms-swift uses are translated by `catalog/eval_names.yaml`. It never loads a model.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import lm_eval.tasks
from lm_eval.api.group import Group
from lm_eval.api.metrics import mean
from lm_eval.api.task import Task
from lm_eval.config.group import AggMetricConfig
from lm_eval.tasks import TaskManager

from hpcbench.catalog.eval_names import EVAL_NAMES
from hpcbench.data.task_files import read_task_folder
from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import EvalArgs
from hpcbench.worker.evaluate.failures import explain_loading
from hpcbench.worker.evaluate.local_data import with_local_data
from hpcbench.worker.evaluate.seeds import seed_generators

BUILT_IN_FOLDER = Path(lm_eval.tasks.__file__).parent
NUM_SUGGESTIONS = 3
DEFAULTS: Final = EvalArgs()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedTasks:
    """The lm-eval tasks behind one eval dataset's name."""

    headline: Task | Group
    """The one task or group that the report shows."""
    manager: TaskManager
    mean_over_documents: bool = False
    """Whether lm-eval defines no score for the headline, so that it is the mean over all documents."""

    @property
    def name(self) -> str:
        """Name of the headline in lm-eval's results."""
        return name_of(self.headline)

    @property
    def leaves(self) -> tuple[Task, ...]:
        """All tasks with documents of their own."""
        return tuple(self.headline.get_all_tasks()) if isinstance(self.headline, Group) else (self.headline,)


def load_eval_tasks(name: str, eval_args: EvalArgs = DEFAULTS) -> LoadedTasks:
    """Load the eval tasks behind a name, with their documents.

    A name that the local files define is theirs; else the catalog's; else lm-eval's.

    Args:
        name: an lm-eval task, group or tag, or a name of the catalog.
        eval_args: says where local task files are, which win over built-in ones, and local data.

    Raises:
        WorkerError: no such folder or task, or its data is not on this machine.
    """
    with explain_loading(name):
        seed_generators(eval_args)
        manager, task_names = _find(name, eval_args.include_path)
        with with_local_data(manager, task_names, eval_args.local_data, eval_args.num_fewshot):
            built = [item for task_name in task_names for item in _top_level(manager, task_name)]
    if not built:
        raise WorkerError(f"eval dataset {name!r}: a group without tasks", hint="list some in its `task:`")
    if len(built) > 1:
        return LoadedTasks(headline=_group(name, built), manager=manager, mean_over_documents=True)
    headline = built[0]
    has_no_score = isinstance(headline, Group) and not headline.has_aggregation
    if isinstance(headline, Group) and has_no_score:
        headline.aggregate_metric_list = _shared_metrics(headline.get_all_tasks())
    return LoadedTasks(headline=headline, manager=manager, mean_over_documents=has_no_score)


def name_of(item: Task | Group) -> str:
    """Return the name of a task or group in lm-eval's results."""
    return str(item.name if isinstance(item, Group) else item.task_name)


def _find(name: str, include_path: Sequence[str]) -> tuple[TaskManager, tuple[str, ...]]:
    """Return the smallest index that has the name, and lm-eval's names for it."""
    folders = [_existing_folder(folder) for folder in include_path]
    known = EVAL_NAMES.lookup(name)
    task_names = known.tasks if known else (name,)
    if folders:
        local = TaskManager(include_path=folders, include_defaults=False)
        for wanted in ((name,), task_names):
            if all(_is_complete(local, each) for each in wanted):
                return local, wanted
    if known:
        built_in = [str(BUILT_IN_FOLDER / folder) for folder in known.folders]
        small = TaskManager(include_path=[*built_in, *folders], include_defaults=False)
        if all(_is_complete(small, each) for each in task_names):
            return small, task_names
    # All of the 14,686 names of lm-eval 0.4.13, which takes seconds.
    everything = TaskManager(include_path=folders or None)
    for wanted in ((name,), task_names):
        if all(each in everything.task_index for each in wanted):
            return everything, wanted
    raise _unknown_name(name, [*everything.all_tasks, *EVAL_NAMES.names()], folders)


def _existing_folder(folder: str) -> str:
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise WorkerError(f"eval_args.include_path: {folder}: no such folder")
    return str(path.resolve())


def _is_complete(manager: TaskManager, name: str) -> bool:
    """Return whether the index has the name and, for a group, all its members."""
    entry = manager.task_index.get(name)
    if entry is None:
        return False
    config = entry.cfg or {}
    members = config.get("task") if "group" in config else None
    return all(_is_complete(manager, member) for member in _member_names(members))


def _member_names(members: Any) -> Iterable[str]:
    """Names in a group's `task:` list, without groups that are defined in place."""
    for member in [members] if isinstance(members, str) else members or ():
        if isinstance(member, str):
            yield member
        elif "group" not in member:
            yield member["task"]
        else:
            yield from _member_names(member.get("task"))


def _top_level(manager: TaskManager, name: str) -> list[Task | Group]:
    """Load one name; a tag gives several tasks, a group its outermost group."""
    loaded = manager.load([name])
    groups = loaded.get("groups", {})
    return [groups[name]] if name in groups else list(loaded["tasks"].values())


def _group(name: str, members: Sequence[Task | Group]) -> Group:
    group = Group(name=name, alias=name)
    for member in members:
        group.add(member)
    group.aggregate_metric_list = _shared_metrics(group.get_all_tasks())
    return group


def _shared_metrics(leaves: Sequence[Task]) -> list[AggMetricConfig]:
    """Return the metrics that are means in all tasks, averaged by size, in the first task's order."""
    means = [[metric for metric, combine in leaf.aggregation().items() if combine is mean] for leaf in leaves]
    shared = set.intersection(*(set(metrics) for metrics in means))
    return [AggMetricConfig(metric=metric, weight_by_size=True) for metric in means[0] if metric in shared]


def _unknown_name(name: str, all_names: Sequence[str], folders: Sequence[str]) -> WorkerError:
    faults = [fault for folder in folders for fault in read_task_folder(Path(folder)).faults]
    if faults:
        # lm-eval skips such files and says so in its debug log alone.
        place = faults[0].path if faults[0].line is None else f"{faults[0].path}:{faults[0].line}"
        message = f"eval dataset {name!r}: not found, and {place} cannot be used: {faults[0].message}"
        return WorkerError(message, hint="correct that file, or leave its folder out of eval_args.include_path")
    close = difflib.get_close_matches(name, sorted(set(all_names)), n=NUM_SUGGESTIONS)
    hint = f"did you mean {', '.join(close)}?" if close else "`lm-eval ls tasks` lists all names."
    return WorkerError(
        f"eval dataset {name!r}: not a task of hpcbench or of lm-eval {lm_eval.__version__}",
        hint=f"{hint} For your own task files set eval_args.include_path",
    )
