"""Which accounts and QOS a user may charge on a cluster, and what its partitions take.

In: what sacctmgr and scontrol printed. Out: values. Pure; `client.py` runs the commands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from hpcbench.scheduler.slurm.facts import Association

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
    """Return whether a partition's AllowAccounts leaves out the accounts below those that it names."""
    match = re.match(r"(\d+)\.(\d+)", config.get("SLURM_VERSION", ""))
    return match is not None and (int(match[1]), int(match[2])) <= FLAT_ACCOUNTS_UNTIL
