"""Check before anything is queued whether jobs can ever run on a cluster. Pure.

Many clusters (EnforcePartLimits=NO) queue such jobs silently for ever. What is not known is never a problem.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from hpcbench.errors import Problem
from hpcbench.scheduler.slurm.cluster_facts import NodeGroup
from hpcbench.schemas.cluster_profile import ClusterProfile
from hpcbench.schemas.request import Resources
from hpcbench.schemas.suite import Experiment, Suite

Partitions = Mapping[str, Mapping[str, str]]
"""The settings of each partition, as scontrol shows them."""
Wrong = tuple[str, str, str]
"""Field, what is wrong, what is there."""

HINTS = {
    "time": "ask for less, or name another partition",
    "partition": "name one that is there, in requirements or in the profile",
    "gpu": "ask for fewer, or for more nodes (nodes: 2 spreads them)",
    "gpu_type": "name a type that is there, or none",
    "mem_gb": "ask for less, or name another partition",
    "cpus_per_gpu": "ask for fewer per GPU, here or in the profile",
    "ddp": "ask for fewer ranks, or for more nodes",
    "nodes": "ask for fewer, or name another partition",
}
"""What to do about each field of a request."""


def find_impossible(
    suites: Iterable[Suite],
    profile: ClusterProfile,
    groups: Sequence[NodeGroup],
    only: Sequence[str] = (),
    *,
    partitions: Partitions | None = None,
) -> list[Problem]:
    """Return what no partition can ever run, once per shape of job; empty `groups` or `partitions` are not known."""
    problems: list[Problem] = []
    for suite in suites:
        shapes: dict[tuple[str, Resources], list[Experiment]] = {}
        for experiment, field, resources in requests_of(suite, only):
            shapes.setdefault((field, resources), []).append(experiment)
        for (field, resources), members in shapes.items():
            more = f" (and {len(members) - 1} more experiments)" if len(members) > 1 else ""
            for name, message, expected in judge_resources(resources, profile, groups, partitions):
                path = f"{members[0].name}: {field}.{name}"
                problems.append(
                    Problem(
                        file=str(suite.file),
                        line=members[0].line,
                        path=path,
                        message=message + more,
                        expected=expected,
                        hint=HINTS[name],
                    )
                )
    return problems


def requests_of(suite: Suite, only: Sequence[str] = ()) -> Iterator[tuple[Experiment, str, Resources]]:
    """Yield what the suite's jobs ask for, each with the field of the experiment that says so."""
    for experiment in suite.experiments:
        if not is_chosen(experiment, only):
            continue
        if experiment.cmd != "eval":
            yield experiment, "requirements", experiment.requirements
        if experiment.eval_dataset:
            yield experiment, "eval_requirements", experiment.eval_requirements


def is_chosen(experiment: Experiment, only: Sequence[str]) -> bool:
    """Return whether the globs of `--only` mean an experiment; without any all are meant."""
    return not only or any(fnmatchcase(experiment.name, glob) for glob in only)


def judge_resources(
    resources: Resources,
    profile: ClusterProfile,
    groups: Sequence[NodeGroup],
    partitions: Partitions | None = None,
) -> Iterator[Wrong]:
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
    # A QOS may lift the partition's limits (its flags PartitionTimeLimit and PartitionMaxNodes).
    limits_hold = profile.qos is None
    long_enough = [
        group for group in there if not limits_hold or group.time_max_min is None or time_min <= group.time_max_min
    ]
    if not long_enough:
        limits = ", ".join(dict.fromkeys(f"{group.partition} {group.time_max_min}" for group in there))
        yield "time", f"{time_min} minutes are more than any partition allows", f"at most (minutes): {limits}"
        return
    if all(group.num_nodes for group in long_enough):
        settings = partitions if partitions and limits_hold else {}
        yield from _judge_nodes(resources, profile, long_enough, groups, settings)
    # Else sinfo hides nodes that are powered down, and their resources are unknown.


