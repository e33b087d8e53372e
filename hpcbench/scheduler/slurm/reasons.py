"""Slurm's reasons why a job is pending, in words, and which of them never clear by themselves.

Pure. Sources: slurm.schedmd.com/job_reason_codes.html and the JOB REASON CODES of squeue(1) of 22.05. Limits are named
by a pattern - whose limit, of what, per what. A job whose reason is not in the tables is taken to be waiting.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

NEVER_SATISFIED = "DependencyNeverSatisfied"
RELEASE = "scontrol release {id}"

ANOTHER_ACCOUNT = "name another account in the profile (hpcbench doctor lists yours)"
ANOTHER_QOS = "name another qos in the profile (hpcbench doctor lists yours)"
ANOTHER_PARTITION = "name another partition"
ASK = "ask the site's administrators"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """What one of Slurm's words means."""

    words: str
    hint: str = ""  # what a person has to do before the job can start; empty where it only has to wait
    command: str = ""  # what does it, with `{id}` for the job; empty where the job has to be changed

    @property
    def is_stuck(self) -> bool:
        """Whether the job never starts by itself."""
        return self.hint != ""


def _waits(words: str) -> Reason:
    return Reason(words=words)


def _stuck(words: str, hint: str) -> Reason:
    return Reason(words=words, hint=hint)


def _held(words: str, hint: str) -> Reason:
    return Reason(words=words, hint=hint, command=RELEASE)


