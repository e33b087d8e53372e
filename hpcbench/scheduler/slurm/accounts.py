"""Which accounts and QOS a user may charge on a cluster, and what its partitions take.

In: what sacctmgr and scontrol say. Out: values, each question asked once; what does not answer is not known. One call
of sacctmgr tells all of a user, on this cluster only: one database often serves several.
"""

from __future__ import annotations

import functools
import logging
import os
import pwd
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hpcbench.errors import SchedulerError
from hpcbench.scheduler.slurm.commands import FACTS_TIMEOUT_S, run_command
from hpcbench.scheduler.slurm.facts import Association, parse_partitions
from hpcbench.scheduler.slurm.scheduler import read_config

logger = logging.getLogger(__name__)

USER_FORMAT = "DefaultAccount,Account,Partition,QOS,DefaultQOS,MaxSubmitJobs"
USER_CELLS = USER_FORMAT.count(",") + 1
IMPLIED = {"limits": {"associations"}, "qos": {"associations"}, "wckeys": {"associations"}}
IMPLIED |= {"safe": {"associations", "limits"}, "all": {"associations", "limits", "qos"}}
"""What settings of AccountingStorageEnforce bring with them; see slurm.conf(5)."""
FLAT_ACCOUNTS_UNTIL = (23, 2)
"""Later versions count the accounts below an allowed one as allowed, and who is below whom is not asked here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRights:
    """What accounting says of one user on one cluster."""

    associations: tuple[Association, ...]
    default_account: str | None = None
    is_root: bool = False
    """Whether partitions are open to this user whatever their AllowQos says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entitlements:
    """Who may charge what where, as far as a cluster says."""

    enforced: frozenset[str] = frozenset()
    """What sbatch refuses for: `associations`, `qos` and more; nothing where any account is taken."""
    partitions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """The settings of each partition."""
    rights: UserRights | None = None
    accounts_are_flat: bool = False
    """Whether a partition's AllowAccounts means exactly the accounts that it names."""
    submit_plugins: str = ""
    """The site's job_submit plugins: each may give a job another account or QOS than it names."""


def enforced_rules(config: Mapping[str, str]) -> frozenset[str]:
    """Return what AccountingStorageEnforce holds jobs to, with all that it implies."""
    words = {word.strip().lower() for word in config.get("AccountingStorageEnforce", "").split(",")}
    return frozenset(words.union(*(IMPLIED.get(word, set()) for word in words)) - {"", "none", "0", "(null)"})


def submit_plugins(config: Mapping[str, str]) -> str:
    """Return the site's job_submit plugins as slurm.conf names them; nothing where there are none."""
    names = config.get("JobSubmitPlugins", "")
    return "" if names.lower() == "(null)" else names


def parse_rights(text: str) -> UserRights | None:
    """Return the rights in `sacctmgr -nP show user NAME withassoc format=USER_FORMAT`, or None where it does not say.

    sacctmgr answers with exit code 0 and words when accounting is off; those are no accounts. An answer without a
    line means that the user has none.
    """
    found: list[Association] = []
    default = None
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) != USER_CELLS or not re.fullmatch(r"[\w.@+-]+", cells[1]):
            continue
        standard, account, partition, qos, default_qos, limit = cells
        default = standard or default
        found.append(
            Association(
                account=account,
                partition=partition,
                qos=tuple(word for word in qos.split(",") if word),
                default_qos=default_qos,
                max_submitted=int(limit) if limit.isdecimal() else None,
            )
        )
    if not found and text.strip():
        return None
    return UserRights(associations=tuple(found), default_account=default)


def accounts_are_flat(config: Mapping[str, str]) -> bool:
    """Say whether a partition's AllowAccounts leaves out the accounts below those that it names."""
    match = re.match(r"(\d+)\.(\d+)", config.get("SLURM_VERSION", ""))
    return match is not None and (int(match[1]), int(match[2])) <= FLAT_ACCOUNTS_UNTIL


@functools.cache
def read_rights() -> UserRights | None:
    """Return what this user may charge on this cluster, asked once; None when accounting does not answer."""
    config = read_config()
    if not config or config.get("AccountingStorageType", "").endswith("/none"):
        return None
    here = [f"cluster={config['ClusterName']}"] if config.get("ClusterName") else []
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
        command = ["sacctmgr", "-nP", "show", "user", "where", f"name={name}", *here, "withassoc"]
        rights = parse_rights(run_command([*command, f"format={USER_FORMAT}"], timeout_s=FACTS_TIMEOUT_S))
    except (SchedulerError, KeyError) as error:
        logger.info("your accounts are not known: %s", error)
        return None
    return None if rights is None else replace(rights, is_root=os.geteuid() == 0)


@functools.cache
def read_partitions() -> Mapping[str, Mapping[str, str]]:
    """Return the settings of each partition, asked once; nothing when the cluster does not answer."""
    try:
        return parse_partitions(
            run_command(["scontrol", "--all", "show", "partition", "-o"], timeout_s=FACTS_TIMEOUT_S)
        )
    except SchedulerError as error:
        logger.info("the partitions' settings are not known: %s", error.message)
        return {}


def read_entitlements(*, needs_rights: bool) -> Entitlements:
    """Return who may charge what; accounting is asked only where something depends on it.

    Args:
        needs_rights: whether an account or QOS is asked for at all.
    """
    config = read_config()
    if not config:
        return Entitlements()
    enforced = enforced_rules(config)
    return Entitlements(
        enforced=enforced,
        partitions=read_partitions(),
        rights=read_rights() if needs_rights and "associations" in enforced else None,
        accounts_are_flat=accounts_are_flat(config),
        submit_plugins=submit_plugins(config),
    )