def _judge_nodes(
    resources: Resources,
    profile: ClusterProfile,
    groups: Sequence[NodeGroup],
    everywhere: Sequence[NodeGroup],
    partitions: Partitions,
) -> Iterator[Wrong]:
    """Judge GPUs, memory, CPUs and the number of nodes: one shape of node has to have all that a job asks for."""
    fitting = groups
    if profile.gpu_flag is not None and resources.gpu:
        fitting, wrong = _judge_gpus(resources, groups, everywhere)
        if wrong is not None:
            # The rest mostly follows from the GPUs: it is judged once they fit.
            yield wrong
            return
    for judge in (_judge_memory, _judge_cpus):
        enough, wrong = judge(resources, profile, fitting)
        if wrong is not None:
            yield wrong
        fitting = enough or fitting
    if (wrong := _judge_count(resources, fitting, partitions)) is not None:
        yield wrong


def _judge_gpus(
    resources: Resources, groups: Sequence[NodeGroup], everywhere: Sequence[NodeGroup]
) -> tuple[Sequence[NodeGroup], Wrong | None]:
    per_node = -(-resources.gpu // resources.nodes)
    kind = resources.gpu_type
    # Where sinfo names no types at all, only the number can be judged.
    typed = any(name for group in everywhere for name in group.gpus)
    offers = [group.gpus.get(kind, 0) if kind and typed else group.num_gpus for group in groups]
    if max(offers) >= per_node:
        return [group for group, offer in zip(groups, offers, strict=True) if offer >= per_node], None
    if kind and typed and max(offers) == 0:
        found = dict.fromkeys(f"{group.partition} {name}" for group in everywhere for name in group.gpus if name)
        return (), ("gpu_type", f"no node that such a job may run on has GPUs of type {kind!r}", ", ".join(found))
    most = _most(groups, [str(offer) for offer in offers])
    message = f"{per_node} GPUs on one node are more than any node has"
    return (), ("gpu", message, f"at most (GPUs per node): {most}")


def _judge_memory(
    resources: Resources, profile: ClusterProfile, groups: Sequence[NodeGroup]
) -> tuple[Sequence[NodeGroup], Wrong | None]:
    mem_gb = resources.mem_gb or profile.mem_gb
    if mem_gb is None or profile.mem_flag is None:
        return groups, None
    enough = [group for group in groups if group.is_least or round(mem_gb * 1024) <= round(group.mem_gib * 1024)]
    if enough:
        return enough, None
    whose = "" if resources.mem_gb is not None else f" (mem_gb of the profile {profile.name})"
    most = _most(groups, [f"{group.mem_gib:.4g}" for group in groups])
    message = f"{mem_gb:g} GiB on one node are more than any node has that such a job may run on{whose}"
    return (), ("mem_gb", message, f"at most (GiB per node): {most}")


def _judge_cpus(
    resources: Resources, profile: ClusterProfile, groups: Sequence[NodeGroup]
) -> tuple[Sequence[NodeGroup], Wrong | None]:
    cpus = resources.cpus_per_node(profile.cpus_per_gpu)
    enough = [group for group in groups if group.is_least or cpus <= group.cpus]
    if enough:
        return enough, None
    gpus = -(-resources.gpu // resources.nodes)
    per_gpu = resources.cpus_per_gpu or profile.cpus_per_gpu or 1
    by_gpu = resources.cpus is None and cpus == gpus * per_gpu
    how = f" ({per_gpu} for each of {gpus} GPUs)" if by_gpu else ""
    most = _most(groups, [str(group.cpus) for group in groups])
    message = f"{cpus} CPUs on one node are more than any node has that such a job may run on{how}"
    return (), ("cpus_per_gpu" if by_gpu else "ddp", message, f"at most (CPUs per node): {most}")


def _judge_count(resources: Resources, groups: Sequence[NodeGroup], partitions: Partitions) -> Wrong | None:
    """Return what is wrong with the number of nodes: a job gets them from one partition."""
    offers: dict[str, int] = {}
    for group in groups:
        offers[group.partition] = offers.get(group.partition, 0) + group.num_nodes
    for name, count in offers.items():
        limit = partitions.get(name, {}).get("MaxNodes", "")
        offers[name] = min(count, int(limit)) if limit.isdecimal() else count
    if max(offers.values()) >= resources.nodes:
        return None
    most = ", ".join(f"{name} {count}" for name, count in offers.items())
    message = f"{resources.nodes} nodes are more than any partition gives such a job"
    return "nodes", message, f"at most (nodes that fit): {most}"


def _most(groups: Sequence[NodeGroup], offers: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(f"{group.partition} {offer}" for group, offer in zip(groups, offers, strict=True)))
