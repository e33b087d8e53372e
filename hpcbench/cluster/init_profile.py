"""A first profile for a cluster, as YAML; a command that did not answer leaves its line at null, with a comment."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import yaml

from hpcbench.cluster.account_rights import judge_rights
from hpcbench.scheduler.slurm.client import SlurmClient
from hpcbench.scheduler.slurm.cluster_facts import (
    Association,
    Entitlements,
    NodeGroup,
    UserRights,
    accounts_are_flat,
    enforced_rules,
    max_array_size,
    parse_sshare,
    submit_plugins,
)
from hpcbench.schemas.cluster_profile import ClusterProfile

DEFAULT_TIME_MIN = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFacts:
    """What is known of a cluster before anybody wrote a profile."""

    config: Mapping[str, str] = field(default_factory=dict)
    groups: Sequence[NodeGroup] = ()
    partitions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """The settings of each partition."""
    associations: Sequence[Association] = ()
    default_account: str | None = None
    host: str = "localhost"
    python: str = sys.executable
    environ: Mapping[str, str] = field(default_factory=dict)


def gather_facts(environ: Mapping[str, str] = os.environ, client: SlurmClient | None = None) -> ClusterFacts:
    """Query the cluster; what does not answer stays empty."""
    client = SlurmClient() if client is None else client
    host = socket.gethostname().split(".", 1)[0]
    if not client.config:
        # Every further question would only wait for the same answer.
        return ClusterFacts(host=host, environ=environ)
    rights = client.rights
    associations: Sequence[Association] = () if rights is None else rights.associations
    if not associations:
        text = client.query_fact(["sshare", "-nP", "-o", "Account,User"], "your accounts are")
        accounts = parse_sshare(text, _user_name())
        associations = [Association(account=account) for account in accounts]
    return ClusterFacts(
        config=client.config,
        groups=client.node_groups,
        partitions=client.partitions,
        associations=associations,
        default_account=None if rights is None else rights.default_account,
        host=host,
        environ=environ,
    )


def profile_name(facts: ClusterFacts) -> str:
    """Return a file name for the profile: the cluster's own name, or `default` (pure)."""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", facts.config.get("ClusterName", "")).strip(".-")
    return name or "default"


def choose_group(groups: Sequence[NodeGroup]) -> NodeGroup | None:
    """Return the nodes to plan for: the default partition's when it has GPUs, else those with most GPUs (pure)."""
    up = [group for group in groups if group.is_up]
    if not up:
        return None
    return max(up, key=lambda g: (g.num_gpus > 0, g.is_default and g.num_gpus > 0, g.num_nodes * g.num_gpus))


def render_profile(facts: ClusterFacts) -> str:
    """Return the profile as commented YAML (pure)."""
    group = choose_group(facts.groups)
    lines = [
        f"# Written by hpcbench init from what {facts.config.get('ClusterName', 'the cluster')} said of itself.",
        "# null means: nothing is emitted. Check it with hpcbench doctor.",
        f"hosts: {_yaml([host_glob(facts.host)])}            # --cluster auto takes this profile on these login nodes",
        *_partition_lines(facts, group),
        *_account_lines(facts, None if group is None else group.partition),
        *_node_lines(facts, group),
        *_limit_lines(facts, group),
        *_environment_lines(facts),
    ]
    # Names of partitions stand in comments too: nothing in them may end a line or be refused by YAML.
    return "".join("".join(c for c in line if c.isprintable()) + "\n" for line in lines)


def host_glob(host: str) -> str:
    """Return a glob for all login nodes named like this one: `login03` gives `login*` (pure)."""
    stem = re.sub(r"\d+$", "", host)
    return f"{stem}*" if stem and stem != host else host


def _partition_lines(facts: ClusterFacts, group: NodeGroup | None) -> list[str]:
    if group is None:
        return ["partition: null           # sinfo did not answer"]
    lines = ["# Partitions:"]
    for found in facts.groups:
        limit = "no time limit" if found.time_max_min is None else f"at most {found.time_max_min} min"
        gpus = " + ".join(f"{n} {kind or 'GPU'}" for kind, n in found.gpus.items()) or "no GPU"
        mark = ", the default" if found.is_default else ""
        down = "" if found.is_up else ", down"
        shape = f"{found.num_nodes} nodes of {found.cpus} CPUs, {found.mem_gib:.0f} GiB, {gpus}"
        lines.append(f"#   {found.partition}: {shape}; {limit}{mark}{down}")
    return [*lines, f"partition: {_yaml(group.partition)}"]