# The reasons that are not limits; those with blanks are sentences of slurmctld's own, up to their comma or bracket.
REASONS = {
    "WaitingForScheduling": _waits("Slurm has not considered it yet"),
    "Priority": _waits("waits behind jobs of higher priority"),
    "Resources": _waits("waits for free resources"),
    "Nodes required for job are DOWN": _waits(
        "waits for nodes that are down, drained or reserved for jobs of higher priority"
    ),
    "Dependency": _waits("waits for the job whose model it takes"),
    NEVER_SATISFIED: _stuck(
        "the job whose model it takes failed, so it can never start", "see hpcbench why of that job"
    ),
    "BeginTime": _waits("was requeued and waits for its new start time"),
    "Cleaning": _waits("was requeued, and its last start is still being cleaned up"),
    "Prolog": _waits("its nodes are being prepared (prolog)"),
    "Licenses": _waits("waits for a licence"),
    "Reservation": _waits("waits for its reservation to begin"),
    "JobArrayTaskLimit": _waits("waits for other elements of its array"),
    "SchedDefer": _waits("waits for Slurm's next round"),
    "FedJobLock": _waits("waits for the other clusters of the federation"),
    "PowerNotAvail": _waits("waits for electrical power"),
    "PowerReserved": _waits("waits for electrical power that is reserved for others"),
    "BurstBufferResources": _waits("waits for room in the burst buffer"),
    "BurstBufferStageIn": _waits("waits for its data in the burst buffer"),
    "AccountingPolicy": _waits("a limit of your account or QOS holds it back"),
    "AssociationJobLimit": _waits("your account runs as many jobs as it may"),
    "AssociationResourceLimit": _waits("your account uses as much as it may"),
    "AssociationTimeLimit": _waits("your account has reached its time limit"),
    "QOSJobLimit": _waits("your QOS runs as many jobs as it may"),
    "QOSResourceLimit": _waits("your QOS uses as much as it may"),
    "QOSTimeLimit": _waits("your QOS has reached its time limit"),
    "QOSUsageThreshold": _waits("you have recently used too much for your QOS"),
    "ReqNodeNotAvail": _waits("the nodes it needs are not available"),
    "Constraints": _waits("no node can satisfy its constraints now"),
    "JobHeldUser": _held("is held", "it stays held until you or a coordinator of your account releases it"),
    "JobHeldAdmin": _stuck("is held by an administrator", f"{ASK} why, and to release it"),
    "JobHoldMaxRequeue": _held(
        "was requeued as often as the cluster allows and is held", "see hpcbench logs why it came back so often"
    ),
    "launch failed requeued held": _held(
        "could not be launched and is held", "a node or file system was broken; once it works again, release the job"
    ),
    "user env retrieval failed requeued held": _held(
        "your environment could not be read on the node, and it is held", "once the node works again, release the job"
    ),
    "job requeued in held state": _held("was requeued and is held", "it stays held until you release it"),
    "job requeued in special exit state": _held("was requeued and is held", "it stays held until you release it"),
    "JobLaunchFailure": _held(
        "could not be launched", "a node or file system was broken; once it works again, release the job"
    ),
    "SystemFailure": _stuck("Slurm, a file system or the network failed", ASK),
    "BurstBufferOperation": _stuck("its burst buffer failed", ASK),
    "BadConstraints": _stuck(
        "no node can ever satisfy what it asks for",
        "change constraint or exclude in the profile, or requirements in the suite",
    ),
    "PartitionTimeLimit": _stuck(
        "asks for more time than the partition allows, so it can never start",
        f"lower requirements.time, or {ANOTHER_PARTITION}",
    ),
    "PartitionNodeLimit": _stuck(
        "asks for more nodes than the partition has or gives a job, or its nodes are down, so it cannot start",
        f"lower requirements.nodes, or {ANOTHER_PARTITION}; sinfo shows nodes that are down",
    ),
    "PartitionConfig": _stuck(
        "asks for more than a limit of the partition, so it can never start",
        f"{ANOTHER_PARTITION}, or ask for less; scontrol show partition shows its limits",
    ),
    "PartitionDown": _stuck(
        "its partition is down", f"{ASK} when it comes back, or {ANOTHER_PARTITION}; it then starts by itself"
    ),
    "PartitionInactive": _stuck(
        "its partition starts no jobs", f"{ASK} when it comes back, or {ANOTHER_PARTITION}; it then starts by itself"
    ),
    "FrontEndDown": _stuck("no front-end node is up", f"{ASK} when one comes back; it then starts by itself"),
    "NodeDown": _stuck("a node it needs is down", f"{ASK} when it comes back, or do without that node"),
    "MaxMemPerLimit": _stuck(
        "asks for more memory than the partition or cluster gives a node or CPU, so it can never start",
        f"lower requirements.mem_gb, or {ANOTHER_PARTITION}",
    ),
    "InvalidAccount": _stuck("its account is not valid, so it can never start", ANOTHER_ACCOUNT),
    "AccountNotAllowed": _stuck(
        "its account may not use the partition, so it can never start", f"{ANOTHER_PARTITION}, or {ANOTHER_ACCOUNT}"
    ),
    "Job's account not known": _stuck(
        "its account is not known, and the partition takes only some, so it can never start", ANOTHER_ACCOUNT
    ),
    "Job's QOS not known": _stuck(
        "its QOS is not known, and the partition takes only some, so it can never start", ANOTHER_QOS
    ),
    "InvalidQOS": _stuck("its QOS is not valid, so it can never start", ANOTHER_QOS),
    "QOSNotAllowed": _stuck(
        "its QOS is not allowed in the partition or for your account, so it can never start",
        f"{ANOTHER_PARTITION}, or {ANOTHER_QOS}",
    ),
    "ReservationDeleted": _stuck(
        "its reservation is gone, so it can never start", "take reservation out of extra_sbatch"
    ),
    "ReservationInvalid": _stuck(
        "its reservation is not valid, so it can never start", "take reservation out of extra_sbatch"
    ),
    "DeadLine": _stuck("cannot end before its deadline, so it can never start", "take deadline out of extra_sbatch"),
    "NonZeroExitCode": _waits("ended with an exit code other than 0"),
    "RaisedSignal": _waits("was ended by a signal"),
    "TimeLimit": _waits("reached its time limit"),
    "InactiveLimit": _waits("was inactive for too long"),
    "OutOfMemory": _waits("ran out of memory"),
}
# Sentences that stand for a word, and name in brackets what the partition takes.
DETAILED = {
    "Job's account not permitted to use this partition": "AccountNotAllowed",
    "Job's QOS not permitted to use this partition": "QOSNotAllowed",
}
# What may be limited: its name, that of its product with time, and what asks for it in a suite.
RESOURCES = {
    "cpu": ("CPUs", "CPU minutes", "requirements.cpus_per_gpu"),
    "mem": ("memory", "memory minutes", "requirements.mem_gb"),
    "memory": ("memory", "memory minutes", "requirements.mem_gb"),
    "node": ("nodes", "node minutes", "requirements.nodes"),
    "gres": ("GPUs", "GPU minutes", "requirements.gpu"),
    "job": ("jobs", "", ""),
    "submitjob": ("jobs in the queue", "", ""),
    "wall": ("time", "", "requirements.time"),
    "wallduration": ("time", "", "requirements.time"),
    "bb": ("burst buffer", "burst buffer minutes", ""),
    "license": ("licences", "licence minutes", ""),
    "energy": ("energy", "energy minutes", ""),
    "billing": ("billing units", "billing minutes", ""),
    "unknown": ("of some resource", "minutes of some resource", ""),
}

