"""What can never run on a cluster, said before anything is queued.

In: suites, a profile, and what the cluster's partitions have. Out: problems, one per shape of job. Pure. Slurm itself
takes such jobs without a word on many clusters (EnforcePartLimits=NO), and they wait for ever. What is not known is
never a problem.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

from hpcbench.errors import Problem
from hpcbench.profile import ClusterProfile
from hpcbench.request import Resources
from hpcbench.scheduler.slurm_facts import NodeGroup
from hpcbench.suite import Experiment, Suite


def find_impossible(
    suites: Iterable[Suite], profile: ClusterProfile, groups: Sequence[NodeGroup], only: Sequence[str] = ()
) -> list[Problem]:
    """Return what no partition can ever run, the first experiment of each shape with the number of the others.

    Args:
        suites: what is about to be submitted.
        profile: how jobs are asked for.
        groups: the cluster's partitions; nothing when they are not known.
        only: globs of the experiments that are meant; nothing means all.
    """
    problems: list[Problem] = []
    for suite in suites:
        chosen = [e for e in suite.experiments if not only or any(fnmatchcase(e.name, glob) for glob in only)]
        shapes: dict[tuple[str, Resources], list[Experiment]] = {}
        for experiment in chosen:
            for field, resources in _requests(experiment):
                shapes.setdefault((field, resources), []).append(experiment)
        for (field, resources), members in shapes.items():
            more = f" (and {len(members) - 1} more experiments)" if len(members) > 1 else ""
            for name, message, expected in judge_resources(resources, profile, groups):
                path = f"{members[0].name}: {field}.{name}"
                problems.append(
                    Problem(
                        file=str(suite.file),
                        line=members[0].line,
                        path=path,
                        message=message + more,
                        expected=expected,
                    )
                )
    return problems


def _requests(experiment: Experiment) -> Iterator[tuple[str, Resources]]:
    if experiment.cmd != "eval":
        yield "requirements", experiment.requirements
    if experiment.eval_dataset:
        yield "eval_requirements", experiment.eval_requirements


def judge_resources(
    resources: Resources, profile: ClusterProfile, groups: Sequence[NodeGroup]
) -> Iterator[tuple[str, str, str]]:
    """Yield (field, what is wrong, what is there) for one job's request."""
    time_min = resources.time_min or profile.time_min
    if profile.time_max_min is not None and time_min > profile.time_max_min:
        limit = f"at most {profile.time_max_min} minutes (time_max_min of the profile {profile.name})"
        yield "time", f"{time_min} minutes are more than the profile allows", limit
        return
    if not groups:
        return
    named = resources.partition or profile.partition
    wanted = set() if named is None else set(named.split(","))
    there = [group for group in groups if not wanted or group.partition in wanted]
    if not there:
        known = ", ".join(dict.fromkeys(group.partition for group in groups))
        yield "partition", f"there is no partition {named!r}", known
        return
    long_enough = [group for group in there if group.time_max_min is None or time_min <= group.time_max_min]
    if not long_enough:
        limits = ", ".join(dict.fromkeys(f"{group.partition} {group.time_max_min}" for group in there))
        yield "time", f"{time_min} minutes are more than any partition allows", f"at most (minutes): {limits}"
        return
    if profile.gpu_flag is not None and resources.gpu:
        yield from _judge_gpus(resources, long_enough, groups)


def _judge_gpus(
    resources: Resources, groups: Sequence[NodeGroup], everywhere: Sequence[NodeGroup]
) -> Iterator[tuple[str, str, str]]:
    per_node = -(-resources.gpu // resources.nodes)
    kind = resources.gpu_type
    # Where sinfo names no types at all, only the number can be judged.
    typed = any(name for group in everywhere for name in group.gpus)
    offers = [group.gpus.get(kind, 0) if kind and typed else group.num_gpus for group in groups]
    if max(offers) >= per_node:
        return
    if kind and typed and max(offers) == 0:
        found = dict.fromkeys(f"{group.partition} {name}" for group in everywhere for name in group.gpus if name)
        yield "gpu_type", f"no node that such a job may run on has GPUs of type {kind!r}", ", ".join(found)
        return
    most = ", ".join(dict.fromkeys(f"{group.partition} {offer}" for group, offer in zip(groups, offers, strict=True)))
    yield "gpu", f"{per_node} GPUs on one node are more than any node has", f"at most (GPUs per node): {most}"
