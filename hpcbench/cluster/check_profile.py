"""Check a profile against its cluster, by the very rules that submit refuses by. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from hpcbench.cluster.account_rights import NOTHING, charged_profile, judge_rights
from hpcbench.cluster.doctor_checks import Check, Level
from hpcbench.cluster.limits import HINTS, Partitions, judge_resources
from hpcbench.scheduler.slurm.cluster_facts import Entitlements, NodeGroup
from hpcbench.schemas.cluster_profile import ClusterProfile
from hpcbench.schemas.request import Resources

ASK_FOR_ONE = "ask the site for an account (sacctmgr add user); until then sbatch refuses every job"
SHOW_YOURS = "sacctmgr show user $USER withassoc"
POWERED_DOWN = "fine where the site starts nodes on demand; else name another partition"


def check_partitions(
    groups: Sequence[NodeGroup], profile: ClusterProfile, partitions: Partitions | None = None
) -> Iterator[Check]:
    """Judge what jobs of the profile ask for when they say nothing else against what the cluster has."""
    if not groups:
        remedy = "check whether slurmctld is up: sinfo"
        yield Check(name="partitions", level="warning", message="sinfo lists none", remedy=remedy)
        return
    wanted = None if profile.partition is None else profile.partition.split(",")
    there = [g for g in groups if wanted is None or g.partition in wanted]
    asks_gpu = profile.gpu_flag is not None
    resources = Resources(gpu=1 if asks_gpu else 0, time_min=profile.time_max_min or profile.time_min)
    wrong = list(judge_resources(resources, profile, groups, partitions))
    for field, message, expected in wrong:
        level: Level = "warning" if field == "gpu" else "error"
        name = "cpus" if field == "ddp" else field
        yield Check(name=f"profile {name}", level=level, message=message, remedy=f"{HINTS[field]}; {expected}")
    if there and not any(group.is_up for group in there):
        names = ", ".join(dict.fromkeys(group.partition for group in there))
        yield Check(name="partitions", level="error", message=f"{names}: down", remedy="ask the site's support")
    fields = {field for field, _, _ in wrong}
    shown = [group for group in there if group.num_nodes]
    if there and not shown:
        names = ", ".join(dict.fromkeys(group.partition for group in there))
        yield Check(name="partitions", level="warning", message=f"{names}: sinfo shows no nodes", remedy=POWERED_DOWN)
        return
    if not fields:
        yield _describe_partitions(shown)
    if not fields & {"partition", "time", "gpu", "gpu_type"}:
        yield from _describe_request(resources, profile, shown, partitions or {}, fields)


def _describe_partitions(there: Sequence[NodeGroup]) -> Check:
    most = max(group.num_gpus for group in there)
    names = ", ".join(dict.fromkeys(group.partition for group in there))
    limits = [group.time_max_min for group in there]
    longest = None if None in limits else max(limit for limit in limits if limit is not None)
    time = "no time limit" if longest is None else f"at most {longest} min"
    return Check(name="partitions", level="ok", message=f"{names}: {most} GPUs on a node, {time}")


def _describe_request(
    resources: Resources,
    profile: ClusterProfile,
    there: Sequence[NodeGroup],
    partitions: Partitions,
    wrong: set[str],
) -> Iterator[Check]:
    if "mem_gb" not in wrong:
        most = f"nodes have up to {max(group.mem_gib for group in there):.4g} GiB"
        asked = "mem_gb: null asks for none" if profile.mem_gb is None else f"{profile.mem_gb:g} GiB"
        yield Check(name="memory", level="ok", message=f"{asked}; {most}")
    if not wrong & {"cpus_per_gpu", "ddp"}:
        most = f"nodes have up to {max(group.cpus for group in there)}"
        whose = "a job with one GPU asks" if resources.gpu else "a job asks"
        yield Check(
            name="CPUs", level="ok", message=f"{whose} for {resources.cpus_per_node(profile.cpus_per_gpu)}; {most}"
        )
    if "nodes" not in wrong:
        told = []
        for name in dict.fromkeys(group.partition for group in there):
            count = sum(group.num_nodes for group in there if group.partition == name)
            limit = partitions.get(name, {}).get("MaxNodes", "")
            told.append(f"{name} {count}" + (f" (at most {limit} for one job)" if limit.isdecimal() else ""))
        yield Check(name="nodes", level="ok", message=", ".join(told))


def check_rights(profile: ClusterProfile, known: Entitlements, environ: Mapping[str, str] = NOTHING) -> Iterator[Check]:
    """Judge the profile's account and QOS, or those of the environment where it names none, a line each."""
    refusals = {refusal.field: refusal for refusal in judge_rights(profile, profile.partition or "", known, environ)}
    charged = charged_profile(profile, environ)
    for field in ("account", "qos"):
        refusal = refusals.get(field)
        if refusal is None:
            yield _describe_account(charged, known) if field == "account" else _describe_qos(charged, known)
            continue
        level: Level = "warning" if known.submit_plugins else "error"
        unless = f", unless job_submit/{known.submit_plugins} sets another" if known.submit_plugins else ""
        remedy = f"{refusal.hint} ({refusal.expected})"
        yield Check(name=f"profile {field}", level=level, message=refusal.message + unless, remedy=remedy)


def _describe_account(profile: ClusterProfile, known: Entitlements) -> Check:
    if "associations" not in known.enforced:
        message = "none is asked for here" if profile.account is None else f"{profile.account}; any is taken here"
        return Check(name="account", level="ok", message=message)
    rights = known.rights
    if rights is None:
        message = "jobs have to name one of yours, and accounting does not say which are yours"
        return Check(name="account", level="warning", message=message, remedy=SHOW_YOURS)
    if not rights.associations:
        message = "jobs have to name one of yours, and accounting lists none"
        return Check(name="account", level="warning", message=message, remedy=ASK_FOR_ONE)
    yours = ", ".join(dict.fromkeys(found.account for found in rights.associations))
    if profile.account is not None:
        return Check(name="account", level="ok", message=f"{profile.account}; yours: {yours}")
    if rights.default_account is None:
        remedy = f"name one as account in the profile: {yours}"
        return Check(name="account", level="warning", message="you have no default one", remedy=remedy)
    return Check(name="account", level="ok", message=f"your default one, {rights.default_account}; yours: {yours}")


def _describe_qos(profile: ClusterProfile, known: Entitlements) -> Check:
    if "qos" not in known.enforced:
        message = "none is asked for here" if profile.qos is None else f"{profile.qos}; not held against a list here"
        return Check(name="qos", level="ok", message=message)
    associations = () if known.rights is None else known.rights.associations
    yours = ", ".join(dict.fromkeys(word for found in associations for word in found.qos)) or "not known"
    chosen = "the default one" if profile.qos is None else profile.qos
    return Check(name="qos", level="ok", message=f"{chosen}; yours: {yours}")