LIMIT = re.compile(
    r"(?P<owner>QOS|Assoc)?(?P<kind>Grp|Max|Min)"
    r"(?P<what>SubmitJob|Job|CPU|Memory|Mem|Node|GRES|WallDuration|Wall|BB|License|Energy|Billing|Unknown)s?"
    r"(?P<minutes>RunMinutes|Minutes)?(?:Per(?P<per>Job|Node|User|Account))?(?:Limit|NotSatisfied)?",
    re.IGNORECASE,
)


def read_reason(text: str) -> Reason | None:
    """Return what a pending reason means, None when it is not known or says nothing."""
    word, detail = _split(text)
    if word == "ReqNodeNotAvail":
        return _not_available(detail)
    if (known := REASONS.get(DETAILED.get(word, word))) is not None:
        return known
    if re.fullmatch(r"Reservation \S+ was deleted", word):
        return REASONS["ReservationDeleted"]
    match = LIMIT.fullmatch(word)
    return None if match is None else _describe_limit(match)


def explain_reason(text: str) -> str:
    """Return Slurm's pending reason in words, with Slurm's own word in brackets."""
    word, detail = _split(text)
    if word in {"", "None", "N/A"}:
        return ""
    reason = read_reason(text)
    if reason is None:
        return _clean(text)
    return f"{reason.words} ({detail if word in DETAILED else word})"


def _clean(text: str) -> str:
    text = text.strip()
    return text[1:-1].strip() if text.startswith("(") and text.endswith(")") else text


def _split(text: str) -> tuple[str, str]:
    """Return the word and what comes after its comma or in its brackets; scontrol writes blanks as underscores."""
    text = _clean(text)
    if match := re.fullmatch(r"([^,(]+)[ _]\((.*)\)", text):
        return match[1].replace("_", " ").strip(), match[2].replace("_", " ").strip()
    word, _, detail = text.partition(",")
    return word.strip().replace("_", " "), detail.strip(" _")


def _not_available(detail: str) -> Reason:
    label, _, nodes = detail.partition(":")
    if label == "UnavailableNodes" and nodes.strip("() "):
        return _stuck(
            f"nodes that it needs are down, drained or do not answer: {nodes}",
            f"sinfo -R shows why; {ASK}, or do without them. Where others fit as well, it starts on those by itself",
        )
    told = detail.replace("_", " ").strip("() ")
    if told and label != "UnavailableNodes":
        return _waits(f"the nodes it needs are not available: {told[0].lower()}{told[1:]}")
    return REASONS["ReqNodeNotAvail"]


def _describe_limit(match: re.Match[str]) -> Reason:
    name, product, argument = RESOURCES[match["what"].lower()]
    is_qos = match["owner"] != "Assoc"
    owner = "your QOS" if is_qos else "your account"
    other = ANOTHER_QOS if is_qos else ANOTHER_ACCOUNT
    minutes = (match["minutes"] or "").lower()
    what = product if minutes else name
    kind, per = match["kind"].lower(), (match["per"] or "").lower()
    if kind == "min":
        words = f"asks for less than the least that {owner} takes ({what}), so it can never start"
        return _stuck(words, f"raise {argument}, or {other}" if argument else other)
    if kind == "max" and (per in {"job", "node"} or name == "time"):
        place = "on a node" if per == "node" else "for one job"
        lower = f"lower {argument}" if argument else "ask for less"
        return _stuck(
            f"asks for more {what} than {owner} allows {place}, so it can never start", f"{lower}, or {other}"
        )
    if kind == "grp" and (minutes == "minutes" or name == "time"):
        return _stuck(f"{owner} has not enough {what} left for it", f"{ASK} for more, or {other}")
    if kind == "grp":
        running = " at once" if minutes else ""
        return _waits(f"with it, all jobs of {owner} together would take more {what}{running} than they may")
    if per == "account" or match["owner"] is None:
        return _waits(f"with it, your account would take more {what} than the QOS allows it")
    return _waits(f"with it, you would take more {what} than {owner} allows you")