def choose_account(facts: ClusterFacts, partition: str | None) -> str:
    """Return the account to charge: the default one, or the first of the user's that may be charged there (pure)."""
    names = [account for account in (facts.default_account,) if account is not None]
    names += [found.account for found in facts.associations]
    known = Entitlements(
        enforced=frozenset({"associations"}),
        # Of another account, which a plugin may set, the lists say nothing here.
        partitions={} if submit_plugins(facts.config) else facts.partitions,
        rights=UserRights(associations=tuple(facts.associations), default_account=facts.default_account),
        accounts_are_flat=accounts_are_flat(facts.config),
    )
    for name in names:
        # Not checked: sshare may name what no profile takes.
        profile = ClusterProfile().model_copy(update={"account": name})
        if not any(judge_rights(profile, partition or "", known)):
            return name
    return names[0]


def _account_lines(facts: ClusterFacts, partition: str | None) -> list[str]:
    accounts = list(dict.fromkeys(a.account for a in facts.associations))
    if not accounts:
        return ["account: null             # neither sacctmgr nor sshare names one of yours", "qos: null"]
    qos = list(dict.fromkeys(word for a in facts.associations for word in a.qos))
    yours = f"# yours: {', '.join(accounts)}"
    chosen = choose_account(facts, partition)
    enforced = "associations" in enforced_rules(facts.config) or len(accounts) > 1
    enforced |= chosen != (facts.default_account or chosen)
    # The default account needs no flag; naming it costs nothing where accounts are enforced.
    account = _yaml(chosen) if enforced else "null"
    return [
        f"account: {account}             {yours}",
        f"qos: null                 # yours: {', '.join(qos)}" if qos else "qos: null",
    ]


def _node_lines(facts: ClusterFacts, group: NodeGroup | None) -> list[str]:
    if group is None or not group.num_gpus:
        known = "gpu" in facts.config.get("GresTypes", "gpu")
        why = "sinfo lists no GPUs" if known else "the cluster has no GPUs"
        return [f"gpu_flag: {'gres' if known else 'null'}            # {why}", "mem_flag: mem", "cpus_per_gpu: 4"]
    cpus = max(group.cpus // group.num_gpus, 1)
    # A tenth is left to the node itself.
    memory = max(int(group.mem_gib * 0.9 / group.num_gpus), 1)
    return [
        "gpu_flag: gres            # or gpus, gpus-per-node, gpus-per-task: exactly one is emitted",
        "mem_flag: mem",
        f"mem_gb: {memory}                 # GiB per node for jobs that do not say: one GPU's share",
        f"cpus_per_gpu: {cpus}           # {group.cpus} CPUs for {group.num_gpus} GPUs",
    ]


def _limit_lines(facts: ClusterFacts, group: NodeGroup | None) -> list[str]:
    limit = None if group is None else group.time_max_min
    lines = [
        f"time_min: {min(DEFAULT_TIME_MIN, limit or DEFAULT_TIME_MIN)}             # minutes for jobs that do not say",
        f"time_max_min: {'null' if limit is None else limit}         # the partition's limit",
    ]
    size = max_array_size(facts.config)
    if facts.config and size == 1:
        lines.append("arrays: false             # MaxArraySize forbids them")
    else:
        lines.append("arrays: true              # MaxArraySize is asked at every submit")
    most = [a.max_submitted for a in facts.associations if a.max_submitted is not None]
    lines.append(f"max_submitted: {min(most) if most else 'null'}       # your jobs in the queue at once")
    lines.append("requeue: true             # preempted jobs come back and resume")
    if facts.config.get("JobRequeue") == "0":
        lines[-1] += "; hpcbench asks for it, though JobRequeue=0 here"
    return lines


def _environment_lines(facts: ClusterFacts) -> list[str]:
    modules = [word for word in facts.environ.get("LOADEDMODULES", "").split(":") if word and word.isprintable()]
    setup = [f"module load {' '.join(modules)}"] if modules else []
    venv = facts.environ.get("VIRTUAL_ENV", "")
    if venv and venv.isprintable():  # a profile may hold no control characters
        setup.append(f"source {venv}/bin/activate")
    lines = ["setup:                    # shell lines before each job"]
    lines += [f"  - {_yaml(line)}" for line in setup]
    if not setup:
        lines = ["setup: []                 # shell lines before each job, for example: module load cuda"]
    return [
        *lines,
        "setup_failure: stop       # a job whose setup line fails does not run; warn: it does, and the report says so",
        f"python: {_yaml(facts.python)}",
        "environments: {}          # other Pythons by name, for example {unsloth: /venvs/unsloth/bin/python}",
        "offline: true             # jobs run with the Hugging Face hub switched off",
        "keep: null                # or best, adapter, last, none: checkpoints that stay once all evals are recorded",
        "poll_s: 30                # seconds between two questions to the scheduler while a command watches or waits",
        "save_dir: null            # root of all results, on storage that compute nodes see; null is ./logs",
    ]


def _yaml(value: str | list[str]) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n...\n").strip()


def _user_name() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
