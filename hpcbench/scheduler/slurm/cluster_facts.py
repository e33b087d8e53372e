"""What a cluster reports: settings, partitions, nodes, the user's accounts.

Pure. A line of another shape (banners) is skipped, a figure that cannot be read is None, never 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from hpcbench.schemas.durations import parse_minutes

USER_FORMAT = "DefaultAccount,Account,Partition,QOS,DefaultQOS,MaxSubmitJobs"
USER_CELLS = USER_FORMAT.count(",") + 1
# What settings of AccountingStorageEnforce bring with them; see slurm.conf(5).
IMPLIED = {"limits": {"associations"}, "qos": {"associations"}, "wckeys": {"associations"}}
IMPLIED |= {"safe": {"associations", "limits"}, "all": {"associations", "limits", "qos"}}
# Later versions count the accounts below an allowed one as allowed, and who is below whom is not asked here.
FLAT_ACCOUNTS_UNTIL = (23, 2)
DEFAULT_MAX_ARRAY_SIZE = 1001  # Slurm's own default; the largest index is one less
CORRESPOND_AFTER_TASK_CNT = 10  # Slurm's default: so many elements of a waiting array are judged one by one

SINFO_FORMAT = "%P|%a|%l|%D|%c|%m|%G"
SINFO_CELLS = SINFO_FORMAT.count("|") + 1
NO_LIMIT = frozenset({"infinite", "unlimited", "n/a", "none", "(null)", ""})

_GPU = re.compile(r"gpu:(?:(?P<kind>[^:(,]+):)?(?P<count>\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeGroup:
    """Nodes of one shape in one partition: one line of sinfo."""

    partition: str
    is_default: bool = False
    is_up: bool = True
    time_max_min: int | None = None  # None: no limit
    num_nodes: int
    cpus: int
    mem_gib: float
    gpus: Mapping[str, int] = field(default_factory=dict)  # per node by type, which is empty where none is named
    is_least: bool = False  # the nodes differ, and CPUs and memory are those of the smallest

    @property
    def num_gpus(self) -> int:
        """GPUs of all types on one node."""
        return sum(self.gpus.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Association:
    """One account that the user may charge."""

    account: str
    partition: str = ""
    qos: tuple[str, ...] = ()
    default_qos: str = ""
    max_submitted: int | None = None


def parse_config(text: str) -> dict[str, str]:
    """Return the settings of `scontrol show config`."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, sign, value = line.partition("=")
        if sign and re.fullmatch(r"[A-Za-z_][\w\[\]]*\s*", key):
            found[key.strip()] = value.strip()
    return found


def max_array_size(config: Mapping[str, str]) -> int:
    """Return one more than the largest array index, at least 1 (0 forbids arrays)."""
    word = config.get("MaxArraySize", "")
    return max(int(word), 1) if word.isdecimal() else DEFAULT_MAX_ARRAY_SIZE


def scheduler_option(config: Mapping[str, str], name: str, key: str = "SchedulerParameters") -> str | None:
    """Return one of the comma-separated options of a setting: its value, empty for a bare word, None when absent."""
    for option in config.get(key, "").split(","):
        word, _, value = option.strip().partition("=")
        if word.lower() == name.lower():
            return value
    return None


def correspond_count(config: Mapping[str, str]) -> int:
    """Return how many waiting elements of an array Slurm judges one by one."""
    # Elements beyond these are judged by the whole array once their parent is purged.
    word = scheduler_option(config, "correspond_after_task_cnt") or ""
    return max(int(word), 1) if word.isdecimal() else CORRESPOND_AFTER_TASK_CNT


def read_limit_min(word: str) -> int | None:
    """Return a time limit as Slurm prints it in minutes, None for none."""
    return None if word.strip().lower() in NO_LIMIT else parse_minutes(word)


def parse_sinfo(text: str) -> Iterator[NodeGroup]:
    """Yield the lines of `sinfo -h -o SINFO_FORMAT`."""
    for line in text.splitlines():
        cells = line.strip().split("|")
        if len(cells) != SINFO_CELLS:
            continue
        name, up, limit, nodes, cpus, memory, gres = cells
        # `64+` is the least of nodes that differ.
        numbers = [word.rstrip("+") for word in (nodes, cpus, memory)]
        if not all(number.isdecimal() for number in numbers) or not name.isprintable():
            continue
        yield NodeGroup(
            partition=name.rstrip("*"),
            is_default=name.endswith("*"),
            is_up=up.strip().lower() == "up",
            time_max_min=read_limit_min(limit),
            num_nodes=int(numbers[0]),
            cpus=int(numbers[1]),
            mem_gib=int(numbers[2]) / 1024,
            gpus=parse_gpus(gres),
            is_least="+" in cpus + memory,
        )


def parse_gpus(gres: str) -> dict[str, int]:
    """Return GPUs by type in `gpu:a100:4(S:0-1),gpu:2`; other resources are left out.

    >>> parse_gpus("gpu:a100:4(S:0-1),lustre:1,gpu:2")
    {'a100': 4, '': 2}
    """
    found: dict[str, int] = {}
    for part in re.sub(r"\([^)]*\)", "", gres).split(","):
        if match := _GPU.fullmatch(part.strip()):
            kind = match["kind"] or ""
            found[kind] = found.get(kind, 0) + int(match["count"])
    return found


def parse_partitions(text: str) -> dict[str, dict[str, str]]:
    """Return the settings of each partition in `scontrol show partition -o`."""
    found: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        pairs = dict(pair.partition("=")[::2] for pair in line.split() if "=" in pair)
        if name := pairs.get("PartitionName"):
            found[name] = pairs
    return found


def parse_sshare(text: str, user: str) -> list[str]:
    """Return the user's accounts in `sshare -nP -o Account,User`."""
    rows = [[cell.strip() for cell in line.split("|")] for line in text.splitlines()]
    return list(dict.fromkeys(row[0] for row in rows if len(row) == 2 and row[1] == user and row[0]))  # noqa: PLR2004


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRights:
    """What accounting says of one user on one cluster."""

    associations: tuple[Association, ...]
    default_account: str | None = None
    is_root: bool = False  # partitions are open to this user whatever their AllowQos says


@dataclass(frozen=True, slots=True, kw_only=True)
class Entitlements:
    """Who may charge what where, as far as a cluster says."""

    enforced: frozenset[str] = frozenset()  # what sbatch refuses for: `associations`, `qos` and more
    partitions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # the settings of each
    rights: UserRights | None = None
    accounts_are_flat: bool = False  # a partition's AllowAccounts means exactly the accounts that it names
    submit_plugins: str = ""  # the site's job_submit plugins: each may give a job another account or QOS than it names


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

    An answer without a line means that the user has none.
    """
    found: list[Association] = []
    default = None
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        # Without slurmdbd sacctmgr prints an error text and exits with 0 (22.05).
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
